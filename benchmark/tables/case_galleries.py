"""Galleries of panels: examples of Shared Interest's cases, one figure a model and data."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from attribug.results.case_gallery import Shown, case_gallery

if TYPE_CHECKING:
    from attribug.plans.plan import Cell
    from attribug.running.outcome import Outcome
    from attribug.storage.tensors import Tensors

UNTOLD = "no case"
"""Stands for cases that nobody can tell."""
MAIN = "iou"
"""The metric whose rows have cases."""


def case_galleries(outcome: Outcome, galleries: Tensors) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """One a panel, model and data, of the first seed and of the first method that has one."""
    done: set[tuple[str, str, str]] = set()
    for number, cell in outcome.plan.panelled:
        place = (cell.task, cell.bug, cell.level)
        told = [
            method.name for method, _ in outcome.plan.methods_of(cell)
            if (number, method.name) in outcome.records and outcome.rows[number, method.name]
        ]  # fmt: skip
        if place not in done and told:
            done.add(place)
            yield figure_name(*place), partial(_drawn, outcome, galleries, number, cell, told[0])


def figure_name(panel: str, model: str, data: str) -> str:
    """The file of a gallery, whatever the names hold."""
    return "cases_" + "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", name) for name in (panel, model, data)) + ".png"


def _drawn(outcome: Outcome, galleries: Tensors, number: int, cell: Cell, method: str) -> bytes:
    held = galleries.load(outcome.plan.record_key(cell, method))
    if held is None or cell.subject is None:
        raise ValueError("expected a stored gallery, found none")
    scores = outcome.scores(number, method)
    main = scores[(scores["metric"] == MAIN) & (scores["mask"] == cell.subject.regions.names[0])].reset_index(drop=True)
    rows: dict[str, list[Shown]] = {}
    for place, picture, seen, masks in zip(
        held["place"].tolist(), held["inputs"].float().numpy(), held["maps"].float().numpy(),
        held["masks"].bool().numpy(), strict=True,
    ):  # fmt: skip
        row = main.iloc[place] if len(main) else None
        case = UNTOLD if row is None else str(row["case"]) or UNTOLD
        rows.setdefault(case, []).append(Shown(picture, seen, masks, _said(row, cell)))
    drawn = io.BytesIO()
    title = f"{cell.task}: {cell.bug} on {cell.level}, {method} against the mask {cell.subject.regions.names[0]}"
    case_gallery(drawn, rows, _shares(main), title)
    return drawn.getvalue()


def _said(row: pd.Series | None, cell: Cell) -> str:
    """What the model says of an example, and what is right."""
    if row is None:
        return ""
    names = cell.subject.classes if cell.subject is not None else ()
    predicted, label = (
        names[int(row[key])] if 0 <= int(row[key]) < len(names) else str(int(row[key]))
        for key in ("predicted", "label")
    )
    wrong = row["correct"] == 0
    return f"{predicted} (is {label})" if wrong else predicted


def _shares(main: pd.DataFrame) -> dict[str, str]:
    """How many examples a case has."""
    counts = main["case"].value_counts() if len(main) else pd.Series(dtype=int)
    return {str(case): f"{count} of {len(main)}" for case, count in counts.items() if case}
