"""The part of a page that says what its run tells: which method sees which bug, and what nobody can tell yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from attribug.results import advice
from attribug.results.advice import Advice

View = dict[str, Any]


def view(
    rows: pd.DataFrame,
    results: pd.DataFrame,
    suite: Mapping[str, Any],
    analysis: Mapping[str, pd.DataFrame],
    anchor: Callable[..., str],
) -> View | None:
    """A line a task, bug and level, and what to type next; None where no bug was met.

    rows: of `headline`; results: the table that they are from; analysis: `added` and `power`, where there are any."""
    found = advice.advise(rows, analysis.get("added"), results)
    if not found:
        return None
    command, decides = advice.next_step(suite, rows, analysis.get("power"))
    return {
        "several": len({told.task for told in found}) > 1, "command": command, "decides": decides,
        "judged": analysis.get("power") is not None,
        "open": sum(len(labels) for told in found for _, labels in told.opened),
        "lines": [_line(told, anchor) for told in found],
    }  # fmt: skip


def _line(told: Advice, anchor: Callable[..., str]) -> View:
    remarks = [text for text in (advice.alarm(told), advice.caution(told)) if text]
    return {
        "task": told.task, "bug": told.bug, "level": told.level, "id": anchor(told.task, told.bug, told.level),
        "first": advice.first_place(told), "outputs": advice.outputs_said(told), "remarks": remarks,
        "measured": told.measured, "sees": told.sees, "blind": told.blind, "inverted": told.inverted,
        "opened": told.opened, "absent": told.absent,
    }  # fmt: skip
