"""The table of alignment: means, intervals, ranks, cases and disagreements, against SciPy and slow loops."""

from __future__ import annotations

import io
import math
from statistics import mean, variance

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from attribug.results import alignment
from attribug.results.alignment import COLUMNS, cases, chosen, disagreements, read_alignment, readable
from doubles.aligned import accuracy, lacking, rows, scores, study, together

NOTHING = accuracy(), lacking()


def only(part: pd.DataFrame, *rest: pd.DataFrame) -> pd.Series:
    """The one row of a table of these scores."""
    found = alignment.table(part, *(rest or NOTHING))
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def made() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return study()


@pytest.fixture(scope="module")
def table(made: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    return alignment.table(*made)


SHARES = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 3))


@given(st.lists(SHARES, min_size=3, max_size=12).filter(lambda values: not set(values) <= {0.0, 1.0}))
def test_one_model_has_students_interval_over_images(values: list[float]) -> None:
    assume(np.ptp(values) > 0.01)  # SciPy warns of values that are nearly the same
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert alignment.intervals.interval(np.array([values])) == pytest.approx((max(0, low), min(1, high)))


def test_the_row_of_one_model_says_so() -> None:
    row = only(scores([[0.2, 0.3, 0.6]]))
    low, high = stats.ttest_1samp([0.2, 0.3, 0.6], 0).confidence_interval(0.95)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((max(0, low), high))
    assert (row["reason"], row["n"], row["units"]) == ("this model only", 3, 1)


def test_three_models_have_both_parts_by_a_slow_loop() -> None:
    draw = np.random.default_rng(1)
    values = draw.random((4, 9))
    values[0, 2] = values[3, 5] = values[2, 5] = math.nan
    units = [mean(value for value in row if not math.isnan(value)) for row in values.tolist()]
    images = [mean(value for value in column if not math.isnan(value)) for column in values.T.tolist()]
    half = stats.t.ppf(0.975, 3) * math.sqrt(variance(units) / 4 + variance(images) / 9)
    row = only(scores(values.tolist()))
    assert row["value"] == pytest.approx(mean(units))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((mean(units) - half, mean(units) + half))
    assert (row["reason"], row["n"], row["units"], row["undefined"]) == ("", 9, 4, pytest.approx(3 / 36))


def test_two_models_have_images_alone() -> None:
    values = np.random.default_rng(2).random((2, 9))
    row = only(scores(values.tolist()))
    low, high = stats.ttest_1samp(values.mean(axis=0), 0).confidence_interval(0.95)
    assert (row["ci_low"], row["ci_high"], row["reason"]) == (pytest.approx(low), pytest.approx(high), "2 models only")


@pytest.mark.parametrize(("hits", "n"), [(0, 30), (1, 30), (30, 30), (15, 30), (2, 5)])
def test_hits_have_at_least_wilsons_interval(hits: int, n: int) -> None:
    values = [1.0] * hits + [0.0] * (n - hits)
    row = only(scores([values]))
    wilson = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    student = stats.ttest_1samp(values, 0).confidence_interval(0.95) if 0 < hits < n else (hits / n, hits / n)
    assert row["ci_low"] == pytest.approx(max(0, min(wilson.low, student[0])))
    assert row["ci_high"] == pytest.approx(min(1, max(wilson.high, student[1])))


def test_shares_that_are_no_hits_keep_students_interval() -> None:
    """A Wilson interval of shares near zero would be far too wide."""
    values = [0.001, 0.002, 0.001, 0.003]
    assert only(scores([values]))["ci_high"] < 0.01


@pytest.mark.parametrize(("units", "between"), [(1, 0.0), (3, 0.05), (3, 0.3), (5, 0.1)])
def test_the_interval_covers(units: int, between: float) -> None:
    """At least 90 % of the 95 % that it claims, over simulated studies."""
    draw = np.random.default_rng(units)
    covered = 0
    for _ in range(400):
        model, image = draw.normal(0, between, (units, 1)), draw.normal(0, 0.1, (1, 25))
        values = 0.5 + model * 0.5 + image + draw.normal(0, 0.05, (units, 25))
        low, high = alignment.intervals.interval(values)
        covered += low <= 0.5 <= high
    assert covered / 400 >= 0.9


def test_the_simulation_rejects_intervals_over_images_alone_where_models_differ() -> None:
    draw = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        values = 0.5 + draw.normal(0, 0.15, (3, 1)) + draw.normal(0, 0.1, (3, 25))
        low, high = stats.ttest_1samp(values.mean(axis=0), 0).confidence_interval(0.95)
        covered += low <= 0.5 <= high
    assert covered / 200 < 0.6


def test_rare_hits_are_covered_as_well() -> None:
    draw = np.random.default_rng(6)
    hits = (draw.random((500, 1, 40)) < 0.02).astype(float)
    ends = [alignment.intervals.interval(values) for values in hits]
    assert np.mean([low <= 0.02 <= high for low, high in ends]) >= 0.9


def test_undefined_and_empty_masks_are_counted_and_said() -> None:
    values = [[0.2, 0.3, math.nan, 0.4], [0.2, 0.4, math.nan, 0.1]]
    row = only(scores(values, pixels=np.array([[9, 9, 0, 16]] * 2)))
    assert (row["n"], row["undefined"]) == (3, 0.25)
    assert row["reason"] == "2 models only; 1 of 4 masks is empty; 25 % undefined"
    assert row["mask_side"] == 3.0
    nothing = only(scores([[math.nan] * 3], pixels=0))
    assert math.isnan(nothing["value"])
    assert math.isnan(nothing["mask_side"])
    assert "nothing is defined" in nothing["reason"]
    assert "3 of 3 masks are empty" in nothing["reason"]


def test_grain_and_side_decide_what_can_be_read() -> None:
    fine, coarse, unknown = (only(scores([[0.2, 0.3]], grain=grain, pixels=100)) for grain in (10.0, 10.1, math.nan))
    assert [readable(row) for row in (fine, coarse, unknown)] == [True, False, False]


@pytest.mark.parametrize(("shift", "said"), [(0.2, "above"), (-0.2, "below"), (0.0, "open")])
def test_above_random_is_by_the_paired_difference(shift: float, said: str) -> None:
    """Values spread far more than they differ from random ones of the same images."""
    draw = np.random.default_rng(3)
    base = draw.random((1, 30)) * 0.5 + 0.25
    noise = draw.normal(0, 0.01, base.shape)
    values, random = base + shift + noise - (noise.mean() if not shift else 0), base
    assert only(scores(values.tolist(), random=random))["above_random"] == said


def test_a_few_hits_are_not_above_random_for_certain() -> None:
    """Four of 60 against none: McNemar's exact test has p = .125, while Student's interval lies above 0."""
    values = [1.0] * 4 + [0.0] * 56
    assert stats.ttest_1samp(values, 0).confidence_interval(0.95).low > 0
    assert stats.binomtest(4, 4).pvalue == 0.125
    assert only(scores([values], random=0.0))["above_random"] == "open"
    assert only(scores([[1.0] * 12 + [0.0] * 48], random=0.0))["above_random"] == "above"


def test_accuracy_has_wilsons_interval_or_the_wider_one_over_models() -> None:
    few = only(scores([[0.1, 0.2]]), accuracy(("p", "m", "d", 0, 0.9, 50)), lacking())
    wilson = stats.binomtest(45, 50).proportion_ci(0.95, method="wilson")
    assert (few["accuracy_low"], few["accuracy_high"]) == pytest.approx(tuple(wilson))
    shares = (0.5, 0.7, 0.9)
    told = accuracy(*(("p", "m", "d", unit, share, 1000) for unit, share in enumerate(shares)))
    many = only(scores([[0.1, 0.2]] * 3), told, lacking())
    low, high = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
    assert (many["accuracy"], many["accuracy_low"], many["accuracy_high"]) == pytest.approx((0.7, low, min(1, high)))
    same = accuracy(*(("p", "m", "d", unit, 0.9, 50) for unit in range(3)))
    assert only(scores([[0.1, 0.2]] * 3), same, lacking())["accuracy_low"] == pytest.approx(wilson.low)
    assert math.isnan(only(scores([[0.1, 0.2]]))["accuracy"])


def masks(*values: np.ndarray, random: float = 0.0) -> pd.DataFrame:
    return together(*(scores(each.tolist(), mask=f"k{number}", random=random) for number, each in enumerate(values)))


def test_masks_are_ranked_by_what_they_gain_over_random() -> None:
    """The larger mask has the higher value, and the lower lift."""
    draw = np.random.default_rng(4)
    noise = draw.normal(0, 0.02, (1, 30))
    large = scores((0.5 + noise).tolist(), mask="large", random=0.45)
    small = scores((0.3 + noise[:, ::-1]).tolist(), mask="small", random=0.05)
    found = alignment.table(together(large, small), *NOTHING).set_index("mask")
    assert found["value"].idxmax() == "large"
    assert found.loc["small", ["mask_rank_low", "mask_rank_high"]].tolist() == [1, 1]
    assert found.loc["large", ["mask_rank_low", "mask_rank_high"]].tolist() == [2, 2]


def test_mask_ranks_by_slow_pairs() -> None:
    draw = np.random.default_rng(7)
    values = [np.clip(draw.normal(level, 0.1, (3, 20)), 0.01, 0.99) for level in (0.3, 0.33, 0.5, 0.55, 0.2)]
    found = alignment.table(masks(*values), *NOTHING).sort_values("mask")
    for number, row in enumerate(found.itertuples()):
        higher = lower = 0
        for other, theirs in enumerate(values):
            each = theirs - values[number]
            spread = math.sqrt(each.mean(axis=1).var(ddof=1) / 3 + each.mean(axis=0).var(ddof=1) / 20)
            certain = other != number and abs(each.mean()) > stats.t.ppf(0.975, 2) * spread
            higher, lower = higher + (certain and each.mean() > 0), lower + (certain and each.mean() < 0)
        assert (row.mask_rank_low, row.mask_rank_high) == (1 + higher, 5 - lower)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(2, 6), st.integers(2, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_ranks_hold_the_order_of_means(units: int, n: int, count: int, seed: int, hits: bool) -> None:
    draw = np.random.default_rng(seed)
    values = [draw.random((units, n)) for _ in range(count)]
    values = [(each < draw.random()).astype(float) if hits else each for each in values]
    found = alignment.table(masks(*values, random=0.25), *NOTHING)
    models = together(*(scores(each.tolist(), model=f"m{number}") for number, each in enumerate(values)))
    for table, what in ((found, "mask"), (alignment.table(models, *NOTHING), "model")):
        for row in table.itertuples():
            low, high = getattr(row, f"{what}_rank_low"), getattr(row, f"{what}_rank_high")
            assert low <= 1 + (table["value"] > row.value + 1e-12).sum()
            assert high >= count - (table["value"] < row.value - 1e-12).sum()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_what_is_identical_is_never_ranked_apart(units: int, n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    same = draw.choice([0.0, 0.25, 1.0], (units, n))
    other = draw.random((units, n))
    found = alignment.table(masks(same, other, same), *NOTHING).set_index("mask")
    ranks = ["mask_rank_low", "mask_rank_high"]
    assert found.loc["k0", ranks].tolist() == found.loc["k2", ranks].tolist()
    assert found.loc["k0", "mask_rank_high"] - found.loc["k0", "mask_rank_low"] >= 1


def test_one_mask_and_one_model_have_no_rank() -> None:
    row = only(scores([[0.1, 0.2, 0.3]]))
    assert all(math.isnan(row[name]) for name in COLUMNS if "_rank_" in name)


def test_models_are_paired_over_the_examples_that_both_have() -> None:
    """Images differ far more than the two models do; on different images nothing is certain."""
    draw = np.random.default_rng(8)
    base = draw.random(30) * 0.6 + 0.1
    better = (base + 0.05 + draw.normal(0, 0.01, 30))[None].tolist()
    paired = together(scores([base.tolist()], model="a"), scores(better, model="b"))
    found = alignment.table(paired, *NOTHING).set_index("model")
    assert found["model_rank_low"].to_dict() == {"a": 2, "b": 1}
    apart = together(scores([base.tolist()], model="a"), scores(better, model="b", first=1000))
    found = alignment.table(apart, *NOTHING)
    assert found["model_rank_low"].tolist() == [1, 1]
    assert found["model_rank_high"].tolist() == [2, 2]


def test_models_on_different_images_are_compared_as_welch_does() -> None:
    draw = np.random.default_rng(9)
    one, other = draw.normal(0.4, 0.05, 12), draw.normal(0.6, 0.2, 31)
    low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert alignment.intervals.unpaired(one[None], other[None]) == pytest.approx((low, high))


def test_models_of_several_seeds_differ_by_their_seeds_as_well() -> None:
    """Every image says that b is better, and the seeds of either model differ by more than that."""
    a = [[0.2 + level + 0.001 * image for image in range(20)] for level in (0.0, 0.2, 0.4)]
    b = [[value + 0.05 for value in row] for row in a]
    found = alignment.table(together(scores(a, model="a"), scores(b, model="b")), *NOTHING)
    assert found["model_rank_high"].tolist() == [2, 2]
    alone = alignment.table(together(scores(a[:1], model="a"), scores(b[:1], model="b")), *NOTHING)
    assert alone.set_index("model")["model_rank_low"].to_dict() == {"a": 2, "b": 1}


def test_the_order_of_rows_changes_nothing(
    made: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], table: pd.DataFrame
) -> None:
    mixed = [part.sample(frac=1, random_state=3) for part in made]
    pd.testing.assert_frame_equal(alignment.table(*mixed), table, check_exact=True)
    pd.testing.assert_frame_equal(cases(mixed[0]), cases(made[0]), check_exact=True)


def test_what_is_lacking_has_a_row_with_its_reason(table: pd.DataFrame) -> None:
    (absent,) = rows(table, method="lrp_epsilon").itertuples()
    assert (absent.reason, absent.n, absent.metric) == ("no rule for this layer", 0, "")
    assert math.isnan(absent.value)
    assert absent.accuracy == 0.62
    (subject,) = rows(table, model="own").itertuples()
    assert (subject.method, subject.reason) == ("", "no weights")
    assert tuple(table.columns) == COLUMNS


def test_what_is_wrong_is_refused_in_a_line() -> None:
    part = scores([[0.1, 0.2]])
    with pytest.raises(ValueError, match=r"^scores: expected an example once in a unit, found one twice$"):
        alignment.table(together(part, part), *NOTHING)
    with pytest.raises(ValueError, match=r"^scores: expected the columns .*, found no grain$"):
        alignment.table(part.drop(columns="grain"), *NOTHING)
    with pytest.raises(ValueError, match=r"^accuracy: expected the columns .*, found no tested$"):
        alignment.table(part, accuracy().drop(columns="tested"), lacking())


def test_a_table_is_read_as_it_was_written(table: pd.DataFrame) -> None:
    written = table.to_csv(index=False)
    pd.testing.assert_frame_equal(read_alignment(io.StringIO(written)), table)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("accuracy_low", "accuracies", "expected the columns"),
        ("0.1,2,", "much,2,", "random: expected numbers, found 'much'"),
        ("open", "perhaps", "above_random: expected above, below or open, found 'perhaps'"),
    ],
)
def test_another_table_is_refused(old: str, new: str, said: str) -> None:
    written = alignment.table(scores([[0.1, 0.2]]), *NOTHING).to_csv(index=False)
    assert old in written
    with pytest.raises(ValueError, match=said):
        read_alignment(io.StringIO(written.replace(old, new)))
    with pytest.raises(ValueError, match="expected one row for each"):
        read_alignment(io.StringIO(written + written.splitlines()[1]))


def test_cases_by_a_slow_loop(made: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> None:
    place = {"panel": "mnist_block", "model": "spurious", "mask": "block", "method": "gradient"}
    known = rows(made[0], **place, metric="iou")
    found = rows(cases(made[0]), **place)
    assert found["share"].sum() == pytest.approx(1)
    for row in found.itertuples():
        name = "" if row.case == alignment.NO_CASE else row.case
        per_unit = []
        for _, part in known.groupby("unit"):
            inside = [each for each in part.itertuples() if each.case == name and each.correct == row.correct]
            per_unit.append(len(inside) / len(part))
        assert row.share == pytest.approx(mean(per_unit))
        assert row.n == rows(known, case=name).query("correct == @row.correct")["example"].nunique()
    assert {alignment.NO_CASE, *alignment.CASES} >= set(found["case"])


def test_cases_need_a_known_prediction_and_a_defined_overlap() -> None:
    correct = np.array([[1.0, math.nan, 1.0, 0.0]])
    part = scores([[0.7, 0.7, math.nan, 0.1]], correct=correct, case=np.array([["human aligned"] * 3 + ["distracted"]]))
    found = cases(part).set_index("case")
    assert found["share"].to_dict() == {"distracted": 0.5, "human aligned": 0.5}
    assert found["correct"].to_dict() == {"distracted": 0.0, "human aligned": 1.0}
    assert cases(scores([[0.5]], metric="pointing_game")).empty


def test_metrics_that_disagree_for_certain_are_told() -> None:
    draw = np.random.default_rng(10)
    high, low = (np.clip(draw.normal(level, 0.05, (1, 40)), 0, 1) for level in (0.7, 0.3))

    def metric(name: str, block: np.ndarray, digit: np.ndarray) -> pd.DataFrame:
        return together(*(scores(v.tolist(), metric=name, mask=m) for m, v in (("block", block), ("digit", digit))))

    apart = together(metric("pointing_game", high, low), metric("iou", low, high), metric("mass_accuracy", high, low))
    said = "p, m on d, gradient: mass_accuracy and pointing_game put block first, iou digit"
    assert disagreements(alignment.table(apart, *NOTHING)) == [said]
    agreed = together(metric("pointing_game", high, low), metric("iou", high, low), metric("mass_accuracy", high, high))
    assert disagreements(alignment.table(agreed, *NOTHING)) == []


def test_some_methods_are_chosen_in_order(table: pd.DataFrame) -> None:
    assert chosen(table, 2, ("integrated_gradients", "lime")) == ["integrated_gradients", "grad_cam"]
    assert chosen(table, 2) == ["gradient", "integrated_gradients"]
    assert chosen(table, 9, (), leave=()) == sorted(set(table["method"]) - {"", "lrp_epsilon"})


def test_masks_are_told_in_order() -> None:
    draw = np.random.default_rng(11)
    values = [np.clip(draw.normal(level, 0.1, (1, 40)), 0, 1) for level in (0.3, 0.7, 0.32)]
    assert alignment.ranked(alignment.table(masks(*values), *NOTHING)) in {
        "1 k1, 2–3 k2, 2–3 k0",
        "1 k1, 2–3 k0, 2–3 k2",
    }
    assert alignment.ranked(alignment.table(masks(values[0]), *NOTHING)) == ""


def test_two_metrics_stand_for_all(table: pd.DataFrame) -> None:
    assert alignment.told_metrics(table) == ["pointing_game", "iou"]
    assert alignment.told_metrics(alignment.table(scores([[0.1, 0.2]], metric="mass_accuracy"), *NOTHING)) == [
        "mass_accuracy"
    ]


def test_ranks_of_a_study_tell_the_shortcut(table: pd.DataFrame) -> None:
    """The made-up spurious model looks at the block, the normal one at the digit."""
    place = {"panel": "mnist_block", "method": "gradient", "metric": "iou"}
    first = rows(table, **place)
    first = first[(first["mask_rank_low"] == 1) & (first["mask_rank_high"] == 1)]
    assert dict(zip(first["model"], first["mask"], strict=True)) == {"normal": "digit", "spurious": "block"}
    assert set(rows(table, **place | {"method": "random"})["above_random"]) == {"open"}
