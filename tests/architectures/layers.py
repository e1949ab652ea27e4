"""Layers whose weights are not what they seem: made anew in every pass, or used by a forward of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from architectures.specimens import Group, Pair, Specimen, beside, copied, network

CAMS = (
    "grad_cam", "grad_cam_plus_plus", "grad_cam_signed", "guided_grad_cam", "hires_cam", "layer_cam",
)  # fmt: skip

RANK, STRENGTH = 2, 0.5
Change = Callable[[nn.Module], Any]
Function = Callable[..., Any]


class StandardisedConv(nn.Conv2d):
    """A convolution whose weights are standardised in every pass (Qiao et al. 2019)."""

    def effective(self) -> Tensor:
        """What it convolves with."""
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return centred / math.sqrt(self.weight[0].numel()) / centred.std((1, 2, 3), keepdim=True)

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        return self._conv_forward(input, self.effective(), self.bias)


class AdaptedLinear(nn.Linear):
    """A dense layer with an adapter of low rank (Hu et al. 2022)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.down, self.up = nn.Parameter(torch.empty(RANK, before)), nn.Parameter(torch.empty(after, RANK))

    def effective(self) -> Tensor:
        """W + BA."""
        return self.weight + STRENGTH * self.up @ self.down

    def forward(self, input: Tensor) -> Tensor:
        """As a dense layer, the adapter beside it."""
        return functional.linear(input, self.weight, self.bias) + STRENGTH * (input @ self.down.T) @ self.up.T


class MergingLinear(AdaptedLinear):
    """The same, merged in every pass."""

    def forward(self, input: Tensor) -> Tensor:
        """As a dense layer."""
        return functional.linear(input, self.effective(), self.bias)


class ScalingConv(nn.Conv2d):
    """A convolution of twice its input."""

    def effective(self) -> Tensor:
        """Of the input as it is."""
        return 2 * self.weight

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        return super().forward(2 * input)


class RectifyingConv(nn.Conv2d):
    """A convolution of absolute weights."""

    def effective(self) -> Tensor:
        """What it convolves with."""
        return self.weight.abs()

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        return functional.conv2d(input, self.weight.abs(), self.bias, self.stride, self.padding)


class PlainConv(nn.Conv2d):
    """A convolution, in its own words."""

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        return functional.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class PlainLinear(nn.Linear):
    """A dense layer, in its own words."""

    def forward(self, input: Tensor) -> Tensor:
        """As a dense layer."""
        return functional.linear(input, self.weight, self.bias)


class NamedConv(nn.Conv2d):
    """A convolution under another name."""


CHANGES: dict[str, Change] = {
    "pruned (`prune.l1_unstructured`)": lambda layer: prune.l1_unstructured(layer, "weight", 0.4),
    "`utils.weight_norm`": weight_norm,
    "`utils.spectral_norm`": spectral_norm,
    "`parametrizations.weight_norm`": parametrizations.weight_norm,
    "`parametrizations.spectral_norm`": parametrizations.spectral_norm,
    "`parametrizations.orthogonal`": parametrizations.orthogonal,
}
OWN: dict[str, dict[str, type[nn.Module]]] = {
    "weight-standardised convolutions": {"conv": StandardisedConv},
    "dense layers with LoRA": {"dense": AdaptedLinear},
    "dense layers with LoRA, merged": {"dense": MergingLinear},
    "convolutions that scale their input": {"conv": ScalingConv},
    "convolutions of absolute weights": {"conv": RectifyingConv},
}
PLAIN: dict[str, dict[str, type[nn.Module]]] = {
    "subclasses with their own, plain forward": {"conv": PlainConv, "dense": PlainLinear},
    "subclass without a forward": {"conv": NamedConv},
}


def baked(model: nn.Sequential, *, normalised: bool) -> nn.Sequential:
    """The plain network whose weights are those that a model's layers compute with."""
    truth = network(normalised=normalised)
    with torch.no_grad():
        for layer, plain in zip(model, truth, strict=True):
            if isinstance(plain, nn.Conv2d | nn.Linear):
                plain.weight.copy_(layer.effective() if hasattr(layer, "effective") else layer.weight)
                plain.bias.copy_(layer.bias)
            elif isinstance(plain, nn.BatchNorm2d):
                plain.load_state_dict(layer.state_dict())
    return truth


def made(change: Change | None = None, *, frozen: bool = False, normalised: bool = False, **layers: Any) -> Pair:
    """The network with changed layers beside its baked weights."""
    model = network(**layers, normalised=normalised)
    for layer in [*model]:
        if change is not None and isinstance(layer, nn.Conv2d | nn.Linear):
            change(layer)
    model.requires_grad_(not frozen).eval()
    pair = beside(model, nn.Identity())
    with torch.no_grad():
        model(pair.inputs)  # some weights are made by the first pass
    return beside(model, baked(model, normalised=normalised))


def hooked(hook: Function, *, before: bool) -> Pair:
    """A user's hook doubles what goes into a layer, or its bias and all that comes out."""
    truth = network()
    model = copied(truth)
    with torch.no_grad():
        for layer, plain in zip(model, truth, strict=True):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                (layer.register_forward_pre_hook if before else layer.register_forward_hook)(hook)
                plain.weight.mul_(2)
                plain.bias.mul_(1 if before else 2)
    return beside(model, truth)


def merged(**facts: Any) -> Pair:
    """Batch norms beside convolutions that have them in their weights."""
    model = network(normalised=True)
    layers: list[nn.Module] = []
    with torch.no_grad():
        for layer in copied(model):
            if isinstance(layer, nn.BatchNorm2d):
                scale = layer.weight / (layer.running_var + facts.get("eps", layer.eps)).sqrt()
                layers[-1].weight.mul_(scale[:, None, None, None])
                layers[-1].bias.sub_(layer.running_mean).mul_(scale).add_(layer.bias)
            else:
                layers.append(layer)
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = facts.get("eps", layer.eps)
    pair = beside(model, nn.Sequential(*layers))
    return replace(pair, truth=replace(pair.truth, unlike=CAMS))  # another last convolution


def bare_norms() -> Pair:
    """Batch norms without weights."""
    truth = network(normalised=True)
    model = copied(truth)
    for layer, plain in zip(model, truth, strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight = layer.bias = None
            nn.init.ones_(plain.weight)
            nn.init.zeros_(plain.bias)
    return beside(model, truth)


def _specimens() -> list[Specimen]:
    found = [Specimen("plain, frozen", partial(made, frozen=True), plain=True)]
    for name, layers in PLAIN.items():
        found += [Specimen(name, partial(made, **layers), plain=True)]
        found += [Specimen(f"{name}, frozen", partial(made, frozen=True, **layers), plain=True)]
        found += [Specimen(f"{name}, before batch norms", partial(made, normalised=True, **layers), plain=True)]
    for name, change in CHANGES.items():
        found += [
            Specimen(name, partial(made, change)),
            Specimen(f"{name}, frozen", partial(made, change, frozen=True)),
        ]
        found += [Specimen(f"{name}, before batch norms", partial(made, change, normalised=True))]
    for name, layers in OWN.items():
        found += [
            Specimen(name, partial(made, **layers)),
            Specimen(f"{name}, frozen", partial(made, frozen=True, **layers)),
        ]
        found += [Specimen(f"{name}, before batch norms", partial(made, normalised=True, **layers))]
    return [*found, *(Specimen(name, build) for name, build in OTHERS.items())]


OTHERS: dict[str, Callable[[], Pair]] = {
    "a forward hook that doubles outputs": lambda: hooked(lambda layer, given, output: 2 * output, before=False),
    "a forward pre-hook that doubles inputs": lambda: hooked(lambda layer, given: 2 * given[0], before=True),
    "batch norms": merged,
    "batch norms, eps 1": lambda: merged(eps=1.0),
    "batch norms without weights": bare_norms,
}
GROUP = Group(
    "Layers whose weights are not what they seem",
    "Truth: plain `nn.Conv2d` and `nn.Linear` with the weights that the layers compute with, batch norms merged.",
    tuple(_specimens()),
)
