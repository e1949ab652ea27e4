"""What a run has produced, and what failed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pandas as pd

from attribug.errors import InputError
from attribug.plans.plan import Plan
from attribug.scores.records import Record
from attribug.storage.records import Records


@dataclass
class Outcome:
    """What a run has produced, by cell number and method name."""

    plan: Plan
    figures: dict[int, dict[str, float]] = field(default_factory=dict)
    records: dict[tuple[int, str], Record] = field(default_factory=dict)
    """Without their scores, which may be more than memory holds: see `scores`."""
    images: dict[tuple[int, str], int] = field(default_factory=dict)
    """Examples that a record has scores of."""
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
        """Takes a stored record."""
        self.images[number, method] = record.scores["example"].nunique()
        self.records[number, method] = replace(record, scores=record.scores.head(0).copy())

    def scores(self, number: int, method: str) -> pd.DataFrame:
        """A record's scores, as they are stored.

        Raises:
            InputError: they are no longer there.
        """
        key = self.plan.record_key(self.plan.cells[number], method)
        record = self.stored.load(key) if self.stored is not None else None
        if record is None:
            name = self.plan.cells[number].name
            raise InputError(f"{name} / {method}: expected a stored record, found none; run the same command again")
        return record.scores

    def took(self, number: int) -> bool:
        """Whether a cell's checks all hold."""
        contrast = self.plan.cells[number].contrast
        return contrast is not None and contrast.took(self.figures.get(number))

    def failed_checks(self, number: int) -> list[str]:
        """The checks of a cell that do not hold, with figure and bound."""
        contrast = self.plan.cells[number].contrast
        return [] if contrast is None else contrast.failed_checks(self.figures.get(number, {}))
