"""Alignments with a mask against plain loops over pixels, on maps of every kind."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attribug
from attribug import metrics

torch.set_num_threads(1)
METRICS = ["mass_accuracy", "iou", "pointing_game"]
SCALES = [1.0, 1e-30, 1e30]


@st.composite
def cases(draw):
    """A map (1, C, H, W) of some kind and scale, and a mask (1, H, W)."""
    channels, height, width = draw(st.sampled_from([1, 3])), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = (channels, height, width)
    values = rng.standard_normal(shape)
    kind = draw(
        st.sampled_from(["random", "sparse", "tied", "negative", "heavy", "constant", "zero", "channels cancel"])
    )
    pattern = {
        "random": values,
        "sparse": values * (rng.random(shape) < 0.1),
        "tied": rng.integers(-2, 3, shape).astype(float),
        "negative": -np.abs(values),
        "heavy": values**7,
        "constant": np.full(shape, 0.3),
        "zero": np.zeros(shape),
        "channels cancel": values - values.mean(0),
    }[kind] * draw(st.sampled_from(SCALES))
    share = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.from_numpy(pattern).to(dtype)[None], torch.from_numpy(rng.random(shape[1:]) < share)[None]


def pixels(maps, masks, post):
    """The map's pixels after a post, in float64, and whether each lies in the mask."""
    values = maps[0].double().numpy()
    plane = {"abs_sum": np.abs(values).sum(0), "sum": values.sum(0), "abs_max": np.abs(values).max(0)}[post]
    return plane.ravel().tolist(), masks[0].numpy().ravel().tolist()


def mass_accuracy(values, inside):
    total = math.fsum(values)
    return math.fsum(v for v, i in zip(values, inside, strict=True) if i) / total if any(inside) and total else math.nan


def pointing_game(values, inside):
    if not any(inside) or min(values) == max(values):
        return math.nan
    hits = [i for v, i in zip(values, inside, strict=True) if v == max(values)]
    return sum(hits) / len(hits)


def iou(values, inside):
    """NaN for undefined; None where a pixel lies on the threshold but for rounding, and either answer would do."""
    if not any(inside) or min(values) == max(values):
        return math.nan
    largest = max(map(abs, values))
    values = [v / largest for v in values]
    mean = math.fsum(values) / len(values)
    threshold = mean + math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
    if any(abs(v - threshold) < 1e-12 for v in values):
        return None
    salient = [v > threshold for v in values]
    union = sum(s or i for s, i in zip(salient, inside, strict=True))
    return sum(s and i for s, i in zip(salient, inside, strict=True)) / union


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        ("mass_accuracy@abs_sum", mass_accuracy), ("mass_accuracy@abs_max", mass_accuracy),
        ("iou@abs_sum", iou), ("iou@sum", iou),
        ("pointing_game@abs_sum", pointing_game), ("pointing_game@sum", pointing_game),
    ],
)  # fmt: skip
@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_is_a_plain_loop(name, loop, case):
    expected = loop(*pixels(*case, name.partition("@")[2]))
    if expected is not None:
        np.testing.assert_allclose(attribug.measure(name, *case).item(), expected, rtol=0, atol=1e-9)


# --- by hand ---

MASK = torch.tensor([[[True, True, False], [False, False, False]]])


def measured(name, rows):
    return attribug.measure(name, torch.tensor(rows, dtype=torch.float64)[None, None], MASK).item()


def test_mass_accuracy_by_hand():
    assert measured("mass_accuracy", [[3, 1, 2], [0, -2, 0]]) == 0.5
    assert measured("mass_accuracy", [[0, 0, 2], [1, 0, 0]]) == 0
    assert measured("mass_accuracy", [[0, -5, 0], [0, 0, 0]]) == 1
    assert measured("mass_accuracy", [[7, 7, 7], [7, 7, 7]]) == pytest.approx(
        1 / 3
    )  # a flat map has its mass everywhere


def test_pointing_game_by_hand():
    assert measured("pointing_game", [[3, 1, 2], [0, 0, 0]]) == 1
    assert measured("pointing_game", [[1, 1, 2], [0, 0, 0]]) == 0
    assert measured("pointing_game", [[3, 0, 3], [3, 3, 0]]) == 0.25  # one of four tied maxima
    assert measured("pointing_game", [[3, 3, 3], [0, 0, 0]]) == pytest.approx(2 / 3)


def test_iou_by_hand():
    """Mean 1, standard deviation √2 in both: the two 3s are salient."""
    assert measured("iou", [[3, 3, 0], [0, 0, 0]]) == 1
    assert measured("iou", [[3, 0, 0], [0, 3, 0]]) == pytest.approx(1 / 3)
    assert measured("iou", [[0, 0, 0], [3, 3, 0]]) == 0


# --- undefined, and invariant ---


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [0.0, -0.0, math.nan])
def test_maps_that_say_nothing_are_undefined(name, value):
    assert math.isnan(measured(name, [[value, 0, 0], [0, 0, 0]]))


@pytest.mark.parametrize(("name", "expected"), [("mass_accuracy", math.nan), ("iou", math.nan), ("pointing_game", 1.0)])
def test_infinite_maps_have_a_maximum_and_nothing_else(name, expected):
    np.testing.assert_equal(measured(name, [[math.inf, 1, 0], [0, 0, 0]]), expected)


@pytest.mark.parametrize("name", METRICS)
def test_empty_masks_are_undefined(name):
    maps = torch.rand(1, 3, 4, 4)
    assert attribug.measure(name, maps, torch.zeros(1, 4, 4, dtype=torch.bool)).isnan()
    assert attribug.measure(name, maps, torch.ones(1, 4, 4, dtype=torch.bool)).isfinite()


@pytest.mark.parametrize("name", ["iou", "pointing_game"])
@pytest.mark.parametrize("value", [0.3, -2.0, 1e-30, 1e30])
def test_constant_maps_are_undefined(name, value):
    assert attribug.measure(name, torch.full((1, 3, 5, 7), value), torch.ones(1, 5, 7, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("name", [f"{metric}@{post}" for metric in METRICS for post in metrics.get(metric).posts])
@pytest.mark.parametrize("exponent", [-100, -3, 7, 100])
def test_positive_scale_does_not_matter(name, exponent):
    stream = torch.Generator().manual_seed(0)
    maps = torch.randn(20, 3, 7, 9, generator=stream, dtype=torch.float64)
    masks = torch.rand(20, 7, 9, generator=stream) < 0.3
    assert torch.equal(attribug.measure(name, 2.0**exponent * maps, masks), attribug.measure(name, maps, masks))


def test_mass_accuracy_keeps_the_digits_of_tiny_maps():
    maps = torch.full((1, 1, 2, 3), 5e-324, dtype=torch.float64)  # the smallest number there is
    assert attribug.measure("mass_accuracy", maps, MASK).item() == pytest.approx(1 / 3)


# --- refusals ---


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_masks_are_boolean(name, dtype):
    with pytest.raises(attribug.Unsupported, match=f"alignment needs masks of torch.bool, found {dtype}"):
        attribug.measure(name, torch.rand(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=dtype))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 4, 4), (4, 4), (1, 1, 4, 4)])
def test_masks_have_the_maps_shape(name, shape):
    with pytest.raises(attribug.Unsupported, match=r"alignment needs maps and masks \(N, H, W\), found"):
        attribug.measure(name, torch.rand(1, 3, 4, 4), torch.ones(shape, dtype=torch.bool))
