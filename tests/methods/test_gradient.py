"""Gradients against captum and against a linear model."""

import pytest
import torch
from captum import attr

import attribug

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
DTYPES = [(torch.float64, 1e-8), (torch.float32, 1e-4)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_gradient_is_captums_signed_saliency(make_cnn, make_inputs, dtype, tolerance):
    model, (inputs, targets) = make_cnn(dtype), make_inputs(dtype)
    expected = attr.Saliency(model).attribute(inputs, target=targets, abs=False)
    found = attribug.explain("gradient", model, inputs, targets)
    assert (found < 0).any()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_input_x_gradient_is_captums(make_cnn, make_inputs, dtype, tolerance):
    model, (inputs, targets) = make_cnn(dtype), make_inputs(dtype)
    expected = attr.InputXGradient(model).attribute(inputs, target=targets)
    found = attribug.explain("input_x_gradient", model, inputs, targets)
    torch.testing.assert_close(found, expected.detach(), rtol=tolerance, atol=tolerance * 1e-2)


def test_gradient_of_a_linear_model_is_the_targets_weights(linear):
    model, inputs, targets, weights = linear
    maps = attribug.explain(["gradient", "input_x_gradient"], model, inputs, targets)
    assert torch.equal(maps["gradient"], weights)
    assert torch.equal(maps["input_x_gradient"], inputs * weights)


def test_gradient_is_the_slope_of_the_logit(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    direction = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(3), dtype=inputs.dtype)
    step = 1e-6  # small enough to stay within one linear piece of the network
    with torch.no_grad():
        ends = [model(inputs + sign * step * direction).gather(1, targets[:, None])[:, 0] for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    found = (attribug.explain("gradient", model, inputs, targets) * direction).sum((1, 2, 3))
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-8)
