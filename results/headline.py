"""The rows that tables and figures of a run are about: each bug's primary metric against its main control, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attribug.results.schema import level_order
from attribug.results.summary import PREDICTIONS, is_headline

PLACE = ["task", "bug", "level"]
HONEST = ("random", "edges", PREDICTIONS)
"""Methods that explain nothing: what no explanation may fall short of."""
CONSTRUCTED = "true by construction"
"""Begins the reason of rows that measure what the bug's checks measured."""

Pieces = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""What run.json tells of bugs, methods, metrics and tasks, by kind and name."""


def headline(results: pd.DataFrame, suite: Mapping[str, Any], pieces: Pieces) -> pd.DataFrame:
    """The matrix's rows, sorted by place and method as the suite names them.

    Columns of results and: `label`, the method, or method and metric where outputs were asked directly about another
    version of the input; `honest`, whether it explains nothing; `constructed`, whether it is true by construction.

    Raises:
        TableError: columns of no results table.
        ValueError: a bug of which `pieces` tell nothing.
    """
    bugs, metrics = pieces["bugs"], pieces["metrics"]
    controls = {name: str(bug["control"]) for name, bug in bugs.items()}
    main = is_headline(results, {name: str(bug["primary"]) for name, bug in bugs.items()}, main_control=controls)
    wanted = ("response", "probabilities")
    direct = [name for name, facts in metrics.items() if (facts["kind"], facts["reads"]) == wanted]
    asked = results["metric"].isin(direct) & (results["control"] == results["bug"].map(controls)) & ~main
    rows = results[main | asked].reset_index(drop=True)
    queries = rows["metric"].isin(direct) & (rows["method"] == PREDICTIONS)
    rows = rows.assign(
        label=rows["method"].mask(queries, rows["method"] + ": " + rows["metric"]),
        honest=rows["method"].isin(HONEST),
        constructed=rows["reason"].str.startswith(CONSTRUCTED),
    )
    order: list[Any] = [*places(results, suite)]
    last = len(rows)
    methods = {name: number for number, name in enumerate(suite.get("methods", ()))}
    keys = [
        (order.index((row.task, row.bug, row.level)), row.honest, methods.get(row.method, last), row.label)
        for row in rows.itertuples()
    ]
    return rows.iloc[sorted(range(last), key=keys.__getitem__)].reset_index(drop=True)


def places(results: pd.DataFrame, suite: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Task, bug and level of all cells of a run: tasks and bugs as the suite names them, weak levels first."""
    found = results[PLACE].drop_duplicates().itertuples(index=False, name=None)

    def order(place: tuple[str, str, str]) -> tuple[Any, ...]:
        task, bug, level = place
        return _position(suite, "tasks", task), task, _position(suite, "bugs", bug), bug, level_order(level)

    return sorted(found, key=order)


def at(rows: pd.DataFrame, place: Sequence[str]) -> pd.DataFrame:
    """The rows of a place: a task; a task and bug; a task, bug and level."""
    return rows[(rows[PLACE[: len(place)]] == list(place)).all(axis=1)]


def _position(suite: Mapping[str, Any], kind: str, name: str) -> int:
    names = list(suite.get(kind, ()))
    return names.index(name) if name in names else len(names)
