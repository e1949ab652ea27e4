"""measure: names, defaults, and what is refused in one line."""

import numpy as np
import pytest
import torch

import attribug
from attribug import metrics
from attribug.contracts.shapes import EXPECTED

MAPS, OTHER, MASKS = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 12, 12), torch.rand(2, 12, 12) < 0.3
SHARES = torch.rand(2, 4).softmax(1)

REFUSED = {
    "unknown metric": (("spearmen", MAPS, OTHER), "unknown metric 'spearmen'; did you mean 'spearman'"),
    "unknown post": (("spearman@smu", MAPS, OTHER), "post 'smu': unknown step 'smu'; did you mean 'sum'"),
    "empty post": (("spearman@", MAPS, OTHER), "post '': unknown step ''"),
    "two posts": (("spearman@sum@abs", MAPS, OTHER), "post 'sum@abs': unknown step 'sum@abs'"),
    "two reductions": (("spearman@sum_mean", MAPS, OTHER), "post 'sum_mean': expected at most one of sum, mean, max"),
    "signed mass": (("mass_accuracy@sum", MAPS, MASKS), "metric 'mass_accuracy' needs a map without negative values"),
    "signed mass, max": (("mass_accuracy@max", MAPS, MASKS), "needs a map without negative values; post 'max' cannot"),
    "alignment with channels": (("iou@abs", MAPS, MASKS), "needs one value a pixel; post 'abs' keeps the channels"),
    "alignment, no post": (("pointing_game@none", MAPS, MASKS), "metric 'pointing_game' needs one value a pixel"),
    "post of probabilities": (("total_variation@abs", SHARES, SHARES), "the only post is 'none', found 'abs'"),
    "shapes differ": (("spearman", MAPS, OTHER[:, :2]), "one shape, found (2, 3, 12, 12) and (2, 2, 12, 12)"),
    "one map for many": (("pearson", MAPS, OTHER[:1]), "expected two maps of one shape"),
    "arrays": (("pearson", MAPS.numpy(), OTHER), "pearson: expected tensors, found ndarray"),
    "second an array": (("iou", MAPS, MASKS.numpy()), "iou: expected tensors, found ndarray"),
    "numbers": (("spearman", MAPS[:, 0, 0, 0], OTHER[:, 0, 0, 0]), f"post 'sum' reduces channels: expected {EXPECTED}"),
    "volumes": (("spearman", MAPS[..., None], OTHER[..., None]), f"expected {EXPECTED}, found (2, 3, 12, 12, 1)"),
    "masks of numbers of volumes": (("iou", MAPS[..., None], MASKS), f"expected {EXPECTED}, found (2, 3, 12, 12, 1)"),
    "ssim of vectors": (("ssim", MAPS[:, 0, 0], OTHER[:, 0, 0]), "metric 'ssim': expected images (N, C, H, W), found"),
    "channels for a height": (("ssim@minmax", MAPS[:, 0], OTHER[:, 0]), "metric 'ssim': expected images (N, C, H, W)"),
    "tolerance in a vector": (("pointing_game_tolerant", MAPS[:, 0, 0], MASKS[:, 0]), "expected images (N, C, H, W)"),
    "an image's masks of a sequence": (("iou", MAPS[:, 0], MASKS), "iou: expected masks (2, 12) torch.bool, found"),
    "maps for probabilities": (("total_variation", MAPS, OTHER), "expected probabilities (N, K) of the same examples"),
    "other examples": (("total_variation", SHARES, SHARES[:1]), "expected probabilities (N, K) of the same examples"),
    "masks of another size": (("iou", MAPS, MASKS[:, 1:]), "expected masks (2, 12, 12) torch.bool, found (2, 11, 12)"),
    "masks of maps": (("iou", MAPS, OTHER), "expected masks (2, 12, 12) torch.bool, found (2, 3, 12, 12)"),
    "masks of numbers": (("iou", MAPS, MASKS.float()), "expected masks (2, 12, 12) torch.bool, found (2, 12, 12)"),
    "maps too small": (("ssim", MAPS[..., :8], OTHER[..., :8]), "ssim needs maps of more than 10 pixels a side"),
    "a map without bounds": (("ssim@sum", MAPS, OTHER), "'ssim' needs a map in [0, 1]; post 'sum' cannot promise it"),
    "a signed map": (("ssim@percentile", MAPS, OTHER), "needs a map in [0, 1]; post 'percentile' cannot promise it"),
    "sums of bounded maps": (("ssim@minmax_sum", MAPS, OTHER), "needs a map in [0, 1]; post 'minmax_sum' cannot"),
    "outside [−1, 1]": (("ssim_range2@secondmoment", MAPS, OTHER), "needs a map in [-1, 1]; post 'secondmoment'"),
    "no half of a sum": (("iou_half@abs_sum", MAPS, MASKS), "'iou_half' needs a map in [0, 1]; post 'abs_sum' cannot"),
    "post of a response": (("background_swap@sum", SHARES, SHARES), "the only post is 'none', found 'sum'"),
    "maps of a response": (("background_swap", MAPS, OTHER), "background_swap: expected probabilities (N, K)"),
    "other classes": (("background_swap", SHARES, SHARES[:, :3]), "expected two versions' outputs of one shape"),
    "nothing beside": (("gt2_ssim", MAPS, MASKS), "expected the maps of background_only as third operand, found none"),
    "too much beside": (("gt1_ssim", MAPS, MASKS, OTHER), "gt1_ssim: expected two operands, found three"),
    "three similar": (("spearman", MAPS, OTHER, OTHER), "spearman: expected two operands, found three"),
    "three responses": (("background_swap", SHARES, SHARES, SHARES), "expected two operands, found three"),
    "another size beside": (
        ("gt2_ssim", MAPS, MASKS, OTHER[..., 1:]),
        "gt2_ssim: expected two maps of one shape, found (2, 3, 12, 12) and (2, 3, 12, 11)",
    ),
    "an array beside": (("gt2_ssim", MAPS, MASKS, OTHER.numpy()), "gt2_ssim: expected tensors, found ndarray"),
    "masks of probabilities": (("total_variation", SHARES, MASKS), "expected probabilities (N, K)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_in_one_line(case):
    arguments, message = REFUSED[case]
    with pytest.raises((attribug.InputError, attribug.Unsupported)) as error:
        attribug.measure(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_vectors_are_measured_without_a_reduction():
    one, other = torch.rand(2, 9), torch.rand(2, 9)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(one.double(), other.double(), strict=True)]
    np.testing.assert_allclose(attribug.measure("pearson@none", one, other), expected, atol=1e-12)


def test_without_a_post_the_default_is_taken():
    assert torch.equal(attribug.measure("spearman", MAPS, OTHER), attribug.measure("spearman@sum", MAPS, OTHER))
    assert torch.equal(attribug.measure("iou", MAPS - 0.5, MASKS), attribug.measure("iou@abs_sum", MAPS - 0.5, MASKS))
    assert [post for _, post in metrics.measured_as("spearman")] == ["sum", "abs_sum"]
    assert [post for _, post in metrics.measured_as("spearman@max")] == ["max"]


@pytest.mark.parametrize("post", ["abs_sum", "abs_max", "sum_abs", "minmax_sum", "sum_minmax", "abs_secondmoment_sum"])
def test_mass_accuracy_takes_posts_that_promise_no_negative_values(post):
    values = attribug.measure(f"mass_accuracy@{post}", MAPS - 0.5, MASKS)
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("post", ["sum_minmax", "abs_percentile", "percentile_abs_mean", "minmax_max", "minmax"])
def test_ssim_takes_posts_that_promise_values_from_0_to_1(post):
    values = attribug.measure(f"ssim@{post}", MAPS - 0.5, OTHER)
    assert ((values >= -1) & (values < 1)).all()


@pytest.mark.parametrize(
    ("name", "post", "reason"),
    [
        ("spearman", "secondmoment", ""), ("total_variation", "none", ""), ("gt1_ssim", "percentile", ""),
        ("mass_accuracy", "percentile_sum", "without negative values; post 'percentile_sum' cannot promise it (abs_…"),
        ("k_ssd", "abs_sum", "in [0, 1]; post 'abs_sum' cannot promise it (…_minmax can)"),
        ("k_ssd", "abs_minmax", "needs one value a pixel; post 'abs_minmax' keeps the channels (…_sum does not)"),
    ],
)  # fmt: skip
def test_why_a_metric_refuses_a_post(name, post, reason):
    refusal = metrics.refusal(metrics.get(name), post)
    assert (reason in refusal) if reason else refusal == ""
    assert refusal == "" or refusal.startswith(f"metric {name!r} ")


def test_what_stands_beside_is_processed_alike():
    """gt2_ssim: scaled, and any sum or sign lost, exactly as the map itself."""
    large, other, masks = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), torch.rand(2, 64, 64) < 0.5
    plain = attribug.measure("gt2_ssim", large, masks, other)
    torch.testing.assert_close(attribug.measure("gt2_ssim", large, masks, 9 * other - 4), plain, rtol=0, atol=1e-5)
    absolute = attribug.measure("gt2_ssim@abs_minmax", large - 0.5, masks, other - 0.5)
    signed = attribug.measure("gt2_ssim@minmax", (large - 0.5).abs(), masks, (other - 0.5).abs())
    torch.testing.assert_close(absolute, signed, rtol=0, atol=1e-12)
    summed = attribug.measure("gt2_ssim@sum_minmax", large, masks, other)
    large, other = (each.double().sum(1, keepdim=True) for each in (large, other))
    by_hand = attribug.measure("gt2_ssim", large, masks, other)
    torch.testing.assert_close(summed, by_hand, rtol=0, atol=1e-12)


def test_float64_in_and_out():
    for name, other in (("spearman", OTHER), ("iou", MASKS)):
        single, double = (attribug.measure(name, MAPS.to(dtype), other) for dtype in (torch.float32, torch.float64))
        assert single.dtype == double.dtype == torch.float64
        assert torch.equal(single, double)
