"""How far explanations agree with what people marked, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from attribug.results.alignment import BELOW, KEYS, UNDECIDED, chosen, ranked, told_metrics
from attribug.results.narrative import counted, number
from attribug.results.statistics import FEWEST_MODELS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    import pandas as pd

MOST = 4
"""Methods that fit into 100 columns."""
LAYOUT: dict[str, Any] = {"title_justify": "left", "caption_justify": "left", "box": box.SIMPLE_HEAD}
LONGEST = 14  # letters of a name on one line
MARKS = {UNDECIDED: "·", BELOW: "↓"}
EXPLAINED = "· not above a random map (column random) for certain, ↓ below it."
FEW = "Fewer than three models that are alike: what is said holds for these models only."
ROW = ["model", "data", "mask"]


def tables(alignment: pd.DataFrame, methods: Sequence[str] = ()) -> Iterator[Table]:
    """One a panel: a row a model, data and mask, a column for some methods, of which each cell tells two metrics.

    methods: which ones, of those that the table has; else the familiar ones.
    """
    measured = alignment[alignment["metric"] != ""].drop_duplicates([name for name in KEYS if name != "post"])
    for panel, part in measured.groupby("panel", sort=False):
        there = set(part["method"])
        names, metrics = [name for name in methods if name in there] or chosen(part, MOST), told_metrics(part)
        absent = alignment[(alignment["panel"] == panel) & (alignment["metric"] == "")]
        yield _table(str(panel), part, names, metrics, absent)
    for panel, part in alignment[~alignment["panel"].isin(measured["panel"])].groupby("panel", sort=False):
        yield _unmeasured(str(panel), part)


def _unmeasured(panel: str, absent: pd.DataFrame) -> Table:
    """Of a panel of which nothing could be measured: why."""
    table = Table(title=f"alignment: {panel}, not measured", pad_edge=False, **LAYOUT)
    for name in ("model", "data", "method", "reason"):
        table.add_column(name)
    for row in absent[["model", "data", "method", "reason"]].itertuples(index=False, name=None):
        table.add_row(*map(str, row))
    return table


def _table(
    panel: str, part: pd.DataFrame, names: Sequence[str], metrics: Sequence[str], absent: pd.DataFrame
) -> Table:  # fmt: skip
    told = " and ".join(metrics)
    table = Table(title=f"alignment: {panel}, {told}", pad_edge=False, **LAYOUT)
    table.caption = "\n".join([*_rankings(part, names, metrics), *_footer(part, names, absent)])
    for name in ROW:
        table.add_column(name, overflow="fold")
    table.add_column("accuracy", justify="right")
    table.add_column("random", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    cells = {tuple(row[name] for name in (*ROW, "method", "metric")): row for row in part.to_dict("records")}
    last = None
    for place, rows in part.groupby(ROW, sort=False):
        same, last = place[:2] == last, place[:2]
        shown = ["", ""] if same else [_broken(str(name)) for name in place[:2]]
        right = "" if same else number(float(rows["accuracy"].iloc[0]))
        first = [rows[rows["metric"] == metric]["random"].mean() for metric in metrics]
        values = [" ".join(_cell(cells.get((*place, name, metric))) for metric in metrics) for name in names]
        table.add_row(*shown, _broken(str(place[2])), right, " ".join(number(float(each)) for each in first), *values)
    return table


def _cell(row: Mapping[Hashable, Any] | None) -> str:
    """A value, with a mark where it is not above random for certain."""
    told = "–" if row is None else f"{MARKS.get(row['above_random'], '')}{number(row['value'])}"
    return told.rjust(4)


def _broken(name: str) -> str:
    """A long name on several lines, broken after `_`."""
    return name.replace("_", "_\n") if len(name) > LONGEST else name


def _rankings(part: pd.DataFrame, names: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """The order of masks, a line a model, of the first method and metric."""
    rows = part[(part["method"] == names[0]) & (part["metric"] == metrics[0])] if names else part.head(0)
    orders = {place: ranked(those) for place, those in rows.groupby(["model", "data"], sort=False)}
    lines = [f"  {model} on {data}: {order}" for (model, data), order in orders.items() if order]
    return [f"Masks by {metrics[0]} less that of a random map, {names[0]}:", *lines] if lines else []


def _footer(part: pd.DataFrame, names: Sequence[str], absent: pd.DataFrame) -> list[str]:
    """What marks mean, and what the table leaves out."""
    lines = [EXPLAINED]
    lines += [FEW] if part["units"].min() < FEWEST_MODELS else []
    others = part["method"].nunique() - len(names) - int("random" in set(part["method"]))
    lines += [f"{counted(others, 'further method')}, all metrics and intervals: alignment.csv."] if others > 0 else []
    return [*lines, *([_lacking(absent)] if len(absent) else [])]


def _lacking(absent: pd.DataFrame) -> str:
    """What could not be measured, a line each."""
    rows = absent[["model", "data", "method", "reason"]].itertuples(index=False, name=None)
    return "\n".join(
        f"Not measured: {model} on {data}{f', {method}' if method else ''}: {reason}"
        for model, data, method, reason in rows
    )
