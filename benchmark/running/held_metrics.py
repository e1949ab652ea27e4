"""Kept maps scored again: what a folder was scored by stays, and what is asked for is added."""

from __future__ import annotations

from pathlib import Path

import pydantic

from attribug.errors import InputError
from attribug.plans import planning
from attribug.storage.files import read_json
from attribug.storage.folders import MAPS_INDEX, RUN
from attribug.suites.suite import Suite

MEASURING = ("metrics", "posts")
"""What of a suite tells how maps are scored, and nothing of the maps."""


def with_held(asked: Suite, folder: Path, name: str) -> tuple[Suite, bool, list[str]]:
    """The suite with the metrics that a run's folder holds already, where its maps were kept and nothing else of the
    suite is another; whether they were, so that they shall be kept on; and what there is to say of it, a line each.

    Without kept maps the suite is as it was asked for, and rows that will be gone are told.
    """
    told = read_json(folder / RUN)
    held = _suite(told)
    if not isinstance(told, dict) or held is None or held.name != asked.name:
        return asked, False, []
    sides = _but_metrics(held), _but_metrics(asked)
    if other := [key for key in sides[0] if sides[0][key] != sides[1][key]]:
        line = f"{name} holds a run with other {', '.join(other)}: its tables are replaced; another --out keeps both"
        return asked, False, [line]
    (before, foreign), (now, _) = _pairs(held), _pairs(asked)
    more, gone = [each for each in now if each not in before], [each for each in before if each not in now]
    kept = told.get("maps_kept") is True and (folder / MAPS_INDEX).is_file()
    lines = [f"{name}: rows of {', '.join(foreign)} go: not registered here (--plugin)"] if foreign else []
    if not kept:
        lost = f"{name} was scored by {', '.join(gone)} before: these rows go, since no maps were kept (--keep-maps)"
        return asked, False, [*lines, *([lost] if gone else [])]
    if not gone:
        return asked, True, lines
    if more:
        lines.append(f"{name} keeps maps: scored by {_metrics(before)} as before, and by {', '.join(more)}")
    return asked.model_copy(update={"metrics": [*before, *more], "posts": []}), True, lines


def _suite(told: object) -> Suite | None:
    """The suite of a finished run; None where there is none, or it cannot be read."""
    if not isinstance(told, dict) or "files" not in told:
        return None
    try:
        return Suite.model_validate(told.get("suite"))
    except pydantic.ValidationError:
        return None


def _but_metrics(suite: Suite) -> dict[str, object]:
    return suite.model_dump(exclude={*MEASURING, "description", "cost"})


def _pairs(suite: Suite) -> tuple[list[str], list[str]]:
    """All `metric@post` that a suite is scored by, and the metrics of which nothing is known here."""
    pairs: list[str] = []
    unknown = []
    for name in suite.metrics:
        try:
            measured = planning.measured_by(suite.model_copy(update={"metrics": [name]}))
            pairs += [f"{metric.name}@{post}" for metric, post in measured]
        except InputError:
            unknown.append(name)
    return list(dict.fromkeys(pairs)), unknown


def _metrics(pairs: list[str]) -> str:
    return ", ".join(dict.fromkeys(pair.partition("@")[0] for pair in pairs))
