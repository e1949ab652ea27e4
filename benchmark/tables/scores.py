"""All scores of a run, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from attribug.results.headline import PLACE
from attribug.results.schema import SCORE_COLUMNS
from attribug.tables.results import place_of

if TYPE_CHECKING:
    from attribug.running.outcome import Outcome

MEASURED = ("control", "metric", "post")
MOST_ROWS = 100_000  # of scores that tables are worked out of at a time, unless more belong to one row


def scores_of(outcome: Outcome) -> Iterator[pd.DataFrame]:
    """All scores with their keys, those of a task, bug, level and method at a time, or fewer where they are many: of
    cells in which the bug took and no method failed."""
    plan = outcome.plan
    places: dict[tuple[str, str, str], list[int]] = {}
    for number, cell in plan.contrasted:
        if outcome.took(number):
            places.setdefault(place_of(cell), []).append(number)
    for place, numbers in places.items():
        for method, _ in plan.methods:
            records = {number: outcome.records.get((number, method.name)) for number in numbers}
            scored = [number for number, record in records.items() if record is not None and not record.verdict]
            keys = {**dict(zip(PLACE, place, strict=True)), "method": method.name}
            named = partial(labelled, keys=keys)
            yield from map(named, _portions(outcome, method.name, scored))  # holds on to none of them


def _portions(outcome: Outcome, method: str, numbers: Sequence[int]) -> Iterator[pd.DataFrame]:
    """A method's rows of some cells together where they are few, else those of one control, metric and post after the
    other, read again for each."""
    filled = [number for number in numbers if outcome.rows[number, method]]
    if sum(outcome.rows[number, method] for number in filled) <= MOST_ROWS:
        if filled:
            yield pd.concat([outcome.scores(number, method) for number in filled], ignore_index=True)
        return
    occurring = {number: dict.fromkeys(_measured(outcome.scores(number, method, MEASURED))) for number in filled}
    for key in dict.fromkeys(key for measured in occurring.values() for key in measured):
        of = dict(zip(MEASURED, key, strict=True))
        portions = (outcome.scores_of(number, method, of) for number in filled if key in occurring[number])
        yield labelled(pd.concat(portions, ignore_index=True), of)


def _measured(scores: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Controls, metrics and posts that occur together, as they appear first."""
    return list(scores[list(MEASURED)].drop_duplicates().itertuples(index=False, name=None))


def gathered(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """As many parts at a time as have few rows: working out a part costs more than its rows do."""
    waiting: list[pd.DataFrame] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + len(part) > MOST_ROWS:
            yield _emptied(waiting)
        waiting.append(part)
        del part  # memory holds what is worked on
    if waiting:
        yield _emptied(waiting)


def _emptied(waiting: list[pd.DataFrame]) -> pd.DataFrame:
    """All parts together, of which nobody else holds any."""
    parts, waiting[:] = waiting[:], []
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def labelled(rows: pd.DataFrame, keys: Mapping[str, str]) -> pd.DataFrame:
    """Rows with columns that say the same in each, in a byte a row; in the order of `SCORE_COLUMNS`."""
    code = np.zeros(len(rows), np.int8)
    named = {name: pd.Categorical.from_codes(code, [key]) for name, key in keys.items()}  # type: ignore[call-overload]
    return rows.assign(**named)[[name for name in SCORE_COLUMNS if name in named or name in rows]]
