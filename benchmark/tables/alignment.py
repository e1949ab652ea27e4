"""What panels tell: alignment.csv, the cases of Shared Interest, and the values of single examples behind both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.plans.plan import ACCURACY
from attribug.results import alignment
from attribug.storage.files import storing, write_atomically
from attribug.storage.folders import ALIGNMENT, ALIGNMENT_CASES, ALIGNMENT_SCORES

if TYPE_CHECKING:
    from attribug.plans.plan import Cell
    from attribug.running.outcome import Outcome

SUBJECT = ("panel", "model", "data", "unit")
SCORE_COLUMNS = (
    *SUBJECT, "mask", "method", "metric", "post", "example", "label", "predicted", "correct", "value", "random",
    "pixels", "total", "grain", "case",
)  # fmt: skip
ACCURACY_COLUMNS = (*SUBJECT, "accuracy", "tested")
LACKING_COLUMNS = ("panel", "model", "data", "method", "reason")


def write_alignment(outcome: Outcome, out: Path) -> None:
    """Writes the tables, or removes those of an earlier run where there are no panels."""
    paths = [out / name for name in (ALIGNMENT, ALIGNMENT_CASES, ALIGNMENT_SCORES)]
    if not outcome.plan.panels:
        for path in paths:
            with storing(path):
                path.unlink(missing_ok=True)
        return
    scores, tested = scores_of(outcome), accuracies(outcome)
    table = alignment.table(scores, tested, lacking(outcome))
    for path, written in zip(paths, (table, alignment.cases(scores)), strict=False):
        text = written.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(path, lambda place, text=text: place.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    write_atomically(paths[-1], lambda place: scores.to_parquet(place, index=False, compression="zstd"))


def scores_of(outcome: Outcome) -> pd.DataFrame:
    """One row a subject, mask, method, metric, post and example, columns `SCORE_COLUMNS`.

    Alike subjects that share the explained model are explained once: the rows are those of the first. A mean over them
    would be one over a single model, and no interval could tell.
    """
    frames, known = [], set()
    for number, cell in outcome.plan.panelled:
        for method, _ in outcome.plan.methods_of(cell):
            record = outcome.records.get((number, method.name))
            if record is None or record.verdict or not outcome.rows[number, method.name]:
                continue
            place = (cell.task, cell.bug, cell.level, outcome.plan.record_key(cell, method.name))
            if place not in known:
                known.add(place)
                rows = outcome.scores(number, method.name)
                frames.append(rows.assign(**_named(cell), method=method.name)[list(SCORE_COLUMNS)])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(SCORE_COLUMNS))


def accuracies(outcome: Outcome) -> pd.DataFrame:
    """One row a subject whose labels are known, columns `ACCURACY_COLUMNS`."""
    rows = [
        {**_named(cell), **{name: figures[name] for name in ACCURACY_COLUMNS[len(SUBJECT) :]}}
        for number, cell in outcome.plan.panelled
        if ACCURACY in (figures := outcome.figures.get(number, {}))
    ]
    return pd.DataFrame(rows, columns=list(ACCURACY_COLUMNS))


def lacking(outcome: Outcome) -> pd.DataFrame:
    """What could not be measured, and why, columns `LACKING_COLUMNS`; no method: nothing of the subject."""
    return pd.DataFrame(list(dict.fromkeys(_lacking(outcome))), columns=list(LACKING_COLUMNS))


def _lacking(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    for number, cell in outcome.plan.panelled:
        place = cell.task, cell.bug, cell.level
        whole = cell.reason or outcome.failures.get((number, ""), "")
        if whole:
            yield *place, "", whole
            continue
        for method, _ in outcome.plan.methods_of(cell):
            record = outcome.records.get((number, method.name))
            if failed := outcome.failures.get((number, method.name), ""):
                yield *place, method.name, failed
            elif record is not None and record.verdict:
                yield *place, method.name, record.reason
            elif record is not None:
                for measured, (_, reason) in record.lost.items():
                    yield *place, method.name, f"{measured}: {reason}"


def _named(cell: Cell) -> dict[str, Any]:
    return {"panel": cell.task, "model": cell.bug, "data": cell.level, "unit": cell.seed}
