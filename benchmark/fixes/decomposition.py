"""Contextual decomposition: outputs of a chain as the sum of what a part of its input contributes and what the rest
does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from attribug.errors import Unsupported

LEAST = 1e-6  # of what shares a bias out: gradients of the shares stay finite
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d)
AVERAGING = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity,
)  # fmt: skip
"""Layers without biases that are linear."""
DROPPING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
POOLING: dict[type[nn.Module], Callable[..., tuple[Tensor, Tensor]]] = {
    nn.MaxPool1d: functional.max_pool1d_with_indices,
    nn.MaxPool2d: functional.max_pool2d_with_indices,
}
Parts = tuple[Tensor, Tensor]
"""Contributions of what is relevant, β, and of the rest, γ; their sum is the value."""


def refuse_unknown_layers(model: nn.Module) -> None:
    """Raises `Unsupported`, with the layer, for anything but a chain of layers that can be decomposed."""
    if not isinstance(model, nn.Sequential):
        raise Unsupported(f"expected nn.Sequential for contextual decomposition, found {type(model).__name__}")
    known = (*LINEAR, *AVERAGING, *DROPPING, *POOLING, nn.ReLU)
    for name, layer in model.named_children():
        if isinstance(layer, nn.Sequential):
            refuse_unknown_layers(layer)
        elif not isinstance(layer, known):
            raise Unsupported(
                f"expected layers known to contextual decomposition, found {type(layer).__name__} {name!r}"
            )


def decomposed(model: nn.Sequential, inputs: Tensor, relevant: Tensor) -> Parts:
    """Contributions (N, K) of the inputs (N, *shape) where `relevant`, as the inputs, is True, and of all others; their
    sum is the model's output.

    Singh et al. (2019), section 3.2; Rieger et al. (2020), section 3.2. A bias is shared out as |Wβ| and |Wγ| are; the
    part of a ReLU is ReLU(β), the rest's what is missing; max-pooling takes both parts from where the sum is largest.
    """
    parts = inputs * relevant, inputs * ~relevant
    for layer in model:
        parts = _through(layer, *parts)
    return parts


def _through(layer: nn.Module, relevant: Tensor, rest: Tensor) -> Parts:
    """What a layer makes of both parts."""
    if isinstance(layer, nn.Sequential):
        for each in layer:
            relevant, rest = _through(each, relevant, rest)
        return relevant, rest
    if isinstance(layer, LINEAR):
        return _linear(layer, relevant, rest)
    if isinstance(layer, nn.ReLU):
        part = relevant.relu()
        return part, (relevant + rest).relu() - part
    if isinstance(layer, DROPPING):
        kept = layer(torch.ones_like(relevant))
        return relevant * kept, rest * kept
    for kind, pool in POOLING.items():
        if isinstance(layer, kind):
            return _pooled(layer, pool, relevant, rest)
    return layer(relevant), layer(rest)


def _linear(layer: nn.Linear | nn.Conv1d | nn.Conv2d, relevant: Tensor, rest: Tensor) -> Parts:
    bias = layer.bias
    if bias is None:
        return layer(relevant), layer(rest)
    if isinstance(layer, nn.Linear):
        part, other = functional.linear(relevant, layer.weight), functional.linear(rest, layer.weight)
    else:
        part, other = (layer._conv_forward(each, layer.weight, None) for each in (relevant, rest))
        bias = bias.reshape(-1, *[1] * (part.ndim - 2))
    share = part.abs() / (part.abs() + other.abs()).clamp(min=LEAST)
    return part + share * bias, other + (1 - share) * bias


def _pooled(layer: nn.Module, pool: Callable[..., tuple[Tensor, Tensor]], relevant: Tensor, rest: Tensor) -> Parts:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    _, places = pool(relevant + rest, **{name: getattr(layer, name) for name in names})
    flat = places.flatten(2)
    part, other = (each.flatten(2).gather(2, flat).reshape(places.shape) for each in (relevant, rest))
    return part, other
