"""Published values beside ours: only where we measured the setting that they belong to, or a stand-in that is named.

The values are those of Adebayo et al. 2020 (*Debugging Tests for Model Explanations*), Tables 2 and 3 and the text, in
published.csv. Networks and most hyper-parameters differ from ours or are unknown, and so do SSIM's pipeline and range:
a number of theirs is no target. What they concluded can be checked: see `findings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attribug.results.schema import OUTCOMES

PUBLISHED = Path(__file__).with_name("published.csv")
NAME = "published"
"""What `compare` calls these values."""
COLUMNS = ("source", "setting", "task", "bug", "level", "method", "quantity", "value", "sem", "note")
PAPER_METHODS = {
    "gradient": "Grad", "smoothgrad": "SGrad", "smoothgrad_squared": "SGradSQ", "vargrad": "VGrad",
    "input_x_gradient": "Input-Grad", "integrated_gradients": "IntGrad", "expected_gradients": "EGrad", "lime": "LIME",
    "kernel_shap": "KernelSHAP", "guided_backprop": "GBP", "deconvnet": "DConvNet", "lrp_epsilon": "LRP-EPS",
    "pattern_net": "PNet", "pattern_attribution": "PAttribution", "lrp_spaf": "LRP-SPAF", "deep_taylor": "DeepTaylor",
}  # fmt: skip
"""Our names of the paper's methods and what its columns call them, in its order; the last one only in Figure 7."""
LIKEST = {
    "gt1_ssim": ("gt1_ssim@minmax",),
    "gt2_ssim": ("gt2_ssim@minmax",),
    "ssim": ("ssim_range2@minmax", "ssim@minmax", "ssim@sum_minmax", "ssim@abs_sum_minmax"),
    "spearman": ("spearman@sum", "spearman@abs_sum"),
}
"""How we measure a published quantity, the most alike first."""
STAND_INS = {"birds_dogs": ("animals",), "imagenet": ("imagenet_lite0", "imagenet_squeezenet")}
"""Tasks that stand in for those of the paper: no other ever does."""
EXACT = "the paper's setting"
ANY = ""
"""A level: every one of the bug's."""


@dataclass(frozen=True)
class Setting:
    """What a table or figure of the paper measured."""

    source: str
    task: str
    bug: str
    level: str = ANY

    def match(self, task: str, bug: str, level: str) -> str:
        """Whether a cell of ours is this setting: `EXACT`, which stand-ins make it so, or nothing."""
        told = [_match(task, self.task), _match(level, self.level) if self.level else EXACT]
        if bug != self.bug or "" in told:
            return ""
        swapped = list(dict.fromkeys(each for each in told if each != EXACT))
        return f"stand-in: {', '.join(swapped)}" if swapped else EXACT

    def __str__(self) -> str:
        return f"{self.source}: {self.task} / {self.bug} {self.level or 'at any level'}"


SETTINGS = (
    Setting("Table 2", "birds_dogs", "spurious_background", "1"),
    Setting("Figure 6", "birds_dogs", "label_flips", "0.1"),
    Setting("Figure 7", "imagenet", "reinit"),
    Setting("Table 3", "fashion", "ood", "mnist"),
    Setting("Table 3", "fashion", "ood", "birds_dogs"),
    Setting("Table 3", "fashion", "ood", "imagenet"),
)
BESIDE_COLUMNS = (
    "source", "setting", "bug", "method", "quantity", "paper", "paper_sem", "task", "level", "match", "measured_as",
    "models", "n", "ours", "ours_sem", "control", "floor", "verdict",
)  # fmt: skip


def _match(ours: str, theirs: str) -> str:
    if ours == theirs:
        return EXACT
    return f"{ours} for {theirs}" if ours in STAND_INS.get(theirs, ()) else ""


def published() -> pd.DataFrame:
    """The values, columns `COLUMNS`: task, bug and level are the paper's own setting (empty: of none), method is empty
    where a value is a model's."""
    texts = dict.fromkeys(("task", "bug", "level", "method"), str)
    return pd.read_csv(PUBLISHED, dtype=texts, keep_default_na=False, na_values={"value": [""], "sem": [""]})


def measured(results: pd.DataFrame) -> list[tuple[Setting, str, str, str]]:
    """Which of the paper's settings a run measures: setting, task, level and match, in the paper's order."""
    cells = results[["task", "bug", "level"]].drop_duplicates()
    found = []
    for setting in SETTINGS:
        for task, bug, level in cells.itertuples(index=False, name=None):
            match = setting.match(task, bug, level)
            found += [(setting, task, level, match)] if match else []
    return found


def beside(results: pd.DataFrame, controls: Mapping[str, str]) -> pd.DataFrame:
    """Every published value of a method with ours, columns `BESIDE_COLUMNS`.

    Ours stand there where bug, task and level are the paper's, or a stand-in's: `match` says which it was. Everywhere
    else they are NaN. `ours` is the metric under the contaminated model, `control` under the control, `floor` between
    unrelated maps: without the latter two the first means little.

    Args:
        results: a table with `RESULT_COLUMNS`.
        controls: name of the main control by bug; of others the first by the alphabet is taken.
    """
    values = published()
    known = {setting: _matching(results, setting, controls) for setting in SETTINGS}
    rows: list[tuple[Any, ...]] = []
    for value in values[(values["method"] != "") & values["quantity"].isin(LIKEST)].itertuples():
        theirs = (value.source, value.setting, value.bug, value.method, value.quantity, value.value, value.sem)
        setting = Setting(str(value.source), str(value.task), str(value.bug), str(value.level))
        ours = likest(known[setting], str(value.method), str(value.quantity))
        for row in ours.itertuples():
            place = (row.task, row.level, row.match, f"{row.metric}@{row.post}", row.seeds, row.n)
            rows.append((*theirs, *place, row.value, row.sem, row.benign, row.floor, row.verdict))
        if ours.empty:
            rows.append((*theirs, "", "", "", "", 0, 0, *[float("nan")] * 4, ""))
    return pd.DataFrame(rows, columns=list(BESIDE_COLUMNS))


def _matching(results: pd.DataFrame, setting: Setting, controls: Mapping[str, str]) -> pd.DataFrame:
    """The rows that measure a setting, with their `match`."""
    rows = main(results, setting.bug, controls)
    told = [setting.match(*place) for place in rows[["task", "bug", "level"]].itertuples(index=False, name=None)]
    rows = rows.assign(match=pd.Series(told, rows.index, dtype=str))
    return rows[rows["match"] != ""]


def main(results: pd.DataFrame, bug: str, controls: Mapping[str, str]) -> pd.DataFrame:
    """The rows of a bug against its main control that have numbers."""
    rows = results[(results["bug"] == bug) & ~results["verdict"].isin(OUTCOMES)]
    against: pd.DataFrame = rows[rows["control"] == controls.get(bug, rows["control"].min())]
    return against


def likest(rows: pd.DataFrame, method: str, quantity: str) -> pd.DataFrame:
    """Of rows that `main` gave those of a method that measure a published quantity, in the likest way of each cell."""
    if rows.empty:
        return rows
    rows = rows[rows["method"] == method]
    names = (rows["metric"] + "@" + rows["post"]).map({name: rank for rank, name in enumerate(LIKEST[quantity])})
    rows = rows[names.notna()].assign(_rank=names).sort_values("_rank", kind="stable")
    first: pd.DataFrame = rows.drop_duplicates(["task", "bug", "level"]).drop(columns="_rank").sort_index()
    return first
