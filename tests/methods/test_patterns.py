"""Patterns against a slow loop over samples, places and neurons; the paper's linear toy; and when they go stale."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import attribug
from attribug import methods
from attribug.contracts.data import Data
from attribug.maps.attribution import attributions
from attribug.methods.patterns import fit
from attribug.query.query import Query

NAMES = ["pattern_net", "pattern_attribution"]
TARGETS = torch.tensor([2, 0, 1])
WINDOWS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 2, "stride": 2},  # the last row and column are in no window
    {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0), "dilation": (2, 1)},
    {"kernel_size": 1, "stride": 2, "bias": False},
]


def lively(model, seed=3):
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.2 * (parameter.ndim == 1), 0.5, generator=stream)
    return model.double().eval()


def network(window=WINDOWS[0]):
    """Two convolutions, max and average pools, two dense layers; the last of each kind has no ReLU right after it."""
    head = [nn.Conv2d(2, 3, **window), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Conv2d(3, 4, 2), nn.AvgPool2d(2, 1), nn.ReLU()]
    model = nn.Sequential(*head, nn.Flatten(), nn.LazyLinear(12), nn.ReLU(), nn.Linear(12, 3)).double()
    model(torch.zeros(1, 2, 9, 9, dtype=torch.float64))
    return lively(model)


@pytest.fixture
def images():
    """Three images to explain and twelve of training, (N, 2, 9, 9)."""
    everything = torch.randn(15, 2, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return everything[:3], everything[3:].clone()


# --- the paper, sample by sample ---


def windows(layer, x):
    """A convolution's windows on one input (C, H, W): output place, and the window's slices of the padded input."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    height, width = x.shape[1] + 2 * ph, x.shape[2] + 2 * pw
    rows = range(0, height - dh * (kh - 1), sh)
    columns = range(0, width - dw * (kw - 1), sw)
    for (i, top), (j, left) in product(enumerate(rows), enumerate(columns)):
        yield (i, j), (..., slice(top, top + dh * (kh - 1) + 1, dh), slice(left, left + dw * (kw - 1) + 1, dw))


def padded(layer, x):
    (ph, pw), (channels, height, width) = layer.padding, x.shape
    result = torch.zeros(channels, height + 2 * ph, width + 2 * pw, dtype=x.dtype)
    result[:, ph : ph + height, pw : pw + width] = x
    return result


def slow_patterns(chain, train):
    """Kindermans et al. 2018, eq. 9 with the average of y over all samples: one pattern a neuron, by module number."""
    found = {}
    for number, layer in enumerate(chain):
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        rectified = number + 1 < len(chain) and isinstance(chain[number + 1], nn.ReLU)
        seen = []  # what every neuron sees, a vector a sample (and place)
        for sample in train:
            x = chain[:number](sample[None])[0]
            if isinstance(layer, nn.Linear):
                seen.append(x)
            else:
                seen += [padded(layer, x)[place].flatten() for _, place in windows(layer, x)]
        weights = layer.weight.flatten(1)
        biases = torch.zeros(len(weights)) if layer.bias is None else layer.bias
        found[number] = torch.stack([pattern(w, b, seen, rectified) for w, b in zip(weights, biases, strict=True)])
    return found


def pattern(w, b, seen, rectified, *, mean_y_of_active=False):
    active, ys = [], []
    for x in seen:
        y = float(w @ x)
        ys.append(y)
        if not rectified or y + float(b) > 0:
            active.append((x, y))
    if not active:
        return torch.zeros_like(w)
    mean_xy = sum(x * y for x, y in active) / len(active)
    mean_x = sum(x for x, _ in active) / len(active)
    mean_y = sum(y for _, y in active) / len(active) if mean_y_of_active else sum(ys) / len(ys)
    covariance = mean_xy - mean_x * mean_y
    return covariance / float(w @ covariance)


@torch.no_grad()
def slow_projection(chain, x, target, weights):
    """Backwards through the chain by hand: gates and winners of the forward pass, `weights` by module number."""
    seen = [x]
    for module in chain:
        seen.append(module(seen[-1][None])[0])
    signal = torch.zeros_like(seen[-1])
    signal[target] = 1
    for number, module in reversed(list(enumerate(chain))):
        before, after = seen[number], seen[number + 1]
        signal = signal.reshape(after.shape)
        below = torch.zeros_like(before)
        if isinstance(module, nn.ReLU):
            below = torch.where(after > 0, signal, 0)
        elif isinstance(module, nn.Flatten):
            below = signal.reshape(before.shape)
        elif isinstance(module, nn.Linear):
            for neuron in range(len(after)):
                below += signal[neuron] * weights[number][neuron]
        elif isinstance(module, nn.Conv2d):
            border, (ph, pw) = padded(module, below), module.padding
            for (i, j), place in windows(module, before):
                for neuron in range(len(after)):
                    border[place] += signal[neuron, i, j] * weights[number][neuron].reshape(module.weight.shape[1:])
            below = border[:, ph : ph + before.shape[1], pw : pw + before.shape[2]]
        else:  # pools of 2 × 2, one apart
            for channel, i, j in product(*map(range, after.shape)):
                window = before[channel, i : i + 2, j : j + 2]
                share = (
                    (window == window.max())
                    if isinstance(module, nn.MaxPool2d)
                    else torch.full((2, 2), 0.25, dtype=torch.float64)
                )
                below[channel, i : i + 2, j : j + 2] += first_only(share) * signal[channel, i, j]
        signal = below
    return signal


def first_only(share):
    """The first of several equal maxima takes all, as in torch."""
    if share.dtype != torch.bool:
        return share
    result = torch.zeros(4, dtype=torch.float64)
    result[share.flatten().double().argmax()] = 1
    return result.reshape(2, 2)


def largest_error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


# --- the tests ---


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_is_the_paper_sample_by_sample(window, images):
    """Fit and both back-projections; padding, strides and dilation."""
    model, (inputs, train) = network(window), images
    maps = attribug.explain(NAMES, model, inputs, TARGETS, train_inputs=train)
    with torch.no_grad():
        a = slow_patterns(model, train)
    aw = {number: a[number] * model[number].weight.detach().flatten(1) for number in a}
    w = {number: model[number].weight.detach().flatten(1) for number in a}
    gradient = attribug.explain("gradient", model, inputs, TARGETS)
    for row, target in enumerate(TARGETS.tolist()):
        signal, contribution, slope = (slow_projection(model, inputs[row], target, each) for each in (a, aw, w))
        assert largest_error(slope, gradient[row]) < 1e-10  # the loop itself is right
        assert largest_error(maps["pattern_net"][row], signal) < 1e-8
        assert largest_error(maps["pattern_attribution"][row], contribution) < 1e-8
        assert largest_error(signal, slope) > 1e-2
        assert largest_error(contribution, signal) > 1e-2


def test_single_precision_suffices(images):
    """Pixels in [0, 1], whose mean is what covariances must cancel."""
    model, train = network(), images[1].sigmoid()
    expected = fit(model, train, rows=5)
    single = copy.deepcopy(model).float()
    for found, known in zip(fit(single, train.float(), rows=5).values(), expected.values(), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), known, rtol=1e-3, atol=1e-4 * float(known.abs().max()))


def test_other_readings_of_the_paper_differ_visibly(images):
    """The comparison above can fail: without the mask, without the bias in it, or with E₊[y] in place of E[y]."""
    model, (_, train) = network(), images
    seen = [padded(model[0], x)[place].flatten() for x in train for _, place in windows(model[0], x)]
    found = fit(model, train, rows=5)[model[0]].flatten(1)
    with torch.no_grad():
        for neuron, (w, b) in enumerate(zip(model[0].weight.flatten(1), model[0].bias, strict=True)):
            assert largest_error(found[neuron], pattern(w, b, seen, rectified=True)) < 1e-8
            for other in (
                pattern(w, b, seen, rectified=False),
                pattern(w, 0, seen, rectified=True),
                pattern(w, b, seen, rectified=True, mean_y_of_active=True),
            ):
                assert largest_error(found[neuron], other) > 1e-3


@pytest.fixture
def toy():
    """x = (y + ε, ε): the first input carries signal and distractor, the second the distractor alone. Two neurons read
    y = x₁ − x₂ and −y, and the logits their difference; (model, training examples)."""
    stream = torch.Generator().manual_seed(3)
    y = 2 * torch.rand(20000, generator=stream, dtype=torch.float64) - 1
    distractor = torch.randn(20000, generator=stream, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    for layer in (model[0], model[2]):
        layer.weight.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    return model, torch.stack([y + distractor, distractor], 1)


def test_signal_of_the_linear_toy(toy):
    """Kindermans et al. 2018, section 2: weights must cancel the distractor, patterns leave it alone."""
    model, train = toy
    inputs, targets = torch.tensor([[2.0, 1.5], [0.3, 1.0]], dtype=torch.float64), torch.tensor([0, 1])
    maps = attribug.explain([*NAMES, "gradient"], model, inputs, targets, train_inputs=train)
    for row, way in enumerate((1, -1)):
        assert maps["gradient"][row].tolist() == [way, -way]
        signal = maps["pattern_net"][row]
        torch.testing.assert_close(
            signal / signal.norm(), torch.tensor([way, 0.0], dtype=torch.float64), rtol=0, atol=0.05
        )
        contribution = maps["pattern_attribution"][row] / maps["pattern_attribution"][row].norm()
        torch.testing.assert_close(contribution, torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=0, atol=0.05)


def test_a_linear_model_has_the_papers_linear_estimator():
    """Kindermans et al. 2018, eq. 6: a = cov[x, y] / σ²_y; a model without a ReLU is where it is defined."""
    stream = torch.Generator().manual_seed(5)
    model, train = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double(), torch.randn(500, 6, generator=stream).double()
    train[:, 1] += 2 * train[:, 0]
    inputs, targets = train[:4], torch.tensor([0, 1, 2, 1])
    maps = attribug.explain(NAMES, model, inputs, targets, train_inputs=train)
    weight, y = model[1].weight.detach(), model(train).detach()
    for row, target in enumerate(targets.tolist()):
        covariance = np.cov(train.T.numpy(), y[:, target].numpy())
        pattern = torch.from_numpy(covariance[:6, 6] / covariance[6, 6])
        torch.testing.assert_close(maps["pattern_net"][row], pattern)
        torch.testing.assert_close(maps["pattern_attribution"][row], pattern * weight[target])


def test_the_filter_recovers_the_signal(images):
    """wᵀa = 1 for every neuron that varies."""
    model, (_, train) = network(), images
    alive = 0
    for layer, a in fit(model, train, rows=5).items():
        assert a.shape == layer.weight.shape
        varies = a.flatten(1).any(1)
        recovered = (a * layer.weight).flatten(1).sum(1)
        torch.testing.assert_close(recovered, varies.double(), rtol=1e-9, atol=0)
        alive += int(varies.sum())
    assert alive > 15


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_on_passes_does_not_matter(name, images):
    inputs, train = images

    def bounded(rows):
        ids = torch.arange(len(train))
        query = Query(network(), inputs, TARGETS, rows=rows, train=lambda: Data(train, torch.zeros_like(ids), ids))
        return attributions(methods.get(name), query, {})

    for rows in (1, 5):
        torch.testing.assert_close(bounded(rows), bounded(64), rtol=1e-9, atol=1e-12)


# --- fitted once, and again when something changes ---


class Counted(nn.Sequential):
    """A chain that counts the examples passed through it, in a list: a plain number would be part of its state."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.sizes = []

    @property
    def examples(self):
        return sum(self.sizes)

    def forward(self, x):
        self.sizes.append(len(x))
        return super().forward(x)


@pytest.fixture
def counted(images):
    """(model, how many examples an explanation passes through it, how often it differs from a fresh copy's)"""
    model, kept = Counted(*network()), {}

    def asked(train):
        ids = torch.arange(len(train))
        query = Query(model, images[0], TARGETS, train=lambda: Data(train, ids, ids), kept=kept)
        return attributions(methods.get("pattern_net"), query, {})

    asked(images[1] + 1)  # the model is then known

    def passed(train):
        before = model.examples
        found = asked(train)
        examples = model.examples - before
        fresh = attribug.explain("pattern_net", copy.deepcopy(model), images[0], TARGETS, train_inputs=train)
        assert torch.equal(found, fresh), "stale patterns"
        return examples

    return model, passed


def test_patterns_are_fitted_once(counted, images):
    _, passed = counted
    first, second, third = (passed(images[1]) for _ in range(3))
    assert first - second >= len(images[1])
    assert second == third < len(images[1])


def test_both_methods_use_one_fit(images):
    model = Counted(*network())
    inputs, train = images
    alone = attribug.explain("pattern_net", model, inputs, TARGETS, train_inputs=train)
    passed = model.examples
    both = attribug.explain(NAMES, model, inputs, TARGETS, train_inputs=train)
    assert model.examples - passed < passed + len(train)
    assert torch.equal(both["pattern_net"], alone)


@torch.no_grad()
def exchange(model):
    """Two filters change places: every norm stays."""
    model[0].weight.copy_(model[0].weight[[1, 0, 2]])
    model[0].bias.copy_(model[0].bias[[1, 0, 2]])


CHANGES = {
    "in place": lambda model: nn.init.ones_(model[3].weight),
    "a bias": lambda model: nn.init.ones_(model[0].bias),
    "through .data": lambda model: model[7].weight.data.mul_(1.5),
    "another .data": lambda model: setattr(model[0].weight, "data", model[0].weight.data + 0.1),
    "another parameter": lambda model: setattr(model[0], "weight", nn.Parameter(model[0].weight.detach() + 0.1)),
    "its sign, through .data": lambda model: model[0].weight.data.neg_(),
    "filters exchanged": exchange,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_noticed(change, counted, images):
    model, passed = counted
    first = passed(images[1])
    CHANGES[change](model)
    assert passed(images[1]) >= first  # the model is looked at anew as well


def test_other_training_examples_are_noticed(counted, images):
    _, passed = counted
    train = images[1]
    first = passed(train)
    assert passed(train.flip(3)) == first
    assert passed(train[:7]) == first - 5
    train.mul_(2)
    assert passed(train) == first


# --- what has no patterns ---


@pytest.mark.parametrize("name", NAMES)
def test_neurons_that_never_vary_have_no_pattern(name, images):
    """One dead, one constant, beside one that is alive."""
    model, (inputs, train) = network(), images
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].bias[:2] = torch.tensor([-5.0, 1.0])
    a = fit(model, train, rows=5)[model[0]]
    assert not a[:2].any()
    assert a[2].any()
    found = attribug.explain(name, model, inputs, TARGETS, train_inputs=train)
    assert found.isfinite().all()
    assert found.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_varies_rounding_makes_no_patterns(name, dtype, images):
    """Training examples that are all the same: the variance of every neuron is rounding noise, or zero."""
    model, inputs = network().to(dtype), images[0].to(dtype)
    for train in (images[1][:1].to(dtype).expand(12, -1, -1, -1).contiguous(), torch.zeros_like(inputs)):
        dense = fit(model, train, rows=5)
        assert not any(a.any() for layer, a in dense.items() if isinstance(layer, nn.Linear))
        assert attribug.explain(name, model, inputs, TARGETS, train_inputs=train).isfinite().all()


class Between(nn.Module):
    """Convolution, ReLU, something, convolution, ReLU, dense layer."""

    def __init__(self, something, **options) -> None:
        super().__init__()
        self.one, self.relu1 = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()
        self.two, self.relu2 = nn.Conv2d(2, 2, 3, **{"padding": 1} | options), nn.ReLU()
        self.something, self.flatten, self.dense = something, nn.Flatten(), nn.Linear(162, 3)

    def forward(self, x):
        before = self.relu1(self.one(x))
        return self.dense(self.flatten(self.relu2(self.two(self.something(before)))))


class Skipped(Between):
    def forward(self, x):
        before = self.relu1(self.one(x))
        return self.dense(self.flatten(self.relu2(self.two(before) + before)))


class Reused(Between):
    def forward(self, x):
        return self.dense(self.flatten(self.relu2(self.one(self.relu1(self.one(x))))))


def same(x):
    return x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Skipped(same), "something happens between Conv2d and ReLU"),
        (Between(lambda x: x + 1), "something happens between ReLU and Conv2d"),
        (Between(lambda x: x.transpose(2, 3)), "something happens between ReLU and Conv2d"),
        (Between(same, groups=2), "convolutions without groups"),
        (Between(same, padding_mode="reflect"), "Reflection|padded with zeros"),
        (Between(same, padding="same"), "padding is given in pixels"),
        (Between(nn.BatchNorm2d(2)), "found BatchNorm2d"),
        (Reused(same), "module 'one' runs 2 times"),
    ],
    ids=["residual", "added to", "transposed", "groups", "reflected", "same", "batch norm", "reused"],
)
def test_models_without_patterns_are_refused(name, model, reason, images):
    inputs, train = images
    with pytest.raises(attribug.Unsupported, match=reason):
        attribug.explain(name, lively(model), inputs, TARGETS, train_inputs=train)


@pytest.mark.parametrize("name", NAMES)
def test_without_training_examples_they_are_refused(name, images):
    with pytest.raises(attribug.Unsupported, match="needs training examples, and none were given"):
        attribug.explain(name, network(), images[0], TARGETS)
    for wrong in (images[1][:0], images[1][:, :1]):
        with pytest.raises((attribug.Unsupported, attribug.InputError), match="training examples"):
            attribug.explain(name, network(), images[0], TARGETS, train_inputs=wrong)


def test_another_module_in_the_same_place_is_noticed(images):
    inputs, train = images
    model = nn.Sequential(*network())
    attribug.explain("pattern_net", model, inputs, TARGETS, train_inputs=train)
    place = next(i for i, module in enumerate(model) if isinstance(module, nn.MaxPool2d))
    model[place] = nn.AvgPool2d(model[place].kernel_size, model[place].stride)
    found, fresh = (
        attribug.explain("pattern_net", each, inputs, TARGETS, train_inputs=train)
        for each in (model, copy.deepcopy(model))
    )
    assert torch.equal(found, fresh)


def test_training_examples_written_behind_autograds_back_are_noticed(images):
    inputs, train = images[0], images[1].clone()
    model = nn.Sequential(*network())
    before = attribug.explain("pattern_net", model, inputs, TARGETS, train_inputs=train)
    train.data.mul_(-0.5)
    assert not torch.allclose(attribug.explain("pattern_net", model, inputs, TARGETS, train_inputs=train), before)


def test_pools_before_and_after_a_relu_have_the_same_patterns(images):
    inputs, train = images
    torch.manual_seed(3)
    conv, pool, dense = nn.Conv2d(2, 3, 3).double(), nn.MaxPool2d(2), nn.Linear(12, 3).double()
    size = conv(inputs).shape[-1] // 2
    dense = nn.Linear(3 * size * size, 3).double()
    after, before = (
        attribug.explain(
            "pattern_net", nn.Sequential(conv, *pair, nn.Flatten(), dense), inputs, TARGETS % 3, train_inputs=train
        )
        for pair in ((nn.ReLU(), pool), (pool, nn.ReLU()))
    )  # fmt: skip
    torch.testing.assert_close(after, before)
