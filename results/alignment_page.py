"""The part of a page that tells how far explanations agree with what people marked."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attribug.results import alignment as aligned
from attribug.results import plots
from attribug.results.alignment import BELOW, CASES, MAIN, NO_CASE, UNDECIDED, chosen, told_metrics
from attribug.results.narrative import number

View = dict[str, Any]
MOST = 4
"""Methods that the tables show outside of `details`."""
MARKS = {UNDECIDED: "·", BELOW: "↓"}
"""Of values that are not above those of a random map for certain."""
RIGHT = ("#0072B2", "#56B4E9", "#9CC9E3", "#C9DFEC")
WRONG = ("#D55E00", "#E69F00", "#F0C27B", "#F4DDBF")
NEITHER = "#AAAAAA"
CASE_COLOURS = dict(zip((*CASES, NO_CASE), (*RIGHT, *WRONG, NEITHER), strict=True))
"""Right predictions blue, wrong ones orange."""
PUBLISHED = Path(__file__).with_name("alignment_published.csv")
"""Values of Bang, Boggust and Satyanarayan 2024 (Explanation Alignment): gradient-based maps, binarised at mean + one
standard deviation. No data: not said."""
QUANTITIES = ("accuracy", *MAIN)
PNG, HEADER = "data:image/png;base64,", 24
"""What a picture begins with: its scheme, and the bytes that hold its size."""
SPOT = ["model", "data", "mask"]


def views(
    table: pd.DataFrame | None, cases: pd.DataFrame | None, pieces: Mapping[str, Any], galleries: Mapping[str, str],
    embed: Callable[..., Any], anchor: Callable[..., str],
) -> View | None:  # fmt: skip
    """What the section shows: a view a panel, and the galleries that belong to none; None without a table.

    table: as `alignment.table` gives it; cases: as `alignment.cases`; pieces: facts of methods and panels; galleries:
    PNG data URIs by name, which begins with its panel's and `:`; embed, anchor: the page's.

    Raises `ValueError` for a gallery that is no PNG.
    """
    if table is None or table.empty:
        return None
    pictures = {name: _picture(name, uri) for name, uri in galleries.items()}
    panels = list(dict.fromkeys(table["panel"]))
    views = [_panel(panel, table, cases, pieces, pictures, embed, anchor) for panel in panels]
    return {
        "panels": views, "colours": CASE_COLOURS,
        "pictures": [each for name, each in pictures.items() if name.partition(":")[0] not in panels],
    }  # fmt: skip


def _panel(
    panel: str, table: pd.DataFrame, cases: pd.DataFrame | None, pieces: Mapping[str, Any],
    pictures: Mapping[str, View], embed: Callable[..., Any], anchor: Callable[..., str],
) -> View:  # fmt: skip
    everything = table[table["panel"] == panel]
    measured = everything[everything["metric"] != ""]
    yardsticks = _yardsticks(measured["method"], pieces)
    methods = chosen(measured, len(measured), leave=yardsticks)
    metrics = told_metrics(measured)
    facts = pieces.get("panels", {}).get(panel, {})
    once = measured.drop_duplicates([*SPOT, "method", "metric"])  # of several posts the first
    told = pd.DataFrame() if cases is None else cases[cases["panel"] == panel]
    return {
        "panel": panel, "id": anchor("aligned", panel), "summary": facts.get("summary", ""),
        "notes": facts.get("notes", []), "metrics": metrics, "ranked": bool(once["model_rank_low"].notna().any()),
        "tables": [_table(once, each, metrics) for each in _apart([*methods, *yardsticks])],
        "orders": _orders(once, methods[:MOST], metrics),
        "scatters": _scatters(panel, once, methods[:MOST], embed),
        "cases": [_cases(told, each) for each in _apart(methods)] if len(told) else [],
        "coarse": _coarse(once, methods),
        "disagreements": [each.removeprefix(f"{panel}, ") for each in aligned.disagreements(measured)],
        "lacking": everything[everything["metric"] == ""][["model", "data", "method", "reason"]].to_dict("records"),
        "published": _published(panel, once, methods),
        "pictures": [each for name, each in pictures.items() if name.partition(":")[0] == panel],
    }  # fmt: skip


def _yardsticks(methods: Iterable[str], pieces: Mapping[str, Any]) -> list[str]:
    """Methods that explain nothing, in the table's order."""
    facts = pieces.get("methods", {})
    none = {name for name, each in facts.items() if not each.get("explains", True) or each.get("bare", False)}
    return [name for name in dict.fromkeys(methods) if name in {"random", *none}]


def _apart(methods: Sequence[str]) -> list[list[str]]:
    """Those that are shown, and those that open on demand."""
    return [part for part in (list(methods[:MOST]), list(methods[MOST:])) if part]


def _table(rows: pd.DataFrame, methods: Sequence[str], metrics: Sequence[str]) -> View:
    """A group a model and data, in it a part a mask, in it a line a method."""
    found = {tuple(row[name] for name in (*SPOT, "method", "metric")): row for row in rows.to_dict("records")}
    groups: list[View] = []
    for (model, data), here in rows.groupby(["model", "data"], sort=False):
        masks: list[View] = []
        for mask, part in here.groupby("mask", sort=False):
            lines = [
                {"method": name, "cells": [_cell(found.get((model, data, mask, name, metric))) for metric in metrics]}
                for name in methods if name in set(part["method"])
            ]  # fmt: skip
            masks += [{"mask": mask, "lines": lines}] if lines else []
        accuracy = _spread(here.iloc[0], "accuracy", "accuracy_low", "accuracy_high")
        groups.append({
            "model": model, "data": data, "accuracy": accuracy, "units": int(here["units"].max()), "masks": masks,
        })  # fmt: skip
    return {"methods": list(methods), "groups": [each for each in groups if each["masks"]]}


def _cell(row: Mapping[Any, Any] | None) -> View | None:
    if row is None:
        return None
    ranks = [row[name] for name in ("model_rank_low", "model_rank_high")]
    return {
        "value": _spread(row, "value", "ci_low", "ci_high"), "random": number(row["random"]),
        "mark": MARKS.get(row["above_random"], "") if math.isfinite(row["value"]) else "",
        "rank": "" if math.isnan(ranks[0]) else "–".join(dict.fromkeys(f"{each:.0f}" for each in ranks)),
        "reason": row["reason"],
    }  # fmt: skip


def _spread(row: Any, *names: str) -> str:
    """Value and interval, three digits where two would hide the value."""
    values = [float(row[name]) for name in names]
    digits = 3 if abs(values[0]) < 0.1 else 2
    mean, low, high = (number(each, digits) for each in values)
    return f"{mean} ({low}–{high})" if low else mean


def _orders(rows: pd.DataFrame, methods: Sequence[str], metrics: Sequence[str]) -> list[View]:
    """How masks are ranked, a line a model, data and method; none where there is one mask."""
    lines = []
    shown = rows[rows["method"].isin(methods)]
    for (model, data), here in shown.groupby(["model", "data"], sort=False):
        for name in methods:
            part = here[here["method"] == name]
            cells = [aligned.ranked(part[part["metric"] == metric]) for metric in metrics]
            lines += [{"model": model, "data": data, "method": name, "cells": cells}] if any(cells) else []
    return lines


def _scatters(panel: str, rows: pd.DataFrame, methods: Sequence[str], embed: Callable[..., Any]) -> list[View]:
    """Alignment against accuracy, a drawing a mask and method, of two models or more whose accuracy is known."""
    found = []
    known = rows[rows["accuracy"].notna() & rows["value"].notna() & rows["metric"].isin(MAIN)]
    for mask, part in known.groupby("mask", sort=False):
        drawn = []
        for name in methods:
            here = part[part["method"] == name]
            if here.groupby("metric")["model"].nunique().max() >= 2:
                svg = plots.alignment_scatter(here, [metric for metric in MAIN if metric in set(here["metric"])])
                drawn.append({"method": name, "svg": embed(svg, "aligned", panel, str(mask), name)})
        found += [{"mask": mask, "drawings": drawn}] if drawn else []
    return found


def _cases(cases: pd.DataFrame, methods: Sequence[str]) -> View:
    """Shares of the eight cases and of none: a group a method, a line a model, data and mask."""
    names = [*CASE_COLOURS, *(name for name in dict.fromkeys(cases["case"]) if name not in CASE_COLOURS)]
    groups = []
    for name in methods:
        parts = cases[cases["method"] == name].groupby(SPOT, sort=False)
        lines = [dict(zip(SPOT, place, strict=True)) | _shares(part, names) for place, part in parts]
        groups += [{"method": name, "lines": lines}] if lines else []
    return {"methods": list(methods), "names": names, "groups": groups}


def _shares(part: pd.DataFrame, names: Sequence[str]) -> View:
    """Shares of cases as a bar and in numbers."""
    shares = part.groupby("case")["share"].sum().reindex(list(names), fill_value=0.0)
    starts = shares.cumsum() - shares
    bar = [
        {"x": f"{start:.4f}", "width": f"{share:.4f}", "colour": CASE_COLOURS.get(case, NEITHER)}
        for case, start, share in zip(names, starts, shares, strict=True)
        if share
    ]
    return {"bar": bar, "shares": [number(float(share)) if share else "" for share in shares]}


def _coarse(rows: pd.DataFrame, methods: Sequence[str]) -> list[View]:
    """Methods whose maps are too coarse for a mask: their grain exceeds its side, both in pixels."""
    known = rows[rows["method"].isin(methods) & rows["grain"].notna() & rows["mask_side"].notna()]
    coarse = known.loc[[row.Index for row in known.itertuples() if not aligned.readable(row)]]
    spots = coarse.groupby(["method", "mask", "data"], sort=False)[["grain", "mask_side"]]
    medians = spots.median().reset_index().sort_values(["method", "mask", "data"], kind="stable")
    return [
        {"method": method, "mask": mask, "data": data, "grain": f"{grain:.1f}", "side": f"{side:.1f}"}
        for method, mask, data, grain, side in medians.itertuples(index=False, name=None)
    ]


def _published(panel: str, rows: pd.DataFrame, methods: Sequence[str]) -> View | None:
    """Published values beside ours of the first method; None where none belongs to the panel."""
    told = pd.read_csv(PUBLISHED, keep_default_na=False, dtype={"value": float})
    told = told[told["panel"] == panel]
    lines = []
    for place, here in rows[rows["method"].isin(methods[:1])].groupby(SPOT, sort=False):
        model, data, mask = map(str, place)
        theirs = told[(told["model"] == model) & told["data"].isin(["", data]) & told["mask"].isin(["", mask])]
        values = theirs.set_index("quantity")["value"].to_dict()
        if not set(MAIN) & set(values):
            continue
        measured = {row["metric"]: _spread(row, "value", "ci_low", "ci_high") for row in here.to_dict("records")}
        measured["accuracy"] = _spread(here.iloc[0], "accuracy", "accuracy_low", "accuracy_high")
        cells = [{"paper": _exact(values.get(name)), "ours": measured.get(name, "")} for name in QUANTITIES]
        lines.append({"model": model, "data": data, "mask": mask, "cells": cells})
    if not lines:
        return None
    return {"source": told["source"].iloc[0], "method": methods[0], "names": QUANTITIES, "lines": lines}


def _exact(value: float | None) -> str:
    """A published number with its own digits."""
    return "" if value is None else f"{value:g}".removeprefix("0") or "0"


def _picture(name: str, uri: str) -> View:
    """A gallery with its size, which the page must know before it is drawn."""
    try:
        if not uri.startswith(PNG):
            raise ValueError
        head = base64.b64decode(uri[len(PNG) : len(PNG) + HEADER * 4 // 3], validate=True)
        if head[12:16] != b"IHDR":
            raise ValueError
    except ValueError:
        raise ValueError(f"gallery {name}: expected a PNG as a data URI, found {uri[:24]!r}") from None
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    return {"title": name.partition(":")[2].strip() or name, "uri": uri, "width": width, "height": height}
