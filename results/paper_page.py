"""The part of a page that shows the paper's tables and figures: what was printed, what we measured, what differs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attribug.results import paper, pictures, plots
from attribug.results.figures import SYMBOLS, Pictures
from attribug.results.narrative import counted, number, units
from attribug.results.paper import IN_TABLES, QUANTITIES, SIMILARITIES
from attribug.results.published import PAPER_METHODS, main, measured
from attribug.results.schema import level_order

View = dict[str, Any]
Place = tuple[str, str, str]
Galleries = Mapping[Place, Mapping[str, Pictures]]
CAPTIONS = {
    "Table 2": (
        "Similarity between maps of inputs with a spurious background and two ground truths",
        "GT-1: all relevance on the background, evenly. GT-2: GT-1 weighted by the map of the background without the "
        "object. SSIM in the pipeline that the authors' earlier code has.",
    ),
    "Table 3": (
        "Similarity of Fashion-MNIST maps of a foreign model and of the domain's own",
        "SSIM in the same pipeline; RK is Spearman's rank correlation.",
    ),
}
EXAMPLES = 3
"""Mislabelled examples that are shown, at most."""
RANGE = (0.73, 0.99)
"""SSIM of mislabelled examples, of all methods of the paper."""


def views(
    results: pd.DataFrame, facts: Mapping[str, Any], beside: pd.DataFrame, galleries: Galleries,
    embed: Callable[..., Any],
) -> View | None:  # fmt: skip
    """What the section shows; None where the run measures no setting of the paper.

    results, facts: of the run; beside: of `published.beside`; embed: the page's.
    """
    found = measured(results)
    if not found:
        return None
    bugs = facts["pieces"]["bugs"]
    controls = {name: str(bug["control"]) for name, bug in bugs.items()}
    cells = list(
        dict.fromkeys((setting.source, task, setting.bug, level, match) for setting, task, level, match in found)
    )
    mislabelled = [cell[1:] for cell in cells if cell[0] == "Figure 6"]
    cascades = dict.fromkeys((task, bug, match) for source, task, bug, _, match in cells if source == "Figure 7")
    rows = {bug: main(results, bug, controls) for bug in {cell[2] for cell in cells}}
    tasks = {task for _, task, _, _ in found}
    pixels = {place[0]: _pixels(maps) for place, maps in galleries.items() if maps and place[0] in tasks}
    return {
        "tables": _tables(beside, results),
        "mislabelled": [_mislabelled(rows[place[1]], results, galleries, *place) for place in mislabelled],
        "cascades": [_cascade(rows[bug], results, galleries, embed, task, bug, match) for task, bug, match in cascades],
        "deviations": paper.deviations(results, facts, pixels).to_dict("records"),
    }  # fmt: skip


def _pixels(maps: Mapping[str, Pictures]) -> str:
    """Size of the inputs of a gallery: `64 × 64`."""
    return " × ".join(map(str, next(iter(maps.values()))["inputs"].shape[2:]))


def _tables(beside: pd.DataFrame, results: pd.DataFrame) -> list[View]:
    """Tables 2 and 3, each with its blocks."""
    tables: dict[str, View] = {}
    for block in paper.blocks(beside):
        title, note = CAPTIONS[block.source]
        quantities = QUANTITIES[block.source]
        blank: View = {
            "source": block.source, "title": title, "note": note, "quantities": list(quantities.values()),
            "blocks": [],
        }  # fmt: skip
        rows = block.rows
        why = {name: paper.absent(results, block.task, block.bug, block.level, name) for name in quantities}
        cells = {(row.method, row.quantity): _cell(row) for row in rows.itertuples()}
        measured_rows = rows[rows["ours"].notna()]
        tables.setdefault(block.source, blank)["blocks"].append({
            "setting": block.setting, "task": block.task, "bug": block.bug, "level": block.level, "match": block.match,
            "models": int(measured_rows["models"].max()), "n": int(measured_rows["n"].max()),
            "measured_as": ", ".join(dict.fromkeys(measured_rows["measured_as"])),
            "rows": [
                {"name": PAPER_METHODS[name],
                 "cells": [cells[name, quantity] | {"why": why[quantity].get(name, "")} for quantity in quantities]}
                for name in IN_TABLES
            ],
        })  # fmt: skip
    return list(tables.values())


def _cell(row: Any) -> View:
    """Published value and ours of one method and quantity, ready to print."""
    paper_value = _with_error(row.paper, row.paper_sem)
    return {
        "paper": paper_value, "ours": _with_error(row.ours, row.ours_sem), "control": number(row.control),
        "floor": number(row.floor), "verdict": row.verdict, "symbol": SYMBOLS.get(row.verdict, ""),
    }  # fmt: skip


def _with_error(value: float, error: float) -> str:
    """`.62 ± .01`; three digits where two would hide the value."""
    if math.isnan(value):
        return ""
    digits = 3 if abs(value) < 0.1 else 2
    return number(value, digits) + ("" if math.isnan(error) else f" ± {number(error, 3 if error < 0.01 else 2)}")


def _mislabelled(
    rows: pd.DataFrame, results: pd.DataFrame, galleries: Galleries, task: str, bug: str, level: str, match: str
) -> View:
    """Figure 6: methods are columns; of every example a row of maps a model, below them the similarities."""
    maps = galleries.get((task, bug, level), {})
    alike = paper.similarities(rows, task, bug)
    alike = alike[alike["level"] == level]
    methods = [name for name in PAPER_METHODS if name in maps or name in set(alike["method"])]
    titles = {
        "reference": "right label, none flipped", "control": "right label, others flipped",
        "contaminated": "wrong label",
    }  # fmt: skip
    inputs: Sequence[Any] = list(next(iter(maps.values()))["inputs"][:EXAMPLES]) if maps else []
    return {
        "task": task, "level": level, "match": match, "range": [number(each) for each in RANGE],
        "methods": [PAPER_METHODS[name] for name in methods],
        "rests_on": _rests_on(alike, rows),
        "examples": [
            {"input": pictures.photograph(picture), "rows": [
                {"title": title, "maps": [_map(maps.get(name), role, number_) for name in methods]}
                for role, title in titles.items() if any(role in each for each in maps.values())
            ]}
            for number_, picture in enumerate(inputs)
        ],
        "numbers": _similarity_rows(alike, methods),
        "lowest": _extreme(alike, min), "highest": _extreme(alike, max),
        "absent": paper.listed(paper.absent(results, task, bug, level)),
    }  # fmt: skip


def _map(each: Pictures | None, role: str, example: int) -> Any:
    return pictures.strip([each[role][example]]) if each is not None and role in each else None


def _similarity_rows(alike: pd.DataFrame, methods: Sequence[str]) -> list[View]:
    """SSIM and rank under Figure 6: ours, control and floor a row, methods as columns."""
    views = []
    for quantity, name in zip(SIMILARITIES, ("SSIM", "RK"), strict=True):
        own = alike[alike["quantity"] == quantity].set_index("method").reindex(list(methods))
        if own["ours"].isna().all():
            continue
        verdicts = own["verdict"].fillna("")
        for series in ("ours", "control", "floor"):
            cells = [
                {"number": number(value), "verdict": verdict if series == "ours" else "",
                 "symbol": SYMBOLS.get(verdict, "") if series == "ours" else ""}
                for value, verdict in zip(own[series], verdicts, strict=True)
            ]  # fmt: skip
            views.append({"name": f"{name}, {series}", "cells": cells})
    return views


def _extreme(alike: pd.DataFrame, which: Callable[..., float]) -> str:
    values = alike.loc[alike["quantity"] == "ssim", "ours"]
    return number(which(values)) if len(values) else ""


def _cascade(
    rows: pd.DataFrame, results: pd.DataFrame, galleries: Galleries, embed: Callable[..., Any],
    task: str, bug: str, match: str,
) -> View:  # fmt: skip
    """Figure 7: methods are rows, columns the trained model and each level from the top layer down; one image."""
    alike = paper.similarities(rows, task, bug)
    levels = sorted({level for where, what, level in galleries if (where, what) == (task, bug)}, key=level_order)
    shown = {level: galleries[task, bug, level] for level in levels}
    first = shown[levels[0]] if levels else {}
    kept = [level for level in levels if _same(first, shown[level])]
    methods = [name for name in PAPER_METHODS if all(name in shown[level] for level in kept) and kept]
    return {
        "task": task, "match": match, "levels": kept, "others": [level for level in levels if level not in kept],
        "input": pictures.photograph(next(iter(first.values()))["inputs"][0]) if first else None,
        "rows": [
            {"name": PAPER_METHODS[name], "strip": pictures.strip(
                [first[name]["reference"][0], *(shown[level][name]["contaminated"][0] for level in kept)])}
            for name in methods
        ],
        "svg": embed(plots.cascade(alike, PAPER_METHODS) if len(alike) else "", "paper", task, bug),
        "rests_on": _rests_on(alike, rows),
        "absent": paper.listed(paper.absent(results, task, bug)),
    }  # fmt: skip


def _rests_on(alike: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Of what `paper.similarities` gave: `ssim_range2@minmax, spearman@sum; 5 models a side, 16 images`."""
    if alike.empty:
        return ""
    measured_as = ", ".join(dict.fromkeys(alike["measured_as"]))
    models, images = (int(alike[name].max()) for name in ("models", "n"))
    return f"{measured_as}; {units(models, rows['control'])}, {counted(images, 'image')}"


def _same(one: Mapping[str, Pictures], other: Mapping[str, Pictures]) -> bool:
    """Whether two galleries explain the same image under the same trained model: their references agree."""
    common = [name for name in one if name in other and "reference" in one[name] and "reference" in other[name]]
    return bool(common) and any(
        np.allclose(one[name]["reference"][0], other[name]["reference"][0], equal_nan=True) for name in common
    )
