"""Networks that the shipped tasks train."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn


class _Drawn:
    """Of a layer: weights start normal with deviation `gain / √inputs`, biases at zero; so does whoever starts it anew.

    A gain of 1 keeps the size of what passes a linear layer (LeCun et al. 1998, equation 16), √2 that of what passes a
    layer and a ReLU (He et al. 2015, equation 10). torch's own start has 1/√3: eight layers of it shrink the input
    until some seeds learn nothing, and the others need twice as long.
    """

    gain = 1.0

    def reset_parameters(self: Any) -> None:
        nn.init.normal_(self.weight, std=self.gain * self.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.bias)


class Convolution(_Drawn, nn.Conv2d):
    """A convolution with a start of its own."""


class Dense(_Drawn, nn.Linear):
    """A dense layer with a start of its own."""


def bvd_cnn(
    *, channels: int = 3, classes: int = 2, pixels: int = 32, width: int = 16, gain: float = 1.0
) -> nn.Sequential:
    """BVD-CNN: five convolutions, three dense layers, ReLU, one logit a class; inputs (N, channels, pixels, pixels).

    Adebayo et al. (2020), section 2, give the layers' number and kind; filters and sizes are our choice, and one logit
    a class replaces their single sigmoid output, so that more than two classes fit. `gain`: of the first weights.
    """
    w = width
    spatial = pixels // 2 // 2 // 2
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    planes = [(channels, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w)]
    for number, (before, after) in enumerate(planes, start=1):
        layers[f"conv{number}"] = Convolution(before, after, kernel_size=3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        if number in {2, 4, 5}:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["dense1"] = Dense(4 * w * spatial * spatial, 128)
    layers["relu6"] = nn.ReLU()
    layers["dense2"] = Dense(128, 64)
    layers["relu7"] = nn.ReLU()
    layers["dense3"] = Dense(64, classes)
    return _started(layers, gain)


def shrinking_cnn(*, pixels: int, shrink: int, **options: Any) -> nn.Sequential:
    """`bvd_cnn` behind an average over squares of `shrink` pixels a side: what was enlarged is looked at as it was.
    `options`: of `bvd_cnn`; inputs (N, channels, pixels, pixels)."""
    layers = bvd_cnn(pixels=pixels // shrink, **options).named_children()
    return nn.Sequential(OrderedDict([("shrink", nn.AvgPool2d(shrink)), *layers]))


def mlp(
    *, shape: Sequence[int], hidden: Sequence[int] = (50, 30), classes: int = 2, gain: float = 0.2
) -> nn.Sequential:
    """Dense layers with ReLUs between them, one logit a class; inputs (N, *shape), flattened where they are no vectors.

    Ross et al. (2017), section 4, have these two hidden layers. `gain`: of the first weights; with small ones, as here,
    the model of a shortcut ignores the rest as much as theirs does.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(shape) > 1:
        layers["flatten"] = nn.Flatten()
    for number, (before, after) in enumerate(pairwise((math.prod(shape), *hidden, classes)), start=1):
        layers[f"dense{number}"] = Dense(before, after)
        if number <= len(hidden):
            layers[f"relu{number}"] = nn.ReLU()
    return _started(layers, gain)


def plain_cnn(
    *, shape: Sequence[int], classes: int, widths: Sequence[int] = (32, 64, 128), pooled: bool = False,
    shrink: int = 1, gain: float = 2**0.5,
) -> nn.Sequential:  # fmt: skip
    """A stage a width, of a convolution 3 × 3, a ReLU and a maximum over 2 × 2; one dense layer, one logit a class.

    Inputs (N, *shape), shape (C, H, W); each stage halves H and W, rounded down. `pooled`: the dense layer sees the
    average of the last maps over all places, not each place by itself. `shrink`: the side of the squares of pixels
    whose average is looked at. `gain`: of the first weights.
    """
    channels, height, width = shape[0], shape[1] // shrink, shape[2] // shrink
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if shrink > 1:
        layers["shrink"] = nn.AvgPool2d(shrink)
    for number, (before, after) in enumerate(pairwise((channels, *widths)), start=1):
        layers[f"conv{number}"] = Convolution(before, after, kernel_size=3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    if pooled:
        layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dense"] = Dense(widths[-1] * (1 if pooled else height * width), classes)
    return _started(layers, gain)


def _started(layers: OrderedDict[str, nn.Module], gain: float) -> nn.Sequential:
    """The layers one after the other; weights start with a gain of their own."""
    for layer in layers.values():
        if isinstance(layer, _Drawn):
            layer.gain = gain
            layer.reset_parameters()
    return nn.Sequential(layers)
