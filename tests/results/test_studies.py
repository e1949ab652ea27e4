"""MeGe, ReCo, sMPRT and eMPRT, against plain loops over the papers' definitions."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import roc_curve

from attribug.results import study_measures
from attribug.results.schema import TableError

NAN = math.nan
Floats = npt.NDArray[np.float64]
correlations = st.one_of(st.just(NAN), st.integers(-16, 16).map(lambda number: number / 16))
SETS = st.lists(correlations, min_size=1, max_size=12)
DEFINED = st.lists(st.integers(-16, 16).map(lambda number: number / 16), min_size=1, max_size=12)


def plain_distance(rho: float, signed: bool) -> float:
    return math.sqrt(1 - rho) if signed else math.sqrt(1 - abs(rho))


def plain_mege(same: list[float], signed: bool) -> float:
    distances = [plain_distance(rho, signed) for rho in same if not math.isnan(rho)]
    return 1 / (1 + sum(distances) / len(distances)) if distances else NAN


def plain_reco(same: list[float], different: list[float], signed: bool) -> float:
    near = [plain_distance(rho, signed) for rho in same if not math.isnan(rho)]
    far = [plain_distance(rho, signed) for rho in different if not math.isnan(rho)]
    if not near or not far:
        return NAN
    found = []
    for threshold in [-1.0, *near, *far]:
        true_positives = sum(d <= threshold for d in near) / len(near)
        true_negatives = sum(d > threshold for d in far) / len(far)
        found.append(true_positives + true_negatives - 1)
    return max(found)


# --- distance ---


@pytest.mark.parametrize(
    ("rho", "published", "signed"),
    [(1.0, 0.0, 0.0), (0.75, 0.5, 0.5), (0.0, 1.0, 1.0), (-0.75, 0.5, math.sqrt(1.75)), (-1.0, 0.0, math.sqrt(2))],
)
def test_the_published_distance_equates_a_map_and_its_negative(rho, published, signed):
    assert study_measures.distance(rho) == pytest.approx(published, abs=0)
    assert study_measures.distance(rho, signed=True) == pytest.approx(signed, abs=1e-15)


def test_last_bits_do_not_tell_equal_maps_apart():
    rho = np.array([1.0, 1 - 2e-16, 1 + 2e-16, 1 - 1e-12, -1.0 - 2e-16])
    assert (study_measures.distance(rho) == 0).all()
    assert study_measures.reco(rho[:2], rho[2:4]) == 0
    assert study_measures.distance(1 - 1e-8) > 0


def test_no_correlation_is_undefined_and_more_than_one_is_an_error():
    assert np.isnan(study_measures.distance([NAN, 0.5])).tolist() == [True, False]
    with pytest.raises(TableError, match=r"^expected correlations in \[-1, 1\], found -1\.5$"):
        study_measures.distance([0.5, -1.5])


# --- pairs ---


@st.composite
def fold_models(draw: st.DrawFn) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    models, images = draw(st.integers(2, 5)), draw(st.integers(0, 6))
    correct = draw(arrays(np.bool_, (models, images)))
    return correct, draw(arrays(np.int64, images, elements=st.integers(0, models - 1)))


@given(fold_models())
def test_pairs_are_those_of_the_paper(case):
    correct, fold = case
    models, images = correct.shape
    expected: dict[str, set[tuple[int, int, int]]] = {"same": set(), "different": set()}
    for i, j in combinations(range(models), 2):
        for n in range(images):
            if fold[n] in {i, j} and (correct[i, n] or correct[j, n]):  # one of the two has held the image out
                expected["same" if correct[i, n] and correct[j, n] else "different"].add((i, j, n))
    same, different = study_measures.fold_pairs(correct, fold)
    others = study_measures.other_models(fold, models)
    for name, mask in {"same": same, "different": different}.items():
        assert mask.shape == (images, models - 1)
        found = [(*sorted((int(fold[n]), int(others[n, j]))), n) for n, j in np.argwhere(mask)]
        assert len(found) == len(set(found))
        assert set(found) == expected[name]


@pytest.mark.parametrize(
    ("correct", "fold", "message"),
    [
        (np.ones((1, 3)), [0, 0, 0], "expected correct (K, N) of at least two models and fold (N,), found (1, 3) and "),
        (np.ones((3, 2)), [0, 1, 2], "expected correct (K, N) of at least two models and fold (N,), found (3, 2) and "),
        (np.ones((3, 2)), [0, 3], "expected folds in [0, 3), found 0 to 3"),
        (np.ones((3, 2)), [-1, 2], "expected folds in [0, 3), found -1 to 2"),
    ],
)
def test_pairs_that_cannot_be(correct, fold, message):
    with pytest.raises(TableError) as error:
        study_measures.fold_pairs(correct, fold)
    assert str(error.value).startswith(message)


# --- MeGe and ReCo ---


@given(SETS, st.booleans())
def test_mege_is_the_plain_loop(same, signed):
    assert study_measures.mege(same, signed=signed) == pytest.approx(plain_mege(same, signed), rel=1e-12, nan_ok=True)


@given(DEFINED)
def test_mege_is_bounded_and_signs_only_lower_it(same):
    published, signed = study_measures.mege(same), study_measures.mege(same, signed=True)
    assert 0.5 <= published <= 1
    assert 1 / (1 + math.sqrt(2)) - 1e-12 <= signed <= published
    assert (signed == published) == (min(same) >= 0)
    assert study_measures.mege([-rho for rho in same]) == published
    assert study_measures.mege([*same, NAN]) == published


def test_mege_of_nothing_is_undefined():
    assert math.isnan(study_measures.mege([]))
    assert math.isnan(study_measures.mege([NAN, NAN]))


@given(SETS, SETS, st.booleans())
def test_reco_is_the_plain_loop(same, different, signed):
    expected = plain_reco(same, different, signed)
    assert study_measures.reco(same, different, signed=signed) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(DEFINED, DEFINED, st.booleans())
def test_reco_is_youdens_j_and_a_one_sided_kolmogorov_smirnov_statistic(same, different, signed):
    near, far = study_measures.distance(same, signed=signed), study_measures.distance(different, signed=signed)
    labels = np.repeat([1, 0], [len(near), len(far)])
    false_positives, true_positives, _ = roc_curve(labels, -np.concatenate([near, far]), drop_intermediate=False)
    found = study_measures.reco(same, different, signed=signed)
    assert found == pytest.approx((true_positives - false_positives).max(), abs=1e-12)
    assert found == pytest.approx(max(0, stats.ks_2samp(near, far, alternative="greater").statistic), abs=1e-12)
    assert 0 <= found <= 1


@given(DEFINED)
def test_reco_of_one_distribution_is_zero(same):
    assert study_measures.reco(same, same * 3) == pytest.approx(0, abs=1e-12)


def test_reco_counts_only_contradictions_that_are_further_apart():
    assert study_measures.reco([0.9, 0.8], [0.1, -0.2]) == 1
    assert study_measures.reco([0.1, -0.2], [0.9, 0.8]) == 0
    assert study_measures.reco([0.9, 0.9], [-0.9, -0.9]) == 0
    assert study_measures.reco([0.9, 0.9], [-0.9, -0.9], signed=True) == 1


# --- chance ---


def masks(images: int, different: int, pairs: int = 4) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The last images' pairs belong to S≠, all others to S⁼."""
    other = np.zeros((images, pairs), np.bool_)
    other[images - different :] = True
    return ~other, other


def test_chance_is_the_mean_reco_of_maps_that_know_nothing():
    stream = np.random.default_rng(3)
    same, different = masks(24, 8)
    recos, chances = [], []
    for _ in range(40):
        rho = stream.uniform(0, 1, (24, 1)) * 0.9 + stream.uniform(0, 0.1, (24, 4))
        recos.append(study_measures.reco(rho[same], rho[different]))
        chances.append(study_measures.reco_by_chance(rho, same, different))
    assert np.mean(chances) == pytest.approx(np.mean(recos), abs=0.06)
    assert np.mean(chances) > 0.15


def test_chance_is_passed_by_maps_that_know_and_zero_for_equal_ones():
    same, different = masks(24, 8)
    rho = np.where(same, 0.9, 0.1) + np.random.default_rng(0).uniform(0, 0.1, same.shape)
    assert study_measures.reco(rho[same], rho[different]) == 1
    assert study_measures.reco_by_chance(rho, same, different) < 0.6
    assert study_measures.reco_by_chance(np.ones_like(rho), same, different) == 0


def test_pairs_of_one_image_are_no_independent_evidence():
    stream = np.random.default_rng(5)
    same, different = masks(16, 8, pairs=8)
    by_image = np.broadcast_to(stream.uniform(0, 1, (16, 1)), same.shape)
    by_pair = stream.uniform(0, 1, same.shape)
    chances = [study_measures.reco_by_chance(rho, same, different) for rho in (by_image, by_pair)]
    assert chances[0] > 2 * chances[1]


def test_chance_is_undefined_where_reco_is_and_the_same_at_every_call():
    same, different = masks(6, 3)
    rho = np.random.default_rng(0).uniform(-1, 1, same.shape)
    assert study_measures.reco_by_chance(rho, same, different) == study_measures.reco_by_chance(rho, same, different)
    rho[different] = NAN
    assert math.isnan(study_measures.reco_by_chance(rho, same, different))


# --- stability ---


def test_stability_collects_and_counts():
    same, different = masks(10, 4, pairs=2)
    different[-1, -1] = False  # in neither
    rho = np.random.default_rng(0).uniform(-1, 1, same.shape)
    rho[0, 0] = rho[-1, -1] = NAN
    found = study_measures.stability(rho, same, different)
    assert found.mege == study_measures.mege(rho[same])
    assert found.mege_signed == study_measures.mege(rho[same], signed=True)
    assert found.reco == study_measures.reco(rho[same], rho[different])
    assert found.reco_signed == study_measures.reco(rho[same], rho[different], signed=True)
    assert found.reco_chance == study_measures.reco_by_chance(rho, same, different)
    assert found.undefined == pytest.approx(1 / 19)
    assert not found.reason


def test_stability_says_why_a_number_is_missing():
    same, different = masks(10, 4, pairs=2)
    rho = np.full(same.shape, 0.5)
    none = np.zeros_like(same)
    assert study_measures.stability(rho, same, none).reason == "no pair of models of which exactly one is correct"
    assert study_measures.stability(rho, none, different).reason == "no pair of models that are both correct"
    assert math.isnan(study_measures.stability(rho, none, different).mege)
    rho[different] = NAN
    found = study_measures.stability(rho, same, different)
    assert found.reason == "no defined pair of models of which exactly one is correct; undefined 40 %"
    assert (math.isnan(found.reco), found.mege) == (True, pytest.approx(1 / (1 + math.sqrt(0.5))))
    rho[:] = 0.5
    rho[0] = NAN
    assert not study_measures.stability(rho, same, different).reason  # 10 % is not more than 10 %
    rho[1, 0] = NAN
    assert study_measures.stability(rho, same, different).reason == "undefined 15 %"


def test_stability_refuses_what_does_not_fit():
    same, different = masks(3, 1, pairs=2)
    shapes = r"^expected three arrays \(N, K - 1\), found \(3, 3\), \(3, 2\) and \(3, 2\)$"
    with pytest.raises(TableError, match=shapes):
        study_measures.stability(np.zeros((3, 3)), same, different)
    with pytest.raises(TableError, match=r"^expected pairs in one of S= and S≠, found one in both$"):
        study_measures.stability(np.zeros((3, 2)), same, same)


# --- sMPRT ---


def plain_mean(numbers: list[float]) -> float:
    defined = [number for number in numbers if not math.isnan(number)]
    return sum(defined) / len(defined) if defined else NAN


@given(arrays(np.float64, st.tuples(*[st.integers(1, 4)] * 3), elements=correlations))
def test_smprt_is_the_plain_loop(values):
    models, layers, _ = values.shape
    by_layer = [plain_mean([plain_mean(list(values[m, layer])) for m in range(models)]) for layer in range(layers)]
    found = study_measures.smprt(values)
    assert found.layers == pytest.approx(by_layer, abs=1e-12, nan_ok=True)
    assert found.smprt == pytest.approx(sum(by_layer) / layers, abs=1e-12, nan_ok=True)
    assert found.undefined == pytest.approx(np.isnan(values).mean())
    assert bool(found.reason) or not math.isnan(found.smprt)


def test_smprt_counts_models_not_images():
    values = np.stack([np.full((2, 100), 0.2), np.full((2, 100), 0.4), np.full((2, 100), 0.9)])
    found = study_measures.smprt(values)
    assert found.smprt == pytest.approx(0.5)
    assert found.sem == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1) / math.sqrt(3))
    assert math.isnan(study_measures.smprt(values[:1]).sem)


def test_smprt_says_which_layer_is_undefined():
    values = np.full((2, 20, 3), 0.5)
    values[:, [1, 4]] = NAN
    found = study_measures.smprt(values)
    assert math.isnan(found.smprt)
    assert found.reason == "no similarity in layer 2, 5"
    assert [math.isnan(layer) for layer in found.layers].count(True) == 2


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 3), (0, 2, 3)])
def test_smprt_refuses_other_shapes(shape):
    with pytest.raises(TableError) as error:
        study_measures.smprt(np.zeros(shape))
    assert str(error.value) == f"expected similarities (models, layers, images), found {shape}"


# --- eMPRT ---


def plain_entropy(values: Floats, bins: int = 100) -> float:
    counts, _ = np.histogram(values, bins=bins)
    return float(stats.entropy(counts))


@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.sampled_from([2, 10, 100]))
def test_entropy_is_that_of_numpys_histogram(seed, size, bins):
    maps = np.random.default_rng(seed).standard_normal((3, size)) ** 3
    expected = [plain_entropy(values, bins) for values in maps]
    assert study_measures.entropy(maps, bins) == pytest.approx(expected, abs=1e-12)
    assert study_measures.entropy(maps.reshape(3, 1, size), bins) == pytest.approx(expected, abs=1e-12)
    assert (study_measures.entropy(maps, bins) <= math.log(bins) + 1e-12).all()


def test_entropy_of_plain_cases():
    even, two, constant, zero = np.arange(100), np.arange(100) % 2, np.full(100, 3.0), np.zeros(100)
    unlike = np.where(np.arange(100) == 7, NAN, 1.0), np.where(np.arange(100) == 7, math.inf, 1.0)
    found = study_measures.entropy(np.stack([even, two, constant, zero, *unlike]))
    assert found == pytest.approx([math.log(100), math.log(2), 0, 0, NAN, NAN], abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1e-300), (0.0, 1e300), (1e6, 1.0), (0.0, -1.0)])
def test_entropy_does_not_see_shift_and_scale(shift, scale):
    values = np.random.default_rng(0).standard_normal((1, 400))
    assert study_measures.entropy(shift + scale * values) == pytest.approx(study_measures.entropy(values), abs=1e-6)


def test_a_range_of_last_bits_is_a_range():
    values = np.array([[1.0, 1.0 + 2**-52, 1.0, 1.0]])  # NumPy alone refuses to make 100 bins of it
    assert study_measures.entropy(values) == pytest.approx(stats.entropy([3, 1]))


def test_emprt_is_the_relative_rise_and_knows_its_direction():
    stream = np.random.default_rng(0)
    sparse, dense = stream.standard_normal((5, 3, 64)) ** 9, stream.uniform(0, 1, (5, 3, 64))
    before, after = (np.array([plain_entropy(values) for values in maps]) for maps in (sparse, dense))
    assert study_measures.emprt(sparse, dense) == pytest.approx((after - before) / before, rel=1e-9)
    assert (study_measures.emprt(sparse, dense) > 0).all()
    assert (study_measures.emprt(dense, sparse) < 0).all()
    assert (study_measures.emprt(sparse, sparse) == 0).all()


def test_emprt_of_constant_and_broken_maps():
    lively, constant = np.random.default_rng(0).standard_normal((1, 50)), np.ones((1, 50))
    broken = np.where(np.arange(50) == 3, NAN, lively)
    assert study_measures.emprt(lively, constant) == -1
    for pair in ((constant, lively), (constant, constant), (broken, lively), (lively, broken)):
        assert math.isnan(study_measures.emprt(*pair)[0])
    with pytest.raises(TableError, match=r"^expected maps of one shape, found \(1, 50\) and \(1, 49\)$"):
        study_measures.emprt(lively, lively[:, 1:])


@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=correlations))
def test_rise_is_the_plain_loop(values):
    of_models = [plain_mean(list(row)) for row in values]
    of_images = [plain_mean(list(column)) for column in values.T]

    def error(numbers: list[float]) -> float:
        defined = [number for number in numbers if not math.isnan(number)]
        return float(np.std(defined, ddof=1)) / math.sqrt(len(defined)) if len(defined) > 1 else NAN

    found = study_measures.rise(values)
    expected: list[Any] = [plain_mean(of_models), error(of_images), error(of_models), np.isnan(values).mean()]
    numbers = [found.emprt, found.se, found.sem, found.undefined]
    assert numbers == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert bool(found.reason) == (found.undefined > 0.1)


def test_rise_refuses_other_shapes():
    with pytest.raises(TableError, match=r"^expected rises \(models, images\), found \(2, 0\)$"):
        study_measures.rise(np.zeros((2, 0)))
