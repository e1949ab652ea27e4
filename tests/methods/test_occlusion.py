"""Occlusion against captum, a slow loop, and a linear model."""

import pytest
import torch
from captum import attr
from torch import nn

import attribug
from attribug.methods.occlusion import windows


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("window", "stride", "pixels"), [(4, 2, 16), (5, 3, 16), (3, 3, 17), (16, 4, 16)])
def test_channel_sum_is_captums(make_cnn, make_inputs, *, window, stride, pixels, dtype, tolerance):
    """Captum gives every channel the whole loss; here the channel sum is it. Captum divides in float32."""
    model, (inputs, targets) = make_cnn(dtype, pixels=pixels), make_inputs(dtype, pixels=pixels)
    expected = attr.Occlusion(model).attribute(
        inputs, (3, window, window), (3, stride, stride), baselines=0.0, target=targets
    )
    found = attribug.explain("occlusion", model, inputs, targets, window=window, stride=stride)
    assert torch.equal(found, found[:, :1].expand_as(found))
    torch.testing.assert_close(found.sum(1), expected[:, 0].to(dtype), rtol=tolerance, atol=tolerance)


def test_defaults_are_a_quarter_and_half_of_that(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    default, given = (
        attribug.explain("occlusion", model, inputs, targets, **options) for options in ({}, {"window": 4, "stride": 2})
    )
    assert torch.equal(default, given)


def test_is_a_slow_loop(make_cnn, make_inputs):
    """Windows wider than the image, and gaps between windows, which stay zero."""
    model, (inputs, targets) = make_cnn(), make_inputs()
    for window, stride in ((2, 5), (30, 7), (6, 4)):
        found = attribug.explain("occlusion", model, inputs, targets, window=window, stride=stride)
        for row in range(len(inputs)):
            x, losses = inputs[row], [[[] for _ in range(16)] for _ in range(16)]
            logit = model(x[None])[0, targets[row]].item()
            tops = [top for top in range(0, 16, stride) if top == 0 or top - stride + window < 16]
            for top in tops:
                for left in tops:
                    hidden = x.clone()
                    hidden[:, top : top + window, left : left + window] = 0
                    loss = logit - model(hidden[None])[0, targets[row]].item()
                    for i in range(top, min(16, top + window)):
                        for j in range(left, min(16, left + window)):
                            losses[i][j].append(loss)
            expected = torch.tensor([[sum(p) / len(p) if p else 0.0 for p in line] for line in losses], dtype=x.dtype)
            torch.testing.assert_close(found[row].sum(0), expected, rtol=1e-10, atol=1e-12)


def test_pixelwise_occlusion_of_a_linear_model_is_input_times_weights(linear):
    model, inputs, targets, weights = linear
    found = attribug.explain("occlusion", model, inputs, targets, window=1, stride=1)
    torch.testing.assert_close(found.sum(1), (inputs * weights).sum(1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("height", "width", "side", "stride"), [(7, 9, 3, 2), (5, 5, 2, 2), (4, 6, 9, 1)])
def test_windows_cover_the_image_to_its_last_row_and_column(height, width, side, stride):
    masks = windows(height, width, side, stride)
    assert masks.any(0).all()
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


@pytest.mark.parametrize("options", [{"window": -1}, {"stride": -2}])
def test_negative_sizes_are_refused(options, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    with pytest.raises(attribug.InputError, match="window, stride: expected pixels, or 0 for the default, found"):
        attribug.explain("occlusion", model, inputs, targets, **options)


def test_vectors_are_refused():
    with pytest.raises(attribug.Unsupported, match=r"expected images \(N, C, H, W\), found \(2, 8\)"):
        attribug.explain("occlusion", nn.Linear(8, 3), torch.rand(2, 8), torch.tensor([0, 1]))
