"""Mean effects and the ranks they leave open, against loops over pairs of methods."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attribug.results.evidence import evidence
from attribug.results.ranking import CELL, COLUMNS, ranking

Rows = list[dict[str, Any]]
BARE = ("predictions",)
METHODS = ("gradient", "lime", "rise", "predictions")
CELLS = ({"bug": "one"}, {"bug": "other", "level": "2"}, {"bug": "other", "task": "textures"})


def suite(plain: SimpleNamespace, stream: int, seeds: int = 3, cells: int = 2, step: float = 0.2) -> Rows:
    """Every method in every cell, stronger ones first; in the second cell alignments."""
    random = np.random.default_rng(stream)
    rows: Rows = []
    for number, method in enumerate(METHODS):
        for cell, layout in zip(CELLS[:cells], ("similarity", "alignment", "flips"), strict=False):
            keys = {**cell, "method": method}
            rows += plain.scores(random, layout, seeds, 6, fall=round(16 * (0.6 - step * number)) / 16, keys=keys)
    return rows


def ranked(plain: SimpleNamespace, rows: Rows, *methods: str, seeds: int = 3) -> pd.DataFrame:
    return ranking(evidence(plain.frame(rows), **plain.settings(seeds)), methods, bare=BARE).set_index("method")


def plain_ranking(plain: SimpleNamespace, rows: Rows, seeds: int) -> dict[str, list[float]]:
    """By method with all cells: mean effect, ends of its interval, best and worst rank (NaN: has none)."""
    cells = sorted({tuple(row[name] for name in CELL) for row in rows if row["method"] != "predictions"})
    parts: dict[str, dict[tuple[str, ...], Rows]] = {}
    for row in rows:
        parts.setdefault(row["method"], {}).setdefault(tuple(row[name] for name in CELL), []).append(row)
    whole = {method: [of_cell[cell] for cell in cells] for method, of_cell in parts.items() if cells <= sorted(of_cell)}

    def ends(groups: list[tuple[float, Rows]]) -> tuple[float, float, float]:
        value, variance, models = plain.combined(groups, seeds, plain.tell)
        half = stats.t.ppf(0.975, models - 1) * math.sqrt(max(variance, 0)) if variance >= 0 else math.nan
        return value, value - half, value + half

    found = {}
    explaining = [method for method in whole if method != "predictions"]
    for method, groups in whole.items():
        value, low, high = ends([(1 / len(cells), rows) for rows in groups])
        best, worst = 1, len(explaining)
        for other in explaining:
            if other != method:
                pair = [(1 / len(cells), rows) for rows in groups] + [(-1 / len(cells), rows) for rows in whole[other]]
                difference = ends(pair)
                best += difference[2] < 0  # the other one is better for certain
                worst -= difference[1] > 0
        ranks = [best, worst] if method in explaining else [math.nan, math.nan]
        found[method] = [value, *np.clip([low, high], 0, 1), *ranks]
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 3), st.sampled_from([0.05, 0.2, 0.6]))
def test_ranks_are_what_a_loop_over_pairs_says(
    plain: SimpleNamespace, stream: int, seeds: int, cells: int, step: float
) -> None:
    rows = suite(plain, stream, seeds, cells, step)
    found = ranked(plain, rows, seeds=seeds)
    expected = plain_ranking(plain, rows, seeds)
    assert sorted(found.index) == sorted(METHODS)
    for method, numbers in expected.items():
        columns = ["mean_effect", "ci_low", "ci_high", "rank_low", "rank_high"]
        assert found.loc[method, columns].tolist() == pytest.approx(numbers, abs=1e-6, nan_ok=True)
    assert (found["cells"] == cells).all()
    assert (found["missing"] == 0).all()
    assert (found["reason"] == "").all()
    assert found["mean_effect"].is_monotonic_decreasing
    explaining = found.drop(index="predictions")
    assert (explaining["rank_low"] <= explaining["rank_high"]).all()
    if seeds < 3:
        assert (explaining["rank_low"] == 1).all()
        assert (explaining["rank_high"] == 3).all()


def test_ranks_part_where_methods_differ_and_only_there(plain: SimpleNamespace) -> None:
    """The best, two equal ones, the worst."""
    random = np.random.default_rng(0)
    drawn = [row for bug in ("one", "other") for row in plain.scores(random, "similarity", 4, 16, keys={"bug": bug})]
    base = [row | {"value": row["benign"] - row["example"] % 2} for row in drawn]  # every second image tells

    def moved(method: str, by: float) -> Rows:
        return [row | {"method": method, "value": by} for row in base]

    rows = moved("worst", 3.0) + base + [row | {"method": "twin"} for row in base] + moved("best", -3.0)
    found = ranked(plain, rows, seeds=4)
    assert list(found.index) == ["best", "lime", "twin", "worst"]
    assert found["rank_low"].tolist() == [1, 2, 2, 4]
    assert found["rank_high"].tolist() == [1, 3, 3, 4]
    assert found["mean_effect"].tolist() == [1, 0.75, 0.75, 0]
    assert tuple(ranking(evidence(plain.frame(rows), **plain.settings(4)), bare=BARE).columns) == COLUMNS


def test_equal_methods_share_all_ranks(plain: SimpleNamespace) -> None:
    base = [row for row in suite(plain, 1) if row["method"] == "lime"]
    rows = [row | {"method": f"m{number}"} for number in range(5) for row in base]
    found = ranked(plain, rows)
    assert list(found.index) == [f"m{number}" for number in range(5)]
    assert (found["rank_low"] == 1).all()
    assert (found["rank_high"] == 5).all()
    assert found["mean_effect"].nunique() == 1


def test_a_missing_cell_leaves_neither_mean_nor_rank(plain: SimpleNamespace) -> None:
    """What is left would be an easier bug; the others' ranks are among themselves."""
    rows = suite(plain, 2, step=0.3)
    lacking = [row for row in rows if (row["method"], row["bug"]) != ("gradient", "other")]
    whole, found = ranked(plain, rows), ranked(plain, lacking, "gradient", "declined")
    assert list(found.index)[-2:] == ["declined", "gradient"]
    numbers = ["mean_effect", "ci_low", "ci_high", "rank_low", "rank_high"]
    assert found.loc[["gradient", "declined"], numbers].isna().all(axis=None)
    assert found.loc["gradient", ["cells", "missing", "reason"]].tolist() == [1, 1, "no effect in 1 of 2 cells"]
    assert found.loc["declined", ["cells", "missing", "reason"]].tolist() == [0, 2, "no effect in 2 of 2 cells"]
    others = ["lime", "rise"]
    assert found.loc[others, "mean_effect"].tolist() == whole.loc[others, "mean_effect"].tolist()
    assert found["rank_high"].max() == 2
    assert whole["rank_high"].max() == 3
    alone = [row for row in lacking if row["bug"] == "one"]
    assert not math.isnan(ranked(plain, alone)["mean_effect"]["gradient"])


@pytest.mark.parametrize(("every", "usable"), [(10, True), (9, False)])
def test_more_than_a_tenth_undefined_counts_as_missing(plain: SimpleNamespace, every: int, usable: bool) -> None:
    base = [row for row in suite(plain, 3) if row["method"] == "lime"]
    spoilt = [row | {"method": "spoilt", "value": math.nan if row["bug"] == "one" and number % every == 0 else 0.5}
              for number, row in enumerate(base)]  # fmt: skip
    first = [row for row in spoilt if row["bug"] == "one"]
    first = first[: len(first) - len(first) % every]
    found = ranked(plain, base + first + [row for row in spoilt if row["bug"] == "other"])
    share = sum(math.isnan(row["value"]) for row in first) / len(first)
    assert share == pytest.approx(1 / every)
    assert found["mean_effect"].notna()["spoilt"] == usable
    assert found["rank_low"].notna()["spoilt"] == usable
    assert found["reason"]["spoilt"] == ("" if usable else "more than 10% undefined in 1 of 2 cells")
    assert found["rank_high"]["lime"] == 1 + usable


def test_predictions_have_a_mean_and_no_rank(plain: SimpleNamespace) -> None:
    rows = [row | {"value": -3.0 if row["metric"] == "spearman" else 3.0} if row["method"] == "predictions" else row
            for row in suite(plain, 4)]  # fmt: skip
    found = ranked(plain, rows)
    assert found.index[0] == "predictions"
    assert found["mean_effect"]["predictions"] == 1
    assert found.loc["predictions", ["rank_low", "rank_high"]].isna().all()
    assert found["rank_low"].min() == 1
    assert found["rank_high"].max() == 3


def test_a_cell_of_predictions_alone_is_no_cell(plain: SimpleNamespace) -> None:
    """Where a bug's primary metric was not measured, only predictions have a number: no method lacks anything."""
    rows = suite(plain, 5)
    bare = [row | {"bug": "further"} for row in rows if row["method"] == "predictions"]
    further = [row for row in bare if row["level"] == "1"]
    pd.testing.assert_frame_equal(ranked(plain, rows + further), ranked(plain, rows), check_exact=True)
    only = ranked(plain, further, "lime")
    assert only["mean_effect"].notna().to_dict() == {"predictions": True, "lime": False}
    elsewhere = [row for row in rows if row["method"] != "predictions"] + further
    assert ranked(plain, elsewhere)["reason"]["predictions"] == "no effect in 2 of 2 cells"


def test_two_effects_of_one_cell_are_refused(plain: SimpleNamespace) -> None:
    rows = suite(plain, 6)
    again = [row | {"post": "abs"} for row in rows if row["method"] == "lime"]
    with pytest.raises(ValueError, match="expected one effect a method and cell, found two"):
        ranked(plain, rows + again)
    ranked(plain, rows + [row | {"control": "another"} for row in rows])


def test_the_order_of_scores_changes_nothing(plain: SimpleNamespace) -> None:
    rows = suite(plain, 7)
    table = plain.frame(rows)
    shuffled = table.sample(frac=1, random_state=0)
    found = [ranking(evidence(each, **plain.settings(3)), bare=BARE) for each in (table, shuffled)]
    pd.testing.assert_frame_equal(*found, check_exact=True)
