"""Relevance propagation against rules written out neuron by neuron on dense matrices, and what no rule reaches."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18
from zennit.layer import Sum

import attribug
from attribug import methods
from attribug.maps.attribution import attributions
from attribug.maps.guard import evaluated
from attribug.query.query import Query

STABILISER = 1e-6  # zennit's, in every denominator but the ε-rule's
PIXELS = 6
TARGETS = torch.tensor([2, 0, 1])


# --- the rules, for one neuron: shares of the inputs x (I,), given its weights w (I,) and bias b ---


def sign(number):
    return 1 if number >= 0 else -1


def epsilon_rule(epsilon):
    """Bach et al. 2015, eq. 58: x_i w_ij / (z_j + ε sign z_j), z_j with the bias."""

    def shares(x, w, b):
        z = sum(x * w) + b
        return x * w / (z + epsilon * sign(z))

    return shares


def alpha1beta0(*, bias):
    """Bach et al. 2015, eq. 60 with α = 1, β = 0: (x⁺w⁺ + x⁻w⁻) / (Σ of it + b⁺)."""

    def shares(x, w, b):
        positive = x.clamp(min=0) * w.clamp(min=0) + x.clamp(max=0) * w.clamp(max=0)
        return positive / (sum(positive) + (max(b, 0) if bias else 0) + STABILISER)

    return shares


def gamma_rule(gamma):
    """Andéol et al. 2021: an active neuron favours its positive contributions, a negative one its negative ones."""

    def shares(x, w, b):
        z = sum(x * w) + b
        favoured = (x * w > 0) if z > 0 else (x * w < 0)
        parts = x * w + gamma * torch.where(favoured, x * w, 0)
        total = sum(parts) + b + gamma * (max(b, 0) if z > 0 else min(b, 0))
        return parts / (total + STABILISER * sign(total)) * (z != 0)

    return shares


def flat_rule(x, w, b):
    """Lapuschkin et al. 2019: equal shares over the receptive field, as far as it lies in the image."""
    field = (w != 0).double()
    return field / (sum(field) + STABILISER)


norm_rule = epsilon_rule(STABILISER)  # average pools and sums

# convolutions, dense layers, first layer, whether the start is one
RULES = {
    "lrp_epsilon": (epsilon_rule(1e-7), epsilon_rule(1e-7), None, False),
    "lrp_spaf": (alpha1beta0(bias=True), epsilon_rule(0.1), flat_rule, False),
    "deep_taylor": (alpha1beta0(bias=True), alpha1beta0(bias=True), None, False),
    "lrp_epsilon_plus_flat": (alpha1beta0(bias=True), epsilon_rule(1e-6), flat_rule, False),
    "lrp_gamma": (gamma_rule(0.25), epsilon_rule(1e-7), None, False),
    "excitation_backprop": (alpha1beta0(bias=False), alpha1beta0(bias=False), None, True),
}
FLAT = ["lrp_spaf", "lrp_epsilon_plus_flat"]


# --- the pass backwards, layer by layer ---


def dense(layer, shape):
    """A layer as a matrix (J, I) and biases (J,): unit vectors pushed through it, one at a time."""
    zero = torch.zeros(shape, dtype=torch.float64)
    bias = layer(zero[None]).flatten()
    columns = []
    for i in range(zero.numel()):
        unit = zero.clone()
        unit.view(-1)[i] = 1
        columns.append(layer(unit[None]).flatten() - bias)
    return torch.stack(columns, 1), bias


def handed_back(rule, layer, x, relevance):
    """Relevance of a layer's inputs x: Σ_j shares_j R_j."""
    weights, biases = dense(layer, x.shape)
    result = torch.zeros(x.numel(), dtype=torch.float64)
    for w, b, r in zip(weights, biases, relevance.flatten(), strict=True):
        result += rule(x.flatten(), w, float(b)) * r
    return result.reshape(x.shape)


def to_winners(x, relevance):
    """Max-pooling by two: the largest of each window takes everything."""
    result = torch.zeros_like(x)
    for channel, i, j in torch.cartesian_prod(*map(torch.arange, relevance.shape)).tolist():
        window = x[channel, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = divmod(int(window.argmax()), 2)
        result[channel, 2 * i + row, 2 * j + column] = relevance[channel, i, j]
    return result


def start_of(logits, target, one):
    relevance = torch.zeros_like(logits)
    relevance[target] = 1 if one else logits[target]
    return relevance


@torch.no_grad()
def slowly(chain, x, target, rules):
    """Relevance of one input (C, H, W) under the rules, through a chain of modules."""
    convolution, linear, first, one = rules
    seen = [x]
    for module in chain:
        seen.append(module(seen[-1][None])[0])
    relevance = start_of(seen[-1], target, one)
    for number, module in reversed(list(enumerate(chain))):
        before = seen[number]
        if isinstance(module, nn.Conv2d | nn.Linear):
            rule = convolution if isinstance(module, nn.Conv2d) else linear
            relevance = handed_back(first if number == 0 and first else rule, module, before, relevance)
        elif isinstance(module, nn.MaxPool2d):
            relevance = to_winners(before, relevance)
        elif isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            relevance = handed_back(norm_rule, module, before, relevance)
        else:
            relevance = relevance.reshape(before.shape)  # ReLU, flattening: passed through
    return relevance


# --- what is explained ---


def lively(model, seed=7):
    """Weights, biases, and statistics of batch norms from a stream of their own."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.5, generator=stream)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.running_var is not None:
            module.running_mean.normal_(0, 0.5, generator=stream)
            module.running_var.uniform_(0.5, 2, generator=stream)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2, generator=stream)
    return model.double().eval()


@pytest.fixture
def images():
    """Three images of both signs, two channels."""
    return torch.randn(3, 2, PIXELS, PIXELS, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def network():
    return lively(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3),
        )
    )  # fmt: skip


def pooled():
    """Strides and dilation, an average pool that overlaps and one to a single value."""
    return lively(
        nn.Sequential(
            nn.Conv2d(2, 4, 2), nn.ReLU(), nn.AvgPool2d(2, 1), nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        )
    )  # fmt: skip


class Residual(nn.Module):
    """Two convolutions, the second beside a connection that skips it; joined by zennit's Sum or a plain +."""

    def __init__(self, *, visible) -> None:
        super().__init__()
        self.one, self.relu1 = nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()
        self.two, self.relu2 = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
        self.sum = Sum() if visible else None
        self.flatten, self.dense = nn.Flatten(), nn.Linear(3 * PIXELS * PIXELS, 3)

    def forward(self, x):
        before = self.relu1(self.one(x))
        after = self.two(before)
        joined = before + after if self.sum is None else self.sum(torch.stack([before, after], -1))
        return self.dense(self.flatten(self.relu2(joined)))


class Called(nn.Module):
    """Layers called in an order of their own, as "one relu two", whatever order they are listed in."""

    def __init__(self, order, function=None, **layers) -> None:
        super().__init__()
        common = {"relu": nn.ReLU(), "flatten": nn.Flatten(), "dense": nn.LazyLinear(3)}
        self.layers, self.order, self.function = nn.ModuleDict({**layers, **common}), order.split(), function
        self.double()(torch.zeros(2, 2, PIXELS, PIXELS, dtype=torch.float64))

    def forward(self, x):
        for name in [*self.order, "flatten", "dense"]:
            x = self.function(x) if name == "function" else self.layers[name](x)
        return x


def small(*middle):
    """A convolution to three channels, whatever is given, a ReLU and a dense layer."""
    names = [f"middle{number}" for number in range(len(middle))]
    layers = {"conv": nn.Conv2d(2, 3, 3), **dict(zip(names, middle, strict=True))}
    return lively(Called(" ".join([*layers, "relu"]), **layers))


def largest_error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


# --- the tests ---


@pytest.mark.parametrize("make", [network, pooled])
@pytest.mark.parametrize("name", RULES)
def test_is_the_rules_neuron_by_neuron(name, make, images):
    model = make()
    found = attribug.explain(name, model, images, TARGETS)
    for row, target in enumerate(TARGETS.tolist()):
        expected = slowly(model, images[row], target, RULES[name])
        assert expected.any()
        assert largest_error(found[row], expected) < 1e-10


@pytest.mark.parametrize("other", RULES)
@pytest.mark.parametrize("name", RULES)
def test_every_rule_differs_visibly_from_the_others(name, other, images):
    """The comparison above can fail: another method's rules miss the map by far more than its tolerance."""
    model = network()
    found = attribug.explain(name, model, images[:1], TARGETS[:1])[0]
    error = largest_error(found, slowly(model, images[0], int(TARGETS[0]), RULES[other]))
    assert error < 1e-10 if name == other else error > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "rules"),
    [
        ("lrp_epsilon", {"epsilon": 0.5}, (epsilon_rule(0.5), epsilon_rule(0.5), None, False)),
        ("lrp_spaf", {"epsilon": 2.0}, (alpha1beta0(bias=True), epsilon_rule(2.0), flat_rule, False)),
        ("lrp_gamma", {"gamma": 3.0, "epsilon": 0.25}, (gamma_rule(3.0), epsilon_rule(0.25), None, False)),
    ],
)
def test_parameters_reach_the_rules(name, options, rules, images):
    model = network()
    found = attribug.explain(name, model, images[:1], TARGETS[:1], **options)[0]
    assert largest_error(found, slowly(model, images[0], int(TARGETS[0]), rules)) < 1e-10
    assert largest_error(found, attribug.explain(name, model, images[:1], TARGETS[:1])[0]) > 1e-2


@pytest.mark.parametrize("name", RULES)
def test_a_sum_shares_by_contribution(name, images):
    """A hand-made residual network: x + y, where zennit's Sum makes it visible, shares R as x : y."""
    model, (convolution, linear, first, one) = lively(Residual(visible=True)), RULES[name]
    found = attribug.explain(name, model, images, TARGETS)
    with torch.no_grad():
        for row, target in enumerate(TARGETS.tolist()):
            before = model.one(images[row][None])[0].relu()
            after = model.two(before[None])[0]
            joined, last = before + after, nn.Sequential(nn.Flatten(), model.dense)
            start = start_of(last(joined.relu()[None])[0], target, one)
            relevance = handed_back(linear, last, joined.relu(), start)
            relevance /= joined + STABILISER * torch.where(joined >= 0, 1, -1)
            below = before * relevance + handed_back(convolution, model.two, before, after * relevance)
            expected = handed_back(first or convolution, model.one, images[row], below)
            assert largest_error(found[row], expected) < 1e-10


def test_the_epsilon_rule_collapses_to_input_times_gradient(images):
    """On networks of ReLU and max-pooling, as ε vanishes; other rules do not."""
    maps = attribug.explain(["lrp_epsilon", "gradient", "lrp_gamma"], network(), images, TARGETS, epsilon=1e-12)
    assert largest_error(maps["lrp_epsilon"], images * maps["gradient"]) < 1e-9
    assert largest_error(maps["lrp_gamma"], images * maps["gradient"]) > 1e-2


@pytest.mark.parametrize("name", RULES)
def test_relevance_is_conserved_without_biases(name, images):
    """Inputs are large, so that stabilisers do not count."""
    without, large = network(), 1e4 * images
    for parameter in without.parameters():
        parameter.data *= parameter.ndim > 1
    options = {"epsilon": 1e-7} if name in {"lrp_spaf", "lrp_epsilon"} else {}
    query = Query(without, large, TARGETS)
    totals = attributions(methods.get(name), query, options).flatten(1).sum(1)
    logits = without(large).gather(1, TARGETS[:, None])[:, 0].detach()
    promised = torch.ones_like(logits) if name == "excitation_backprop" else logits
    torch.testing.assert_close(query.promised, promised, rtol=1e-12, atol=0)
    torch.testing.assert_close(totals, promised, rtol=1e-6 if name in FLAT else 1e-8, atol=0)  # flat: ε against counts


@pytest.mark.parametrize("name", RULES)
def test_biases_take_their_share(name, images):
    """Except of excitation backpropagation, whose contributions leave them out: its maps are distributions."""
    query = Query(network(), images, TARGETS)
    totals = attributions(methods.get(name), query, {}).flatten(1).sum(1)
    if name == "excitation_backprop":
        torch.testing.assert_close(totals, torch.ones_like(totals), rtol=1e-4, atol=0)
    else:
        assert largest_error(totals, query.promised) > 1e-2


@pytest.mark.parametrize("name", RULES)
def test_a_relu_used_several_times_is_the_same_as_several(name, images):
    separate = network()
    shared = copy.deepcopy(separate)
    shared[3] = shared[7] = shared[1]
    expected, found = (attribug.explain(name, model, images, TARGETS) for model in (separate, shared))
    assert torch.equal(found, expected)


# --- batch norms ---


def merged(layer, norm):
    """A layer that does what it and the batch norm after it do, by hand."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    result = copy.deepcopy(layer)
    result.weight = nn.Parameter((layer.weight.flatten(1) * scale[:, None]).reshape(layer.weight.shape))
    bias = 0 if layer.bias is None else layer.bias
    result.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias)
    return result


@pytest.mark.parametrize("eps", [1e-13, 1e-5, 1e-2])
@pytest.mark.parametrize("name", RULES)
def test_batch_norms_are_merged_into_the_layers_before_them(name, eps, images):
    """Exactly: zennit 0.5 leaves 1 / √(1 + eps) behind for each, which adds up in deep networks."""
    model = lively(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4, eps=eps), nn.ReLU(), nn.Conv2d(4, 3, 3),
            nn.BatchNorm2d(3, eps=eps), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5, eps=eps),
            nn.ReLU(), nn.Linear(5, 3),
        )
    )  # fmt: skip
    by_hand = nn.Sequential(
        merged(model[0], model[1]), model[2], merged(model[3], model[4]), model[5], model[6],
        merged(model[7], model[8]), model[9], model[10],
    )  # fmt: skip
    torch.testing.assert_close(by_hand(images), model(images), rtol=1e-10, atol=1e-10)
    expected, found = (attribug.explain(name, each, images, TARGETS) for each in (by_hand, model))
    assert largest_error(found, expected) < 1e-9
    assert [model[number].eps for number in (1, 4, 8)] == [eps] * 3


def other_order(channels):
    """A batch norm listed after a convolution that it does not follow."""
    layers = {"one": nn.Conv2d(2, 3, 3), "other": nn.Conv2d(3, channels, 3), "norm": nn.BatchNorm2d(3)}
    return lively(Called("one norm other relu", **layers))


def twice(name):
    """A convolution, an average pool and ReLUs; one of the layers is called a second time."""
    layers = {"conv": nn.Conv2d(2, 2, 3, padding=1), "pool": nn.AvgPool2d(3, 1, 1)}
    return lively(Called(f"conv pool relu {name} relu", **layers))


def function(of_x):
    return lively(Called("conv relu function", of_x, conv=nn.Conv2d(2, 3, 3)))


UNMERGED = "no rule reaches the operation NativeBatchNorm"
REFUSED = {
    "no weights": (small(nn.BatchNorm2d(3, affine=False)), "batch norm 'layers.middle0' has no weights or statistics"),
    "no statistics": (
        small(nn.BatchNorm2d(3, track_running_stats=False)),
        "outputs depend on the other examples",
    ),
    "a batch norm first": (lively(Called("norm conv relu", norm=nn.BatchNorm2d(2), conv=nn.Conv2d(2, 3, 3))), UNMERGED),
    "a batch norm after a ReLU": (small(nn.ReLU(), nn.BatchNorm2d(3)), UNMERGED),
    "a batch norm listed elsewhere": (other_order(3), "merging batch norms .* changes the model's outputs"),
    "a batch norm listed elsewhere, of another width": (other_order(4), "batch norm"),
    "a plain sum": (lively(Residual(visible=False)), "no rule reaches the operation Add"),
    "a convolution used twice": (twice("conv"), "module 'layers.conv' runs 2 times"),
    "an average pool used twice": (twice("pool"), "module 'layers.pool' runs 2 times"),
    "ReLU6": (small(nn.ReLU6()), "is defined for ReLU networks; the model uses Hardtanh"),
    "GELU": (small(nn.GELU()), "is defined for ReLU networks; the model uses Gelu"),
    "a call of ReLU": (function(functional.relu), r"1 ReLU\(s\) are function calls"),
    "a call of average pooling": (
        function(lambda x: functional.avg_pool2d(x, 2)),
        "no rule reaches the operation AvgPool",
    ),
    "a mean": (function(lambda x: x.mean(3)), "no rule reaches the operation Mean"),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("what", REFUSED)
def test_what_no_rule_would_treat_rightly_is_refused(what, name, images):
    model, reason = REFUSED[what]
    with pytest.raises(attribug.Unsupported, match=reason):
        attribug.explain(name, model, images, TARGETS)


@pytest.mark.parametrize("name", RULES)
def test_the_flat_rule_is_not_given_to_a_layer_that_is_only_listed_first(name, images):
    """Which is what zennit does."""
    model = lively(Called("one relu two relu", two=nn.Conv2d(3, 4, 3), one=nn.Conv2d(2, 3, 3)))
    if name in FLAT:
        with pytest.raises(attribug.Unsupported, match=r"listed first.* runs first"):
            attribug.explain(name, model, images, TARGETS)
    else:
        chain = nn.Sequential(*(model.layers[each] for each in [*model.order, "flatten", "dense"]))
        expected, found = (attribug.explain(name, each, images, TARGETS) for each in (chain, model))
        assert torch.equal(found, expected)


# --- torchvision's networks, and what is left behind ---


@pytest.fixture(scope="module")
def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = resnet18(num_classes=4).double().eval()
    nn.init.zeros_(model.fc.bias)
    return model


@pytest.mark.parametrize("name", RULES)
def test_resnets_of_torchvision(name, resnet):
    """Batch norms and residual sums included; without biases relevance is conserved, but for stabilisers."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    with evaluated(resnet) as ready:
        query = Query(ready, image, torch.tensor([2]))
        found = attributions(methods.get(name), query, {})
    assert found.isfinite().all()
    assert found.any()
    if name != "lrp_spaf":  # whose ε of 0.1 is as large as the logits
        torch.testing.assert_close(found.sum().reshape(1), query.promised, rtol=1e-3, atol=0)


class Trap(nn.Module):
    """Hands on what it gets, and fails at its last call."""

    calls = 0

    def forward(self, x):
        self.calls -= 1
        if self.calls == 0:
            raise ValueError("on purpose")
        return x


@pytest.mark.parametrize("calls", [0, *range(1, 8)])
@pytest.mark.parametrize("name", RULES)
def test_model_and_gradients_are_left_alone(name, calls, images):
    """Also when a pass fails, at whichever call."""
    model = small(nn.BatchNorm2d(3), trap := Trap())
    trap.calls = calls
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number)
        parameter.requires_grad_(number != 0)
    before = copy.deepcopy(model)
    tensors = [*model.parameters(), *model.buffers()]
    gradients = [parameter.grad for parameter in model.parameters()]
    if calls:
        with pytest.raises(ValueError, match="on purpose"):
            attributions(methods.get(name), Query(model, images, TARGETS, rows=1), {})
    else:
        attributions(methods.get(name), Query(model, images, TARGETS, rows=1), {})
    assert [id(each) for each in [*model.parameters(), *model.buffers()]] == [id(each) for each in tensors]
    for old, now in zip([*before.parameters(), *before.buffers()], tensors, strict=True):
        assert torch.equal(old, now)
        assert old.requires_grad == now.requires_grad
    for number, (parameter, gradient) in enumerate(zip(model.parameters(), gradients, strict=True)):
        assert parameter.grad is gradient
        assert (gradient == number).all()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_layer_without_a_rule_in_the_composite_is_refused(images):
    """A composite that forgets dense layers would hand their gradient on in place of relevance."""
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon, Pass
    from zennit.types import Activation, Convolution

    name = "test_half_a_composite"
    methods.from_zennit(name, lambda: LayerMapComposite([(Activation, Pass()), (Convolution, Epsilon())]))
    model = small(nn.ReLU())
    try:
        with pytest.raises(attribug.Unsupported, match="the composite has no rule for Linear"):
            attribug.explain(name, model, images, TARGETS)
    finally:
        methods._registry.forget(name)
