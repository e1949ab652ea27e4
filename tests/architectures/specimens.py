"""A specimen: a network as people write it, and its truth, the same function in a form that every method explains
rightly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

CLASSES, PIXELS = 3, 12
EXAMPLES = 10  # two of them explained
SEED = 1  # of weights and inputs whose true maps are not zero
FEW = {"samples": 4, "steps": 3, "segments": 2, "window": 6, "stride": 3}
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-1, torch.bfloat16: 4e-1}
"""How far a map may lie from the truth, of the truth's norm, by dtype: some three times what rounding does to it."""
Layers = Callable[..., Any]


def same(tensor: Tensor) -> Tensor:
    """A tensor as it is."""
    return tensor


@dataclass(frozen=True)
class Form:
    """A form of a network, and how inputs get into it and maps back."""

    model: nn.Module
    inputs: Callable[[Tensor], Tensor] = same
    maps: Callable[[Tensor], Tensor] = same
    """From maps of this form's inputs to maps of the network's."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of methods that say the same in this form."""
    stranger: bool = False
    """Whether a method may explain the network and decline this."""
    unlike: tuple[str, ...] = ()
    """Methods to whom this is another network."""


@dataclass(frozen=True)
class Pair:
    """A network with its truth."""

    model: nn.Module
    truth: Form
    inputs: Tensor
    """Training examples first, then those to explain."""
    drawing: Form | None = None
    """The truth of stochastic methods, where their draws depend on the inputs' dtype."""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What the network is explained in; its truth is explained outside."""
    tolerance: float = TOLERANCE[torch.float64]
    targets: Tensor = field(default_factory=lambda: torch.tensor([2, 0]))
    options: Mapping[str, Any] = field(default_factory=lambda: FEW)


@dataclass(frozen=True)
class Specimen:
    """How a pair is made, and what it is called on the page."""

    name: str
    build: Callable[[], Pair]
    plain: bool = False
    """Whether this is a plain network, which no method may decline unless it declines the truth."""
    closed: bool = False
    """Whether torch allows no gradient at its input, so that even a plain gradient declines."""


@dataclass(frozen=True)
class Group:
    """A table of the page."""

    title: str
    introduction: str
    specimens: tuple[Specimen, ...]
    always: bool = True
    """Whether methods that ask nothing of a network's layers explain all of it."""
    slow: bool = False
    """Whether its tests belong to the survival run."""
    library: str = ""
    """What must be installed, beyond what the package needs."""


def network(conv: Layers = nn.Conv2d, dense: Layers = nn.Linear, *, normalised: bool = False) -> nn.Sequential:
    """The plain form: convolutions, ReLU, both poolings and dense layers on images (N, 3, 12, 12)."""
    norms = (lambda k: [nn.BatchNorm2d(k)]) if normalised else (lambda k: [])
    layers = nn.Sequential(
        conv(3, 4, 3, padding=1), *norms(4), nn.ReLU(), nn.MaxPool2d(2),
        conv(4, 6, 3, padding=1), *norms(6), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        dense(54, 8), nn.ReLU(), dense(8, CLASSES),
    )  # fmt: skip
    return lively(layers)


def lively(model: nn.Sequential) -> nn.Sequential:
    """He initialisation in float64, statistics of batch norms as after training, in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, std=0.1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.uniform_(parameter, 0.1, 0.5)
    return model.double().eval()


def images(dtype: torch.dtype = torch.float64, pixels: int = PIXELS) -> Tensor:
    """Noise in [0, 1), (N, 3, pixels, pixels)."""
    return torch.rand(EXAMPLES, 3, pixels, pixels, dtype=torch.float64).to(dtype)


def beside(model: nn.Module, truth: nn.Module, **facts: Any) -> Pair:
    """A network for small images with its truth."""
    return Pair(model, Form(truth.eval()), images(), **facts)


def copied(model: nn.Module) -> nn.Module:
    """Another network with the same weights."""
    return copy.deepcopy(model)


@contextmanager
def seeded(seed: int = SEED) -> Iterator[None]:
    """Weights and inputs are the same at every call, and the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
