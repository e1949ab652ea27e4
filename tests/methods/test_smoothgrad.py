"""Statistics of noisy gradients: captum's noise tunnel fed with the same noise, a slow loop, a linear model."""

import pytest
import torch
from captum import attr

import attribug
from attribug.streams import generator

SAMPLES, NOISE, SEED = 7, 0.3, 5
NAMES = {"smoothgrad": "smoothgrad", "smoothgrad_squared": "smoothgrad_sq", "vargrad": "vargrad"}


def draws(shape, example, dtype, samples=SAMPLES, noise=NOISE):
    """The Gaussian draws of one example, (samples, *shape), from the stream that the design names."""
    stream = generator("example", SEED, "noisy_gradients", samples, noise, example)
    return torch.stack([torch.randn(shape, generator=stream, dtype=torch.float32) for _ in range(samples)]).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", NAMES)
def test_is_captums_noise_tunnel_with_the_same_noise(make_cnn, make_inputs, monkeypatch, *, name, dtype, tolerance):
    model, (inputs, targets) = make_cnn(dtype), make_inputs(dtype)
    found = attribug.explain(name, model, inputs, targets, seed=SEED, samples=SAMPLES, noise=NOISE)
    gradient = attr.Saliency(model)
    tunnel = attr.NoiseTunnel(gradient)
    for example in range(len(inputs)):
        one = inputs[example : example + 1]
        unit = draws(one.shape[1:], example, dtype)
        monkeypatch.setattr(torch, "normal", lambda mean, deviation, unit=unit: unit * deviation)
        expected = tunnel.attribute(
            one, nt_type=NAMES[name], nt_samples=SAMPLES, stdevs=NOISE * float(one.max() - one.min()),
            target=int(targets[example]), abs=False,
        )  # fmt: skip
        torch.testing.assert_close(found[example : example + 1], expected, rtol=tolerance, atol=tolerance)


def test_is_a_slow_loop_over_samples(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    ids = torch.tensor([11, 4, 30])
    maps = attribug.explain(list(NAMES), model, inputs, targets, seed=SEED, ids=ids, samples=SAMPLES, noise=NOISE)
    for row, example in enumerate(ids.tolist()):
        x = inputs[row]
        gradients = []
        for draw in draws(x.shape, example, x.dtype):
            leaf = (x + NOISE * (x.max() - x.min()) * draw).requires_grad_(True)
            (gradient,) = torch.autograd.grad(model(leaf[None])[0, targets[row]], leaf)
            gradients.append(gradient)
        stack = torch.stack(gradients)
        torch.testing.assert_close(maps["smoothgrad"][row], stack.mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(maps["smoothgrad_squared"][row], stack.square().mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(maps["vargrad"][row], stack.var(0, correction=0), rtol=1e-10, atol=1e-12)


def test_the_square_of_the_mean_is_a_slow_loop_and_not_the_mean_of_squares(make_cnn, make_inputs):
    """One squares the mean of the samples, the other takes the mean of their squares; their difference is VarGrad."""
    model, (inputs, targets) = make_cnn(), make_inputs()
    names = ["smoothgrad_then_square", "smoothgrad_squared", "vargrad"]
    maps = attribug.explain(names, model, inputs, targets, seed=SEED, samples=SAMPLES, noise=NOISE)
    for example in range(len(inputs)):
        x, total = inputs[example], torch.zeros_like(inputs[example])
        for draw in draws(x.shape, example, x.dtype):
            leaf = (x + NOISE * (x.max() - x.min()) * draw).requires_grad_(True)
            total += torch.autograd.grad(model(leaf[None])[0, targets[example]], leaf)[0]
        torch.testing.assert_close(maps[names[0]][example], (total / SAMPLES) ** 2, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(maps[names[0]], maps[names[1]], rtol=1e-1)
    torch.testing.assert_close(maps[names[0]] + maps[names[2]], maps[names[1]], rtol=1e-9, atol=1e-12)


def test_with_one_sample_the_square_of_the_mean_is_the_mean_of_squares(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    maps = attribug.explain(["smoothgrad_then_square", "smoothgrad_squared"], model, inputs, targets, samples=1)
    torch.testing.assert_close(*maps.values(), rtol=1e-12, atol=0)


def test_a_linear_models_gradient_does_not_vary(linear):
    model, inputs, targets, weights = linear
    maps = attribug.explain([*NAMES, "smoothgrad_then_square"], model, inputs, targets, samples=SAMPLES)
    assert torch.equal(maps["smoothgrad"], weights)
    assert torch.equal(maps["smoothgrad_then_square"], weights.square())
    torch.testing.assert_close(maps["smoothgrad_squared"], weights.square(), rtol=1e-14, atol=0)
    assert not maps["vargrad"].any()  # exactly: rounding noise would be ranked like a map


def test_noise_is_relative_to_the_inputs_range(linear):
    """Seven times the input and a model that undoes it see the same noise: σ = noise · (max − min)."""
    model, inputs, targets, _ = linear
    curved = torch.nn.Sequential(model, torch.nn.Tanh())
    scaled = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(30, 30, bias=False), torch.nn.Unflatten(1, (2, 3, 5)), curved
    ).double()
    with torch.no_grad():
        scaled[1].weight.copy_(torch.eye(30) / 8)
    plain = attribug.explain("smoothgrad", curved, inputs, targets, samples=SAMPLES, noise=NOISE)
    found = attribug.explain("smoothgrad", scaled, 8 * inputs, targets, samples=SAMPLES, noise=NOISE)
    torch.testing.assert_close(8 * found, plain, rtol=1e-12, atol=1e-14)
    other = attribug.explain("smoothgrad", curved, inputs, targets, samples=SAMPLES, noise=2 * NOISE)
    assert not torch.allclose(other, plain, rtol=1e-3)


def test_without_noise_it_is_the_gradient(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    maps = attribug.explain([*NAMES, "gradient"], model, inputs, targets, samples=3, noise=0.0)
    torch.testing.assert_close(maps["smoothgrad"], maps["gradient"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(maps["vargrad"], torch.zeros_like(inputs), rtol=0, atol=1e-20)


def test_whole_and_decimal_numbers_are_one_argument(make_cnn, make_inputs):
    """`noise: 1` in a suite file and `noise=1.0` in Python draw the same samples."""
    model, (inputs, targets) = make_cnn(), make_inputs()
    whole, decimal = (
        attribug.explain("smoothgrad", model, inputs, targets, samples=2, noise=noise) for noise in (1, 1.0)
    )
    assert torch.equal(whole, decimal)


@pytest.mark.parametrize("samples", [0, -1])
@pytest.mark.parametrize("name", [*NAMES, "smoothgrad_then_square"])
def test_no_samples_are_refused(name, samples, linear):
    model, inputs, targets, _ = linear
    with pytest.raises(attribug.InputError, match=rf"samples: expected at least 1, found {samples}"):
        attribug.explain(name, model, inputs, targets, samples=samples)
