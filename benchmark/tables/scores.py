"""All scores of a run, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from attribug.results.headline import PLACE
from attribug.results.schema import SCORE_COLUMNS
from attribug.tables.results import place_of

if TYPE_CHECKING:
    from attribug.running.outcome import Outcome

MOST_ROWS = 100_000  # of scores that tables are worked out of at a time, unless more belong to one row


def scores_of(outcome: Outcome) -> Iterator[pd.DataFrame]:
    """All scores with their keys, those of a task, bug, level and method at a time, or fewer where they are many: of
    cells in which the bug took and no method failed."""
    plan = outcome.plan
    places: dict[tuple[str, str, str], list[int]] = {}
    for number, cell in enumerate(plan.cells):
        if outcome.took(number):
            places.setdefault(place_of(cell), []).append(number)
    for place, numbers in places.items():
        for method, _ in plan.methods:
            records = {number: outcome.records.get((number, method.name)) for number in numbers}
            scored = [number for number, record in records.items() if record is not None and not record.verdict]
            keys = {**dict(zip(PLACE, place, strict=True)), "method": method.name}
            for scores in _portions([outcome.scores(number, method.name) for number in scored]):
                yield labelled(scores, keys)[list(SCORE_COLUMNS)]


def _portions(frames: list[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Rows of frames together where they are few, else those of one control, metric and post after the other."""
    frames = [frame for frame in frames if len(frame)]
    if sum(map(len, frames)) <= MOST_ROWS:
        if frames:
            yield pd.concat(frames, ignore_index=True)
        return
    measured = ["control", "metric", "post"]
    groups = [dict(iter(frame.groupby(measured, sort=False))) for frame in frames]
    for key in dict.fromkeys(key for group in groups for key in group):
        portions = [group.pop(key).drop(columns=measured) for group in groups if key in group]
        yield labelled(pd.concat(portions, ignore_index=True), dict(zip(measured, map(str, key), strict=True)))


def gathered(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """As many parts at a time as have few rows: working out a part costs more than its rows do."""
    waiting: list[pd.DataFrame] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + len(part) > MOST_ROWS:
            yield pd.concat(waiting, ignore_index=True)
            waiting = []
        waiting.append(part)
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def labelled(rows: pd.DataFrame, keys: Mapping[str, str]) -> pd.DataFrame:
    """Rows with columns that say the same in each, in a byte a row."""
    code = np.zeros(len(rows), np.int8)
    return rows.assign(**{name: pd.Categorical.from_codes(code, [key]) for name, key in keys.items()})  # type: ignore[call-overload]
