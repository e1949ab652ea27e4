"""Combinations of effects, against loops that compute every effect again without each model, and against SciPy."""

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

from attribug.results.evidence import Combined, evidence, joined, q_values
from attribug.results.schema import KEYS, SCORE_COLUMNS, TableError
from attribug.results.statistics import estimate
from attribug.results.summary import grouped

Rows = list[dict[str, Any]]
LAYOUTS = ("similarity", "alignment", "flips", "draws")
METHODS, BUGS, TASKS = ("gradient", "lime"), ("reinit", "shaken"), ("digits", "textures")


def thinned(rows: Rows, random: np.random.Generator, missing: set[int]) -> Rows:
    """Without some contaminated models, and without a row here and there; never without all."""
    kept = [row for row in rows if row["seed"] % 10 not in missing and random.random() < 0.9]
    return kept or rows[:1]


@st.composite
def suites(draw: st.DrawFn) -> tuple[list[tuple[str, dict[str, str]]], int, int, float, set[int], int]:
    """Layouts and keys of some rows of results; seeds, images, share of undefined scores, models left out, stream."""
    names = st.tuples(*map(st.sampled_from, (LAYOUTS, METHODS, BUGS, TASKS)))
    drawn = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    groups = [(layout, {"method": method, "bug": bug, "task": task}) for layout, method, bug, task in drawn]
    missing = draw(st.sets(st.integers(0, 4), max_size=1))
    share = draw(st.sampled_from((0.0, 0.2)))
    return groups, draw(st.integers(2, 5)), draw(st.integers(1, 5)), share, missing, draw(st.integers(0, 2**31))


def made(plain: SimpleNamespace, suite: Any) -> tuple[dict[tuple[str, ...], Rows], int]:
    """Rows by key, and the number of seeds."""
    groups, seeds, images, share, missing, stream = suite
    random = np.random.default_rng(stream)
    rows: Rows = []
    for layout, keys in groups:
        drawn = plain.scores(random, layout, seeds, images, undefined=share, keys={**keys, "control": layout})
        rows += thinned(drawn, random, missing)
    return plain.by_key(rows), seeds


def flat(parts: dict[tuple[str, ...], Rows]) -> Rows:
    return [row for rows in parts.values() for row in rows]


def same(found: Any, expected: Any) -> None:
    assert np.asarray(found, float) == pytest.approx(np.asarray(expected, float), abs=1e-9, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(suites(), st.randoms(use_true_random=False))
def test_an_effect_alone_is_what_the_table_of_results_says(plain: SimpleNamespace, suite: Any, random: Any) -> None:
    parts, seeds = made(plain, suite)
    rows = flat(parts)
    random.shuffle(rows)
    found = evidence(plain.frame(rows), **plain.settings(seeds))
    told = grouped(plain.frame(rows), plain.settings(seeds)["kinds"], plain.settings(seeds)["visible"])[1]
    expected = estimate(told, seeds)
    assert list(found.keys.itertuples(index=False, name=None)) == list(parts)
    assert found.effect.tolist() == expected["effect"].tolist()
    assert found.seeds.tolist() == expected["seeds"].tolist()
    assert found.undefined.tolist() == expected["undefined"].tolist()
    alone = found.combine(np.eye(len(parts)))
    assert alone.value.tolist() == expected["effect"].tolist()
    low, high = alone.interval()
    assert np.clip(low, 0, 1) == pytest.approx(expected["ci_low"].to_numpy(), abs=1e-9, nan_ok=True)
    assert np.clip(high, 0, 1) == pytest.approx(expected["ci_high"].to_numpy(), abs=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(suites(), st.lists(st.integers(-2, 2), min_size=8, max_size=8))
def test_sums_are_what_loops_over_models_and_images_say(plain: SimpleNamespace, suite: Any, drawn: list[int]) -> None:
    """Weights of 0 take no part: neither do their models count nor their missing intervals."""
    parts, seeds = made(plain, suite)
    weights = np.array(drawn, float).reshape(2, 4)[:, : len(parts)].T / 2  # (G, 2)
    found = evidence(plain.frame(flat(parts)), **plain.settings(seeds)).combine(weights)
    low, high = found.interval()
    for number, column in enumerate(weights.T):
        groups = [(weight, rows) for weight, rows in zip(column, parts.values(), strict=True) if weight]
        if not groups:
            assert (found.value[number], low[number], high[number]) == (0, 0, 0)
            continue
        value, variance, models = plain.combined(groups, seeds, plain.tell)
        same([found.value[number], found.seeds[number]], [value, models])
        same(found.variance[number], variance)
        half = stats.t.ppf(0.975, models - 1) * math.sqrt(max(variance, 0)) if not math.isnan(variance) else math.nan
        assert low[number] == pytest.approx(value - half, abs=1e-6, nan_ok=True)
        assert high[number] == pytest.approx(value + half, abs=1e-6, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(3, 5), st.integers(2, 6), st.integers(0, 2**31))
def test_a_difference_is_that_of_each_image_and_of_each_model_left_out(
    plain: SimpleNamespace, layout: str, seeds: int, images: int, stream: int
) -> None:
    """Of effects on the same images: s² of the images' differences over n, and the jackknife of the differences."""
    random = np.random.default_rng(stream)
    one, other = (plain.scores(random, layout, seeds, images, keys={"method": name}) for name in METHODS)
    found = evidence(plain.frame(one + other), **plain.settings(seeds)).combine(np.array([[1.0], [-1.0]]))
    left = []
    for unit in range(seeds):
        effects = [plain.mean(plain.models_means(plain.without(rows, unit, seeds), plain.tell)) for rows in (one, other)
                   if plain.without(rows, unit, seeds)]  # fmt: skip
        left.append(effects[0] - effects[1])
    a, b = plain.image_means(one, plain.tell), plain.image_means(other, plain.tell)
    differences = [a[image] - b[image] for image in a]
    same(found.variance[0], plain.spread(left) + np.var(differences, ddof=1) / len(differences))


def test_the_same_row_twice_differs_by_nothing(plain: SimpleNamespace) -> None:
    """Also where the effect itself is far from certain, and beside effects of which nothing is known."""
    random = np.random.default_rng(0)
    for layout in LAYOUTS:
        rows = plain.scores(random, layout, 3, 5, undefined=0.2)
        copies = [[row | {"method": f"m{number}"} for row in rows] for number in range(3)]
        other = plain.scores(random, "draws", 2, 1, keys={"bug": "zz"})
        found = evidence(plain.frame([*copies[0], *copies[1], *copies[2], *other]), **plain.settings(3))
        twice = found.combine(np.array([[1.0, 0.5], [-1.0, 0.5], [0.0, -1.0], [0.0, 0.0]]))
        assert found.combine(np.eye(4)).variance[0] > 0.001
        assert twice.value.tolist() == [0, 0]
        assert [bound.tolist() for bound in twice.interval()] == [[0, 0], [0, 0]]
        assert twice.exceeds(0.0).tolist() == [0.5, 0.5]
        assert found.combine(np.array([[1.0], [0], [0], [-1.0]])).variance[0] != 0


def test_parts_join_to_the_whole(plain: SimpleNamespace) -> None:
    """In any order, with other images, and where the last models are in some parts only."""
    random = np.random.default_rng(2)
    full = plain.scores(random, "similarity", 4, 5, keys={"bug": "full"})
    fewer = [row | {"bug": "fewer models"} for row in full if max(row["seed"], row["control_seed"]) % 4 < 2]
    others = [row | {"bug": "other images", "example": row["example"] + 3} for row in full]
    elsewhere = plain.scores(random, "draws", 4, 3, keys={"bug": "full", "task": "another"})
    rows = [full, fewer, others, elsewhere]
    whole = evidence(plain.frame([row for part in rows for row in part]), **plain.settings(4))
    for order in (rows, rows[::-1]):
        found = joined([evidence(plain.frame(part), **plain.settings(4)) for part in order])
        pd.testing.assert_frame_equal(found.keys, whole.keys)
        assert found.images.tolist() == whole.images.tolist()
        for name in ("effect", "left", "occurs", "image", "seeds", "undefined"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
    assert len(whole.left) == 4


def test_what_has_no_interval_spoils_no_other(plain: SimpleNamespace) -> None:
    """Two models, a single image, a model in every triple: the sums that they take part in have none."""
    random = np.random.default_rng(1)
    full = plain.scores(random, "similarity", 4, 5, keys={"bug": "full"})
    image = plain.scores(random, "similarity", 4, 1, keys={"bug": "one image"})
    everywhere = [row | {"bug": "one reference"} for row in full if row["reference"] == 0]
    two = [row | {"bug": "two models"} for row in full if row["seed"] < 2]
    found = evidence(plain.frame(full + image + everywhere + two), **plain.settings(4))
    assert found.keys["bug"].tolist() == ["full", "one image", "one reference", "two models"]
    alone = found.combine(np.eye(4))
    assert np.isnan(alone.variance).tolist() == [False, True, True, True]
    assert np.isnan(alone.exceeds(0.6)).tolist() == [False, True, True, True]
    same(alone.variance[0], plain.combined([(1.0, full)], 4, plain.tell)[1])
    pairs = found.combine(np.array([[1.0, 1, 1, 0.5], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0]]))
    assert np.isnan(pairs.variance).tolist() == [True, True, True, False]
    assert not np.isnan(pairs.value).any()
    assert all(np.isnan(bound[:3]).all() for bound in pairs.interval())


def test_selected_effects_keep_what_they_rest_on(plain: SimpleNamespace) -> None:
    random = np.random.default_rng(2)
    rows = [row for bug in "abc" for row in plain.scores(random, "alignment", 3, 4, keys={"bug": bug})]
    found = evidence(plain.frame(rows), **plain.settings(3))
    by_mask, by_place = found.select(np.array([True, False, True])), found.select([2, 0])
    assert by_mask.keys["bug"].tolist() == ["a", "c"]
    assert by_place.keys["bug"].tolist() == ["c", "a"]
    assert by_place.keys.index.tolist() == [0, 1]
    whole = found.combine(np.array([[1.0], [0], [-1]]))
    for part, weights in ((by_mask, [[1.0], [-1]]), (by_place, [[-1.0], [1]])):
        again = part.combine(np.array(weights))
        assert (again.value[0], again.variance[0]) == (whole.value[0], pytest.approx(whole.variance[0], rel=1e-12))
    assert len(found.select(np.zeros(3, bool)).keys) == 0


def test_images_of_another_task_are_other_images(plain: SimpleNamespace) -> None:
    """The same ids in two tasks: variances over images add up; in one task they may cancel."""
    rows = [row | {"value": 0.1 * (row["example"] % 3), "benign": 0.1} for row in
            plain.scores(np.random.default_rng(0), "similarity", 3, 9)]  # fmt: skip
    there = [row | {"task": "textures"} for row in rows]
    beside = [row | {"method": "gradient"} for row in rows]
    apart = evidence(plain.frame(rows + there), **plain.settings(3)).combine(np.array([[1.0], [-1.0]]))
    together = evidence(plain.frame(rows + beside), **plain.settings(3)).combine(np.array([[1.0], [-1.0]]))
    alone = evidence(plain.frame(rows), **plain.settings(3)).combine(np.ones((1, 1)))
    assert alone.variance[0] == pytest.approx(0, abs=1e-15)  # δ = 1/8: nothing to see
    assert (apart.variance[0], together.variance[0]) == (2 * alone.variance[0], 0)
    seen = {**plain.settings(3), "visible": {"spearman": 0.05}}
    apart = evidence(plain.frame(rows + there), **seen).combine(np.array([[1.0], [-1.0]]))
    together = evidence(plain.frame(rows + beside), **seen).combine(np.array([[1.0], [-1.0]]))
    alone = evidence(plain.frame(rows), **seen).combine(np.ones((1, 1)))
    assert alone.variance[0] > 0.01
    assert apart.variance[0] == pytest.approx(2 * alone.variance[0])
    assert together.variance[0] == 0


def test_nothing_and_foreign_tables_are_refused(plain: SimpleNamespace) -> None:
    rows = plain.scores(np.random.default_rng(0), "alignment", 3, 2)
    with pytest.raises(TableError, match="found none named draw"):
        evidence(plain.frame(rows).drop(columns="draw"), **plain.settings(3))
    with pytest.raises(ValueError, match="expected a kind of every metric, found none of iou"):
        evidence(plain.frame(rows), **{**plain.settings(3), "kinds": {}})
    with pytest.raises(ValueError, match=r".+"):
        evidence(plain.frame([]), **plain.settings(3))


# ---- p-values and q-values


def test_one_sided_p_values_are_those_of_a_t_test() -> None:
    value, variance = np.array([0.9, 0.6, 0.2, 0.99, 0.9]), np.array([0.01, 0.02, 0.001, 1e-9, np.nan])
    seeds = np.array([3, 5, 4, 6, 5])
    with np.errstate(invalid="ignore"):
        expected = stats.t.sf((value - 0.6) / np.sqrt(variance), seeds - 1)
    assert Combined(value, variance, seeds).exceeds(0.6) == pytest.approx(expected, rel=1e-9, nan_ok=True)
    assert 0 < expected[3] < 1e-16  # so that small ones are told from 0
    certain = Combined(np.array([0.7, 0.6, 0.5]), np.zeros(3), np.full(3, 3))
    assert certain.exceeds(0.6).tolist() == [0, 0.5, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 4))
def test_q_values_are_those_of_benjamini_and_hochberg(plain: SimpleNamespace, stream: int, seeds: int) -> None:
    """Within a task, bug and level, over methods, metrics and controls; rows without an interval are not counted."""
    random = np.random.default_rng(stream)
    rows: Rows = []
    for number in range(8):
        keys = {"bug": BUGS[number % 2], "level": "12"[number // 6], "method": f"m{number}"}
        drawn = plain.scores(random, "similarity", seeds, 1 if number == 5 else 6, keys=keys,
                             fall=float(random.integers(0, 17)) / 16)  # fmt: skip
        certain = number == 4  # an effect of 1 without any spread
        rows += [row | {"value": -3.0} if certain else row for row in drawn]
    parts = plain.by_key(rows)
    found = q_values(evidence(plain.frame(rows), **plain.settings(seeds)), bare=())
    families: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    for place, (key, part) in enumerate(parts.items()):
        value, variance, models = plain.combined([(1.0, part)], seeds, plain.tell)
        if math.isnan(variance):
            assert math.isnan(found[place])
            assert "m5" in key
            continue
        if variance < 1e-20:
            assert math.isnan(found[place]), "scores that all agree leave no spread to judge by"
            continue
        p = float(stats.t.sf((value - 0.6) / math.sqrt(variance), models - 1))
        families.setdefault(key[:3], []).append((place, p))
    assert 2 <= len(families) <= 4
    for tested in families.values():
        places, p_values = zip(*tested, strict=True)
        expected = stats.false_discovery_control(p_values, method="bh")
        assert found[list(places)] == pytest.approx(expected, abs=1e-9)


def test_families_pooled_would_give_other_q_values(plain: SimpleNamespace) -> None:
    random = np.random.default_rng(3)
    rows = [row for bug in BUGS for method in METHODS for row in plain.scores(
        random, "similarity", 3, 8, keys={"bug": bug, "method": method}, fall=0.75 if bug == "reinit" else 0.1
    )]  # fmt: skip
    apart = q_values(evidence(plain.frame(rows), **plain.settings(3)), bare=())
    pooled = q_values(evidence(plain.frame([row | {"bug": "x", "method": row["bug"] + row["method"]} for row in rows]),
                               **plain.settings(3)), bare=())  # fmt: skip
    assert abs(apart - pooled).max() > 0.02
    assert (apart[2:] >= apart[:2].max()).all()


def test_predictions_are_no_hypothesis(plain: SimpleNamespace) -> None:
    """A certain detection of theirs would loosen the bound for the explanations."""
    random = np.random.default_rng(4)
    rows = [row for method, fall in zip(METHODS, (0.4, -0.4), strict=True) for row in plain.scores(
        random, "similarity", 3, 8, keys={"method": method}, fall=fall
    )]  # fmt: skip
    certain = plain.scores(random, "similarity", 3, 8, keys={"method": "predictions"}, fall=3.0)
    certain[0]["value"] = certain[0]["benign"]  # or it would have no spread, and be no hypothesis for that reason
    found = evidence(plain.frame(rows + certain), **plain.settings(3))
    bare, without = (found.keys["method"] == "predictions").to_numpy(), evidence(plain.frame(rows), **plain.settings(3))
    of_all = q_values(found, bare=["predictions"])
    assert np.isnan(of_all[bare]).all()
    assert of_all[~bare].tolist() == q_values(without, bare=[]).tolist()
    renamed = evidence(plain.frame(rows + [row | {"method": "other"} for row in certain]), **plain.settings(3))
    among = (renamed.keys["method"] != "other").to_numpy()
    assert (q_values(renamed, bare=["predictions"])[among] < of_all[~bare]).any(), "as an explanation it does"


# ---- does the interval of a difference keep its promise?


def compared(runs: int, seeds: int, shifts: tuple[float, float], shared: float, stream: int) -> pd.DataFrame:
    """Alignment scores of two methods in many suites, Gaussian: models and images stray alike by a share `shared`.

    A suite is a task here; v = base + shift + model + noise, b = base + model + noise, all of both methods' own noise.
    """
    random, images = np.random.default_rng(stream), 24
    shape = {"model": (runs, 2, seeds, 1), "image": (runs, 2, seeds, images)}
    spreads = {"model": 0.12, "image": 0.12}

    def both(what: str) -> np.ndarray[Any, Any]:
        """Common and own deviations, of the two methods (2, runs, sides, seeds, images or 1)."""
        common, *own = random.normal(0, spreads[what], (3, *shape[what]))
        return np.stack([math.sqrt(shared) * common + math.sqrt(1 - shared) * each for each in own])

    scores = both("model") + both("image")  # (2, runs, sides, seeds, images)
    method, run, q, t, image = np.indices((2, runs, seeds, seeds, images)).reshape(5, -1)
    columns = {
        "task": run, "bug": 0, "level": 0, "control": 0, "method": method, "post": 0, "seed": q, "draw": 0,
        "reference": -1, "control_seed": t, "example": image, "floor": 0.0, "metric": 0,
        "value": scores[method, run, 0, q, image] + np.array(shifts)[method],
        "benign": scores[method, run, 1, t, image],
    }  # fmt: skip
    table = pd.DataFrame(columns)
    names = {"task": [f"{number:04d}" for number in range(runs)], "method": list(METHODS), "metric": ["iou"]}
    for name in KEYS:
        texts = names.get(name, ["any"])
        table[name] = pd.Categorical.from_codes(table[name].to_numpy(), texts)
    return table[list(SCORE_COLUMNS)]


def true_effect(shift: float, visible: float) -> float:
    """E[tell] of a Gaussian difference: four deviations of .12 each."""
    spread = 0.12 * 2
    return float(stats.norm.cdf((shift - visible) / spread) + stats.norm.cdf((shift + visible) / spread)) / 2


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shifts", [(0.0, 0.0), (0.25, 0.25), (0.3, 0.1)])
def test_the_interval_of_a_difference_covers_it(
    plain: SimpleNamespace, seeds: int, shared: float, shifts: tuple[float, float]
) -> None:
    runs = 200
    found = evidence(compared(runs, seeds, shifts, shared, stream=seeds), **plain.settings(seeds))
    weights = np.kron(np.eye(runs), [[1.0], [-1.0]])
    difference = found.combine(weights)
    low, high = difference.interval()
    truth = true_effect(shifts[0], 0.125) - true_effect(shifts[1], 0.125)
    assert difference.value.mean() == pytest.approx(truth, abs=4 * difference.value.std() / math.sqrt(runs))
    covered = float(((low <= truth) & (truth <= high)).mean())
    assert covered >= 0.92, f"{covered:.1%} of intervals hold the difference, expected 92 %"
    apart = np.abs(weights).T @ np.nan_to_num(found.combine(np.eye(2 * runs)).variance)
    ratio = float(np.sqrt(apart.mean() / difference.variance.mean()))  # of widths, as if errors were independent
    if shared == 0.9:
        assert ratio > 1.8, f"{ratio:.2f}"
    elif shared == 0:
        assert ratio == pytest.approx(1, abs=0.1)
