"""Verdicts under further suite seeds, against plain loops over all pairs of runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribug.results.replication import (
    ALL,
    CELL,
    COUNTS,
    DECIDED,
    MATRIX,
    Replication,
    contradictions,
    counted_cells,
    paired,
    sentence,
    summed,
)
from attribug.results.schema import KEYS, RESULT_COLUMNS, VERDICTS, TableError

NO_NUMBERS = ("not taken", "unsupported", "failed")
Cells = list[tuple[str, str, str, str]]


def row(level: str, method: str, metric: str, verdict: str, effect: float, half: float) -> dict[str, Any]:
    """A row of results; half an interval's width may be NaN."""
    numbers = dict.fromkeys(("undefined", "value", "sem", "benign", "floor"), 0.0)
    keys = {"suite": "made", "task": "t", "bug": "b", "level": level, "control": "c", "method": method,
            "metric": metric, "post": "sum", "seeds": 3, "n": 8}  # fmt: skip
    effect = math.nan if verdict in NO_NUMBERS else effect
    return keys | numbers | {"effect": effect, "ci_low": effect - half, "ci_high": effect + half, "verdict": verdict,
                             "reason": ""}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS))


@st.composite
def tables(draw: st.DrawFn) -> list[pd.DataFrame]:
    """Of two to four runs, each of some of the same rows."""
    names = [(level, method, metric) for level in ("2", "10", "all") for method in "xy" for metric in ("m", "o")]
    made = []
    for _ in range(draw(st.integers(2, 4))):
        present = draw(st.lists(st.sampled_from(names), unique=True))
        numbers = st.tuples(
            st.sampled_from(VERDICTS), st.sampled_from((0.2, 0.5, 0.6)), st.sampled_from((0, 0.1, math.nan))
        )
        made.append(table([row(*name, *draw(numbers)) for name in present]))
    return made


def slowly(
    runs: list[pd.DataFrame], metrics: tuple[str, ...]
) -> tuple[dict[tuple[str, ...], dict[str, int]], list[Any]]:
    """Counts by cell, and the contradicted keys with the numbers of both runs."""
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    found = []
    for i, first in enumerate(runs):
        for j, second in enumerate(runs):
            others = {tuple(each[name] for name in KEYS): each for _, each in second.iterrows()}
            for _, mine in first.iterrows():
                if i == j or mine["metric"] not in metrics:
                    continue
                key = tuple(mine[name] for name in KEYS)
                other = others.get(key)
                of = counts.setdefault(tuple(mine[name] for name in CELL), dict.fromkeys(COUNTS, 0))
                if mine["verdict"] in DECIDED:
                    of["decided"] += 1
                    if other is None or other["verdict"] in NO_NUMBERS:
                        of["unmeasured"] += 1
                    elif other["verdict"] == "inconclusive":
                        of["open"] += 1
                    elif other["verdict"] == mine["verdict"]:
                        of["confirmed"] += 1
                    else:
                        of["contradicted"] += 1
                        found += [(i, j, key)] * (i < j)
                if other is not None and not math.isnan(mine["ci_low"]) and not math.isnan(other["effect"]):
                    of["intervals"] += 1
                    of["covered"] += mine["ci_low"] <= other["effect"] <= mine["ci_high"]
    return counts, found


@settings(deadline=None)
@given(runs=tables())
def test_the_counts_are_those_of_slow_loops(runs: list[pd.DataFrame]) -> None:
    pairs = paired(runs, range(len(runs)))
    shown = pairs["metric"] == "m"
    counted = counted_cells(pairs, shown)
    listed = contradictions(pairs, shown)
    for rows, metrics in ((MATRIX, ("m",)), (ALL, ("m", "o"))):
        expected, found = slowly(runs, metrics)
        part = counted[counted["rows"] == rows]
        assert {tuple(each[name] for name in CELL): {name: each[name] for name in COUNTS}
                for _, each in part.iterrows()} == expected  # fmt: skip
        total = summed(counted, (), rows).iloc[0]
        assert all(total[name] == sum(each[name] for each in expected.values()) for name in COUNTS)
        assert total["decided"] == total[["confirmed", "open", "contradicted", "unmeasured"]].sum()
        told = listed if rows == ALL else listed[listed["rows"] == MATRIX]
        assert sorted(
            (e["seed"], e["other_seed"], tuple(e[name] for name in KEYS)) for _, e in told.iterrows()
        ) == sorted(found)


def test_levels_are_in_their_order_and_so_are_sums() -> None:
    runs = [table([row(level, "x", "m", "detects", 0.9, 0.1) for level in ("all", "10", "2")])] * 2
    pairs = paired(runs, (0, 1))
    counted = counted_cells(pairs, pairs["metric"] == "m")
    assert list(summed(counted, ("bug", "level"))["level"]) == ["2", "10", "all"]


def planted(verdict: str = "blind") -> Replication:
    """Two runs; of two rows, one is another verdict in the second."""
    runs = [
        table([row("1", "x", "m", "detects", 0.9, 0.1), row("1", "y", "m", "detects", 0.8, 0.1)]),
        table([row("1", "x", "m", "detects", 0.85, 0.1), row("1", "y", "m", verdict, 0.5, 0.05)]),
    ]
    pairs = paired(runs, (0, 1))
    shown = pairs["metric"] == "m"
    return Replication((0, 1), counted_cells(pairs, shown), contradictions(pairs, shown))


def test_a_planted_contradiction_is_found_with_both_effects() -> None:
    found = planted()
    (only,) = found.contradictions.to_dict("records")
    assert (only["rows"], only["method"], only["verdict"], only["other_verdict"]) == (MATRIX, "y", "detects", "blind")
    told = [only[name] for name in ("effect", "ci_low", "ci_high", "other_effect", "other_ci_low", "other_ci_high")]
    assert told == pytest.approx([0.8, 0.7, 0.9, 0.5, 0.45, 0.55])
    assert sentence(found) == (
        "4 comparisons of a decided verdict of the matrix with that of another suite seed, of 2: 2 (50 %) confirm it, "
        "0 (0 %) leave it open, 2 (50 %) contradict it, 0 (0 %) did not measure it; 50 % of 4 intervals hold the other "
        "seed's effect."
    )


@pytest.mark.parametrize("verdict", ["detects", "inconclusive", "failed"])
def test_nothing_else_is_a_contradiction(verdict: str) -> None:
    found = planted(verdict)
    assert found.contradictions.empty
    assert summed(found.counts, ())["contradicted"].item() == 0


def test_no_decided_verdict_is_said_so() -> None:
    runs = [table([row("1", "x", "m", "inconclusive", 0.5, math.nan)])] * 2
    pairs = paired(runs, (0, 1))
    found = Replication(
        (0, 1), counted_cells(pairs, pairs["metric"] == "m"), contradictions(pairs, pairs["metric"] == "m")
    )
    assert sentence(found).startswith("No comparison of a decided verdict")
    assert np.isnan(summed(found.counts, ())["coverage"].item())


def test_what_are_no_replicates_is_refused() -> None:
    good = table([row("1", "x", "m", "detects", 0.9, 0.1)])
    for runs, seeds in (([good], [0]), ([], []), ([good, good], [1, 1])):
        with pytest.raises(TableError, match="at least 2 different seeds"):
            paired(runs, seeds)
    with pytest.raises(TableError, match="one row a key, found two in the results of seed 1"):
        paired([good, pd.concat([good, good])], [0, 1])
    with pytest.raises(TableError, match="none named verdict"):
        paired([good, good.drop(columns="verdict")], [0, 1])
