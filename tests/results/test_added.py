"""What an explanation adds to bare predictions, against the difference computed again by plain loops."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attribug.results.added import COLUMNS, added
from attribug.results.evidence import evidence
from attribug.results.schema import KEYS

Rows = list[dict[str, Any]]
BARE = ("predictions",)
YARDSTICKS = {"total_variation": "similarity", "background_swap": "alignment"}


def suite(plain: SimpleNamespace, stream: int, seeds: int, *, falls: tuple[float, ...] = (0.0, 0.5)) -> Rows:
    """Two bugs with two explanations each; the first bug has both yardsticks, the second one, a third none."""
    random = np.random.default_rng(stream)
    rows: Rows = []
    for bug, yardsticks in (("one", 2), ("other", 1), ("unmeasured", 0)):
        for method, fall in zip(("gradient", "lime"), falls, strict=True):
            rows += plain.scores(random, "similarity", seeds, 5, fall=fall, keys={"bug": bug, "method": method})
        for metric, layout in list(YARDSTICKS.items())[:yardsticks]:
            keys = {"bug": bug, "method": "predictions", "metric": metric, "post": "none"}
            rows += plain.scores(random, layout, seeds, 5, fall=0.3125, keys=keys)
    return rows


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4), st.randoms(use_true_random=False))
def test_added_is_the_difference_of_two_effects(plain: SimpleNamespace, stream: int, seeds: int, random: Any) -> None:
    rows = suite(plain, stream, seeds)
    parts = plain.by_key(rows)
    random.shuffle(rows)
    found = added(evidence(plain.frame(rows), **plain.settings(seeds)), bare=BARE)
    assert tuple(found.columns) == COLUMNS
    expected = [(key, yardstick) for key in parts for yardstick in parts
                if key[:4] == yardstick[:4] and key[4] != "predictions" and yardstick[4] == "predictions"]  # fmt: skip
    named = list(found[[*KEYS, "yardstick"]].itertuples(index=False, name=None))
    assert named == [(*key, yardstick[5]) for key, yardstick in expected]
    assert len(named) == 2 * 2 + 2 * 1
    for (key, yardstick), row in zip(expected, found.itertuples(), strict=True):
        value, variance, models = plain.combined([(1.0, parts[key]), (-1.0, parts[yardstick])], seeds, plain.tell)
        effects = [plain.mean(plain.models_means(parts[each], plain.tell)) for each in (key, yardstick)]
        assert [row.effect, row.yardstick_effect, row.added] == pytest.approx([*effects, value])
        if seeds < 3:
            assert math.isnan(row.ci_low)
            assert math.isnan(row.ci_high)
            assert row.adds == "undecided"
            continue
        half = stats.t.ppf(0.975, models - 1) * math.sqrt(variance)
        clipped = [max(value - half, -1.0), min(value + half, 1.0)]
        assert [row.ci_low, row.ci_high] == pytest.approx(clipped, abs=1e-6)
        assert row.adds == ("more" if value > half else "less" if value < -half else "undecided")


def test_more_less_and_undecided_all_occur(plain: SimpleNamespace) -> None:
    """Effects of 1, 0 and as much as that of the predictions."""
    drawn = plain.scores(np.random.default_rng(0), "similarity", 4, 16, keys={"method": "predictions"})
    base = [row | {"value": row["benign"] - row["example"] % 2} for row in drawn]  # every second image tells
    rows = [row | {"metric": "total_variation"} for row in base]
    rows += [row | {"method": "always", "value": -3.0} for row in base]
    rows += [row | {"method": "never", "value": 3.0} for row in base]
    rows += [row | {"method": "same"} for row in base]
    found = added(evidence(plain.frame(rows), **plain.settings(4)), bare=BARE).set_index("method")
    assert found["adds"].to_dict() == {"always": "more", "never": "less", "same": "undecided"}
    assert found.loc["same", ["added", "ci_low", "ci_high"]].tolist() == [0, 0, 0]
    assert found.loc["always", "ci_low"] < found.loc["always", "added"] < found.loc["always", "ci_high"]


def test_without_predictions_nothing_is_added(plain: SimpleNamespace) -> None:
    """Nor without anything else, nor between bugs, levels or controls."""
    random = np.random.default_rng(0)
    lime = plain.scores(random, "similarity", 3, 5)
    bare = [row | {"method": "predictions", "metric": "total_variation"} for row in lime]
    elsewhere = [[row | place for row in bare] for place in ({"level": "2"}, {"control": "other"}, {"task": "x"})]
    for rows in (lime, bare, *(lime + moved for moved in elsewhere)):
        found = added(evidence(plain.frame(rows), **plain.settings(3)), bare=BARE)
        assert tuple(found.columns) == COLUMNS
        assert found.empty
    both = evidence(plain.frame(lime + bare), **plain.settings(3))
    assert len(added(both, bare=BARE)) == 1
    assert added(both.select(np.zeros(2, bool)), bare=BARE).empty


def test_yardsticks_of_further_methods_are_told_apart(plain: SimpleNamespace) -> None:
    """Two methods that give what models themselves say, under one metric; neither is measured against the other."""
    rows = plain.scores(np.random.default_rng(0), "similarity", 3, 5)
    for method in ("predictions", "margins"):
        rows += [row | {"method": method, "metric": "total_variation"} for row in rows if row["method"] == "lime"]
    found = added(evidence(plain.frame(rows), **plain.settings(3)), bare=("predictions", "margins"))
    assert set(found["method"]) == {"lime"}
    assert set(found["yardstick"]) == {"total_variation", "margins: total_variation"}
