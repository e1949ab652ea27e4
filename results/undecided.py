"""Why nobody can tell yet: the reason of every open verdict, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from attribug.results.narrative import counted, number
from attribug.results.schema import PERTURBED
from attribug.results.statistics import DETECTS, INVERTED, NEEDED, UNDEFINED

OPEN = "inconclusive"
NO_HEADROOM = "maps had nothing to lose (no headroom)"
NO_REASON = "no reason was written down"
OLD = {"these models only": f"too few models; {NEEDED}"}
"""What earlier versions of attribug wrote, and what it means."""
WARNING = "maps miss the sum"
"""Begins what tables warn of behind a reason, whatever the verdict."""
MOST_NAMED = 6


class Reason(NamedTuple):
    """Why a verdict is open: `kind` is alike for all rows that one thing keeps open, `words` have the row's numbers."""

    kind: str
    words: str


class Group(NamedTuple):
    """Rows that one thing keeps open."""

    kind: str
    rows: tuple[tuple[str, str, str, str], ...]
    """Task, bug, level and method (or its label), in the table's order."""


def explained(rows: pd.DataFrame) -> pd.DataFrame:
    """A table of results as pages show it: the reason of every open row in plain words, a warning behind it kept."""
    told = [
        "; ".join(filter(None, [why_open(row), _apart(str(row.reason))[1]])) if row.verdict == OPEN else row.reason
        for row in rows.itertuples()
    ]
    return rows.assign(reason=pd.Series(told, index=rows.index, dtype=rows["reason"].dtype))


def why_open(row: Any) -> str:
    """The reason of a row of results whose verdict is `inconclusive`, never empty.

    Raises `ValueError` for another verdict, which needs no such reason."""
    return reason(row).words


def reason(row: Any) -> Reason:
    """As `why_open`, with what rows have in common."""
    if row.verdict != OPEN:
        raise ValueError(f"expected an open verdict ({OPEN}), found {row.verdict!r}")
    own, _ = _apart(row.reason)
    if math.isnan(row.ci_low) or math.isnan(row.ci_high):
        told = OLD.get(own, own) or NO_REASON
        return Reason(told, told)
    if row.undefined > UNDEFINED:
        kind = f"more than {UNDEFINED:.0%} of the scores are undefined".replace("%", " %")
        return Reason(kind, f"{100 * row.undefined:.0f} % of the scores are undefined")
    left = _left_open(row.ci_low, row.ci_high)
    if left == ["blind"]:
        return Reason(NO_HEADROOM, NO_HEADROOM)
    if len(left) < 2:
        told = own or NO_REASON
        return Reason(told, told)
    few = f"{_models(row)} are too few to decide between {' and '.join([', '.join(left[:-1]), left[-1]])}"
    return Reason(few, f"interval {number(row.ci_low)}–{number(row.ci_high)}: {few}")


def grouped(rows: pd.DataFrame) -> list[Group]:
    """The open rows of a table by what keeps them open, the most frequent reason first.

    rows: columns of results; where there is a column `label`, it names the method."""
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    for row in rows[rows["verdict"] == OPEN].itertuples():
        name = str(getattr(row, "label", row.method))
        found.setdefault(reason(row).kind, []).append((str(row.task), str(row.bug), str(row.level), name))
    return [Group(kind, tuple(each)) for kind, each in sorted(found.items(), key=lambda item: -len(item[1]))]


def footnotes(rows: pd.DataFrame) -> tuple[list[str], pd.Series]:
    """What keeps rows open, the most frequent first, and the number of each row's reason in that list, from 1 on: 0
    where the verdict is not open."""
    kinds = [group.kind for group in grouped(rows)]
    numbers = [kinds.index(reason(row).kind) + 1 if row.verdict == OPEN else 0 for row in rows.itertuples()]
    return kinds, pd.Series(numbers, index=rows.index, dtype=int)


def lines(rows: pd.DataFrame, most: int = 20) -> list[str]:
    """Why verdicts are open, for a terminal: a line a reason, bug and level with its methods, at most `most` in all;
    the last one says how many were left out."""
    told = []
    tasks = rows["task"].nunique() > 1
    for kind, members in grouped(rows):
        places: dict[str, list[str]] = {}
        for task, bug, level, method in members:
            places.setdefault(f"{f'{task} / ' if tasks else ''}{bug} {level}", []).append(method)
        alike: dict[tuple[str, ...], list[str]] = {}  # one line for places with the same methods
        for place, methods in places.items():
            alike.setdefault(tuple(methods), []).append(place)
        told += [f"? {', '.join(where)}: {named(methods)}: {kind}" for methods, where in alike.items()]
    if len(told) <= most:
        return told
    return [*told[: most - 1], f"? … and {len(told) - most + 1} more: results.csv"]


def named(names: Iterable[str]) -> str:
    """a, b and c; of many the first ones and how many more."""
    listed = list(names)
    if len(listed) > MOST_NAMED:
        return f"{', '.join(listed[: MOST_NAMED - 1])} and {len(listed) - MOST_NAMED + 1} more"
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def _apart(reason: str) -> tuple[str, str]:
    """What a row's reason says of its verdict, and what it warns of."""
    own, found, rest = f"; {reason}".partition(f"; {WARNING}")
    return own.removeprefix("; "), f"{found.removeprefix('; ')}{rest}"


def _left_open(low: float, high: float) -> list[str]:
    """Which verdicts an interval leaves possible, bounds included."""
    reached = {"inverted": low <= INVERTED, "blind": low <= DETECTS and high >= INVERTED, "detects": high >= DETECTS}
    return [verdict for verdict, possible in reached.items() if possible]


def _models(row: Any) -> str:
    """What a row rests on: models, or draws of one that is given."""
    return counted(int(row.seeds), "draw" if row.control == PERTURBED else "model") + " a side"
