"""Effect, interval, verdict and table, against plain loops over the formulas."""

import math
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribug.results.schema import RESULT_COLUMNS, SCORE_COLUMNS, TRIPLE, TableError
from attribug.results.statistics import (
    IN_EVERY_TRIPLE,
    Kind,
    above_floor,
    arrange,
    has_headroom,
    image_means,
    image_variance,
    jackknife,
    leave_one_out,
    tells,
    too_few,
    verdict,
)
from attribug.results.summary import grouped, matrix, summarise

NAN = math.nan
VISIBLE = 0.125  # like every score below a multiple of 1/16: differences of exactly δ occur
KINDS: dict[str, Kind] = {"spearman": "similarity", "iou": "alignment"}
DELTAS = dict.fromkeys(KINDS, VISIBLE)
KEY = {"task": "digits", "bug": "reinit", "level": "1", "control": "clean", "method": "lime", "post": "sum"}
Rows = list[dict[str, Any]]


def plain_above(row: dict[str, Any]) -> float:
    b, floor = row["benign"], row["floor"]
    return 0.5 if math.isnan(b) or math.isnan(floor) else float(b > floor) + 0.5 * float(b == floor)


def plain_row(plain: SimpleNamespace, rows: Rows, seeds_total: int) -> dict[str, float]:
    """Every number of a row of results, straight from its definition."""
    mean, models_means = plain.mean, plain.models_means
    low, high = np.clip(plain.interval(rows, seeds_total, plain.tell), 0.0, 1.0)
    of_models = [m for m in models_means(rows, lambda row: row["value"]) if not math.isnan(m)]
    spread = np.std(of_models, ddof=1) / math.sqrt(len(of_models)) if len(of_models) > 1 else NAN
    undefined = [float(math.isnan(row["value"]) or math.isnan(row["benign"])) for row in rows]
    nested = {name: mean(models_means(rows, lambda row, name=name: row[name])) for name in ("value", "benign", "floor")}
    return nested | {
        "seeds": len({row["seed"] for row in rows}), "n": len({row["example"] for row in rows}),
        "undefined": mean(undefined), "sem": float(spread), "effect": mean(models_means(rows, plain.tell)),
        "ci_low": low, "ci_high": high,
    }  # fmt: skip


scores16 = st.one_of(st.just(NAN), st.integers(-4, 16).map(lambda number: number / 16))


@st.composite
def groups(draw: st.DrawFn) -> tuple[Rows, int]:
    """Scores of one row of results: any triples, any examples in them, and the number of seeds."""
    seeds_total = draw(st.integers(1, 4))
    metric = draw(st.sampled_from(sorted(KINDS)))
    seed, clean = st.integers(0, 2 * seeds_total - 1), st.integers(0, seeds_total - 1)
    reference = clean if metric == "spearman" else st.just(-1)
    triples = draw(st.lists(st.tuples(seed, st.integers(0, 1), reference, seed), min_size=1, max_size=9, unique=True))
    rows = []
    for triple in triples:
        for example in sorted(draw(st.sets(st.integers(0, 4), min_size=1, max_size=3))):
            three = draw(st.tuples(scores16, scores16, scores16))
            numbers = dict(zip(("value", "benign", "floor"), three, strict=True))
            place = dict(zip(TRIPLE, triple, strict=True))
            rows.append({**KEY, "metric": metric, **place, "example": example, **numbers})
    return rows, seeds_total


def frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def summary(rows: Rows, seeds_total: int, outcomes: pd.DataFrame | None = None) -> pd.DataFrame:
    return summarise(
        frame(rows), suite="quick", seeds_total=seeds_total, kinds=KINDS, visible=DELTAS, outcomes=outcomes
    )


def similarity_rows(seeds: int, value: Any, benign: Any, images: int = 6, **key: Any) -> Rows:
    """Rows of all triples r ≠ q, t ≠ r; `value(q, r, t, i)` and `benign(q, r, t, i)` give the scores."""
    return [
        {**KEY, "metric": "spearman", "seed": q, "draw": 0, "reference": r, "control_seed": t, "example": i,
         "value": value(q, r, t, i), "benign": benign(q, r, t, i), "floor": 0.0, **key}
        for q, r, t, i in product(range(seeds), range(seeds), range(seeds), range(images)) if r not in {q, t}
    ]  # fmt: skip


# ---- scores of examples


@pytest.mark.parametrize(
    ("value", "benign", "similarity"),
    [(0.2, 0.5, 1.0), (0.5, 0.2, 0.0), (0.375, 0.5, 0.5), (0.5, 0.375, 0.5), (0.5, 0.5, 0.5), (0.37, 0.5, 1.0),
     (NAN, 0.5, 0.5), (0.5, NAN, 0.5), (NAN, NAN, 0.5), (math.inf, math.inf, 0.5), (-math.inf, 0.0, 1.0)],
)  # fmt: skip
def test_tells(value: float, benign: float, similarity: float) -> None:
    assert tells([value], [benign], VISIBLE, "similarity") == [similarity]
    assert tells([value], [benign], VISIBLE, "alignment") == [1 - similarity]


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1))
def test_swapping_the_sides_swaps_the_answer(a: float, b: float, visible: float) -> None:
    """Whatever rounding does: exactly one of the three cases holds, so exchanged sides add up to 1."""
    assert tells(a, b, visible, "similarity") + tells(b, a, visible, "similarity") == 1


@pytest.mark.parametrize("kind", ["similarity", "alignment", "response"])
def test_last_bits_do_not_make_a_difference_visible(kind: str) -> None:
    """Ranks of a map with sixteen values differ by exactly δ often enough; whoever sums in another order agrees."""
    for delta in (0.0, 0.1):
        for bits in (-3e-16, 0.0, 3e-16):
            assert tells([0.4], [0.4 + delta + bits], delta, kind) == 0.5
            assert tells([0.4 + delta + bits], [0.4], delta, kind) == 0.5
    seen = tells([0.4, 0.4], [0.500001, 0.299999], 0.1, kind)
    assert seen.tolist() == ([1.0, 0.0] if kind == "similarity" else [0.0, 1.0])


def test_tells_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match=r"expected a kind \(similarity, alignment, response\), found 'distance'"):
        tells([0.0], [0.0], 0.1, "distance")  # type: ignore[arg-type]
    for visible in (-0.1, NAN):
        with pytest.raises(ValueError, match=f"expected a visible difference of at least 0, found {visible}"):
            tells([0.0], [0.0], visible, "similarity")


@given(st.floats(-2, 2) | st.just(NAN), st.floats(-2, 2) | st.just(NAN), st.floats(0, 1))
def test_a_response_is_read_as_an_alignment(v: float, b: float, visible: float) -> None:
    """More of it betrays the bug, and there is room for it as long as the control leaves some."""
    assert tells(v, b, visible, "response") == tells(v, b, visible, "alignment")
    assert has_headroom("response", v, b, visible) == has_headroom("alignment", v, b, visible)


def test_above_floor_counts_ties_and_nan_one_half() -> None:
    assert above_floor([0.5, 0.1, 0.2, NAN, 0.2], [0.1, 0.5, 0.2, 0.2, NAN]).tolist() == [1, 0, 0.5, 0.5, 0.5]


# ---- estimates


@settings(max_examples=250, deadline=None)
@given(groups())
def test_a_row_is_what_the_formulas_say(plain: SimpleNamespace, case: tuple[Rows, int]) -> None:
    rows, seeds_total = case
    result = summary(rows, seeds_total).iloc[0]
    for name, number in plain_row(plain, rows, seeds_total).items():
        assert result[name] == pytest.approx(number, abs=1e-9, nan_ok=True), name
    above = plain.mean(plain.models_means(rows, plain_above))
    room = above > 0.6 if rows[0]["metric"] == "spearman" else result["benign"] < 1 - VISIBLE
    decided = verdict(result["effect"], result["ci_low"], result["ci_high"], room, undefined=result["undefined"])
    assert result["verdict"] == decided[0]
    assert (result["reason"] == "") == (result["verdict"] != "inconclusive")


@settings(max_examples=100, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=3))
def test_the_parts_of_an_interval(plain: SimpleNamespace, cases: list[tuple[Rows, int]]) -> None:
    """Triples, effects without a unit, images: of several groups at once, each as if it were alone."""
    several = [[row | {"method": f"m{number}"} for row in rows] for number, (rows, _) in enumerate(cases)]
    total = max(seeds_total for _, seeds_total in cases)
    _, rows = grouped(frame([row for part in several for row in part]), KINDS, DELTAS)
    arranged = arrange(rows.sample(frac=1, random_state=0), total)
    left, occurs = leave_one_out(arranged.means["tell"], arranged.units, arranged.nesting)
    over_models, exists = jackknife(left, occurs)
    ids, tell = arranged.ids, arranged.columns["tell"]
    group, example, means = image_means(tell, ids["group"], ids["example"])
    over_images, n = image_variance(group, means, len(several))
    for number, part in enumerate(several):
        triples = sorted({tuple(row[name] for name in TRIPLE) for row in part})
        of_group = arranged.nesting.group[arranged.nesting.model] == number
        roles = [[q % total, r % total if r >= 0 else -1, t % total] for q, _, r, t in triples]
        assert arranged.units[of_group].tolist() == roles
        assert np.flatnonzero(occurs[:, number]).tolist() == sorted(plain.units(part, total))
        rest = [plain.without(part, unit, total) for unit in range(len(left))]
        expected = [plain.mean(plain.models_means(kept, plain.tell)) for kept in rest]
        assert left[:, number] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        there = [each for unit, each in enumerate(expected) if occurs[unit, number]]
        assert exists[number] == (not any(map(math.isnan, there)))
        assert not exists[number] or over_models[number] == pytest.approx(plain.spread(there), abs=1e-12)
        images = plain.image_means(part, plain.tell)
        assert example[group == number].tolist() == list(images)
        assert means[group == number] == pytest.approx(list(images.values()), abs=1e-12)
        squared = np.var(list(images.values()), ddof=1) / len(images) if len(images) > 1 else NAN
        assert (n[number], over_images[number]) == (len(images), pytest.approx(squared, abs=1e-12, nan_ok=True))


def test_parts_that_are_wrong_would_be_noticed(plain: SimpleNamespace) -> None:
    """A unit left out as contaminated model only, or images counted by row, gives other numbers."""
    rows = similarity_rows(3, lambda q, r, t, i: (q + 2 * r + i) % 5 / 4, lambda q, r, t, i: (r + t + 2 * i) % 4 / 3)
    arranged = arrange(grouped(frame(rows), KINDS, DELTAS)[1], 3)
    one_role = np.where([[True, False, False]], arranged.units, -1)
    right = leave_one_out(arranged.means["tell"], arranged.units, arranged.nesting)[0]
    wrong = leave_one_out(arranged.means["tell"], one_role, arranged.nesting)[0]
    assert abs(right - wrong).max() > 0.01
    ids, tell = arranged.ids, arranged.columns["tell"]
    right_variance = image_variance(*image_means(tell, ids["group"], ids["example"])[::2], 1)[0]
    wrong_variance = image_variance(*image_means(tell, ids["group"], np.arange(len(tell)))[::2], 1)[0]
    assert abs(right_variance[0] / wrong_variance[0] - 1) > 0.3


@settings(max_examples=50, deadline=None)
@given(groups(), groups(), st.randoms(use_true_random=False))
def test_rows_depend_on_nothing_beside_them(one: tuple[Rows, int], two: tuple[Rows, int], random: Any) -> None:
    """Neither the order of scores nor another method's scores change a bit."""
    rows, seeds_total = one
    other = [row | {"method": "another"} for row in two[0]]
    mixed = rows + other
    random.shuffle(mixed)
    together = summary(mixed, seeds_total)
    alone = summary(rows, seeds_total)
    kept = together[together["method"] == "lime"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone, check_exact=True)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_control_set_itself_has_effect_one_half(seeds: int) -> None:
    """Level 0: the contaminated models are the controls, similarities are symmetric."""
    drawn = np.random.default_rng(seeds).normal(0.5, 0.3, (seeds, seeds, 7))
    both = np.round(drawn + drawn.swapaxes(0, 1), 2)
    rows = similarity_rows(seeds, lambda q, r, t, i: both[r, q, i], lambda q, r, t, i: both[r, t, i], images=7)
    result = summary(rows, seeds).iloc[0]
    assert result["effect"] == pytest.approx(0.5, abs=1e-15)
    assert result["verdict"] not in {"detects", "inverted"}


def test_equal_maps_everywhere_are_exactly_one_half() -> None:
    """Random and edge maps: v = b, no interval to speak of."""
    result = summary(similarity_rows(3, lambda *_: 0.7, lambda *_: 0.7), 3).iloc[0]
    assert (result["effect"], result["ci_low"], result["ci_high"], result["verdict"]) == (0.5, 0.5, 0.5, "blind")


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_models_decide_nothing(seeds: int) -> None:
    result = summary(similarity_rows(seeds, lambda *_: 0.0, lambda *_: 1.0), seeds).iloc[0]
    assert result["effect"] == 1
    if seeds == 2:
        assert (result["verdict"], result["reason"]) == ("inconclusive", "2 models; an interval needs 3")
        assert math.isnan(result["ci_low"])
        assert math.isnan(result["ci_high"])
    else:
        assert (result["verdict"], result["reason"], result["ci_low"]) == ("detects", "", 1.0)


def test_where_the_bug_took_in_few_models_the_reason_counts_them() -> None:
    rows = [row for row in similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0) if row["seed"] != 1]
    result = summary(rows, 3).iloc[0]
    assert (result["verdict"], result["reason"]) == (
        "inconclusive", "only 2 of 3 models have the bug; an interval needs 3",
    )  # fmt: skip
    assert too_few(1, 5) == "only 1 of 5 models has the bug; an interval needs 3"
    assert too_few(1, 1) == "1 model; an interval needs 3"


def test_one_example_gives_no_interval() -> None:
    result = summary(similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0, images=1), 3).iloc[0]
    assert (result["verdict"], result["reason"]) == ("inconclusive", "only 1 example; an interval needs 2")
    assert math.isnan(result["ci_low"])


def test_a_model_in_every_triple_gives_no_interval() -> None:
    rows = [row for row in similarity_rows(4, lambda *_: 0.0, lambda *_: 1.0) if row["reference"] == 0]
    result = summary(rows, 4).iloc[0]
    assert (result["verdict"], result["reason"]) == ("inconclusive", IN_EVERY_TRIPLE)
    assert math.isnan(result["ci_low"])


def test_a_seed_is_left_out_in_every_role(plain: SimpleNamespace) -> None:
    """Contaminated seeds S … 2S−1 fall on the units of the clean ones, and models left out as q still are units."""
    rows = similarity_rows(4, lambda q, r, t, i: float(i < 8 + r), lambda *_: 0.5, images=48)
    moved = [row | {"seed": row["seed"] + 4, "control_seed": row["control_seed"] + 4} for row in rows]
    without = [row for row in rows if row["seed"] != 1]
    low, high = plain.interval(rows, 4, plain.tell)
    assert summary(rows, 4)["ci_low"][0] == pytest.approx(low, abs=1e-12)
    assert summary(moved, 4)["ci_low"][0] == pytest.approx(low, abs=1e-12)
    assert summary(moved, 8)["ci_low"][0] != pytest.approx(low, abs=1e-3)
    assert summary(without, 4)["ci_low"][0] == pytest.approx(plain.interval(without, 4, plain.tell)[0], abs=1e-12)
    assert 0 < low < high < 1  # not clipped: the comparisons above compare widths


# ---- verdicts


@pytest.mark.parametrize(
    ("low", "high", "room", "expected"),
    [
        (0.61, 0.9, True, ("detects", "")),
        (0.61, 0.9, False, ("detects", "")),
        (0.6, 0.9, True, ("inconclusive", "effect .550, interval [.600, .900] undecided")),
        (0.41, 0.59, True, ("blind", "")),
        (0.41, 0.59, False, ("inconclusive", "no headroom")),
        (0.4, 0.59, True, ("inconclusive", "effect .550, interval [.400, .590] undecided")),
        (0.41, 0.6, True, ("inconclusive", "effect .550, interval [.410, .600] undecided")),
        (0.41, 0.77, False, ("inconclusive", "effect .550, interval [.410, .770] undecided")),
        (0.0, 0.39, True, ("inverted", "")),
        (0.0, 0.39, False, ("inverted", "")),
        (0.0, 0.4, True, ("inconclusive", "effect .550, interval [.000, .400] undecided")),
        (0.0, 1.0, True, ("inconclusive", "effect .550, interval [.000, 1.000] undecided")),
        (1.0, 1.0, True, ("detects", "")),
        (NAN, NAN, True, ("inconclusive", "no interval")),
    ],
)
def test_verdict(low: float, high: float, room: bool, expected: tuple[str, str]) -> None:
    assert verdict(0.55, low, high, room) == expected


def test_too_much_undefined_decides_nothing() -> None:
    assert verdict(0.9, 0.8, 1.0, True, undefined=0.1) == ("detects", "")
    assert verdict(0.9, 0.8, 1.0, True, undefined=0.23) == ("inconclusive", "undefined 23 %")
    assert verdict(0.9, 0.8, 1.0, True, undefined=0.104) == ("inconclusive", "undefined 10.4 %")
    assert verdict(0.9, NAN, NAN, True, undefined=0.23, no_interval="these models only")[1] == "these models only"


def test_headroom() -> None:
    assert has_headroom("similarity", 0.61, NAN, 0.1)
    assert not has_headroom("similarity", 0.6, 1.0, 0.1)
    assert has_headroom("alignment", 0.0, 0.89, 0.1)
    assert not has_headroom("alignment", 1.0, 0.9, 0.1)
    assert not has_headroom("alignment", 1.0, NAN, 0.1)


def test_maps_that_do_not_agree_with_themselves_are_not_blind() -> None:
    rows = similarity_rows(3, lambda *_: 0.0, lambda *_: 0.0)
    result = summary(rows, 3).iloc[0]
    assert (result["verdict"], result["reason"]) == ("inconclusive", "no headroom")


# ---- rows without scores


def outcome(verdict: str, reason: str, seeds: int = 2, **key: str) -> dict[str, Any]:
    return {**KEY, "metric": "spearman", **key, "verdict": verdict, "reason": reason, "seeds": seeds, "n": 5}


def test_outcomes_take_the_place_of_numbers() -> None:
    rows = similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0)
    rows += similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0, method="gradient")
    outcomes = pd.DataFrame([
        outcome("failed", "b"), outcome("unsupported", "z"), outcome("unsupported", "no ReLU"), outcome("failed", "a"),
        outcome("not taken", "accuracy .97 > .5", method="rise", level="0"),
        outcome("failed", "", method="rise", level="0"),
    ])  # fmt: skip
    results = summary(rows, 3, outcomes)
    assert list(results["method"]) == ["rise", "gradient", "lime"]  # level 0 before level 1
    assert list(results["verdict"]) == ["not taken", "detects", "unsupported"]
    assert list(results["reason"]) == ["accuracy .97 > .5", "", "no ReLU"]
    assert list(results["seeds"]) == [2, 3, 2]
    assert results.loc[[0, 2], ["undefined", "value", "effect", "ci_low"]].isna().all(axis=None)
    reversed_order = summary(rows[::-1], 3, outcomes[::-1])
    pd.testing.assert_frame_equal(results, reversed_order, check_exact=True)


def test_outcomes_alone_and_nothing_at_all() -> None:
    alone = summary([], 3, pd.DataFrame([outcome("failed", "out of memory")]))
    assert list(alone.columns) == list(RESULT_COLUMNS)
    assert alone[["suite", "verdict", "reason"]].to_numpy().tolist() == [["quick", "failed", "out of memory"]]
    nothing = summary([], 3)
    assert list(nothing.columns) == list(RESULT_COLUMNS)
    assert nothing.empty


def test_summarise_refuses_tables_it_cannot_read() -> None:
    rows = similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0)
    with pytest.raises(TableError, match="expected every example once in a triple, found one twice"):
        summary([*rows, rows[4]], 3)
    with pytest.raises(TableError, match=r"expected the columns .*, found none named draw$"):
        summarise(frame(rows).drop(columns="draw"), suite="s", seeds_total=3, kinds=KINDS, visible=DELTAS)
    with pytest.raises(TableError, match=r"expected text in every row of task, .*, found missing values"):
        summary([row | {"level": None} for row in rows], 3)
    with pytest.raises(TableError, match="expected a contaminated model's seed of at least 0, found -1"):
        summary([row | {"seed": row["seed"] - 1} for row in rows], 3)
    with pytest.raises(ValueError, match="expected a kind of every metric, found none of ssim"):
        summary([row | {"metric": "ssim"} for row in rows], 3)
    with pytest.raises(ValueError, match="expected at least one seed, found 0"):
        summary(rows, 0)
    with pytest.raises(TableError, match=r"expected an outcome .*, found 'blind'"):
        summary(rows, 3, pd.DataFrame([outcome("blind", "")]))
    with pytest.raises(TableError, match="found none named reason"):
        summary(rows, 3, pd.DataFrame([outcome("failed", "")]).drop(columns="reason"))


# ---- matrix


def test_matrix_shows_the_primary_metric_against_the_main_control() -> None:
    def detected(**key: Any) -> Rows:
        return similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0, **key)

    def unseen(**key: Any) -> Rows:
        return similarity_rows(3, lambda *_: 1.0, lambda *_: 1.0, **key)

    rows = detected() + unseen(post="abs") + unseen(control="noisy_training") + unseen(metric="total_variation")
    rows += unseen(method="predictions") + detected(method="predictions", metric="total_variation", post="none")
    results = summarise(frame(rows), suite="quick", seeds_total=3, kinds=KINDS | {"total_variation": "similarity"},
                        visible=DELTAS | {"total_variation": 0.01},
                        outcomes=pd.DataFrame([outcome("failed", "", method="rise")]))  # fmt: skip
    headlines = {"predictions": "total_variation@none"}
    shown = matrix(results, {"reinit": "spearman@sum"}, main_control={"reinit": "clean"}, headlines=headlines)
    assert list(shown.columns) == ["task", "bug", "level", "method", "verdict", "effect"]
    assert list(shown["method"]) == ["lime", "predictions", "rise"]
    assert list(shown["verdict"]) == ["detects", "detects", "failed"]
    assert shown["effect"].tolist()[:2] == [1.0, 1.0]
    with pytest.raises(ValueError, match="expected a primary metric of every bug, found none of reinit"):
        matrix(results, {}, main_control={"reinit": "clean"}, headlines=headlines)
    with pytest.raises(ValueError, match="expected a main control of every bug, found none of reinit"):
        matrix(results, {"reinit": "spearman@sum"}, main_control={}, headlines=headlines)
