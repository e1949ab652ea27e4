"""The paper's tables as it printed them, with our numbers in the same cells, and what differs from the paper in a run.

The paper is Adebayo et al. 2020, *Debugging Tests for Model Explanations*; what it does not state is called unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attribug.results.narrative import CONTROLS
from attribug.results.published import ANY, EXACT, LIKEST, PAPER_METHODS, Setting, likest, measured
from attribug.results.schema import OUTCOMES, PERTURBED, level_order

QUANTITIES = {
    "Table 2": {"gt1_ssim": "SSIM-GT1", "gt2_ssim": "SSIM-GT2"},
    "Table 3": {"ssim": "SSIM", "spearman": "RK"},
}  # fmt: skip
"""Rows of the tables: ours and the paper's names."""
SERIES = {"paper": "published", "ours": "ours", "control": "control", "floor": "floor"}
ERRORS = {"paper": "paper_sem", "ours": "ours_sem"}
IN_TABLES = tuple(PAPER_METHODS)[:15]
PRINTED_COLUMNS = (
    "table", "setting", "task", "level", "match", "row", "series", *(PAPER_METHODS[name] for name in IN_TABLES)
)  # fmt: skip
DEVIATION_COLUMNS = ("what", "paper", "ours")
THEIR_DATA = {
    "birds_dogs": "birds and dogs, BVD-CNN", "imagenet": "ImageNet, VGG-16", "fashion": "Fashion-MNIST, BVD-CNN",
    "mnist": "MNIST, BVD-CNN",
}  # fmt: skip
"""What the paper's tasks are."""
SIMILARITIES = ("ssim", "spearman")
"""What Figures 6 and 7 report."""


@dataclass(frozen=True)
class Block:
    """A block of a table: one setting of the paper and one cell of ours."""

    source: str
    setting: str
    bug: str
    task: str
    level: str
    match: str
    rows: pd.DataFrame
    """Of `beside`."""


def blocks(beside: pd.DataFrame) -> Iterator[Block]:
    """Those of Tables 2 and 3 that a run measured anything of, in the paper's order."""
    ours = beside[beside["ours"].notna() & beside["source"].isin(QUANTITIES)]
    for (source, setting, task, level), rows in ours.groupby(["source", "setting", "task", "level"], sort=False):
        first = rows.iloc[0]
        theirs = beside[(beside["source"] == source) & (beside["setting"] == setting)]
        cells = ["method", "quantity"]
        known = pd.MultiIndex.from_frame(theirs[cells]).isin(pd.MultiIndex.from_frame(rows[cells]))
        missing = theirs[~known].drop_duplicates(cells)
        bare = missing.assign(ours=math.nan, ours_sem=math.nan, control=math.nan, floor=math.nan, verdict="")
        everything = pd.concat([rows, bare], ignore_index=True)
        yield Block(str(source), str(setting), first["bug"], str(task), str(level), first["match"], everything)


def as_printed(beside: pd.DataFrame) -> pd.DataFrame:
    """Tables 2 and 3 with methods as columns, `PRINTED_COLUMNS`: of each of their rows what was published, ours,
    control and floor, and standard errors (SEM: theirs over inputs, ours over models); only of what was measured."""
    table = []
    for block in blocks(beside):
        for quantity, name in QUANTITIES[block.source].items():
            rows = block.rows[block.rows["quantity"] == quantity].set_index("method")
            numbers = {(name, told): column for column, told in SERIES.items()}
            numbers |= {(f"{name} SEM", SERIES[column]): error for column, error in ERRORS.items()}
            for (row, series), column in numbers.items():
                place = (block.source, block.setting, block.task, block.level, block.match, row, series)
                table.append((*place, *rows[column].reindex(list(IN_TABLES))))
    return pd.DataFrame(table, columns=list(PRINTED_COLUMNS))


def similarities(results: pd.DataFrame, task: str, bug: str) -> pd.DataFrame:
    """How alike maps are, of Figures 6 and 7: columns method, level, quantity (ssim, spearman), measured_as, ours,
    ours_sem, control, floor, verdict, models, n; methods in the paper's order, weak levels first.

    results: rows of the bug against its main control.
    """
    here = results[(results["task"] == task) & (results["bug"] == bug)]
    found = []
    for method in PAPER_METHODS:
        for quantity in SIMILARITIES:
            rows = likest(here, method, quantity)
            for row in sorted(rows.itertuples(), key=lambda row: level_order(str(row.level))):
                how = f"{row.metric}@{row.post}"
                numbers = (row.value, row.sem, row.benign, row.floor, row.verdict, row.seeds, row.n)
                found.append((method, row.level, quantity, how, *numbers))
    columns = ["method", "level", "quantity", "measured_as", "ours", "ours_sem", "control", "floor", "verdict"]
    return pd.DataFrame(found, columns=[*columns, "models", "n"])


def absent(results: pd.DataFrame, task: str, bug: str, level: str = ANY, quantity: str = "") -> dict[str, str]:
    """The paper's methods of which a run has no numbers at a bug, and why: its own reason, or that it lacks them.

    level: of the bug, `ANY` for all; quantity: of `LIKEST`, none for all that the run measured.
    """
    here = results[(results["task"] == task) & (results["bug"] == bug)]
    here = here[here["level"] == level] if level else here
    measures = (here["metric"] + "@" + here["post"]).isin(LIKEST[quantity]) if quantity else here["bug"] == bug
    reasons = {}
    for method in PAPER_METHODS:
        mine = here["method"] == method
        rows = here[mine & measures]
        if rows.empty:
            reasons[method] = "not measured" if mine.any() else "not in this run"
        elif rows["verdict"].isin(OUTCOMES).all():
            reasons[method] = f"{rows['verdict'].iloc[0]}: {rows['reason'].iloc[0]}"
        elif rows["value"].isna().all():
            reasons[method] = "undefined of every map"
    return reasons


def deviations(results: pd.DataFrame, facts: Mapping[str, Any], pixels: Mapping[str, str] = {}) -> pd.DataFrame:
    """What differs from the paper in the settings that a run measures, columns `DEVIATION_COLUMNS`; empty where it
    measures none.

    Args:
        results: a table with `RESULT_COLUMNS`.
        facts: run.json.
        pixels: size of inputs by task, where it is known.
    """
    found = measured(results)
    if not found:
        return pd.DataFrame(columns=list(DEVIATION_COLUMNS))
    suite = facts.get("suite", {})
    sources = {setting.source for setting, *_ in found}
    lines = [
        *_data(found, facts, pixels),
        *_models(sources, results, found, suite),
        *_measures(sources, results, found),
    ]
    return pd.DataFrame([*lines, *_missing(results, found)], columns=list(DEVIATION_COLUMNS))


Found = Sequence[tuple[Setting, str, str, str]]
Line = tuple[str, str, str]


def _data(found: Found, facts: Mapping[str, Any], pixels: Mapping[str, str]) -> Iterator[Line]:
    for source in dict.fromkeys(setting.source for setting, *_ in found):
        matches = dict.fromkeys(match for setting, _, _, match in found if setting.source == source)
        theirs = dict.fromkeys(_theirs(setting) for setting, *_ in found if setting.source == source)
        yield f"data and network, {source}", "; ".join(theirs), "; ".join(matches).replace(EXACT, "the paper's task")
    told = facts.get("pieces", {}).get("tasks", {})
    for task in dict.fromkeys(task for _, task, _, _ in found):
        about = [str(told.get(task, {}).get(name) or "") for name in ("summary", "source")]
        yield f"task {task}", "", " — ".join(each for each in about if each) or "no more is told"
    size = "; ".join(f"{task} {told}" for task, told in pixels.items())
    yield "input size", "BVD-CNN unknown; VGG-16 224 × 224", size or "see the tasks"


def _theirs(setting: Setting) -> str:
    foreign = f", under {THEIR_DATA[setting.level]}" if setting.bug == "ood" else ""
    return THEIR_DATA[setting.task] + foreign


def _models(sources: set[str], results: pd.DataFrame, found: Found, suite: Mapping[str, Any]) -> Iterator[Line]:
    rows = _rows(results, found)
    if sources != {"Figure 7"}:
        what = "BVD-CNN: 5 convolutions, 3 dense layers, ReLU; filters, optimiser, epochs and batch unknown"
        yield "training", what, "the task's own recipe"
        yield "output", "one sigmoid unit (inferred)", "a logit a class, the explained one is the target"
    given = rows["control"] == PERTURBED
    trained = [f"{_range(rows.loc[~given, 'seeds'])} a side, from seeds of their own"] if not given.all() else []
    draws = [f"one that is given, {_range(rows.loc[given, 'seeds'])} draws a side"] if given.any() else []
    yield "models", "one a condition, as far as is told", "; ".join([*trained, *draws]) or "none"
    yield "explained inputs", "190", _range(rows["n"])
    yield "standard errors", "over the 190 inputs", "over models" + (", of what is given over draws" if draws else "")
    options = suite.get("method_options", {})
    chosen = "; ".join(f"{name} {', '.join(f'{key} {value}' for key, value in each.items())}"
                       for name, each in options.items() if name in PAPER_METHODS and each)  # fmt: skip
    yield "hyper-parameters of methods", "unknown", chosen or "each method's own defaults"
    if "Figure 6" in sources:
        yield (
            "mislabelled examples", "a tenth of the labels flipped; which examples are explained is not told",
            "every model flips a part of its own; only flips that it memorised are explained, for their true label",
        )  # fmt: skip
    if "Figure 7" in sources:
        cascades = {(setting.bug, task) for setting, task, _, _ in found if setting.source == "Figure 7"}
        here = [place in cascades for place in rows[["bug", "task"]].itertuples(index=False, name=None)]
        controls = "; ".join(CONTROLS.get(name, name) for name in dict.fromkeys(rows.loc[here, "control"]))
        yield "control of re-initialised layers", "none", controls or "none"


def _measures(sources: set[str], results: pd.DataFrame, found: Found) -> Iterator[Line]:
    rows = _rows(results, found)
    names = {f"{metric}@{post}" for metric, post in zip(rows["metric"], rows["post"], strict=True)}
    ssim = sorted(name for name in names if "ssim" in name)
    theirs = "unknown; inferred from the authors' earlier code: signed maps, min–max by map, channels kept, Gaussian "
    yield "SSIM", theirs + "weights, a data range of 2", ", ".join(ssim) or "not measured"
    if "Table 2" in sources:
        theirs = "3e-06 of Gaussian maps; inferred: they were not normalised as the others"
        yield (
            "calibration of SSIM",
            theirs,
            "the floor of Table 2: Gaussian maps, normalised as all others",
        )


def _missing(results: pd.DataFrame, found: Found) -> Iterator[Line]:
    cells: dict[tuple[str, str, str], list[str]] = {}
    for setting, task, level, _ in found:
        cells.setdefault((setting.source, task, setting.bug), []).append(level)
    told: dict[tuple[str, str], list[str]] = {}
    for (source, task, bug), levels in cells.items():
        reasons = {level: absent(results, task, bug, level) for level in levels}
        for method in PAPER_METHODS if source == "Figure 7" else IN_TABLES:
            for reason in dict.fromkeys(why[method] for why in reasons.values() if method in why):
                at = [level for level, why in reasons.items() if why.get(method) == reason]
                where = f"{task} / {bug}" + ("" if len(at) == len(levels) else f" {', '.join(at)}")
                told.setdefault((where, reason), []).append(PAPER_METHODS[method])
    for (where, reason), names in told.items():
        yield f"methods, {where}", ", ".join(names), reason


def listed(absent: Mapping[str, str]) -> list[tuple[str, str]]:
    """Of what `absent` gives, reasons with the paper's names of the methods, comma-separated."""
    names: dict[str, list[str]] = {}
    for method, reason in absent.items():
        names.setdefault(reason, []).append(PAPER_METHODS[method])
    return [(", ".join(each), reason) for reason, each in names.items()]


def _rows(results: pd.DataFrame, found: Found) -> pd.DataFrame:
    """The rows of the paper's methods in cells that were found."""
    cells = {(task, setting.bug, level) for setting, task, level, _ in found}
    here = [cell in cells for cell in results[["task", "bug", "level"]].itertuples(index=False, name=None)]
    rows = results[here]
    return rows[rows["method"].isin(PAPER_METHODS) & ~rows["verdict"].isin(OUTCOMES)]


def _range(counts: pd.Series) -> str:
    if counts.empty:
        return "none"
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"
