"""DeepLIFT against captum where captum is right, a slow scalar rescale rule, and completeness where captum lacks it."""

import warnings

import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional

import attribug
from attribug import methods
from attribug.maps.attribution import attributions
from attribug.query.query import Query

POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": 1, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3},
]


@pytest.fixture
def baselines(make_inputs):
    """By name: a number, or a tensor that broadcasts to the inputs."""
    stream = torch.Generator().manual_seed(7)
    (inputs, _) = make_inputs()
    return {
        "zero": 0.0,
        "a number": 0.4,
        "one image": torch.rand(1, 3, 16, 16, generator=stream, dtype=torch.float64),
        "a colour": torch.rand(3, 1, 1, generator=stream, dtype=torch.float64),
        "an image each": torch.rand(3, 3, 16, 16, generator=stream, dtype=torch.float64),
        "partly the input": torch.where(torch.rand(inputs.shape, generator=stream) < 0.7, inputs, 0),
    }


BASELINES = ["zero", "a number", "one image", "a colour", "an image each", "partly the input"]


def lively(model, seed=0):
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.5, generator=stream)
    return model.double().eval()


def network(pool, *, pool_first=False):
    """Two pools, each after its ReLU or before it."""
    pairs = [[nn.ReLU(), nn.MaxPool2d(**pool)] for _ in range(2)]
    if pool_first:
        pairs = [pair[::-1] for pair in pairs]
    layers = [nn.Conv2d(3, 4, 3), *pairs[0], nn.Conv2d(4, 5, 3, padding=1), *pairs[1], nn.Flatten(), nn.LazyLinear(3)]
    model = nn.Sequential(*layers).double()
    model(torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    return lively(model)


class Copy(nn.Module):
    def forward(self, x):
        return x.clone()


def captums(chain, inputs, targets, baseline=0.0, *, apart=True):
    """Captum's map; `apart`: with a copy after every module, since captum hooks the tensor that a ReLU and the pool
    right after it share, and then hands the ReLU what the pool was given instead of what it hands back."""
    inputs = inputs.contiguous(memory_format=torch.channels_last)  # as ours: it settles ties in flat baselines' pools
    model = nn.Sequential(*(layer for module in chain for layer in (module, Copy()))) if apart else chain
    if isinstance(baseline, torch.Tensor):
        baseline = baseline.expand_as(inputs).clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum announces its hooks
        return attr.DeepLift(model).attribute(inputs.clone(), baseline, target=targets).detach()


def difference(model, inputs, targets, baseline):
    """F_t(x) − F_t(b), (N,)."""
    start = torch.as_tensor(baseline, dtype=inputs.dtype).expand_as(inputs)
    with torch.no_grad():
        return (model(inputs) - model(start)).gather(1, targets[:, None])[:, 0]


def missed(maps, expected):
    return float(((maps.flatten(1).sum(1) - expected).abs() / expected.abs()).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
@pytest.mark.parametrize("baseline", BASELINES)
def test_is_captums(make_cnn, make_inputs, baselines, *, baseline, dtype, tolerance):
    model, (inputs, targets) = make_cnn(dtype), make_inputs(dtype)
    start = baselines[baseline]
    start = start.to(dtype) if isinstance(start, torch.Tensor) else start
    found = attribug.explain("deep_lift", model, inputs, targets, baseline=start)
    torch.testing.assert_close(
        found, captums(model, inputs, targets, start), rtol=tolerance, atol=tolerance * float(found.abs().max())
    )
    gradient = attribug.explain("gradient", model, inputs, targets)
    assert not torch.allclose(found, (inputs - start) * gradient, rtol=1e-2)


@pytest.mark.parametrize("pool_first", [False, True])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_maps_sum_to_the_difference(make_inputs, baselines, *, pool, baseline, pool_first):
    """Whatever the windows: overlapping, with gaps, dilated, beyond the border."""
    model, (inputs, targets), start = network(pool, pool_first=pool_first), make_inputs(), baselines[baseline]
    expected = difference(model, inputs, targets, start)
    query = Query(model, inputs, targets)
    found = attributions(methods.get("deep_lift"), query, {"baseline": start})
    torch.testing.assert_close(query.promised, expected, rtol=1e-12, atol=1e-14)
    assert missed(found, expected) < 1e-8
    simpler = attribug.explain("gradient", model, inputs, targets) * (inputs - start)
    assert missed(simpler, expected) > 1e-2  # the check can fail


@pytest.mark.parametrize("pool_first", [False, True])
def test_a_background_of_zeros_does_not_break_completeness(make_inputs, pool_first):
    """Where input and baseline agree exactly, quotients are 0 / 0 and maxima tie."""
    model, (inputs, targets) = network(POOLS[1], pool_first=pool_first), make_inputs()
    inputs[:, :, :5] = inputs[:, :, :, 9:] = 0
    found = attribug.explain("deep_lift", model, inputs, targets)
    assert missed(found, difference(model, inputs, targets, 0.0)) < 1e-8
    assert not found[:, :, :5].any()


def test_captums_maps_of_overlapping_pools_are_incomplete(make_inputs):
    """The motive for pooling of our own: captum un-pools, where a place that wins two windows keeps but one."""
    (inputs, targets) = make_inputs()
    side_by_side, overlapping = network(POOLS[0]), network(POOLS[1])
    expected = difference(side_by_side, inputs, targets, 0.0)
    assert missed(captums(side_by_side, inputs, targets), expected) < 1e-8
    expected = difference(overlapping, inputs, targets, 0.0)
    assert missed(captums(overlapping, inputs, targets), expected) > 1e-2
    assert missed(attribug.explain("deep_lift", overlapping, inputs, targets), expected) < 1e-8


def test_captums_maps_are_incomplete_where_a_pool_follows_a_relu(make_cnn, make_inputs, baselines):
    """Another motive: adjacent hooks of captum 0.9 do not see each other's multipliers."""
    model, (inputs, targets), start = make_cnn(), make_inputs(), baselines["an image each"]
    expected = difference(model, inputs, targets, start)
    assert missed(captums(model, inputs, targets, start), expected) < 1e-8
    assert missed(captums(model, inputs, targets, start, apart=False), expected) > 1e-2
    assert missed(attribug.explain("deep_lift", model, inputs, targets, baseline=start), expected) < 1e-8


def test_is_the_rescale_rule_number_by_number():
    """Shrikumar et al. 2017, eqs. 10 and 12 and the chain rule of eq. 5, on Python's numbers."""
    first, second, last = (nn.Linear(a, b) for a, b in ((4, 5), (5, 3), (3, 2)))
    model = lively(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last), seed=1)
    stream = torch.Generator().manual_seed(2)
    inputs, start = (torch.randn(6, 4, generator=stream, dtype=torch.float64) for _ in range(2))
    targets = torch.tensor([0, 1, 0, 1, 1, 0])
    found = attribug.explain("deep_lift", model, inputs, targets, baseline=start)
    changed = 0
    for row, target in enumerate(targets.tolist()):
        layers = [(layer.weight.tolist(), layer.bias.tolist()) for layer in (first, second, last)]
        passes = []
        for x in (inputs[row].tolist(), start[row].tolist()):
            before, values = [], x
            for weights, biases in layers:
                z = [
                    sum(w * v for w, v in zip(ws, values, strict=True)) + b
                    for ws, b in zip(weights, biases, strict=True)
                ]
                before.append(z)
                values = [max(0.0, each) for each in z]
            passes.append(before)
        multipliers = layers[2][0][target]
        for depth in (1, 0):
            now, then = (before[depth] for before in passes)
            rescaled = [(max(0.0, a) - max(0.0, b)) / (a - b) for a, b in zip(now, then, strict=True)]
            changed += sum(0 < each < 1 for each in rescaled)
            through = [m * r for m, r in zip(multipliers, rescaled, strict=True)]
            weights = layers[depth][0]
            multipliers = [sum(t * weights[j][i] for j, t in enumerate(through)) for i in range(len(weights[0]))]
        expected = [(a - b) * m for a, b, m in zip(inputs[row].tolist(), start[row].tolist(), multipliers, strict=True)]
        torch.testing.assert_close(found[row], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert changed > 5  # neurons between the slopes 0 and 1: the rule is not the gradient's


def test_a_linear_models_map_is_the_difference_times_weights(make_inputs):
    """One ReLU, open for everything: gradient and multipliers agree."""
    inputs, targets = make_inputs()
    model = lively(nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(768, 3)))
    found = attribug.explain("deep_lift", model, inputs, targets, baseline=0.25)
    expected = (inputs - 0.25) * model[2].weight.detach()[targets].reshape(inputs.shape)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Shared(nn.Module):
    """One ReLU and one pool, each used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.dense = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 3)
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten()

    def forward(self, x):
        for layer in (self.one, self.two):
            x = self.pool(self.relu(layer(x)))
        return self.dense(self.flatten(x))


def test_modules_used_twice_are_the_same_as_two(make_inputs):
    """Captum cannot explain such models."""
    model, (inputs, targets) = lively(Shared()), make_inputs()
    pool = {"kernel_size": 3, "stride": 2, "padding": 1}
    separate = nn.Sequential(
        model.one,
        nn.ReLU(),
        nn.MaxPool2d(**pool),
        model.two,
        nn.ReLU(),
        nn.MaxPool2d(**pool),
        nn.Flatten(),
        model.dense,
    )
    shared, expected = (attribug.explain("deep_lift", each, inputs, targets) for each in (model, separate))
    assert torch.equal(shared, expected)
    assert missed(shared, difference(model, inputs, targets, 0.0)) < 1e-8
    with pytest.raises(RuntimeError, match="being used more than once"):
        captums(model, inputs, targets, apart=False)


def test_relu_in_place_gives_the_same_map(make_inputs):
    model, (inputs, targets) = network(POOLS[1]), make_inputs()
    expected = attribug.explain("deep_lift", model, inputs, targets)
    model[1].inplace = model[4].inplace = True
    assert torch.equal(attribug.explain("deep_lift", model, inputs, targets), expected)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_bound_on_passes_does_not_matter(rows, baseline, make_inputs, baselines):
    model, (inputs, targets), options = network(POOLS[1]), make_inputs(), {"baseline": baselines[baseline]}
    bounded, expected = (
        attributions(methods.get("deep_lift"), Query(model, inputs, targets, rows=each), options) for each in (rows, 64)
    )
    torch.testing.assert_close(bounded, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("relu", "pool", "reason"),
    [
        (functional.relu, nn.MaxPool2d(2), r"1 ReLU\(s\) are function calls"),
        (nn.ReLU(), lambda x: functional.max_pool2d(x, 2), "max-pooling is a function call that hooks cannot see"),
        (nn.ReLU(), lambda x: functional.max_pool2d(x, 2, return_indices=True)[0], "max-pooling is a function call"),
        (nn.ReLU(), nn.AdaptiveMaxPool2d(8), "AdaptiveMaxPool2d"),
        (nn.ReLU(), lambda x: x.amax(3), "Amax"),
        (nn.ReLU(), lambda x: x.unfold(3, 2, 2).max(4).values, "the model uses"),
        (nn.Sigmoid(), nn.MaxPool2d(2), "Sigmoid"),
    ],
)
def test_what_hooks_would_miss_is_refused(relu, pool, reason, make_inputs):
    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.seen, self.dense = nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.LazyLinear(3)
            self.relu, self.pool = relu, pool

        def forward(self, x):
            return self.dense(self.pool(self.relu(self.seen(self.conv(x)))).flatten(1))

    model, (inputs, targets) = Called().double(), make_inputs()
    model(inputs)
    with pytest.raises(attribug.Unsupported, match=reason):
        attribug.explain("deep_lift", model, inputs, targets)


@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (2, 3, 16, 16), (1, 3, 3, 16, 16)])
def test_a_baseline_of_another_shape_is_refused(shape, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    with pytest.raises(attribug.InputError, match=r"baseline: expected a number or \(3, 3, 16, 16\), found \(\d"):
        attribug.explain("deep_lift", model, inputs, targets, baseline=torch.zeros(shape))


class Mixing(nn.Module):
    """Passes its batch in parts: no hook then sees inputs and baselines side by side."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return torch.cat([self.model(part) for part in x.split(2)])


def test_a_model_that_cuts_its_batch_is_refused(make_cnn, make_inputs):
    model, (inputs, targets) = Mixing(make_cnn()), make_inputs()
    with pytest.raises(attribug.Unsupported, match="the model mixes its examples, or hides a part from gradients"):
        attribug.explain("deep_lift", model, inputs, targets)
