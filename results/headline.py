"""The rows that tables and figures of a run are about: each bug's primary metric against its main control, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attribug.results.schema import MENDED, level_order
from attribug.results.summary import expect_entries, is_headline

PLACE = ["task", "bug", "level"]
EXPLANATION, NULL, BARE = "explanation", "null", "bare"
"""Roles of methods. The last two are yardsticks, which explain nothing: what knows nothing of the model, so that it may
detect nothing; and what models themselves say, of which no explanation may fall short."""
CONSTRUCTED = "true by construction"
"""Begins the reason of rows that measure what the bug's checks measured."""

Pieces = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""What run.json tells of bugs, methods, metrics and tasks, by kind and name."""


def role(method: Mapping[str, Any]) -> str:
    """A method's role, from what run.json tells of it."""
    return BARE if method["bare"] else EXPLANATION if method["explains"] else NULL


def headline(results: pd.DataFrame, suite: Mapping[str, Any], pieces: Pieces) -> pd.DataFrame:
    """The matrix's rows, sorted by place and method as the suite names them.

    Columns of results and: `label`, the method, or method and metric where outputs were asked directly about another
    version of the input; `role`; `honest`, whether it explains nothing; `own`, whether another metric than the
    bug's primary one stands for the method; `constructed`, whether it is true by construction.

    Raises:
        TableError: columns of no results table.
        ValueError: a bug or a method of which `pieces` tell nothing.
    """
    bugs, told = pieces["bugs"], pieces["methods"]
    expect_entries("method", results["method"].unique(), {"fact": told})
    controls = {name: str(bug["control"]) for name, bug in bugs.items()}
    primary = {name: str(bug["primary"]) for name, bug in bugs.items()}
    headlines = {name: str(facts["headline"]) for name, facts in told.items() if facts["headline"]}
    main = is_headline(results, primary, main_control=controls, headlines=headlines)
    direct = [name for name, facts in pieces["metrics"].items() if facts["asks_directly"]]
    asked = results["metric"].isin(direct) & (results["control"] == results["bug"].map(controls)) & ~main
    roles = {name: role(told[name]) for name in results["method"].unique()}
    rows = results.assign(
        label=results["method"].mask(asked, results["method"] + ": " + results["metric"]),
        role=results["method"].map(roles),
        honest=results["method"].map(roles) != EXPLANATION,
        own=results["method"].isin(headlines),
        constructed=results["reason"].str.startswith(CONSTRUCTED),
    )[main | asked].reset_index(drop=True)
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
    present = results[PLACE].drop_duplicates().itertuples(index=False, name=None)

    def order(place: tuple[str, str, str]) -> tuple[Any, ...]:
        task, bug, level = place
        bug, _, fix = bug.partition(MENDED)
        mended = bool(fix), _position(suite, "fixes", fix), fix
        return _position(suite, "tasks", task), task, _position(suite, "bugs", bug), bug, level_order(level), mended

    return sorted(present, key=order)


def at(rows: pd.DataFrame, place: Sequence[str]) -> pd.DataFrame:
    """The rows of a place: a task; a task and bug; a task, bug and level."""
    return rows[(rows[PLACE[: len(place)]] == list(place)).all(axis=1)]


def _position(suite: Mapping[str, Any], kind: str, name: str) -> int:
    names = list(suite.get(kind, ()))
    return names.index(name) if name in names else len(names)
