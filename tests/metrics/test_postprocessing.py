"""Posts as data: what each step does, in which order, and what may not be combined."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attribug
from attribug.metrics.postprocessing import REDUCES, STEPS, is_nonnegative, postprocess, reduces_channels, steps

torch.set_num_threads(1)


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


ALL = [
    "_".join(names)
    for length in (1, 2, 3)
    for names in itertools.product(STEPS, repeat=length)
    if sum(name in REDUCES for name in names) <= 1
]


@settings(max_examples=150, deadline=None)
@given(post=st.sampled_from(ALL), seed=st.integers(0, 10**6), channels=st.sampled_from([1, 3]))
def test_promises_hold(post, seed, channels):
    """A post that promises non-negative or channel-free maps gives them; one that gives them by chance need not."""
    found = postprocess(-maps(seed, channels).abs() if seed % 2 else maps(seed, channels), post)
    assert not is_nonnegative(post) or (found >= 0).all() or found.isnan().any()
    assert found.ndim == (3 if reduces_channels(post) else 4)


@pytest.mark.parametrize("post", ["sum", "max", "none", "mean"])
def test_signed_maps_promise_nothing(post):
    assert not is_nonnegative(post)
    assert (postprocess(maps(), post) < 0).any()


# --- refusals ---


@pytest.mark.parametrize(
    ("post", "message"),
    [
        ("abs_summ", "post 'abs_summ': unknown step 'summ'; did you mean 'sum'?"),
        ("minmx", "post 'minmx': unknown step 'minmx'; did you mean 'minmax'?"),
        ("l2", "post 'l2': unknown step 'l2'; expected one of: abs, max, mean, minmax, none, sum"),
        ("", "post '': unknown step ''; expected one of: abs, max, mean, minmax, none, sum"),
        ("sum_", "post 'sum_': unknown step ''; expected one of: abs, max, mean, minmax, none, sum"),
        ("sum_max", "post 'sum_max': expected at most one of sum, mean, max"),
        ("sum_abs_sum", "post 'sum_abs_sum': expected at most one of sum, mean, max"),
    ],
)
def test_wrong_posts_are_refused(post, message):
    for refused in (lambda: steps(post), lambda: attribug.measure(f"spearman@{post}", maps(), maps())):
        with pytest.raises(attribug.InputError) as error:
            refused()
        assert str(error.value) == message


@pytest.mark.parametrize("shape", [(4, 9), (4, 5, 7), (4,)])
def test_channels_are_reduced_where_there_are_channels(shape):
    """Summing dimension 1 of (N, H, W) would silently sum rows."""
    with pytest.raises(attribug.Unsupported, match=r"post 'sum' reduces channels: expected maps \(N, C, H, W\), found"):
        postprocess(torch.rand(shape), "sum")
