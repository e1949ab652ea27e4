"""Alarms and picks, against scikit-learn's curve, exact fractions, and the enumeration of all choices of models."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_curve

from attribug.results.decisions import COLUMNS, decisions, detection_rate, pick_probability
from attribug.results.schema import KEYS, SCORE_COLUMNS, TRIPLE, TableError

Rows = list[dict[str, Any]]
NAN = math.nan
LAYOUTS = ("similarity", "alignment", "flips", "draws")


def decided(plain: SimpleNamespace, rows: Rows, seeds: int) -> pd.DataFrame:
    return decisions(plain.frame(rows), seeds_total=seeds, kinds=plain.settings(seeds)["kinds"])


def plain_rate(rows: Rows, sign: int, false_alarms: Fraction = Fraction(1, 20)) -> float:
    """Weights and sums as fractions: how many pass when the threshold sinks until 5 % of the controls do."""
    triples: dict[tuple[int, ...], int] = {}
    for row in rows:
        place = tuple(row[name] for name in TRIPLE)
        triples[place] = triples.get(place, 0) + 1
    of_model = {q: sum(place[0] == q for place in triples) for q, *_ in triples}
    steps: dict[float, list[Fraction]] = {}
    for row in rows:
        weight = Fraction(1, len(of_model) * of_model[row["seed"]] * triples[tuple(row[name] for name in TRIPLE)])
        for which, name in enumerate(("value", "benign")):
            score = sign * row[name]
            steps.setdefault(score, [Fraction(0), Fraction(0)])[which] += weight
    found = alarms = Fraction(0)
    for score in sorted(steps, reverse=True):
        more, further = steps[score]
        if alarms + further > false_alarms:  # they tie: as many as make 5 % pass
            return float(found + more * (false_alarms - alarms) / further)
        found, alarms = found + more, alarms + further
    raise AssertionError("all controls pass in the end")


def plain_defined(rows: Rows) -> Rows:
    """What decides: nothing with more than 10 % undefined rows, else images that are defined against all controls."""
    undefined = [row for row in rows if math.isnan(row["value"]) or math.isnan(row["benign"])]
    if len(undefined) > 0.1 * len(rows):
        return []
    images = {(row["seed"], row["draw"], row["reference"], row["example"]) for row in undefined}
    return [row for row in rows if (row["seed"], row["draw"], row["reference"], row["example"]) not in images]


def plain_interval(plain: SimpleNamespace, rows: Rows, seeds: int, sign: int) -> tuple[float, float]:
    units, images = plain.units(rows, seeds), {row["example"] for row in rows}
    without = [plain.without(rows, unit, seeds) for unit in units]
    models = len({row["seed"] for row in rows})
    if models < 3 or len(images) < 2 or not all(without):
        return NAN, NAN
    variance = plain.spread([plain_rate(rest, sign) for rest in without])
    variance += plain.spread([plain_rate([row for row in rows if row["example"] != image], sign) for image in images])
    half = stats.t.ppf(0.975, models - 1) * math.sqrt(variance)
    rate = plain_rate(rows, sign)
    return max(rate - half, 0.0), min(rate + half, 1.0)


def plain_pick(value: float, benign: list[float], k: int) -> float:
    """Over all choices of controls: the share of the pick that goes to the value, shared by all that nothing beats."""
    shares = []
    for chosen in combinations(benign, k - 1):
        beaten = any(other > value for other in chosen)
        equal = sum(not other < value for other in chosen)
        shares.append(0.0 if beaten else 1 / (1 + equal))
    return sum(shares) / len(shares)


def plain_picks(plain: SimpleNamespace, rows: Rows, sign: int) -> tuple[int, float, float]:
    places: dict[tuple[int, ...], dict[int, dict[int, dict[str, Any]]]] = {}
    for row in rows:
        place = places.setdefault((row["seed"], row["draw"], row["reference"]), {})
        place.setdefault(row["control_seed"], {})[row["example"]] = row
    k = min(3, 1 + min(map(len, places.values())))
    one: dict[int, list[float]] = {}
    every: dict[int, list[float]] = {}
    for (q, _, _), controls in places.items():
        first = next(iter(controls.values()))
        picks = [plain_pick(sign * row["value"], [sign * control[image]["benign"] for control in controls.values()], k)
                 for image, row in first.items()]  # fmt: skip
        value = plain.mean([sign * row["value"] for row in first.values()])
        benign = [plain.mean([sign * row["benign"] for row in control.values()]) for control in controls.values()]
        one.setdefault(q, []).append(plain.mean(picks))
        every.setdefault(q, []).append(plain_pick(value, benign, k))
    nested = [plain.mean([plain.mean(of_model) for of_model in picks.values()]) for picks in (one, every)]
    return k, nested[0], nested[1]


# ---- one point of a curve

levels = st.integers(0, 6).map(float) | st.floats(-3, 3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(levels, levels, st.integers(1, 5)), min_size=1, max_size=40), st.integers(1, 19))
def test_the_rate_is_a_point_of_scikit_learns_curve(rows: list[tuple[float, float, int]], percent: int) -> None:
    value, benign, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    labels = np.repeat([1, 0], len(rows))
    false, true, _ = roc_curve(labels, np.append(value, benign), sample_weight=np.tile(weight, 2),
                               drop_intermediate=False)  # fmt: skip
    expected = np.interp(percent / 100 + 1e-12, false, true)  # beyond rounding, where the curve rises straight up
    assert detection_rate(value, benign, weight, percent / 100) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", range(20, 420, 20))
@pytest.mark.parametrize("weight", [1 / 3, 1 / 7, 1 / 96, 0.1])
def test_rounding_does_not_decide_where_five_percent_are(n: int, weight: float) -> None:
    """Exactly 5 % of the controls lie above all values, and these above all other controls."""
    benign, value = np.arange(n, dtype=float), np.full(n, n - n // 20 - 0.5)
    assert detection_rate(value, benign, np.full(n, weight / n)) == 1
    assert detection_rate(value - 1, benign, np.full(n, weight / n)) == 0
    assert detection_rate(value - 0.5, benign, np.full(n, weight / n)) == pytest.approx(0, abs=1e-9)


def test_rates_at_the_ends() -> None:
    """Beyond all controls: all; below all: none; nothing to tell: 5 %."""
    ten, alike = np.arange(10.0), np.ones(10)
    assert detection_rate(ten + 20, ten, alike) == 1
    assert detection_rate(ten - 20, ten, alike) == 0
    assert detection_rate(ten, ten, alike) == pytest.approx(0.05, abs=1e-12)
    assert detection_rate(alike, alike, ten) == pytest.approx(0.05, abs=1e-12)
    assert detection_rate(np.array([5.0, 1.0]), np.array([2.0, 2.0]), np.array([3.0, 1.0])) == 0.75
    assert detection_rate(np.array([5.0, 1.0]), np.array([2.0, 7.0]), np.array([1.0, 0.0])) == 1  # 0: left out


# ---- one pick


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=6, max_size=6), min_size=1, max_size=4),
       st.integers(1, 6))  # fmt: skip
def test_picks_are_those_of_all_choices(scores: list[list[float]], k: int) -> None:
    table = np.array(scores)
    expected = [plain_pick(value, benign, k) for value, *benign in scores]
    assert pick_probability(table[:, 0], table[:, 1:], k).tolist() == pytest.approx(expected, abs=1e-12)


def test_chance_is_one_in_k_and_a_biased_value_is_picked_more_often() -> None:
    random = np.random.default_rng(0)
    alike = random.normal(size=(20_000, 5))
    for k in (2, 3, 5):
        assert pick_probability(alike[:, 0], alike[:, 1:], k).mean() == pytest.approx(1 / k, abs=0.01)
        assert pick_probability(np.zeros(1), np.zeros((1, 4)), k)[0] == pytest.approx(1 / k)
        assert abs(pick_probability(alike[:, 0] + 0.1, alike[:, 1:], k).mean() - 1 / k) > 0.015


# ---- the table


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.02, 0.3]),
       st.integers(-4, 16), st.integers(0, 2**31))  # fmt: skip
def test_the_table_is_what_loops_and_fractions_say(
    plain: SimpleNamespace, layout: str, seeds: int, images: int, undefined: float, fall: int, stream: int
) -> None:
    random = np.random.default_rng(stream)
    rows = plain.scores(random, layout, seeds, images, undefined=undefined, fall=fall / 16)
    places = sorted({tuple(row[name] for name in TRIPLE) for row in rows})
    lost = {place for place in places[1:] if random.random() < 0.2}  # models are left with different numbers of triples
    rows = [row for row in rows if tuple(row[name] for name in TRIPLE) not in lost]
    if not rows:
        return
    sign = 1 if layout == "alignment" else -1
    found = decided(plain, rows, seeds)
    assert tuple(found.columns) == COLUMNS
    [row] = found.itertuples(index=False)
    assert row[:7] == next(iter(plain.by_key(rows)))
    rows = plain_defined(rows)
    if not rows:
        assert row.pick_k == 0
        assert all(math.isnan(number) for number in (*row[7:10], *row[11:]))
        return
    assert row.detection_rate == pytest.approx(plain_rate(rows, sign), abs=1e-9)
    ends = plain_interval(plain, rows, seeds, sign)
    assert (row.detection_low, row.detection_high) == pytest.approx(ends, abs=1e-6, nan_ok=True)
    k, one, every = plain_picks(plain, rows, sign)
    assert row.pick_k == k
    assert (row.pick_one_image, row.pick_all_images) == pytest.approx((one, every), abs=1e-9)


@pytest.mark.parametrize(
    ("layout", "seeds", "k"),
    [("similarity", 2, 2), ("similarity", 3, 3), ("similarity", 5, 3), ("flips", 2, 2), ("flips", 3, 3),
     ("alignment", 1, 2), ("alignment", 2, 3), ("alignment", 4, 3), ("draws", 1, 2), ("draws", 4, 2)],
)  # fmt: skip
def test_three_models_to_pick_from_or_two(plain: SimpleNamespace, layout: str, seeds: int, k: int) -> None:
    rows = plain.scores(np.random.default_rng(0), layout, seeds, 3)
    assert decided(plain, rows, seeds)["pick_k"].tolist() == [k]
    if k == 3:  # one reference keeps a single control: two are left to pick from everywhere
        first = min((row["reference"], row["control_seed"]) for row in rows)
        kept = [row for row in rows if row["reference"] != first[0] or row["control_seed"] == first[1]]
        assert decided(plain, kept, seeds)["pick_k"].tolist() == [2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_method_that_cannot_tell_gets_chance_exactly(plain: SimpleNamespace, layout: str) -> None:
    """Random maps: every row's value is its benign value. Also where numbers do not add up exactly."""
    random = np.random.default_rng(0)
    for images in (3, 20, 57):
        of_image = random.normal(size=images)
        rows = [row | dict.fromkeys(("value", "benign"), of_image[row["example"] % 100])
                for row in plain.scores(random, layout, 4, images)]  # fmt: skip
        [row] = decided(plain, rows, 4).itertuples()
        rates = (row.detection_rate, row.detection_low, row.detection_high)
        assert rates == pytest.approx((0.05, 0.05, 0.05), abs=1e-9)
        assert (row.pick_one_image, row.pick_all_images) == pytest.approx((1 / row.pick_k,) * 2, abs=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_perfect_separation_and_its_opposite(plain: SimpleNamespace, layout: str) -> None:
    for fall, expected in ((2.0, 1.0), (-2.0, 0.0)):
        rows = plain.scores(np.random.default_rng(1), layout, 3, 4, fall=fall)
        numbers = decided(plain, rows, 3).iloc[0][["detection_rate", "detection_low", "detection_high",
                                                   "pick_one_image", "pick_all_images"]]  # fmt: skip
        assert numbers.tolist() == [expected] * 5


@pytest.mark.parametrize("side", ["value", "benign"])
def test_undefined_scores_are_no_hits(plain: SimpleNamespace, side: str) -> None:
    """Left out on both sides, so that never two sets of images are compared; too many decide nothing."""
    rows = plain.scores(np.random.default_rng(2), "similarity", 3, 20, fall=0.0)
    alike = [row | {"benign": row["value"] + (row["example"] % 7)} for row in rows]
    same = [row | {"value": row["benign"]} for row in alike]
    first = min(row["example"] for row in same)
    few = [row | ({side: NAN} if row["example"] == first else {}) for row in same]
    found = decided(plain, few, 3).iloc[0]
    assert (found["pick_one_image"], found["pick_all_images"]) == pytest.approx((1 / 3, 1 / 3))
    assert found["detection_rate"] == pytest.approx(0.05)
    many = [row | ({side: NAN} if row["example"] % 2 else {}) for row in same]
    found = decided(plain, many, 3).iloc[0]
    assert found["pick_k"] == 0
    assert found[["detection_rate", "detection_low", "pick_one_image", "pick_all_images"]].isna().all()


def test_a_rest_of_no_image_decides_nothing(plain: SimpleNamespace) -> None:
    """Every image is undefined against one of twelve controls: 8 % of the rows, and all of the images."""
    rows = [row for row in plain.scores(np.random.default_rng(2), "alignment", 12, 12) if row["seed"] == 0]
    rows = [row | ({"benign": NAN} if row["control_seed"] == row["example"] % 12 else {}) for row in rows]
    assert decided(plain, rows, 12)["pick_k"].tolist() == [0]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(0, 2**31), st.integers(-32, 32))
def test_neither_order_nor_origin_of_scores_matters(
    plain: SimpleNamespace, layout: str, stream: int, shift: int
) -> None:
    random = np.random.default_rng(stream)
    rows = plain.scores(random, layout, 3, 4, undefined=0.1, fall=0.25)
    table = plain.frame(rows + [row | {"method": "gradient"} for row in plain.scores(random, layout, 3, 4)])
    moved = table.assign(value=table["value"] + shift, benign=table["benign"] + shift)  # sixteenths stay exact
    whole = {"seeds_total": 3, "kinds": plain.settings(3)["kinds"]}
    expected = decisions(table, **whole)
    pd.testing.assert_frame_equal(decisions(moved.sample(frac=1, random_state=0), **whole), expected, rtol=1e-12)
    categories = table.astype(dict.fromkeys(KEYS, "category"))
    pd.testing.assert_frame_equal(decisions(categories, **whole), expected, check_exact=True)
    reversed_signs = decisions(table.assign(value=-table["value"], benign=-table["benign"]), **whole)
    assert not reversed_signs.equals(expected)


def test_tables_that_cannot_be_read_are_refused(plain: SimpleNamespace) -> None:
    rows = plain.scores(np.random.default_rng(0), "alignment", 2, 2)
    with pytest.raises(TableError, match="found none named floor"):
        decisions(plain.frame(rows).drop(columns="floor"), seeds_total=2, kinds={"iou": "alignment"})
    with pytest.raises(ValueError, match="expected a kind of every metric, found none of iou"):
        decisions(plain.frame(rows), seeds_total=2, kinds={"spearman": "similarity"})
    assert tuple(decided(plain, [], 3).columns) == COLUMNS


# ---- does the interval keep its promise?


SPREADS = {"image": 0.15, "model": 0.03, "noise": 0.03, "bug": 0.1}


def alarms(runs: int, seeds: int, shift: float) -> pd.DataFrame:
    """Alignment scores of many suites, one a task: image + model + noise, and what the bug adds to an image's value."""
    random, images = np.random.default_rng(seeds), 32
    image, bug = random.normal(0, SPREADS["image"], (runs, images)), random.normal(0, SPREADS["bug"], (runs, images))
    sides = random.normal(0, SPREADS["model"], (runs, 2, seeds, 1)) + image[:, None, None]
    sides = sides + random.normal(0, SPREADS["noise"], (runs, 2, seeds, images))
    run, q, t, example = np.indices((runs, seeds, seeds, images)).reshape(4, -1)
    value = sides[run, 0, q, example] + shift + bug[run, example]
    table = pd.DataFrame({"seed": q, "draw": 0, "reference": -1, "control_seed": t, "example": example, "floor": 0.0,
                          "value": value, "benign": sides[run, 1, t, example]})  # fmt: skip
    for name in KEYS:
        table[name] = {"task": pd.Categorical(run), "metric": "iou"}.get(name, "any")
    return table[list(SCORE_COLUMNS)]


@pytest.mark.parametrize(("seeds", "shift", "runs"), [(3, 0.15, 100), (5, 0.25, 100), (8, 0.25, 100)])
def test_the_interval_of_the_rate_covers_it(plain: SimpleNamespace, seeds: int, shift: float, runs: int) -> None:
    """Models alone would not do: the threshold rests on images, and these are few."""
    table = alarms(runs, seeds, shift)
    found = decisions(table, seeds_total=seeds, kinds={"iou": "alignment"})
    spread = math.hypot(SPREADS["image"], SPREADS["model"], SPREADS["noise"])
    truth = stats.norm.sf((stats.norm.isf(0.05) * spread - shift) / math.hypot(spread, SPREADS["bug"]))
    covered = found["detection_low"].le(truth) & found["detection_high"].ge(truth)
    assert covered.mean() >= 0.92, f"{covered.mean():.1%} of intervals hold the rate {truth:.2f}, expected 92 %"
    models_only = []
    for (_, part), rate in zip(table.groupby("task", observed=True), found["detection_rate"], strict=True):
        rest = [part[(part["seed"] != unit) & (part["control_seed"] != unit)] for unit in range(seeds)]
        left = [
            detection_rate(kept["value"].to_numpy(), kept["benign"].to_numpy(), np.ones(len(kept))) for kept in rest
        ]
        half = stats.t.ppf(0.975, seeds - 1) * math.sqrt(plain.spread(left))
        models_only.append(abs(rate - truth) <= half)
    assert np.mean(models_only) < 0.9
