"""Models that do not stand as they are taken: whose outputs are not logits (N, K), or whose inputs are no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attribug.errors import InputError, Unsupported, one_line
from attribug.models.order import running_order
from attribug.models.training import seeded


class Picked(nn.Module):
    """One of several outputs of a model: by name of a mapping or of an object with names, by number of a tuple."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, x: Tensor) -> Any:
        """The output of that name."""
        return picked(self.model(x), self.name)


class TwoLogits(nn.Module):
    """A model of one logit z, (N, 1) or (N,), as one of two, −z/2 and z/2: the same probabilities, and maps of either
    class are those of z but for their sign and half."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2)."""
        logit: Tensor = self.model(x).reshape(len(x), 1) / 2
        return torch.cat([-logit, logit], 1)


class OfPictures(nn.Module):
    """A network that wants (x − mean) / std of pictures x of `pixels` a side, as a model of the pictures themselves.

    They are in [0, 1], red, green and blue, and of any size: others than `pixels` a side are resized, by bilinear
    interpolation, before the network sees them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], pixels: int) -> None:
        super().__init__()
        self.network = network
        self.pixels = pixels
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Any:
        """The network's outputs for pictures (N, C, H, W)."""
        if x.shape[2:] != (self.pixels, self.pixels):
            x = nn.functional.interpolate(x, (self.pixels, self.pixels), mode="bilinear", align_corners=False)
        return self.network((x - self.mean) / self.std)


def in_other_order(model: nn.Module) -> nn.Module:
    """The model for pictures whose channels come in reverse order: its first convolution reads them so; in place.

    Raises `Unsupported` where it has no convolution.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.groups > 1:
        raise Unsupported("expected a first convolution that reads all channels, found none")
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))
    return model


def with_new_head(model: nn.Module, classes: int, stream: torch.Generator, inputs: Tensor) -> nn.Module:
    """The model with a last layer for as many classes, drawn anew; its other layers are the same objects.

    `inputs` (N, *shape): those that tell which layer is the last. Raises `Unsupported` where it is neither linear nor a
    convolution, or something after it changes the number of outputs.
    """
    if isinstance(model, TwoLogits):  # a layer for all classes needs no second logit made of a first
        model = model.model
    places = running_order(model, inputs)
    old = model.get_submodule(places[-1])
    with seeded(stream):
        if isinstance(old, nn.Linear):
            new: nn.Module = nn.Linear(old.in_features, classes, old.bias is not None)
        elif isinstance(old, nn.Conv2d) and old.groups == 1:
            sizes: dict[str, Any] = {
                name: getattr(old, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            }
            new = nn.Conv2d(old.in_channels, classes, bias=old.bias is not None, **sizes)
        else:
            raise Unsupported(f"expected a last layer that is linear or a convolution, found {type(old).__name__}")
    parent, _, name = places[-1].rpartition(".")
    if places[-1]:
        setattr(model.get_submodule(parent), name, new)
    else:  # the model is this layer
        model = new
    try:
        with torch.no_grad():
            found = tuple(model(inputs).shape)
    except Exception as error:  # what follows it may know how many there were
        raise Unsupported(f"with a new last layer {places[-1]!r} the model raises {one_line(error)}") from error
    if found != (len(inputs), classes):
        raise Unsupported(f"expected outputs (N, {classes}) of a new last layer {places[-1]!r}, found {found}")
    return model


def picked(outputs: Any, name: str) -> Any:
    """One of several outputs. Raises `InputError` that names those there are."""
    found = names(outputs)
    if name not in found:
        there = ", ".join(found) or type(outputs).__name__
        raise InputError(f"--output {name}: expected one of the model's outputs, found {there}")
    if isinstance(outputs, Mapping):
        return next(value for key, value in outputs.items() if str(key) == name)
    return outputs[int(name)] if name.isdigit() else getattr(outputs, name)


def names(outputs: Any) -> list[str]:
    """What a model's several outputs are called; nothing of one."""
    if isinstance(outputs, Mapping):
        return [str(name) for name in outputs]
    fields = getattr(outputs, "_fields", None)
    if isinstance(outputs, tuple | list):
        return [*(fields or ()), *(str(number) for number in range(len(outputs)))]
    return []
