"""Networks that the shipped tasks train."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def bvd_cnn(*, channels: int = 3, classes: int = 2, pixels: int = 32, width: int = 16) -> nn.Sequential:
    """BVD-CNN: five convolutions, three dense layers, ReLU, one logit a class; inputs (N, channels, pixels, pixels).

    Adebayo et al. (2020), section 2, give the layers' number and kind; filters and sizes are our choice, and one logit
    a class replaces their single sigmoid output, so that more than two classes fit.
    """
    w = width
    spatial = pixels // 2 // 2 // 2
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    planes = [(channels, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w)]
    for number, (before, after) in enumerate(planes, start=1):
        layers[f"conv{number}"] = nn.Conv2d(before, after, kernel_size=3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        if number in {2, 4, 5}:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["dense1"] = nn.Linear(4 * w * spatial * spatial, 128)
    layers["relu6"] = nn.ReLU()
    layers["dense2"] = nn.Linear(128, 64)
    layers["relu7"] = nn.ReLU()
    layers["dense3"] = nn.Linear(64, classes)
    return nn.Sequential(layers)
