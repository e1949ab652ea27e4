"""Published values beside ours, and published findings as statements that our verdicts support or contradict.

The values are those of Adebayo et al. 2020 (*Debugging Tests for Model Explanations*), Tables 2 and 3 and the text, in
published.csv. Data, networks and most hyper-parameters differ from ours or are unknown, and so do SSIM's pipeline and
range: a number of theirs is no target. What can be checked is what they concluded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from attribug.results.schema import OUTCOMES, sort_results
from attribug.results.statistics import CONFIDENCE

PUBLISHED = Path(__file__).with_name("published.csv")
NAME = "published"
"""What `compare` calls these values."""
LIKEST = {
    "gt1_ssim": ("gt1_ssim@minmax",),
    "gt2_ssim": ("gt2_ssim@minmax",),
    "ssim": ("ssim_range2@minmax", "ssim@minmax", "ssim@sum_minmax", "ssim@abs_sum_minmax"),
    "spearman": ("spearman@sum", "spearman@abs_sum"),
}
"""How we measure a published quantity, the most alike first."""
BESIDE_COLUMNS = (
    "source", "setting", "bug", "method", "quantity", "paper", "paper_sem", "task", "level", "measured_as",
    "ours", "ours_sem", "control", "floor",
)  # fmt: skip
FINDING_COLUMNS = ("finding", "statement", "source", "agrees", "ours", "evidence")
YES, NO, UNDECIDED, ABSENT = "yes", "no", "undecided", "not measured"
UNRELATED = 0.1
"""A rank correlation nearer to 0 is called none: the metric's visible difference."""

MODIFIED_BACKPROP = (
    "guided_backprop", "deconvnet", "deep_taylor", "pattern_net", "pattern_attribution", "lrp_spaf",
)  # fmt: skip
SIGNED_GRADIENTS = ("gradient", "smoothgrad", "input_x_gradient", "integrated_gradients", "expected_gradients")
TOP_LAYERS = ("1", "2", "3")


def published() -> pd.DataFrame:
    """The values: source, setting, bug (empty: none), method (empty: of a model), quantity, value, sem, note."""
    return pd.read_csv(PUBLISHED, keep_default_na=False, na_values={"value": [""], "sem": [""]})


def beside(results: pd.DataFrame, controls: Mapping[str, str]) -> pd.DataFrame:
    """Every published value of a method with ours, columns `BESIDE_COLUMNS`; ours are NaN where it was not measured.

    `ours` is the metric under the contaminated model, `control` under the control, `floor` between unrelated maps:
    without the latter two the first means little.

    Args:
        results: a table with `RESULT_COLUMNS`.
        controls: name of the main control by bug; of others the first by the alphabet is taken.
    """
    values = published()
    rows: list[tuple[Any, ...]] = []
    for value in values[(values["method"] != "") & values["quantity"].isin(LIKEST)].itertuples():
        theirs = (value.source, value.setting, value.bug, value.method, value.quantity, value.value, value.sem)
        ours = _likest(results, str(value.bug), str(value.method), str(value.quantity), controls)
        for row in ours.itertuples():
            numbers = (row.value, row.sem, row.benign, row.floor)
            rows.append((*theirs, row.task, row.level, f"{row.metric}@{row.post}", *numbers))
        if ours.empty:
            rows.append((*theirs, "", "", "", *[float("nan")] * 4))
    return pd.DataFrame(rows, columns=list(BESIDE_COLUMNS))


def _likest(results: pd.DataFrame, bug: str, method: str, quantity: str, controls: Mapping[str, str]) -> pd.DataFrame:
    """Our rows that measure what a published value does: of every task, at the strongest level."""
    rows = results[(results["bug"] == bug) & (results["method"] == method) & ~results["verdict"].isin(OUTCOMES)]
    rows = rows[rows["control"] == controls.get(bug, rows["control"].min())]
    for measured_as in LIKEST[quantity]:
        measured = rows[rows["metric"] + "@" + rows["post"] == measured_as]
        if len(measured):
            strongest: pd.DataFrame = sort_results(measured).drop_duplicates("task", keep="last")
            return strongest
    return results.iloc[:0]


@dataclass(frozen=True)
class Finding:
    """A published conclusion that our tables can support or contradict."""

    name: str
    statement: str
    source: str
    judge: Callable[[pd.DataFrame], pd.Series]
    """Of the rows of results that speak to it, whether each supports it: yes, no or undecided."""
    select: Callable[[pd.DataFrame], pd.Series]


def _by_verdict(supports: tuple[str, ...], contradicts: tuple[str, ...]) -> Callable[[pd.DataFrame], pd.Series]:
    """Judges a row by its verdict."""
    meaning = dict.fromkeys(supports, YES) | dict.fromkeys(contradicts, NO)
    return lambda rows: rows["verdict"].map(lambda verdict: meaning.get(verdict, UNDECIDED))


def _unrelated(rows: pd.DataFrame) -> pd.Series:
    """Is the correlation's 95 % interval over models within ±.1, outside, or neither?"""
    half = stdtrit((rows["seeds"] - 1).clip(lower=1), (1 + CONFIDENCE) / 2) * rows["sem"]
    low, high = rows["value"] - half, rows["value"] + half
    said = pd.Series(UNDECIDED, rows.index)
    said = said.mask((low > -UNRELATED) & (high < UNRELATED), YES)
    return said.mask((low > UNRELATED) | (high < -UNRELATED), NO)


def _primary(rows: pd.DataFrame, bug: str) -> pd.Series:
    return rows["primary"] & (rows["bug"] == bug)


FINDINGS = (
    Finding(
        "spurious background detected",
        "Attributions reveal that a model relies on a spurious background.", "section 3.1, Table 2",
        _by_verdict(("detects",), ("blind", "inverted")),
        lambda rows: _primary(rows, "spurious_background"),
    ),
    Finding(
        "wrong labels not detected",
        "Attributions of mislabelled training examples do not tell that their labels are wrong.",
        "section 3.2",
        _by_verdict(("blind", "inverted"), ("detects",)),
        lambda rows: _primary(rows, "label_flips"),
    ),
    Finding(
        "modified back-propagation invariant to top layers",
        "Maps of modified back-propagation do not change when the top layers are re-initialised.", "section 4",
        _by_verdict(("blind",), ("detects", "inverted")),
        lambda rows: _primary(rows, "reinit") & rows["method"].isin(MODIFIED_BACKPROP) & rows["level"].isin(TOP_LAYERS),
    ),
    Finding(
        "out-of-domain maps look alike",
        "Maps of a model from another domain are visually as similar to those of the domain's own model as another of "
        "its models' are (SSIM).",
        "section 5, Table 3",
        _by_verdict(("blind",), ("detects", "inverted")),
        lambda rows: (rows["bug"] == "ood") & (rows["metric"] == "ssim"),
    ),
    Finding(
        "out-of-domain ranks unrelated",
        "Ranks of a foreign model's maps are unrelated to those of the domain's own, for signed gradient-type methods.",
        "section 5, Table 3",
        _unrelated,
        lambda rows: (rows["bug"] == "ood") & (rows["metric"] == "spearman") & (rows["post"] == "sum")
        & rows["method"].isin(SIGNED_GRADIENTS),
    ),
)  # fmt: skip


def findings(results: pd.DataFrame, primary: Mapping[str, str], controls: Mapping[str, str]) -> pd.DataFrame:
    """Whether our verdicts agree with each finding, columns `FINDING_COLUMNS`, of the methods that the paper has.

    `agrees`: yes where more than half of the rows support it, no where more than half contradict it, else undecided;
    `not measured` where no row speaks to it. `ours` counts the rows, `evidence` names them.

    Args:
        results: a table with `RESULT_COLUMNS`.
        primary: `metric@post` by bug.
        controls: name of the main control by bug.
    """
    theirs = {*published()["method"], *MODIFIED_BACKPROP}
    rows = results[results["method"].isin(theirs) & ~results["verdict"].isin(OUTCOMES)]
    rows = rows[rows["control"] == rows["bug"].map(dict(controls)).fillna(rows["control"])]
    rows = rows.assign(primary=rows["metric"] + "@" + rows["post"] == rows["bug"].map(dict(primary)))
    table = []
    for finding in FINDINGS:
        spoken = _once(rows[finding.select(rows)])
        said = finding.judge(spoken) if len(spoken) else pd.Series(dtype=str)
        names = _names(spoken)
        named = {answer: ", ".join(dict.fromkeys(names[said == answer])) for answer in (YES, NO, UNDECIDED)}
        counts = {YES: "support it", NO: "contradict it", UNDECIDED: "leave it open"}
        ours = ", ".join(f"{(said == answer).sum()} {text}" for answer, text in counts.items()) if len(said) else ""
        evidence = "; ".join(f"{answer}: {methods}" for answer, methods in named.items() if methods)
        table.append((finding.name, finding.statement, finding.source, _agrees(said), ours, evidence))
    return pd.DataFrame(table, columns=list(FINDING_COLUMNS))


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and method: of several posts the likest to the published one."""
    order = [measured_as for names in LIKEST.values() for measured_as in names]
    rank = (rows["metric"] + "@" + rows["post"]).map({name: place for place, name in enumerate(order)})
    kept = rows.assign(rank=rank).sort_values("rank", kind="stable")
    return rows.loc[kept.drop_duplicates(["task", "bug", "level", "control", "method"]).index.sort_values()]


def _agrees(said: pd.Series) -> str:
    if said.empty:
        return ABSENT
    return next((answer for answer in (YES, NO) if (said == answer).mean() > 0.5), UNDECIDED)


def _names(rows: pd.DataFrame) -> pd.Series:
    """Of each row its method, and task and level where there are several."""
    told = [name for name in ("task", "level") if rows[name].nunique() > 1]
    return pd.Series([" ".join(row) for row in rows[["method", *told]].itertuples(index=False)], rows.index, dtype=str)
