"""What a run has produced, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from attribug.errors import InputError
from attribug.plans.plan import Plan
from attribug.scores.records import Record
from attribug.storage.records import Records

KEPT = ("example",)
"""Columns of a record's scores that an outcome asks for when it takes the record."""


@dataclass
class Outcome:
    """What a run has produced, by cell number and method name."""

    plan: Plan
    figures: dict[int, dict[str, float]] = field(default_factory=dict)
    trials: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    """What was measured of mended models, by cell and number of the trial."""
    records: dict[tuple[int, str], Record] = field(default_factory=dict)
    """Without their scores, which may be more than memory holds: see `scores`."""
    images: dict[tuple[int, str], int] = field(default_factory=dict)
    """Examples that a record has scores of."""
    rows: dict[tuple[int, str], int] = field(default_factory=dict)
    """Rows of a record's scores."""
    stored: Records | None = None
    """Where scores are."""
    failures: dict[tuple[int, str], str] = field(default_factory=dict)
    """Reasons by cell and method; `""` as method: the whole cell."""
    trainings: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each training cost, now or earlier: seconds, peak_megabytes."""
    weights: dict[str, str] = field(default_factory=dict)
    """Checksum of each trained model's weights."""
    damaged: list[str] = field(default_factory=list)
    """Stored files that were not what was written: set aside, and made anew."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of the run, and processor time of each stage."""
    jobs: int = 0
    """Jobs that had to be done."""

    @property
    def faults(self) -> list[tuple[int, str, str]]:
        """Cell, method (`""`: all) and reason of everything that failed, metrics included."""
        metrics = [
            (number, method, f"{name}: {reason}")
            for (number, method), record in self.records.items()
            for name, reason in record.failed_metrics.items()
        ]
        cells = [(n, "", cell.reason) for n, cell in enumerate(self.plan.cells) if cell.verdict == "failed"]
        return sorted([*((n, m, reason) for (n, m), reason in self.failures.items()), *metrics, *cells])

    def keep(self, number: int, method: str, record: Record) -> None:
        """Takes a stored record, whose scores need have no more columns than `KEPT`."""
        self.images[number, method] = record.scores["example"].nunique()
        self.rows[number, method] = len(record.scores)
        self.records[number, method] = replace(record, scores=Record().scores)

    def scores(self, number: int, method: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A record's scores, as they are stored; `columns`: all by default.

        Raises:
            InputError: they are no longer there.
        """
        record = None if self.stored is None else self.stored.load(self._key(number, method), columns)
        if record is None:
            raise self._lost(number, method)
        return record.scores

    def scores_of(self, number: int, method: str, of: Mapping[str, str]) -> pd.DataFrame:
        """Those of a record's scores whose texts are those `of` some columns, without these; raises as `scores`."""
        scores = None if self.stored is None else self.stored.scores(self._key(number, method), of)
        if scores is None:
            raise self._lost(number, method)
        return scores

    def _key(self, number: int, method: str) -> str:
        return self.plan.record_key(self.plan.cells[number], method)

    def _lost(self, number: int, method: str) -> InputError:
        name = f"{self.plan.cells[number].name} / {method}"
        return InputError(f"{name}: expected a stored record, found none; run the same command again")

    def took(self, number: int) -> bool:
        """Whether a cell's checks all hold."""
        contrast = self.plan.cells[number].contrast
        return contrast is not None and contrast.took(self.figures.get(number))

    def failed_checks(self, number: int) -> list[str]:
        """The checks of a cell that do not hold, with figure and bound."""
        contrast = self.plan.cells[number].contrast
        return [] if contrast is None else contrast.failed_checks(self.figures.get(number, {}))
