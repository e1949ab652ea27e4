"""Alignments with a mask against scikit-learn and plain loops over pixels, on maps of every kind."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

import attribug
from attribug import metrics

OF_ORDER = ["rank_accuracy", "pointing_game", "pointing_game_tolerant", "auroc", "average_precision"]
METRICS = ["mass_accuracy", "energy_pointing_game", *OF_ORDER]
NEED_VARIATION = [*OF_ORDER, "iou", "ground_truth_coverage", "saliency_coverage"]


# --- loops: from a map (H, W) and a mask (H, W), both NumPy ---


def mass_accuracy(values, inside):
    total = math.fsum(values.ravel())
    return math.fsum(values[inside]) / total if inside.any() and total else math.nan


def energy_pointing_game(values, inside):
    return mass_accuracy(np.array([[max(v, 0.0) for v in row] for row in values]), inside)


def needs_variation(loop):
    """Undefined for an empty mask and a constant map."""

    @functools.wraps(loop)
    def where_defined(values, inside):
        return loop(values, inside) if inside.any() and values.max() > values.min() else math.nan

    return where_defined


@needs_variation
def rank_accuracy(values, inside):
    """Places are given out from the highest value on; the last ones to whoever of equal pixels, so in their mean."""
    places, hits = inside.sum(), 0.0
    for value in sorted(set(values.ravel()), reverse=True):
        equal = values == value
        given_out = min(places, equal.sum())
        hits += given_out * (equal & inside).sum() / equal.sum()
        places -= given_out
    return hits / inside.sum()


@needs_variation
def pointing_game(values, inside):
    hits = [i for v, i in zip(values.ravel(), inside.ravel(), strict=True) if v == values.max()]
    return sum(hits) / len(hits)


@needs_variation
def pointing_game_tolerant(values, inside):
    reach = round(15 * min(inside.shape) / 224)
    maxima, truth = np.argwhere(values == values.max()), np.argwhere(inside)
    hits = [any((y - a) ** 2 + (x - b) ** 2 <= reach**2 for a, b in truth) for y, x in maxima]
    return sum(hits) / len(hits)


@needs_variation
def auroc(values, inside):
    return math.nan if inside.all() else roc_auc_score(inside.ravel(), values.ravel())


@needs_variation
def average_precision(values, inside):
    return average_precision_score(inside.ravel(), values.ravel())


def plane(maps, post):
    """The map's pixels after a post, (H, W) in float64."""
    values = maps[0].double().numpy()
    return {"abs_sum": np.abs(values).sum(0), "sum": values.sum(0), "abs_max": np.abs(values).max(0)}[post]


CASES = [
    ("mass_accuracy@abs_sum", mass_accuracy), ("mass_accuracy@abs_max", mass_accuracy),
    ("energy_pointing_game@sum", energy_pointing_game), ("energy_pointing_game@abs_sum", mass_accuracy),
    *((f"{loop}@{post}", globals()[loop]) for loop in OF_ORDER for post in ("abs_sum", "sum")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "loop"), CASES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_is_a_plain_loop_or_scikit_learn(name, loop, data, masked_maps, same):
    maps, masks = data.draw(masked_maps(1, 9))
    same(attribug.measure(name, maps, masks).item(), loop(plane(maps, name.partition("@")[2]), masks[0].numpy()))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_tolerance_is_a_distance_of_pixels(data, masked_maps, same):
    """Of 1 to 3 pixels here."""
    maps, masks = data.draw(masked_maps(8, 45))
    rare = masks & (torch.arange(masks.shape[1])[:, None] % 7 == 0)
    found = attribug.measure("pointing_game_tolerant", maps, rare).item()
    same(found, pointing_game_tolerant(plane(maps, "abs_sum"), rare[0].numpy()))


# --- wrong implementations that the loops above find out ---


@needs_variation
def first_come(values, inside):
    """Rank accuracy where equal pixels are taken in order."""
    highest = np.argsort(-values.ravel(), kind="stable")[: inside.sum()]
    return inside.ravel()[highest].mean()


@needs_variation
def first_maximum(values, inside):
    return float(inside.ravel()[values.argmax()])


@needs_variation
def chessboard(values, inside):
    """The tolerant pointing game with a square of pixels around the mask."""
    reach = round(15 * min(inside.shape) / 224)
    near = [np.abs(np.argwhere(inside) - pixel).max(1).min() <= reach for pixel in np.argwhere(values == values.max())]
    return float(np.mean(near))


@needs_variation
def ties_lose(values, inside):
    """AUROC where only a higher pixel counts."""
    return math.nan if inside.all() else (values[inside][:, None] > values[~inside]).mean()


@needs_variation
def pixel_by_pixel(values, inside):
    """Average precision with equal pixels one after the other."""
    found = inside.ravel()[np.argsort(-values.ravel(), kind="stable")]
    return (found.cumsum() / np.arange(1, found.size + 1))[found].mean()


def hits_without_a_mask(values, inside):
    return pointing_game(values, inside) if inside.any() else 0.0


WRONG = [
    (energy_pointing_game, mass_accuracy, 9), (mass_accuracy, lambda v, i: mass_accuracy(v**2, i), 9),
    (rank_accuracy, first_come, 9), (pointing_game, first_maximum, 9), (pointing_game, hits_without_a_mask, 9),
    (pointing_game_tolerant, pointing_game, 30), (pointing_game_tolerant, chessboard, 30), (auroc, ties_lose, 9),
    (auroc, average_precision, 9), (average_precision, pixel_by_pixel, 9),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "largest"), WRONG)
def test_a_mistake_is_found_out(right, wrong, largest, masked_maps, is_found_out):
    def with_masks(function):
        return lambda case: function(plane(case[0], "sum"), case[1][0].numpy())

    with np.errstate(all="ignore"):
        assert is_found_out(masked_maps(1, largest), with_masks(wrong), with_masks(right))


# --- by hand ---

MASK = torch.tensor([[[True, True, False], [False, False, False]]])


def measured(name, rows, mask=MASK):
    return attribug.measure(name, torch.tensor(rows, dtype=torch.float64)[None, None], mask).item()


def test_mass_accuracy_by_hand():
    assert measured("mass_accuracy", [[3, 1, 2], [0, -2, 0]]) == 0.5
    assert measured("mass_accuracy", [[0, 0, 2], [1, 0, 0]]) == 0
    assert measured("mass_accuracy", [[0, -5, 0], [0, 0, 0]]) == 1
    third = pytest.approx(1 / 3)
    assert measured("mass_accuracy", [[7, 7, 7], [7, 7, 7]]) == third  # a flat map has its mass everywhere


def test_energy_pointing_game_by_hand():
    assert measured("energy_pointing_game", [[3, 1, 4], [0, -2, 0]]) == 0.5  # what is negative has no energy
    assert math.isnan(measured("energy_pointing_game", [[-3, -1, -4], [0, -2, 0]]))


def test_rank_accuracy_by_hand():
    assert measured("rank_accuracy", [[3, 1, 2], [0, 0, 0]]) == 0.5
    assert measured("rank_accuracy", [[3, 1, 1], [0, 1, 0]]) == pytest.approx((1 + 1 / 3) / 2)
    assert measured("rank_accuracy", [[3, 1, 2], [0, 0, 0]], torch.ones_like(MASK)) == 1


def test_pointing_game_by_hand():
    assert measured("pointing_game", [[3, 1, 2], [0, 0, 0]]) == 1
    assert measured("pointing_game", [[1, 1, 2], [0, 0, 0]]) == 0
    assert measured("pointing_game", [[3, 0, 3], [3, 3, 0]]) == 0.25  # one of four tied maxima
    assert measured("pointing_game", [[3, 3, 3], [0, 0, 0]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("size", "reach"), [(224, 15), (450, 30), (112, 8), (32, 2), (14, 1), (7, 0)])
def test_the_tolerance_grows_with_the_shorter_side(size, reach):
    """15 of 224 pixels, to either side and no further; a diagonal counts as long as it is."""
    maps, mask = torch.zeros(2, 1, 1, size, size + 9), torch.zeros(1, size, size + 9, dtype=torch.bool)
    mask[0, 1, 2] = True
    maps[0, 0, 0, 1, 2 + reach] = maps[1, 0, 0, 1, 3 + reach] = 1
    assert [attribug.measure("pointing_game_tolerant", each, mask).item() for each in maps] == [1, 0]
    if reach == 15:
        maps = torch.zeros(2, 1, 1, size, size + 9)
        maps[0, 0, 0, 1 + 9, 2 + 12] = maps[1, 0, 0, 1 + 11, 2 + 12] = 1
        assert [attribug.measure("pointing_game_tolerant", each, mask).item() for each in maps] == [1, 0]


def test_auroc_and_average_precision_by_hand():
    assert measured("auroc", [[3, 1, 2], [0, 1, 0]]) == pytest.approx((4 + 2.5) / 8)
    assert measured("average_precision", [[3, 1, 2], [0, 1, 0]]) == pytest.approx((1 + 2 / 4) / 2)
    assert measured("average_precision", [[0, 0, 2], [0, 1, 0]]) == pytest.approx(2 / 6)


# --- undefined, and invariant ---


@pytest.mark.parametrize("name", [*METRICS, *NEED_VARIATION])
@pytest.mark.parametrize("value", [0.0, -0.0, math.nan])
def test_maps_that_say_nothing_are_undefined(name, value):
    assert math.isnan(measured(name, [[value, 0, 0], [0, 0, 0]]))
    assert math.isnan(measured(name, [[value, 0, 0], [0, value, 0]]))


@pytest.mark.parametrize("name", METRICS)
def test_infinite_maps_have_an_order_and_no_mass(name):
    found = measured(name, [[math.inf, 1, 0], [0, 0, 0]])
    assert found == 1 if name in OF_ORDER else math.isnan(found)


@pytest.mark.parametrize("name", METRICS)
def test_empty_masks_are_undefined(name):
    maps = torch.rand(1, 3, 4, 4)
    assert attribug.measure(name, maps, torch.zeros(1, 4, 4, dtype=torch.bool)).isnan()
    full = attribug.measure(name, maps, torch.ones(1, 4, 4, dtype=torch.bool))
    assert full.isnan() if name == "auroc" else full == pytest.approx(1)  # nothing outside to be higher than


@pytest.mark.parametrize("name", NEED_VARIATION)
@pytest.mark.parametrize("value", [0.3, -2.0, 1e-30, 1e30])
def test_constant_maps_are_undefined(name, value):
    masks = torch.ones(1, 5, 7, dtype=torch.bool)
    masks[0, 0] = False
    assert attribug.measure(name, torch.full((1, 3, 5, 7), value), masks).isnan()


def several(kind="random"):
    stream = torch.Generator().manual_seed(0)
    maps = torch.randn(20, 3, 9, 16, generator=stream, dtype=torch.float64)
    return maps.round() if kind == "tied" else maps, torch.rand(20, 9, 16, generator=stream) < 0.3


@pytest.mark.parametrize("name", [f"{metric}@{post}" for metric in METRICS for post in metrics.get(metric).posts])
@pytest.mark.parametrize("exponent", [-900, -100, -3, 7, 100, 900])
def test_positive_scale_does_not_matter(name, exponent):
    maps, masks = several()
    assert torch.equal(attribug.measure(name, 2.0**exponent * maps, masks), attribug.measure(name, maps, masks))


def dense_ranks(maps):
    return torch.from_numpy(stats.rankdata(maps.flatten(1).numpy(), method="dense", axis=1)).reshape(maps.shape)


@pytest.mark.parametrize("monotone", [dense_ranks, lambda x: x**3, lambda x: 5 * x - 200, lambda x: 1e-300 * x])
@pytest.mark.parametrize("name", METRICS)
def test_order_alone_matters_to_metrics_of_order(name, monotone):
    maps, masks = several("tied")
    summed = maps.sum(1, keepdim=True)
    if name in OF_ORDER:
        plain = attribug.measure(f"{name}@sum", summed, masks)
        assert torch.equal(attribug.measure(f"{name}@sum", monotone(summed), masks), plain)
        assert not torch.equal(attribug.measure(f"{name}@sum", -monotone(summed), masks), plain)
    else:
        plain = attribug.measure(name, summed, masks)
        assert not torch.equal(attribug.measure(name, summed.sign() * summed**2, masks), plain)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kind", ["random", "tied"])
def test_the_order_of_pixels_does_not_matter(name, kind):
    """Turned by half a circle, with the mask: what is equal stays equal, and ties are not decided by place."""
    maps, masks = several(kind)
    turned = attribug.measure(name, maps.flip(2, 3), masks.flip(1, 2))
    torch.testing.assert_close(turned, attribug.measure(name, maps, masks), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["random", "tied"])
def test_inside_and_outside_complete_each_other(kind):
    maps, masks = several(kind)
    for name in ("mass_accuracy", "energy_pointing_game", "pointing_game", "auroc"):
        both = attribug.measure(name, maps, masks) + attribug.measure(name, maps, ~masks)
        torch.testing.assert_close(both, torch.ones_like(both), rtol=0, atol=1e-12)
    both = attribug.measure("auroc@sum", maps, masks) + attribug.measure("auroc@sum", -maps, masks)
    torch.testing.assert_close(both, torch.ones_like(both), rtol=0, atol=1e-12)


def test_maps_that_know_nothing_score_by_chance():
    """What the docstrings say: one half for AUROC, else the mask's share of the image."""
    stream = torch.Generator().manual_seed(1)
    maps, masks = torch.randn(600, 1, 16, 16, generator=stream), torch.zeros(600, 16, 16, dtype=torch.bool)
    masks[:, :8, :8] = True
    for name in METRICS:
        mean = attribug.measure(name, maps, masks).mean()
        expected = {"auroc": 0.5, "pointing_game_tolerant": 80 / 256}.get(name, 0.25)  # a pixel more on two sides
        assert abs(mean - expected) < (0.06 if "pointing_game" in name else 0.03), name


@pytest.mark.parametrize("value", [5e-324, 1e308])
def test_tiny_and_huge_maps_keep_their_digits(value):
    """The smallest number there is, and one of which two make infinity."""
    for name in ("mass_accuracy", "energy_pointing_game"):
        assert measured(name, [[value] * 3] * 2) == pytest.approx(1 / 3)


# --- refusals ---


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_masks_are_boolean(name, dtype):
    with pytest.raises(attribug.InputError, match=rf"expected masks \(1, 4, 4\) torch.bool, found \(1, 4, 4\) {dtype}"):
        attribug.measure(name, torch.rand(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=dtype))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 4, 4), (4, 4), (1, 1, 4, 4)])
def test_masks_have_the_maps_shape(name, shape):
    with pytest.raises(attribug.InputError, match=r"expected masks \(1, 4, 4\) torch.bool, found"):
        attribug.measure(name, torch.rand(1, 3, 4, 4), torch.ones(shape, dtype=torch.bool))
