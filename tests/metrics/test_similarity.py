"""Similarities against SciPy, scikit-image and plain loops, on maps of every kind."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from skimage.metrics import structural_similarity

import attribug
from attribug.metrics import prepared
from attribug.metrics.order import CACHED, averaged_ranks
from attribug.metrics.similarity import blurred, ranks, standardised

SCALES = [1.0, 1e-30, 1e30]
KINDS = ["random", "sparse", "tied", "negative", "heavy", "spike", "constant", "zero", "drawn"]


def drawn(
    kind: str, scale: float, shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """A map of a kind, of the given shape; `drawn` mixes the others' values."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    pattern = {
        "random": values,
        "sparse": values * (rng.random(shape) < 0.05),
        "tied": rng.integers(-2, 3, shape).astype(float),
        "negative": -np.abs(values),
        "heavy": values**7,
        "spike": np.eye(1, values.size, int(rng.integers(values.size))).reshape(shape),
        "constant": np.full(shape, 0.3),
        "zero": np.zeros(shape),
        "drawn": np.where(rng.random(shape) < 0.5, values, rng.integers(0, 2, shape)),
    }
    return torch.from_numpy(pattern[kind] * scale).to(dtype)


@st.composite
def pairs(draw, smallest: int = 1, largest: int = 12):
    """Two maps (1, C, H, W) of one shape, each of its own kind and scale."""
    shape = (
        1,
        draw(st.sampled_from([1, 3])),
        draw(st.integers(smallest, largest)),
        draw(st.integers(smallest, largest)),
    )
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    one, other = (
        drawn(draw(st.sampled_from(KINDS)), draw(st.sampled_from(SCALES)), shape, draw(st.integers(0, 10**6)), dtype)
        for _ in range(2)
    )
    return one, other


def reduced(maps: torch.Tensor, post: str) -> np.ndarray:
    values = maps[0].double().numpy()
    return {"sum": values.sum(0), "abs_sum": np.abs(values).sum(0), "none": values, "max": values.max(0)}[post]


def agrees(found: torch.Tensor, expected: float, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(found.item(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("post", ["sum", "abs_sum", "none", "max"])
@pytest.mark.parametrize(("metric", "oracle"), [("spearman", stats.spearmanr), ("pearson", stats.pearsonr)])
@settings(max_examples=60, deadline=None)
@given(pair=pairs())
def test_correlations_are_scipys(metric, oracle, post, pair):
    a, b = (reduced(each, post).ravel() for each in pair)
    found = attribug.measure(f"{metric}@{post}", *pair)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found.isnan()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of nearly constant input
        agrees(found, oracle(a, b).statistic)


@settings(max_examples=60, deadline=None)
@given(pair=pairs())
def test_ranks_are_scipys(pair):
    one = pair[0]
    found, expected = ranks(one)[0].numpy(), stats.rankdata(one.double().numpy().ravel())
    centred = expected - expected.mean()
    if not centred.any():
        assert np.isnan(found).all()
    else:
        np.testing.assert_allclose(found, centred / np.linalg.norm(centred), rtol=0, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, np.inf, -np.inf, np.nan]) | st.floats()),
    maps=st.integers(1, 4),
)
def test_averaged_ranks_are_exactly_scipys(values, maps):
    rows = np.array([values[shift:] + values[:shift] for shift in range(maps)]).reshape(maps, -1)
    if rows.size:
        np.testing.assert_array_equal(averaged_ranks(rows), stats.rankdata(rows, axis=1, nan_policy="propagate"))


@pytest.mark.parametrize("kind", ["random", "sparse", "tied", "heavy", "constant"])
def test_averaged_ranks_of_large_maps_are_exactly_scipys(kind):
    rows = torch.stack([drawn(kind, 1.0, (40_000,), seed) for seed in range(3)]).numpy()  # sorted digit by digit
    np.testing.assert_array_equal(averaged_ranks(rows), stats.rankdata(rows, axis=1))


@pytest.mark.parametrize("monotone", [torch.exp, lambda x: x**3, lambda x: 5 * x - 2, torch.atan])
def test_spearman_sees_the_order_alone(monotone):
    one, other = (drawn("tied", 0.5, (1, 1, 9, 7), seed) for seed in (0, 1))
    plain = attribug.measure("spearman", one, other)
    assert torch.equal(attribug.measure("spearman", monotone(one), other), plain)
    torch.testing.assert_close(attribug.measure("spearman", monotone(one), -other), -plain, rtol=0, atol=1e-12)
    assert not torch.equal(attribug.measure("pearson", torch.exp(one), other), attribug.measure("pearson", one, other))


@pytest.mark.parametrize("factor", [1e-30, 3e-5, 7.0, 1e30])
@pytest.mark.parametrize(
    "name", ["pearson@sum", "pearson@abs_sum", "spearman@sum", "ssim@sum_minmax", "ssim@abs_sum_minmax"]
)
@pytest.mark.parametrize("kind", ["random", "sparse", "heavy"])
def test_scale_does_not_matter(name, factor, kind):
    one, other = (drawn(kind, 1.0, (1, 3, 15, 12), seed) for seed in (2, 3))
    scaled = attribug.measure(name, factor * one, other)
    torch.testing.assert_close(scaled, attribug.measure(name, one, other), rtol=0, atol=1e-9)


def test_pearson_ignores_an_offset():
    one, other = (drawn("random", 1.0, (1, 1, 9, 7), seed) for seed in (4, 5))
    plain = attribug.measure("pearson", one, other)
    torch.testing.assert_close(attribug.measure("pearson", one + 100, other - 7), plain, rtol=0, atol=1e-10)


def test_opposite_maps_correlate_fully_negatively():
    one = drawn("random", 1.0, (1, 3, 9, 7), 6)
    for name in ("pearson", "spearman"):
        agrees(attribug.measure(name, one, -one), -1)


def test_maps_that_differ_in_the_last_bits_are_not_constant():
    one = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    one[0, 0, 1, 1] += 1e-15
    assert not standardised(one).isnan().any()
    assert standardised(one + 1e-15 * one.mean() - 1e-15).isfinite().all()
    agrees(attribug.measure("pearson", one, one), 1)


# --- SSIM ---


def skimages(a: np.ndarray, b: np.ndarray, **options) -> float:
    return structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, **options
    )


def stretched(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("post", ["sum", "abs_sum", "none"])
@settings(max_examples=50, deadline=None)
@given(pair=pairs(11, 19))
def test_ssim_is_scikit_images(post, pair):
    a, b = (reduced(each, post) for each in pair)
    found = attribug.measure("ssim@minmax" if post == "none" else f"ssim@{post}_minmax", *pair)
    if a.min() == a.max() or b.min() == b.max():
        assert found.isnan()
    else:
        agrees(found, skimages(stretched(a), stretched(b), **({"channel_axis": 0} if post == "none" else {})), 1e-8)


@pytest.mark.parametrize("shape", [(1, 1, 11, 11), (1, 2, 11, 30), (1, 1, 33, 12)])
def test_ssim_of_odd_sizes(shape):
    one, other = (drawn("random", 1.0, shape, seed) for seed in (7, 8))
    expected = skimages(stretched(one[0].sum(0).numpy()), stretched(other[0].sum(0).numpy()))
    agrees(attribug.measure("ssim", one, other), expected, 1e-10)


def test_ssim_is_the_papers_formula():
    """Equation 13 in one window that is the whole map, weight by weight."""
    one, other = (stretched(drawn("random", 1.0, (11, 11), seed).numpy()) for seed in (9, 10))
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    means = [(weights * each).sum() for each in (one, other)]
    variances = [(weights * (each - mean) ** 2).sum() for each, mean in zip((one, other), means, strict=True)]
    covariance = (weights * (one - means[0]) * (other - means[1])).sum()
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * means[0] * means[1] + c1) * (2 * covariance + c2)
    expected /= (means[0] ** 2 + means[1] ** 2 + c1) * (variances[0] + variances[1] + c2)
    found = attribug.measure("ssim", *(torch.from_numpy(each)[None, None] for each in (one, other)))
    agrees(found, expected, 1e-12)


@pytest.mark.parametrize("shape", [(2, 1, 11, 11), (1, 3, 18, 19), (3, 2, 26, 40), (1, 1, 130, 71)])
def test_local_means_are_scipys(shape):
    planes = drawn("random", 1.0, shape, 0)
    expected = ndimage.gaussian_filter(planes.numpy(), 1.5, truncate=3.5, axes=(2, 3))[:, :, 5:-5, 5:-5]
    np.testing.assert_allclose(blurred(planes).numpy(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(1, 1, 10, 30), (1, 1, 30, 10), (1, 3, 1, 1)])
def test_ssim_of_maps_narrower_than_its_window_is_refused(shape):
    with pytest.raises(attribug.Unsupported, match="ssim needs maps of more than 10 pixels a side, found"):
        attribug.measure("ssim", torch.rand(shape), torch.rand(shape))


def test_ssim_of_unrelated_heavy_tailed_maps_is_high():
    """What its docstring warns of, and why every similarity is read beside its floor."""
    one, other = (drawn("heavy", 1.0, (1, 1, 64, 64), seed) ** 3 for seed in (11, 12))
    assert attribug.measure("ssim", one, other) > 0.9
    assert attribug.measure("spearman", one, other).abs() < 0.1


# --- prepared forms ---


@pytest.mark.parametrize("name", ["pearson", "spearman", "ssim"])
def test_one_prepared_map_meets_many(name):
    metric = attribug.metrics.get(name)
    post = metric.posts[0]
    maps = torch.cat([drawn("random", 1.0, (1, 3, 13, 12), seed) for seed in range(6)])
    form = prepared(metric, maps, post)
    for i in range(6):
        for j in range(6):
            values = metric.function(form[torch.tensor([i])], form[j : j + 1])
            torch.testing.assert_close(
                values, attribug.measure(name, maps[i : i + 1], maps[j : j + 1]), rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("name", ["pearson", "spearman", "ssim@sum_minmax", "ssim@minmax"])
@pytest.mark.parametrize("side", [11, 28, 45, 190])
def test_a_value_is_the_same_to_the_last_bit_in_every_batch(name, side):
    """Also where a batch is worked on in several groups."""
    count = min(2 * CACHED // (3 * side**2) + 3, 40)
    one, other = (drawn("heavy", 1.0, (count, 3, side, side), seed) for seed in (20, 21))
    together = attribug.measure(name, one, other)
    last_first = attribug.measure(name, one.flip(0), other.flip(0)).flip(0)
    alone = torch.cat([attribug.measure(name, one[i : i + 1].clone(), other[i : i + 1]) for i in range(count)])
    assert torch.equal(alone, together)
    assert torch.equal(last_first, together)
