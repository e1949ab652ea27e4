"""What trainings and records cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from attribug.running.outcome import Outcome

COST_COLUMNS = (
    "kind", "task", "bug", "level", "seed", "method", "key", "seconds", "scoring_seconds", "forward", "backward",
    "peak_megabytes", "images",
)  # fmt: skip
"""`images`: what a record explained, every example under every side and in every version that a metric reads."""


def costs_of(outcome: Outcome) -> pd.DataFrame:
    """One row a training and a record, done now or earlier: seconds, passes, peak memory of the worker until then."""
    rows: list[dict[str, Any]] = []
    for key, cost in outcome.trainings.items():
        rows.append({"kind": "training", "seed": outcome.plan.trainings[key].seed, "key": key, **cost})
    methods = {method.name: method for method, _ in outcome.plan.methods}
    for (number, method), record in sorted(outcome.records.items()):
        cell = outcome.plan.cells[number]
        queries = 0 if cell.contrast is None else outcome.plan.queries(cell.contrast, methods[method])
        rows.append({
            "kind": "record", "task": cell.task, "bug": cell.bug, "level": cell.level, "seed": cell.seed,
            "method": method, "key": outcome.plan.record_key(cell, method), "seconds": record.cost.seconds,
            "scoring_seconds": record.scoring_seconds, "forward": record.cost.forward,
            "backward": record.cost.backward, "peak_megabytes": record.peak_megabytes,
            "images": queries * outcome.images.get((number, method), 0),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(COST_COLUMNS))
