"""Integrated gradients against captum, a linear model, and the axiom of completeness."""

import pytest
import torch
from captum import attr
from scipy import special
from torch import nn

import attribug


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("steps", [1, 8, 50])
def test_is_captums_with_gauss_legendre(steps, dtype, tolerance, make_cnn, make_inputs):
    """Captum's step sizes are float32 whatever the model's type."""
    model, (inputs, targets) = make_cnn(dtype), make_inputs(dtype)
    expected = attr.IntegratedGradients(model, multiply_by_inputs=True).attribute(
        inputs, baselines=0.0, target=targets, n_steps=steps, method="gausslegendre"
    )
    found = attribug.explain("integrated_gradients", model, inputs, targets, steps=steps)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * 1e-1)


def test_is_a_slow_loop_over_steps(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    found = attribug.explain("integrated_gradients", model, inputs, targets, steps=9)
    nodes, weights = special.roots_legendre(9)  # on [-1, 1]
    expected = torch.zeros_like(inputs)
    for node, weight in zip(nodes, weights, strict=True):
        leaf = (inputs * (node + 1) / 2).requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(leaf).gather(1, targets[:, None]).sum(), leaf)
        expected += gradient * weight / 2
    torch.testing.assert_close(found, inputs * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_of_a_linear_model_is_input_times_weights(steps, linear):
    model, inputs, targets, weights = linear
    found = attribug.explain("integrated_gradients", model, inputs, targets, steps=steps)
    torch.testing.assert_close(found, inputs * weights, rtol=1e-14, atol=0)


def test_completeness_improves_with_steps(make_inputs):
    """Σ attributions → F(x) − F(0) (Sundararajan et al. 2017, proposition 1), fast on a smooth network."""
    inputs, targets = make_inputs()
    stream = torch.Generator().manual_seed(4)
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        for parameter in smooth.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64) / 10)
        rise = (smooth(inputs) - smooth(torch.zeros_like(inputs))).gather(1, targets[:, None])[:, 0]
    gaps = []
    for steps in (1, 4, 16, 64):
        maps = attribug.explain("integrated_gradients", smooth, inputs, targets, steps=steps)
        gaps.append(float((maps.sum((1, 2, 3)) - rise).abs().max()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1e-3 * float(rise.abs().max())  # one step is not enough: the network bends
    assert gaps[-1] < 1e-10 * float(rise.abs().max())


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(steps, linear):
    model, inputs, targets, _ = linear
    with pytest.raises(attribug.InputError, match=rf"steps: expected at least 1, found {steps}"):
        attribug.explain("integrated_gradients", model, inputs, targets, steps=steps)
