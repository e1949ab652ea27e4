"""One method less another: against the difference by plain loops, cells that one lacks, and what it says."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attribug.results.difference import COLUMNS, PLACE, difference
from attribug.results.evidence import evidence

Rows = list[dict[str, Any]]


def suite(plain: SimpleNamespace, stream: int, seeds: int, mine: float) -> Rows:
    """Two bugs that both methods met, and one of each alone."""
    random = np.random.default_rng(stream)
    met = {"one": ("mine", "gradient"), "other": ("mine", "gradient"), "third": ("mine",), "fourth": ("gradient",)}
    rows: Rows = []
    for bug, methods in met.items():
        for method in methods:
            fall = mine if method == "mine" else 0.3
            rows += plain.scores(random, "similarity", seeds, 5, fall=fall, keys={"bug": bug, "method": method})
    return rows


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4), st.sampled_from([0.0, 0.3, 0.9]))
def test_it_is_the_difference_of_two_effects(plain: SimpleNamespace, stream: int, seeds: int, mine: float) -> None:
    rows = suite(plain, stream, seeds, mine)
    parts = plain.by_key(rows)
    found = difference(evidence(plain.frame(rows), **plain.settings(seeds)), "mine", "gradient")
    assert tuple(found.table.columns) == COLUMNS
    assert found.table["bug"].tolist() == ["one", "other"]
    for row in found.table.itertuples():
        one, other = (
            next(key for key in parts if key[1] == row.bug and key[4] == name) for name in ("mine", "gradient")
        )
        value, variance, models = plain.combined([(1.0, parts[one]), (-1.0, parts[other])], seeds, plain.tell)
        assert row.difference == pytest.approx(value)
        assert row.difference == pytest.approx(row.effect - row.other_effect)
        if seeds < 3:
            assert math.isnan(row.ci_low)
            assert row.tells == "undecided"
            continue
        half = stats.t.ppf(0.975, models - 1) * math.sqrt(variance)
        assert [row.ci_low, row.ci_high] == pytest.approx([max(value - half, -1.0), min(value + half, 1.0)])
        assert row.tells == ("more" if row.ci_low > 0 else "less" if row.ci_high < 0 else "undecided")


def test_swapped_methods_turn_the_sign(plain: SimpleNamespace) -> None:
    resting = evidence(plain.frame(suite(plain, 1, 4, 2.0)), **plain.settings(4))
    there, back = difference(resting, "mine", "gradient"), difference(resting, "gradient", "mine")
    assert there.table["difference"].tolist() == pytest.approx([-each for each in back.table["difference"]])
    turned = {"more": "less", "less": "more", "undecided": "undecided"}
    assert [turned[each] for each in there.table["tells"]] == back.table["tells"].tolist()
    assert "more" in set(there.table["tells"])
    assert there.table[PLACE].equals(back.table[PLACE])


def test_what_one_of_them_lacks_is_said(plain: SimpleNamespace) -> None:
    found = difference(evidence(plain.frame(suite(plain, 1, 4, 2.0)), **plain.settings(4)), "mine", "gradient")
    assert sorted(line.partition(" lacks ")[0] for line in found.alone) == ["gradient", "mine"]
    more = int((found.table["tells"] == "more").sum())
    assert more
    assert found.conclusion == f"mine minus gradient, 2 cells: more in {more}, less in 0, undecided in {2 - more}"
    assert repr(found).startswith(found.conclusion)
    assert repr(found).count(", more (") == more
