"""The same layers written in other ways: functions in place of modules, modules used twice, work in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from zennit.layer import Sum

from architectures.specimens import Group, Pair, Specimen, beside, copied, images, lively, network

Function = Callable[..., Any]
ROLES = ("first", "one", "pooling", "second", "two", "averaging", "flattening", "hidden", "three", "head")
RECTIFIERS = ("one", "two", "three")


class Written(nn.Module):
    """The plain network, whose steps may be functions."""

    def __init__(self, layers: nn.Sequential, steps: Mapping[str, Function]) -> None:
        super().__init__()
        for role, layer in zip(ROLES, layers, strict=True):
            setattr(self, role, steps.get(role, layer))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        for role in ROLES:
            inputs = getattr(self, role)(inputs)
        return inputs


class Bare(nn.Module):
    """A layer whose function is called on its weights."""

    def __init__(self, layer: nn.Module, call: Function) -> None:
        super().__init__()
        self.weight, self.bias, self.call = layer.weight, layer.bias, call

    def forward(self, inputs: Tensor) -> Tensor:
        """What the layer gives."""
        return self.call(inputs, self.weight, self.bias)


class Residual(nn.Module):
    """A network with a sum of two branches."""

    def __init__(self, branch: nn.Module, rest: nn.Sequential, add: Function) -> None:
        super().__init__()
        self.branch, self.add, self.rest = branch, add, rest

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.rest(self.add(inputs, self.branch(inputs)))


class Stacked(nn.Module):
    """A sum that rules of relevance reach."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum()

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        """Their sum."""
        return self.sum(torch.stack([one, two], dim=-1))


def steps(**functions: Function) -> Pair:
    """The network with other steps; `relu` stands for all three."""
    truth = network()
    relu = dict.fromkeys(RECTIFIERS, functions.pop("relu")) if "relu" in functions else {}
    return beside(Written(copied(truth), relu | functions).eval(), truth)


def in_place() -> Pair:
    """ReLU modules that work in place."""
    truth = network()
    return steps_of(truth, lambda module: nn.ReLU(inplace=True) if isinstance(module, nn.ReLU) else module)


def steps_of(truth: nn.Sequential, change: Function) -> Pair:
    """The network with every layer changed."""
    return beside(nn.Sequential(*map(change, copied(truth))).eval(), truth)


def bare(kind: type[nn.Module], call: Function) -> Pair:
    """Layers of a kind as calls on their weights."""
    return steps_of(network(), lambda layer: Bare(layer, call) if isinstance(layer, kind) else layer)


def repeated(first: nn.Module, again: nn.Module, twice: Function) -> Pair:
    """A module that runs twice beside two modules."""
    around = network()
    start = nn.Sequential(*copied(around)[:2])
    rest = lively(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)))
    truth = nn.Sequential(*start, *twice(first, again), *rest)
    return beside(nn.Sequential(*copied(start), *copied(nn.ModuleList(twice(first, first))), *copied(rest)), truth)


def convolution_twice() -> Pair:
    """One convolution runs twice."""
    first = lively(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)))[0]
    return repeated(first, copied(first), lambda one, two: [one, nn.ReLU(), two, nn.ReLU()])


def pooling_twice() -> Pair:
    """One max-pooling runs twice."""
    return repeated(nn.MaxPool2d(2), nn.MaxPool2d(2), lambda one, two: [one, two])


def residual(add: Function) -> Pair:
    """A sum of two branches beside zennit's module for sums."""
    branch = lively(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1)))
    truth = Residual(branch, network(), Stacked())
    return beside(Residual(copied(branch), copied(truth.rest), add).eval(), truth)


def reflecting() -> Pair:
    """Convolutions that pad by reflection, beside modules that do."""
    layers = network(padding_reflected)
    truth = []
    for layer in copied(layers):
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode, layer.padding = "zeros", (0, 0)
            truth.append(nn.ReflectionPad2d(1))
        truth.append(layer)
    pair = beside(layers, nn.Sequential(*truth))
    return replace(pair, truth=replace(pair.truth, stranger=True))


def padding_reflected(*sizes: int, padding: int) -> nn.Conv2d:
    """A convolution that pads by reflection."""
    return nn.Conv2d(*sizes, padding=padding, padding_mode="reflect")


def same_padding() -> Pair:
    """Convolutions whose padding is a word."""
    model = network(lambda *sizes, padding: nn.Conv2d(*sizes, padding="same"))
    truth = network()
    truth.load_state_dict(model.state_dict())
    return beside(model, truth)


class Disordered(nn.Module):
    """Modules listed in another order than they run, and one that never does."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.unused = nn.Conv2d(3, 4, 3).double()
        self.listed = nn.ModuleList(reversed(layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        for layer in reversed(self.listed):
            inputs = layer(inputs)
        return inputs


def disordered(*, normalised: bool) -> Pair:
    """Modules listed backwards."""
    truth = network(normalised=normalised)
    return beside(Disordered(copied(truth)).eval(), truth)


def functional_norms() -> Pair:
    """Batch norms as functions."""
    truth = network(normalised=True)

    def called(layer: nn.Module) -> nn.Module:
        return FunctionalNorm(layer) if isinstance(layer, nn.BatchNorm2d) else layer

    return steps_of(truth, called)


class FunctionalNorm(nn.Module):
    """A batch norm whose function is called."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("variance", norm.running_var)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised."""
        return functional.batch_norm(inputs, self.mean, self.variance, self.weight, self.bias, False, 0.1, self.eps)


def channels_last() -> Pair:
    """Inputs that are stored with their channels last."""
    truth = network()
    model = copied(truth).to(memory_format=torch.channels_last)
    pair = beside(model, truth)
    return Pair(model, pair.truth, images().contiguous(memory_format=torch.channels_last))


def _dropping(inputs: Tensor) -> Tensor:
    return functional.dropout(functional.relu(inputs), 0.5, False)


class OwnPool(nn.MaxPool2d):
    """A pooling that looks at another window than it says."""

    def forward(self, input: Tensor) -> Tensor:
        """The maximum of windows of 2 × 2."""
        return functional.max_pool2d(input, 2)


class Checkpointed(nn.Module):
    """A network that forgets what it saw and runs once more on the way back."""

    def __init__(self, layers: nn.Sequential, *, reentrant: bool) -> None:
        super().__init__()
        self.start, self.rest, self.reentrant = layers[:5], layers[5:], reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.rest(checkpoint(self.start, inputs, use_reentrant=self.reentrant))


class Branches(nn.Module):
    """A convolution, half of whose outputs are made by another one."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        half = layer.out_channels // 2
        self.one, self.two = (nn.Conv2d(layer.in_channels, half, 3, padding=1) for _ in range(2))
        for branch, part in ((self.one, slice(half)), (self.two, slice(half, None))):
            branch.weight, branch.bias = nn.Parameter(layer.weight[part]), nn.Parameter(layer.bias[part])

    def forward(self, inputs: Tensor) -> Tensor:
        """As the convolution."""
        return torch.cat([self.one(inputs), self.two(inputs)], dim=1)


class Padding(nn.Module):
    """A convolution whose inputs are padded by a function."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        layer.padding = (0, 0)

    def forward(self, inputs: Tensor) -> Tensor:
        """As the convolution."""
        return self.layer(functional.pad(inputs, [1] * 4))


class Averaged(nn.Module):
    """The mean over positions."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C)."""
        return inputs.mean((2, 3))


def wrapped(wrap: Function) -> Pair:
    """The network in a wrapper."""
    truth = network()
    return beside(wrap(copied(truth)).eval(), truth)


def branching(place: int) -> Pair:
    """One of the network's convolutions as two."""
    truth = network()
    model = copied(truth)
    model[place] = Branches(model[place])
    return beside(model, truth)


def padded() -> Pair:
    """Convolutions whose inputs are padded by a function."""
    pair = steps_of(network(), lambda layer: Padding(layer) if isinstance(layer, nn.Conv2d) else layer)
    flat = ("lrp_spaf", "lrp_epsilon_plus_flat")  # their rule gives every input its share, and here the padding is one
    return replace(pair, truth=replace(pair.truth, unlike=flat))


def averaged() -> Pair:
    """A mean in place of average-pooling to one position."""
    layers = lively(nn.Sequential(*network()[:5], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)))
    return beside(nn.Sequential(*copied(layers)[:5], Averaged(), copied(layers)[7]), layers)


def _pooled(inputs: Tensor) -> Tensor:
    count, channels, height, width = inputs.shape
    return inputs.reshape(count, channels, height // 2, 2, width // 2, 2).amax((3, 5))


SPECIMENS: dict[str, Callable[[], Pair]] = {
    "in-place ReLU": in_place,
    "one ReLU for all": lambda: steps(relu=nn.ReLU()),
    "one in-place ReLU for all": lambda: steps(relu=nn.ReLU(inplace=True)),
    "`functional.relu`": lambda: steps(relu=functional.relu),
    "`functional.relu`, in place": lambda: steps(relu=partial(functional.relu, inplace=True)),
    "`torch.relu`": lambda: steps(relu=torch.relu),
    "`tensor.relu_()`": lambda: steps(relu=torch.relu_),
    "one `functional.relu` among modules": lambda: steps(two=functional.relu),
    "`functional.dropout` after `functional.relu`": lambda: steps(relu=_dropping),
    "`functional.max_pool2d`": lambda: steps(pooling=lambda x: functional.max_pool2d(x, 2)),
    "`functional.avg_pool2d`": lambda: steps(averaging=lambda x: functional.avg_pool2d(x, 2)),
    "`torch.flatten`": lambda: steps(flattening=lambda x: torch.flatten(x, 1)),
    "`tensor.view`": lambda: steps(flattening=lambda x: x.view(len(x), -1)),
    "`functional.conv2d` on weights": lambda: bare(nn.Conv2d, lambda x, w, b: functional.conv2d(x, w, b, padding=1)),
    "`functional.linear` on weights": lambda: bare(nn.Linear, functional.linear),
    "`x @ w.T + b`": lambda: bare(nn.Linear, lambda x, w, b: x @ w.T + b),
    "`functional.batch_norm`": functional_norms,
    "one convolution, run twice": convolution_twice,
    "one max-pooling, run twice": pooling_twice,
    "residual sum `x + f(x)`": lambda: residual(lambda one, two: one + two),
    "residual sum, in place": lambda: residual(lambda one, two: two.add_(one)),
    "padding by reflection": reflecting,
    "padding `same`": same_padding,
    "modules listed backwards": lambda: disordered(normalised=False),
    "modules listed backwards, batch norms": lambda: disordered(normalised=True),
    "`nn.AdaptiveMaxPool2d`": lambda: steps(pooling=nn.AdaptiveMaxPool2d(6)),
    "`nn.MaxPool2d` with a forward of its own": lambda: steps(pooling=OwnPool(3, 2, 1)),
    "max-pooling by `tensor.amax`": lambda: steps(pooling=_pooled),
    "`tensor.mean` over positions": averaged,
    "`functional.pad` before convolutions": padded,
    "two convolutions of the inputs, concatenated": lambda: branching(0),
    "two last convolutions, concatenated": lambda: branching(3),
    "checkpointed": lambda: wrapped(partial(Checkpointed, reentrant=False)),
    "checkpointed, reentrant": lambda: wrapped(partial(Checkpointed, reentrant=True)),
    "`torch.fx.symbolic_trace`": lambda: wrapped(torch.fx.symbolic_trace),
    "`nn.DataParallel`": lambda: wrapped(nn.DataParallel),
    "channels last": channels_last,
}
GROUP = Group(
    "The same layers, written otherwise",
    "Truth: the same weights in separate modules, none of which works in place, in the order in which they run.",
    tuple(
        Specimen(name, build, plain=name == "channels last", closed="reentrant" in name)
        for name, build in SPECIMENS.items()
    ),
)
