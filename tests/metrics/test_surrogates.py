"""Surrogates keep what they promise, are random otherwise, and a plain shuffle does not pass for one; laws of noise."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import attribug
from attribug.metrics.surrogates import LAWS, SPARSE, iaaft

SHUFFLED = 0.5  # below the spectrum error of every shuffle here
KEPT = {"sparse": 0.3}  # above the spectrum error of every surrogate; a few blots fix phases, which no surrogate keeps


def spectrum_error(maps: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """How far the amplitude spectra of others lie from those of maps, (N,) float64: 0 equal, .65 shuffled white noise.

    √(Σ (|F'| − |F|)² / Σ |F|²) over all channels and all frequencies but zero; maps and others (N, H, W) or
    (N, C, H, W). NaN for a constant map.
    """
    flat = maps.double().flatten(1)
    scale = flat.abs().amax(1).clamp(min=torch.finfo(flat.dtype).tiny).reshape(-1, *[1] * (maps.ndim - 1))
    expected, found = (torch.fft.fft2(each.double() / scale).abs() for each in (maps, others))
    for spectrum in (expected, found):
        spectrum[..., 0, 0] = 0  # the mean
    error: torch.Tensor = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return torch.where(flat.amax(1) > flat.amin(1), error, torch.nan)


def streams(n: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + number) for number in range(n)]


def noise(law: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return LAWS[law](shape, torch.Generator().manual_seed(seed))


def shuffled(maps: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The planted wrong surrogate: right values, in a random order."""
    planes = maps.flatten(-2)
    order = torch.randperm(planes.shape[-1], generator=torch.Generator().manual_seed(seed))
    return planes[..., order].reshape(maps.shape)


def values(maps: torch.Tensor) -> torch.Tensor:
    return maps.double().flatten(-2).sort().values


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """Local means over 5 × 5, so that there is a spectrum to keep."""
    planes = maps.flatten(0, -3)[:, None]
    return torch.nn.functional.avg_pool2d(planes, 5, stride=1, padding=2).reshape(maps.shape)


# --- what surrogates promise ---


@pytest.mark.parametrize("size", [(32, 32), (33, 20), (64, 64)])
@pytest.mark.parametrize("law", LAWS)
def test_values_are_exact_and_the_spectrum_nearly(law, size):
    maps = smooth(noise(law, (2, 3, *size)))
    made = iaaft(maps, streams(2))
    assert made.dtype == torch.float64
    assert made.shape == maps.shape
    assert torch.equal(values(made), values(maps))
    assert spectrum_error(maps, made).max() < KEPT.get(law, 0.1)
    assert not torch.equal(made, maps)


@pytest.mark.parametrize("law", LAWS)
def test_a_shuffle_is_no_surrogate(law):
    maps = smooth(noise(law, (2, 3, 32, 32)))
    wrong = shuffled(maps)
    assert torch.equal(values(wrong), values(maps))
    assert spectrum_error(maps, wrong).min() > SHUFFLED


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    kind=st.sampled_from([*LAWS, "tied", "constant", "spike"]),
    scale=st.sampled_from([1.0, -1.0, 1e-300, 1e300]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
)
def test_values_are_exact_on_maps_of_every_kind(shape, kind, scale, dtype, seed):
    stream = torch.Generator().manual_seed(seed)
    if kind in LAWS:
        maps = LAWS[kind](shape, stream)
    else:
        maps = {"tied": torch.randint(-2, 3, shape, generator=stream), "constant": torch.full(shape, 0.3)}.get(
            kind, torch.zeros(shape).index_fill(-1, torch.tensor([shape[-1] - 1]), 1)
        )
    maps = (maps.double() * scale).clamp(-1e300, 1e300).to(dtype)
    before = maps.clone()
    made = iaaft(maps, streams(len(maps), seed))
    finite = maps.isfinite().flatten(-2).all(-1)  # (N, C): float32 knows no 1e300
    assert torch.equal(values(made)[finite], values(maps)[finite])
    assert made[~finite].isnan().all()
    assert torch.equal(maps, before)


def test_surrogates_of_smooth_maps_are_smooth_elsewhere():
    """The autocorrelation stays; the map's own places do not."""
    maps = smooth(noise("gaussian", (8, 1, 64, 64)))
    made = iaaft(maps, streams(8))

    def neighbours(planes: torch.Tensor) -> torch.Tensor:
        return attribug.measure("pearson@sum", planes, planes.roll(1, -1))

    torch.testing.assert_close(neighbours(made), neighbours(maps), rtol=0, atol=0.02)
    assert neighbours(shuffled(maps)).abs().max() < 0.1
    assert attribug.measure("spearman@sum", maps, made).abs().mean() < 0.1


def test_the_slow_loop_of_the_paper():
    """Rank by rank, frequency by frequency, in complex transforms."""
    plane = smooth(noise("student t3", (1, 9, 8)))
    x = plane[0].numpy()
    order = torch.randperm(x.size, generator=streams(1)[0]).numpy()
    r = np.sort(x, axis=None)[order].reshape(x.shape)
    for _ in range(20):
        transformed = np.fft.fft2(r)
        for index in np.ndindex(*x.shape):
            transformed[index] *= abs(np.fft.fft2(x)[index]) / abs(transformed[index])
        s = np.fft.ifft2(transformed).real
        r = np.empty_like(x)
        for rank, index in enumerate(sorted(np.ndindex(*x.shape), key=lambda at, s=s: s[at])):
            r[index] = np.sort(x, axis=None)[rank]
    np.testing.assert_array_equal(iaaft(plane, streams(1), iterations=20)[0].numpy(), r)


def test_it_stops_when_nothing_changes():
    maps = noise("gaussian", (1, 16, 16))
    settled = iaaft(maps, streams(1), iterations=1000)
    assert torch.equal(iaaft(maps, streams(1), iterations=2000), settled)
    errors = [spectrum_error(maps, iaaft(maps, streams(1), iterations=n)).item() for n in (1, 5, 1000)]
    assert errors == sorted(errors, reverse=True)


# --- randomness ---


def test_seeds_decide_and_nothing_else():
    maps = noise("laplace", (3, 2, 12, 12))
    state = torch.get_rng_state()
    one = iaaft(maps, streams(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(iaaft(maps, streams(3)), one)
    other = iaaft(maps, streams(3, first=100))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_examples_do_not_depend_on_their_batch():
    maps = smooth(noise("student t3", (5, 3, 17, 12)))
    whole = iaaft(maps, streams(5))
    for example in range(5):
        assert torch.equal(iaaft(maps[[example]], [streams(5)[example]])[0], whole[example])


def test_a_broken_example_or_channel_is_broken_alone():
    maps = noise("gaussian", (4, 2, 12, 12))
    whole = iaaft(maps, streams(4))
    maps[1, 0, 3, 4], maps[2, 0, 0, 0], maps[3, 0] = torch.nan, torch.inf, 0.7
    made = iaaft(maps, streams(4))
    assert made[1:3, 0].isnan().all()
    assert torch.equal(made[3, 0], maps[3, 0])
    assert torch.equal(made[:, 1], whole[:, 1])
    assert torch.equal(made[0], whole[0])


def test_maps_without_channels_are_as_those_with_one():
    maps = noise("gaussian", (3, 12, 15))
    assert torch.equal(iaaft(maps, streams(3)), iaaft(maps[:, None], streams(3))[:, 0])


def test_no_examples():
    assert iaaft(torch.zeros(0, 3, 8, 8), []).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("shape", "generators", "iterations", "message"),
    [
        ((12, 12), 12, 9, "surrogates: expected maps (N, H, W) or (N, C, H, W), found (12, 12)"),
        ((2, 12, 12), 3, 9, "surrogates: expected one generator an example, found 3 for 2"),
        ((2, 12, 12), 2, 0, "surrogates: expected iterations of at least 1, found 0"),
    ],
)
def test_refusals(shape, generators, iterations, message):
    with pytest.raises(attribug.InputError) as error:
        iaaft(torch.zeros(shape), streams(generators), iterations=iterations)
    assert str(error.value) == message


# --- spectrum error ---


def test_spectrum_error_knows_no_place_scale_or_sign():
    maps = noise("student t3", (3, 2, 14, 11))
    for same in (maps, -maps, maps.roll((3, 5), (-2, -1)), maps + 7, maps.flip(-2, -1)):
        assert spectrum_error(maps, same).max() < 1e-12
    torch.testing.assert_close(spectrum_error(1e300 * maps, 1.5e300 * maps), torch.full((3,), 0.5).double())
    assert spectrum_error(torch.full((1, 8, 8), 0.3), noise("gaussian", (1, 8, 8))).isnan().all()


# --- laws ---

MOMENTS = {  # name: (variance, kurtosis) of one value
    "gaussian": (1, 3),
    "gaussian squared": (2, 15),
    "laplace": (2, 6),
    "sparse": (SPARSE, 3 / SPARSE),
}
SCIPY = {"gaussian": stats.norm, "laplace": stats.laplace, "student t3": stats.t(3), "gaussian squared": stats.chi2(1)}


@pytest.mark.parametrize("law", SCIPY)
def test_laws_are_scipys(law):
    assert stats.kstest(noise(law, (50, 40, 40)).flatten().numpy(), SCIPY[law].cdf).pvalue > 0.001


@pytest.mark.parametrize("law", MOMENTS)
def test_moments_are_the_textbooks(law):
    drawn = noise(law, (100, 60, 60)).flatten()
    centred = drawn - drawn.mean()
    variance, kurtosis = centred.square().mean(), centred.pow(4).mean() / centred.square().mean() ** 2
    assert variance.item() == pytest.approx(MOMENTS[law][0], rel=0.05)
    assert kurtosis.item() == pytest.approx(MOMENTS[law][1], rel=0.1)


def test_amplitudes_fall_as_one_over_f():
    drawn = noise("gaussian 1/f", (40, 64, 64))
    amplitude = torch.fft.fft2(drawn).abs().square().mean(0).sqrt()
    ratios = [amplitude[0, f] * f / amplitude[0, 1] for f in (2, 4, 8, 16, 31)]
    torch.testing.assert_close(torch.stack(ratios), torch.ones(5).double(), rtol=0, atol=0.35)
    assert drawn.mean((1, 2)).abs().max() < 1e-12


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 9, 14), (2, 3, 11, 11)])
def test_laws_are_driven_by_their_generator_alone(law, shape):
    state = torch.get_rng_state()
    one = noise(law, shape, seed=1)
    assert one.shape == shape
    assert one.dtype == torch.float64
    assert torch.equal(noise(law, shape, seed=1), one)
    assert not torch.equal(noise(law, shape, seed=2), one)
    assert torch.equal(torch.get_rng_state(), state)


def test_laws_are_different():
    drawn = {law: noise(law, (3, 12, 12)) for law in LAWS}
    assert not any(torch.equal(drawn[a], drawn[b]) for a, b in itertools.combinations(LAWS, 2))
