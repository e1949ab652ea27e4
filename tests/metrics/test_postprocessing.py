"""Posts as data: what each step does, in which order, and what may not be combined."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attribug
from attribug.metrics.postprocessing import REDUCING, STEPS, postprocess, range_after, reduces_channels, steps


def maps(seed: int = 0, channels: int = 3) -> torch.Tensor:
    return torch.randn(4, channels, 5, 7, generator=torch.Generator().manual_seed(seed))


EXPECTED = {
    "none": lambda x: x,
    "abs": lambda x: x.abs(),
    "sum": lambda x: x[:, 0] + x[:, 1] + x[:, 2],
    "mean": lambda x: (x[:, 0] + x[:, 1] + x[:, 2]) / 3,
    "max": lambda x: torch.maximum(torch.maximum(x[:, 0], x[:, 1]), x[:, 2]),
    "abs_sum": lambda x: x[:, 0].abs() + x[:, 1].abs() + x[:, 2].abs(),
    "sum_abs": lambda x: (x[:, 0] + x[:, 1] + x[:, 2]).abs(),
    "minmax": lambda x: torch.stack([(e - e.min()) / (e.max() - e.min()) for e in x]),
    "percentile": lambda x: torch.stack([(e / np.percentile(e.abs(), 99)).clamp(-1, 1) for e in x]),
    "secondmoment": lambda x: torch.stack([e / math.sqrt(sum(v * v for v in e.flatten().tolist()) / 105) for e in x]),
}


@pytest.mark.parametrize("post", EXPECTED)
def test_steps_do_what_they_say(post):
    given_maps = maps()
    before = given_maps.clone()
    found = postprocess(given_maps, post)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, EXPECTED[post](before.double()), rtol=1e-14, atol=1e-14)
    assert torch.equal(given_maps, before)


def test_every_step_is_covered():
    assert set(STEPS) <= set(EXPECTED)


def test_order_matters():
    assert not torch.allclose(postprocess(maps(), "abs_sum"), postprocess(maps(), "sum_abs"))
    assert not torch.allclose(postprocess(maps(), "minmax_sum"), postprocess(maps(), "sum_minmax"))
    one, other = maps(0), maps(1)
    assert not torch.allclose(
        attribug.measure("pearson@abs_sum", one, other), attribug.measure("pearson@sum_abs", one, other)
    )


def test_channels_that_cancel_say_nothing_in_the_sum():
    opposite = torch.cat([maps(channels=1), -maps(channels=1)], dim=1)
    assert not postprocess(opposite, "sum").any()
    assert torch.equal(postprocess(opposite, "abs_sum"), 2 * maps(channels=1)[:, 0].abs().double())


def test_minmax_of_a_constant_map_is_undefined_for_it_alone():
    mixed = maps()
    mixed[1] = 0.3
    found = postprocess(mixed, "minmax")
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2, 3]].flatten(1).amin(1), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(found[[0, 2, 3]].flatten(1).amax(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_minmax_of_tiny_and_huge_maps(scale):
    torch.testing.assert_close(
        postprocess(maps() * scale, "minmax"), postprocess(maps(), "minmax"), rtol=1e-5, atol=1e-6
    )


def test_sums_are_taken_in_float64():
    """1 + 10⁻¹² − 1 in float32 would be 0 for one machine's order and 10⁻¹² for another's."""
    cancelling = torch.tensor([1.0, 1e-12, -1.0]).reshape(1, 3, 1, 1)
    assert postprocess(cancelling, "sum").item() == pytest.approx(1e-12, rel=1e-3)


# --- scales: the 99th percentile, the second moment ---


def values_of(maps):
    return maps[0].double().numpy()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_percentile_is_numpys(data, drawn_maps):
    (one,) = data.draw(drawn_maps(1, 12, 1))
    cap, found = np.percentile(np.abs(values_of(one)), 99), postprocess(one, "percentile")[0].numpy()
    if cap == 0:
        assert np.isnan(found).all()
    else:
        np.testing.assert_allclose(found, np.clip(values_of(one) / cap, -1, 1), rtol=1e-12, atol=0)
        assert np.abs(found).max() == 1


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_secondmoment_is_a_plain_loop(data, drawn_maps):
    (one,) = data.draw(drawn_maps(1, 12, 1))
    values = values_of(one)
    found = postprocess(one, "secondmoment")[0].numpy()
    if not values.any():
        assert np.isnan(found).all()
        return
    relative = values / np.abs(values).max()  # squares of huge values would overflow
    scale = math.sqrt(math.fsum(v * v for v in relative.ravel()) / values.size)
    np.testing.assert_allclose(found, relative / scale, rtol=1e-12, atol=0)
    assert np.array_equal(np.sign(found), np.sign(values))
    assert math.isclose((found**2).mean(), 1, rel_tol=1e-12)


@pytest.mark.parametrize("post", ["percentile", "secondmoment", "minmax", "abs_percentile", "sum_secondmoment"])
@pytest.mark.parametrize("factor", [1e-300, 3e-5, 7.0, 1e300])
def test_scaled_maps_have_no_scale(post, factor):
    plain = postprocess(maps(), post)
    torch.testing.assert_close(postprocess(factor * maps().double(), post), plain, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(postprocess(maps() + 5, post), plain) or post == "minmax"


def test_an_outlier_moves_the_percentile_less_than_the_others():
    """Why SmoothGrad's authors cap: the rest of a map keeps its place beside one extreme value."""
    plain = maps(channels=1).double().repeat(1, 1, 4, 4)
    spoilt = plain.clone()
    spoilt[:, :, 0, 0] = 1000
    moved = {}
    for post in ("percentile", "secondmoment", "abs_minmax"):
        before, after = postprocess(plain, post)[:, :, 1:], postprocess(spoilt, post)[:, :, 1:]
        moved[post] = ((after - before).abs().mean() / before.abs().mean()).item()
    assert moved["percentile"] < 0.1
    assert 0.9 < moved["secondmoment"] < moved["abs_minmax"]


@pytest.mark.parametrize("post", ["percentile", "secondmoment", "minmax"])
def test_maps_without_a_scale_are_undefined_for_them_alone(post):
    mixed = maps()
    mixed[1], mixed[2, 0, 0, 0] = 0, torch.nan
    found = postprocess(mixed, post)
    assert [example.isnan().all().item() for example in found] == [False, True, True, False]
    assert torch.equal(found[[0, 3]], postprocess(maps(), post)[[0, 3]])


# --- what a post promises ---

ALL = [
    "_".join(names)
    for length in (1, 2, 3)
    for names in itertools.product(STEPS, repeat=length)
    if sum(name in REDUCING for name in names) <= 1
]


def broken_promise(post, one):
    """Values outside of what the post promises; NaN lies outside of nothing."""
    low, high = range_after(post)
    found = postprocess(one, post)
    return found[(found < low) | (found > high)].tolist()


@settings(max_examples=400, deadline=None)
@given(post=st.sampled_from(ALL), data=st.data())
def test_promises_hold(post, data, drawn_maps):
    (one,) = data.draw(drawn_maps(1, 6, 1))
    assert broken_promise(post, one) == []
    assert postprocess(one, post).ndim == (3 if reduces_channels(post) else 4)


WRONG = {
    "sum": lambda low, high: (low, high),  # as a mean
    "abs": lambda low, high: (0.0, 1.0),
    "percentile": lambda low, high: (0.0, 1.0),
    "secondmoment": lambda low, high: (low, high),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_promise_is_found_out(name, drawn_maps, is_found_out, monkeypatch):
    monkeypatch.setitem(STEPS, name, replace(STEPS[name], range=WRONG[name]))
    drawn = st.tuples(st.sampled_from([post for post in ALL if name in post]), drawn_maps(1, 6, 1))
    assert is_found_out(drawn, lambda case: len(broken_promise(case[0], case[1][0])), lambda case: 0)


RANGES = {
    "none": (-math.inf, math.inf), "sum": (-math.inf, math.inf), "max": (-math.inf, math.inf),
    "abs": (0, math.inf), "abs_sum": (0, math.inf), "sum_abs": (0, math.inf), "abs_mean": (0, math.inf),
    "minmax": (0, 1), "minmax_mean": (0, 1), "minmax_sum": (0, math.inf), "abs_sum_minmax": (0, 1),
    "percentile": (-1, 1), "percentile_sum": (-math.inf, math.inf), "percentile_mean": (-1, 1),
    "percentile_abs": (0, 1), "abs_percentile": (0, 1), "percentile_minmax": (0, 1),
    "secondmoment": (-math.inf, math.inf), "abs_secondmoment": (0, math.inf), "minmax_secondmoment": (0, math.inf),
}  # fmt: skip


@pytest.mark.parametrize("post", RANGES)
def test_ranges_by_hand(post):
    assert range_after(post) == RANGES[post]


def test_ranges_are_no_wider_than_what_occurs():
    """A promise that nothing ever comes near would refuse posts for nothing."""
    wild = [maps(seed, channels=2).double() ** 3 for seed in range(4)]
    for post in ALL:
        low, high = range_after(post)
        found = torch.cat([postprocess(each, post).flatten() for each in wild])
        assert (found.min() < 0) == (low < 0), post
        assert (found.max() > 1) == (high > 1), post


# --- refusals ---


@pytest.mark.parametrize(
    ("post", "message"),
    [
        ("abs_summ", "post 'abs_summ': unknown step 'summ'; did you mean 'sum'?"),
        ("minmx", "post 'minmx': unknown step 'minmx'; did you mean 'minmax'?"),
        ("l2", f"post 'l2': unknown step 'l2'; expected one of: {', '.join(sorted(STEPS))}"),
        ("", f"post '': unknown step ''; expected one of: {', '.join(sorted(STEPS))}"),
        ("sum_", f"post 'sum_': unknown step ''; expected one of: {', '.join(sorted(STEPS))}"),
        ("sum_max", "post 'sum_max': expected at most one of sum, mean, max"),
        ("sum_abs_sum", "post 'sum_abs_sum': expected at most one of sum, mean, max"),
    ],
)
def test_wrong_posts_are_refused(post, message):
    for refused in (lambda: steps(post), lambda: attribug.measure(f"spearman@{post}", maps(), maps())):
        with pytest.raises(attribug.InputError) as error:
            refused()
        assert str(error.value) == message


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2, 5, 7), ()])
def test_channels_are_reduced_where_the_shape_tells_them(shape):
    with pytest.raises(attribug.Unsupported, match=r"post 'sum' reduces channels: expected images \(N, C, H, W\), seq"):
        postprocess(torch.rand(shape), "sum")


@pytest.mark.parametrize("post", ["sum", "abs_sum", "sum_abs", "abs_max_minmax", "mean_secondmoment", "minmax", "none"])
@pytest.mark.parametrize("wide", [False, True], ids=["vectors", "sequences"])
def test_vectors_and_sequences_are_images_of_one_row(post, wide):
    """(N, D) is what an image (N, 1, 1, D) is, (N, C, L) what (N, C, 1, L) is."""
    given = maps()[:, :, 0] if wide else maps()[:, 0, 0]  # (N, C, L) or (N, D)
    image = given[:, :, None] if wide else given[:, None, None]
    found, expected = postprocess(given, post), postprocess(image, post)
    assert found.shape == ((len(given), given.shape[-1]) if reduces_channels(post) else given.shape)
    assert torch.equal(found, expected.reshape(found.shape))
