"""Integrated and expected gradients against captum, slow loops, a linear model, and the axiom of completeness."""

import numpy as np
import pytest
import torch
from captum import attr
from scipy import special
from torch import nn

import attribug
from attribug import methods
from attribug.maps.attribution import Census, attributions
from attribug.query.query import Query
from attribug.streams import generator


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


# --- other baselines ---


def baselines(inputs):
    """A number, one for all, one an example."""
    stream = torch.Generator().manual_seed(6)
    return {
        "number": 0.3,
        "channels": torch.rand(1, 3, 1, 1, generator=stream, dtype=torch.float64),
        "image": torch.rand(inputs.shape[1:], generator=stream, dtype=torch.float64),
        "images": torch.rand(inputs.shape, generator=stream, dtype=torch.float64),
    }


@pytest.mark.parametrize("baseline", ["number", "channels", "image", "images"])
@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-10), (2, 1e-10), (17, 1e-6)])
def test_baselines_are_captums(steps, tolerance, baseline, make_cnn, make_inputs):
    """One and two steps have sizes that captum's float32 holds exactly."""
    model, (inputs, targets) = make_cnn(), make_inputs()
    given = baselines(inputs)[baseline]
    full = given.expand_as(inputs) if isinstance(given, torch.Tensor) else given
    expected = attr.IntegratedGradients(model).attribute(
        inputs, baselines=full, target=targets, n_steps=steps, method="gausslegendre"
    )
    found = attribug.explain("integrated_gradients", model, inputs, targets, steps=steps, baseline=given)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    default = attribug.explain("integrated_gradients", model, inputs, targets, steps=steps)
    assert (default - expected).abs().max() > 1e-2


@pytest.mark.parametrize("baseline", ["number", "images"])
def test_baselines_are_a_slow_loop(baseline, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    given = baselines(inputs)[baseline]
    found = attribug.explain("integrated_gradients", model, inputs, targets, steps=9, baseline=given)
    nodes, weights = special.roots_legendre(9)
    expected = torch.zeros_like(inputs)
    for node, weight in zip(nodes, weights, strict=True):
        leaf = (given + (inputs - given) * (node + 1) / 2).requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(leaf).gather(1, targets[:, None]).sum(), leaf)
        expected += (inputs - given) * gradient * weight / 2
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_baseline_of_another_shape_is_refused(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    with pytest.raises(attribug.InputError, match=r"a number or \(3, 3, 16, 16\), found \(3, 8, 8\)"):
        attribug.explain("integrated_gradients", model, inputs, targets, baseline=torch.zeros(3, 8, 8))


@pytest.mark.parametrize("baseline", ["number", "image", "images"])
def test_what_the_maps_promise_is_completeness(baseline, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    given = baselines(inputs)[baseline]
    start = given.expand_as(inputs) if isinstance(given, torch.Tensor) else torch.full_like(inputs, given)
    expected = (model(inputs) - model(start)).gather(1, targets[:, None])[:, 0].detach()
    gaps = []
    for steps in (1, 200):
        query, census = Query(model, inputs, targets), Census()
        options = {"baseline": given, "steps": steps}
        census.count(attributions(methods.get("integrated_gradients"), query, options), query.promised)
        torch.testing.assert_close(query.promised, expected, rtol=1e-10, atol=1e-12)
        gaps.append(census.imbalance)
    assert gaps[1] < 0.02 < gaps[0]  # kinks of ReLU: it converges slowly


# --- baselines from the training examples ---

TRAIN = torch.randn(7, 2, 3, 5, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
IDS = torch.tensor([5, 90, 3, 12])
EXPECTED = {"expected_gradients": 0.0, "gradient_shap": 0.15}


@pytest.fixture
def curved(linear):
    """A smooth network instead of the linear model; inputs (4, 2, 3, 5) and targets."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    stream = torch.Generator().manual_seed(9)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=stream)
    return model, *linear[1:3]


def drawn(row, noise, samples, seed, inputs):
    """What an example's stream gives: numbers of baselines, places on the path, noisy inputs."""
    stream = generator("example", seed, "expected_gradients", samples, noise, int(IDS[row]))
    numbers = [int(number) for number in torch.randint(len(TRAIN), (samples,), generator=stream)]
    places = torch.rand(samples, generator=stream, dtype=torch.float32).double()
    x = inputs[row]
    spread = noise * (x.max() - x.min())
    if not noise:
        return numbers, places, [x] * samples
    draws = [torch.randn(x.shape, generator=stream, dtype=torch.float32) for _ in range(samples)]
    return numbers, places, [x + spread * draw.to(x) for draw in draws]


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_gradients_are_a_slow_loop(name, curved):
    model, inputs, targets = curved
    options = {"train_inputs": TRAIN, "ids": IDS, "samples": 21, "seed": 3}
    found = attribug.explain(name, model, inputs, targets, **options)
    for row in range(len(inputs)):
        numbers, places, points = drawn(row, EXPECTED[name], 21, 3, inputs)
        expected = {"drawn": torch.zeros_like(inputs[row]), "midpoint": torch.zeros_like(inputs[row])}
        for number, place, x in zip(numbers, places, points, strict=True):
            for alpha, at in ((place, "drawn"), (0.5, "midpoint")):
                leaf = (TRAIN[number] + alpha * (x - TRAIN[number]))[None].requires_grad_(True)
                (gradient,) = torch.autograd.grad(model(leaf)[0, targets[row]], leaf)
                expected[at] += (x - TRAIN[number]) * gradient[0] / 21
        torch.testing.assert_close(found[row], expected["drawn"], rtol=1e-9, atol=1e-12)
        assert (found[row] - expected["midpoint"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_gradients_of_a_linear_model_are_weights_times_the_drawn_difference(name, linear):
    model, inputs, targets, weights = linear
    options = {"train_inputs": TRAIN, "ids": IDS, "samples": 13}
    found = attribug.explain(name, model, inputs, targets, **options)
    for row in range(len(inputs)):
        numbers, _, points = drawn(row, EXPECTED[name], 13, 0, inputs)
        expected = weights[row] * (torch.stack(points).mean(0) - TRAIN[numbers].mean(0))
        torch.testing.assert_close(found[row], expected, rtol=1e-11, atol=1e-13)
    assert (found - weights * (inputs - TRAIN.mean(0))).abs().max() > 1e-2


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_gradients_tend_to_captums_gradient_shap(name, curved):
    """Two estimators of one expectation: their means over repetitions differ as their standard errors let them."""
    model, inputs, targets = curved[0], curved[1][:1], curved[2][:1]
    repeats, samples = 25, 120
    spread = EXPECTED[name] * float(inputs.max() - inputs.min())
    ours = torch.stack([
        attribug.explain(name, model, inputs, targets, samples=samples, seed=seed, train_inputs=TRAIN)[0]
        for seed in range(repeats)
    ])  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        theirs = torch.cat([
            attr.GradientShap(model).attribute(
                inputs, baselines=TRAIN, target=targets, n_samples=samples, stdevs=spread
            )
            for _ in range(repeats)
        ])  # fmt: skip
    error = ((ours.var(0) + theirs.var(0)) / repeats).sqrt()
    score = (ours.mean(0) - theirs.mean(0)) / error
    assert score.abs().max() < 4
    assert score.square().mean().sqrt() < 1.5
    assert error.mean() < 0.1 * theirs.mean(0).std()  # there is not much room
    gradient = attribug.explain("input_x_gradient", model, inputs, targets)[0]
    assert ((gradient - theirs.mean(0)) / error).square().mean().sqrt() > 4


def test_baselines_are_drawn_uniformly():
    """On Σ x, with one bright pixel a training example, each pixel counts how often its example was drawn."""
    model = nn.Linear(12, 2).double()
    nn.init.ones_(model.weight)
    zeros, samples = torch.zeros(2, 12, dtype=torch.float64), 3000
    train = torch.eye(12, dtype=torch.float64)
    targets = torch.tensor([0, 1])
    counts = -attribug.explain("expected_gradients", model, zeros, targets, samples=samples, train_inputs=train)
    assert (counts - 1 / 12).abs().max() < 4.5 * (1 / 12 * 11 / 12 / samples) ** 0.5
    assert not torch.equal(counts[0], counts[1])  # each example draws its own
    torch.testing.assert_close(counts.sum(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize(
    ("train", "message"),
    [
        (TRAIN[:, :, :2], r"training examples: expected \(M, 2, 3, 5\), found \(7, 2, 2, 5\)"),
        (TRAIN[0], r"training examples: expected \(M, 2, 3, 5\), found \(2, 3, 5\)"),
        (TRAIN[:0], r"training examples: expected \(M, 2, 3, 5\), found \(0, 2, 3, 5\)"),
    ],
)
def test_training_examples_of_another_shape_are_refused(name, train, message, linear):
    model, inputs, targets, _ = linear
    with pytest.raises(attribug.InputError, match=message):
        attribug.explain(name, model, inputs, targets, train_inputs=train)


@pytest.mark.parametrize("name", EXPECTED)
def test_no_training_examples_and_no_samples_are_refused(name, linear):
    model, inputs, targets, _ = linear
    with pytest.raises(attribug.Unsupported, match="needs training examples, and none were given"):
        attribug.explain(name, model, inputs, targets)
    with pytest.raises(attribug.InputError, match="samples: expected at least 1, found 0"):
        attribug.explain(name, model, inputs, targets, samples=0, train_inputs=TRAIN)
