"""fixes.csv: what every fix made of models that learnt a shortcut, on every test set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.contracts.models import trainings
from attribug.results.mending import FIXED, FIXES_COLUMNS, NONE, STATISTICS, SWEPT, with_selected
from attribug.results.schema import MENDED
from attribug.storage.files import storing, write_atomically
from attribug.storage.folders import FIXES

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Trial
    from attribug.plans.plan import Cell
    from attribug.running.outcome import Outcome


def write_fixes(outcome: Outcome, out: Path) -> None:
    """Writes the table, or removes that of an earlier run where nothing is mended."""
    table, path = fixes_of(outcome), out / FIXES
    if len(table):
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(path, lambda place: place.write_text(text, encoding="utf-8"))
    else:
        with storing(path):
            path.unlink(missing_ok=True)


def fixes_of(outcome: Outcome) -> pd.DataFrame:
    """One row a model, mended or not, and test set; and, where a parameter was swept, those again that a rule would
    choose."""
    rows = []
    first: dict[tuple[str, str, str, int], Trial] = {}
    for number, cell in enumerate(outcome.plan.cells):
        bug = cell.bug.partition(MENDED)[0]
        for place, trial in enumerate(cell.trials):
            if trial.fix == NONE:
                first[cell.task, bug, cell.level, cell.seed] = trial
            figures = outcome.trials.get((number, place))
            if figures is not None:
                before = first[cell.task, bug, cell.level, cell.seed]
                facts = {
                    "selection": SWEPT if place and MENDED in cell.bug else FIXED,
                    "seconds": _seconds(outcome, trial, before),
                }
                rows += _rows(cell, trial, figures, facts)
    return with_selected(pd.DataFrame(rows, columns=list(FIXES_COLUMNS)))


def _rows(cell: Cell, trial: Trial, figures: dict[str, float], facts: dict[str, Any]) -> list[dict[str, Any]]:
    told = {
        "task": cell.task, "bug": cell.bug.partition(MENDED)[0], "level": cell.level, "fix": trial.fix,
        "setting": trial.setting, "seed": cell.seed, **facts,
    }  # fmt: skip
    return [
        {**told, "test_set": name, **{each: figures.get(f"{name} {each}", float("nan")) for each in STATISTICS}}
        for name in trial.sets
    ]


def _seconds(outcome: Outcome, trial: Trial, before: Trial) -> float:
    """Of the trainings that a fix needs beside that of the model with the bug; that model's own, where nothing is
    mended. What is derived without training is not timed."""
    spared = () if trial.fix == NONE else trainings(before.model)
    more = [training.key for training in trainings(trial.model) if training not in spared]
    return sum(outcome.trainings.get(key, {}).get("seconds", float("nan")) for key in more)
