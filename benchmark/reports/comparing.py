"""Compares runs with each other, with references and with published values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from attribug import metrics
from attribug.errors import InputError, near_misses
from attribug.reports.references import expect_bugs, load_table
from attribug.results import findings, paper, published
from attribug.results.comparison import EFFECT
from attribug.results.comparison import compare as compare_tables
from attribug.results.difference import difference
from attribug.results.evidence import evidence
from attribug.results.headline import headline
from attribug.results.schema import KEYS, TableError

if TYPE_CHECKING:
    from attribug.reports.references import FinishedRun
    from attribug.results.comparison import ComparedTable, Comparison
    from attribug.results.difference import Difference


def compare(
    baseline: str | Path | FinishedRun,
    candidate: str | Path | FinishedRun,
    *,
    tolerance: float | Mapping[str, float] | None = None,
    only_verdicts: bool = False,
    common: bool = False,
) -> Comparison:
    """Compares two runs of one suite: folders, their URLs, results.csv files, names of references, or what `run`
    returned.

    `tolerance`: the difference of values that counts for nothing, of all metrics or by metric (`effect` for effects);
    `only_verdicts` gates verdicts alone; `common` leaves out rows that only one side has, and counts them. See
    `attribug.results.comparison`. Raises `InputError` for what is no table, a damaged one, or one of another suite or
    schema.
    """
    allowed = _tolerances(tolerance)
    sides = [load_table(side) for side in (baseline, candidate)]
    for side in sides:
        expect_bugs(side)
    present = {name for side in sides for name in side.results["metric"].unique()} | {EFFECT, ""}
    for name in allowed:
        if name not in present:
            raise InputError(f"tolerance: neither table has a metric {name!r}{near_misses(name, present - {''})}")
    kinds = {row["name"]: row["kind"] for row in metrics.described()}
    try:
        return compare_tables(
            sides[0], sides[1], tolerance=allowed, only_verdicts=only_verdicts, kinds=kinds, common=common
        )
    except TableError as error:
        raise InputError(str(error)) from error


def compare_methods(run: str | Path | FinishedRun, method: str, other: str) -> Difference:
    """The effects of one method less those of another in the cells of a run's matrix, with the interval of each
    difference over the models and images that both share: see `attribug.results.difference`.

    Raises `InputError` for what is no run's folder with scores, and for methods that it does not have.
    """
    table = load_table(run)
    expect_bugs(table)
    if table.scores is None or not table.facts:
        raise InputError(f"{table.name}: expected a run's folder, whose scores tell differences, found a table alone")
    known = list(dict.fromkeys(table.results["method"].astype(str)))
    for name in (method, other):
        if name not in known:
            raise InputError(f"--methods: expected methods of {table.name} ({', '.join(known)}), found {name!r}"
                             f"{near_misses(name, known)}")  # fmt: skip
    if method == other:
        raise InputError(f"--methods: expected two methods, found {method!r} twice")
    pieces, suite = table.facts["pieces"], table.facts["suite"]
    rows = headline(table.results, suite, pieces)
    shown = pd.MultiIndex.from_frame(rows.loc[rows["method"].isin([method, other]), list(KEYS)].astype(str))
    scores = table.scores[table.scores["method"].isin([method, other])]
    scores = scores[pd.MultiIndex.from_frame(scores[list(KEYS)].astype(str)).isin(shown)]
    if scores.empty:
        raise InputError(f"{table.name}: expected scores of {method} and {other} in the matrix, found none")
    told = {name: {metric: facts[name] for metric, facts in pieces["metrics"].items()} for name in ("kind", "visible")}
    resting = evidence(scores, seeds_total=int(suite["seeds"]), kinds=told["kind"], visible=told["visible"])
    return difference(resting, method, other)


def compare_published(candidate: str | Path | FinishedRun) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Published values beside a run's, findings on each of its tasks, and what it does otherwise than the paper: see
    `attribug.results.published`, `findings` and `paper`.

    Raises `InputError` as `compare`, and for a table that does not know its bugs' primary metrics.
    """
    table = load_table(candidate)
    expect_bugs(table)
    return *beside_published(table), paper.deviations(table.results, table.facts)


def beside_published(table: ComparedTable) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Published values and findings beside those of a table that was loaded."""
    bugs = table.facts.get("pieces", {}).get("bugs")
    if not bugs:
        raise InputError(f"{table.name}: expected a run's folder or a reference, which know their bugs, found a table")
    primary, controls = ({name: bug[fact] for name, bug in bugs.items()} for fact in ("primary", "control"))
    return published.beside(table.results, controls), findings.findings(table.results, primary, controls)


def _tolerances(tolerance: float | Mapping[str, float] | None) -> dict[str, float]:
    """By metric, `""` for all."""
    given = {} if tolerance is None else dict(tolerance) if isinstance(tolerance, Mapping) else {"": tolerance}
    allowed = {}
    for name, value in given.items():
        said = f"tolerance{f' {name}' if name else ''}: expected a number of at least 0, found {value!r}"
        try:
            allowed[str(name)] = float(value)
        except (TypeError, ValueError):
            raise InputError(said) from None
        if not 0 <= allowed[str(name)] < math.inf:
            raise InputError(said)
    return allowed
