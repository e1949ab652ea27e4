"""How far verdicts can be relied on: a suite's results beside those of further suite seeds, which share no model.

Every ordered pair of runs is looked at, for each run may be the first to decide. A verdict that decides (detects,
blind, inverted) is `confirmed` where the other run gives the same, `open` where that is inconclusive, `contradicted`
where it decides otherwise, and `unmeasured` where it has no scores or no such row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribug.results.schema import KEYS, RESULT_COLUMNS, TableError, expect_columns, level_order

DECIDED = ("detects", "blind", "inverted")
FATES = ("confirmed", "open", "contradicted", "unmeasured")
"""What becomes of a decided verdict in another run."""
UNDECIDED = ""
"""Fate of a verdict that decides nothing, of which nothing can become."""
TOLD = ("verdict", "effect", "ci_low", "ci_high")
PLACE, CELL = ("task", "bug", "level"), ("task", "bug", "level", "method")
COUNTS = ("decided", *FATES, "intervals", "covered")
"""`intervals`: rows with an interval that have an effect in the other run; `covered`: those whose interval holds it."""
MATRIX, ALL = "matrix", "all"
"""Which rows are counted: each bug's primary metric against its main control, or all."""
COUNT_COLUMNS = ("rows", *CELL, *COUNTS)
CONTRADICTION_COLUMNS = ("rows", *KEYS, "seed", *TOLD, *(f"other_{name}" for name in ("seed", *TOLD)))


@dataclass(frozen=True)
class Replication:
    """What further suite seeds say of a run's verdicts."""

    seeds: tuple[int, ...]
    """Of the suites, the run's own first."""
    counts: pd.DataFrame
    """Columns `COUNT_COLUMNS`: see `counted_cells`."""
    contradictions: pd.DataFrame
    """Columns `CONTRADICTION_COLUMNS`: see `contradictions`."""
    stale: str = ""
    """Why the numbers are not those of the results that lie there now; empty where they are."""


def paired(tables: Sequence[pd.DataFrame], seeds: Sequence[int]) -> pd.DataFrame:
    """Every row of every run beside the row with the same key in every other run.

    Args:
        tables: results of two runs or more, columns `RESULT_COLUMNS`.
        seeds: of their suites, all different.

    Returns:
        Columns `KEYS`, `seed`, `TOLD`, the last five again as `other_…` (missing where the other run has no such row),
        `fate` (of `FATES`, or `UNDECIDED`), `interval` and `covered` (bool): whether the first has an interval and the
        other an effect, and whether that lies in it, ends included.

    Raises:
        TableError: fewer than two runs, seeds that repeat, columns of no results table, or two rows of a key.
    """
    if len(tables) < 2 or len(set(seeds)) < len(tables):
        raise TableError(
            f"expected results of at least 2 different seeds, found {', '.join(map(str, seeds)) or 'none'}"
        )
    told: list[tuple[int, pd.DataFrame]] = []
    for seed, table in zip(seeds, tables, strict=True):
        expect_columns(table.columns, RESULT_COLUMNS)
        if table.duplicated(list(KEYS)).any():
            raise TableError(f"expected one row a key, found two in the results of seed {seed}")
        told.append((seed, table[[*KEYS, *TOLD]]))
    parts = []
    for (seed, mine), (other_seed, other) in permutations(told, 2):
        renamed = other.rename(columns={name: f"other_{name}" for name in TOLD})
        found = mine.merge(renamed, on=list(KEYS), how="left", validate="one_to_one")
        parts.append(found.assign(seed=seed, other_seed=other_seed))
    pairs = pd.concat(parts, ignore_index=True)
    interval = pairs[["ci_low", "ci_high", "other_effect"]].notna().all(axis=1)
    inside = (pairs["ci_low"] <= pairs["other_effect"]) & (pairs["other_effect"] <= pairs["ci_high"])
    return pairs.assign(fate=_fates(pairs), interval=interval, covered=interval & inside)


def _fates(pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
    mine, other = pairs["verdict"], pairs["other_verdict"]
    decided = mine.isin(DECIDED)
    cases = [~decided, mine == other, other.isin(DECIDED), other == "inconclusive"]
    return np.select(cases, [UNDECIDED, "confirmed", "contradicted", "open"], "unmeasured")


def counted_cells(pairs: pd.DataFrame, shown: pd.Series) -> pd.DataFrame:
    """What became of the verdicts, a row a cell and a choice of rows (`MATRIX`, then `ALL`), columns `COUNT_COLUMNS`;
    levels in their order. Sums over cells are the counts of a bug, a method or everything.

    pairs: of `paired`; shown: whether each of its rows belongs to the matrix.
    """
    numbers = pd.DataFrame({"decided": pairs["fate"] != UNDECIDED, **{fate: pairs["fate"] == fate for fate in FATES},
                            "intervals": pairs["interval"], "covered": pairs["covered"]}).astype(np.int64)  # fmt: skip
    table = pd.concat([pairs[list(CELL)], numbers], axis=1)
    parts = [
        part.groupby(list(CELL), sort=False)[list(COUNTS)].sum().reset_index().assign(rows=rows)
        for rows, part in ((MATRIX, table[shown]), (ALL, table))
    ]
    return _ordered(pd.concat(parts, ignore_index=True))[list(COUNT_COLUMNS)].reset_index(drop=True)


def contradictions(pairs: pd.DataFrame, shown: pd.Series) -> pd.DataFrame:
    """The verdicts that another run contradicts, each pair of runs once, with what both found: columns
    `CONTRADICTION_COLUMNS`, those of the matrix first. Arguments as of `counted_cells`."""
    once = pairs["seed"] < pairs["other_seed"]
    found = pairs.assign(rows=np.where(shown, MATRIX, ALL))[once & (pairs["fate"] == "contradicted")]
    return _ordered(found)[list(CONTRADICTION_COLUMNS)].reset_index(drop=True)


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in ("task", "bug", "level", "method", "control", "metric", "post") if name in table.columns]

    def key(place: int) -> tuple[object, ...]:
        row = table.iloc[place]
        return row["rows"] != MATRIX, *(level_order(row[name]) if name == "level" else row[name] for name in names)

    return table.iloc[sorted(range(len(table)), key=key)]


def summed(counts: pd.DataFrame, by: Sequence[str], rows: str = MATRIX) -> pd.DataFrame:
    """Counts by some columns of `CELL`, in the order of the table; with `coverage`, the share of intervals that hold
    the other run's effect (NaN where there is none). Without columns, one row of everything."""
    part = counts[counts["rows"] == rows]
    sums = part.groupby(list(by), sort=False)[list(COUNTS)].sum().reset_index() if by else _total(part)
    share = sums["covered"] / sums["intervals"].where(sums["intervals"] > 0)
    return sums.assign(coverage=share.astype(np.float64))


def _total(part: pd.DataFrame) -> pd.DataFrame:
    return part[list(COUNTS)].sum().to_frame().T.astype(np.int64)


def sentence(replication: Replication, rows: str = MATRIX) -> str:
    """The counts in one sentence."""
    total = summed(replication.counts, (), rows).iloc[0]
    verdict = "a decided verdict of the matrix" if rows == MATRIX else "a decided verdict of any row"
    decided, seeds = int(total["decided"]), len(replication.seeds)
    parts = [
        f"{decided} comparisons of {verdict} with that of another suite seed, of {seeds}: "
        f"{_share(total['confirmed'], decided)} confirm it, {_share(total['open'], decided)} leave it open, "
        f"{_share(total['contradicted'], decided)} contradict it, "
        f"{_share(total['unmeasured'], decided)} did not measure it"
    ]
    if not decided:
        parts = [f"No comparison of {verdict} with that of another suite seed, of {seeds}: none is decided"]
    if total["intervals"]:
        held = f"{100 * total['coverage']:.0f} % of {total['intervals']:.0f} intervals hold the other seed's effect"
        parts.append(held)
    return "; ".join(parts) + "."


def _share(count: float, whole: int) -> str:
    return f"{count:.0f} ({100 * count / whole:.0f} %)" if whole else "0"
