"""SqueezeNet 1.1 on what ImageNet taught it, with a last layer of its own, for pictures in [0, 1]."""

from __future__ import annotations

import functools
from functools import partial

import torch
from torch import nn

from attribug.contracts.models import Given
from attribug.models import pretrained
from attribug.models.given import given
from attribug.models.training import seeded
from attribug.streams import generator

NETWORK = "squeezenet"
FIRST, HEAD, RECTIFIER = "features.0", "classifier.1", "2"
"""Its first and its last convolution, and the place in `classifier` of the rectifier after the latter."""
DENSE, CHANNELS = "classifier.2", 512
"""The last layer, where it is dense, and how many channels it has."""
SMALLEST = 64  # pixels a side that it takes sensibly: features shrink sixteenfold


def untrained(*, classes: int, dense: bool = False) -> nn.Module:
    """SqueezeNet 1.1 without the rectifier after its last layer: logits that are cut off at 0 have no gradient.

    Its last layer is a convolution with one weight a channel, averaged over the map; `dense`: the map is averaged, and
    the last layer is dense, which computes the same, but for dropout, and which fixes find.
    """
    from torchvision.models import squeezenet1_1

    model: nn.Module = squeezenet1_1(weights=None, num_classes=classes)
    if dense:
        model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, classes))
    else:
        setattr(model.get_submodule("classifier"), RECTIFIER, nn.Identity())
    return model


def with_features(*, classes: int, task: str, seed: int, dense: bool = False) -> nn.Module:
    """The network with ImageNet's weights below its last layer, which is drawn: one draw a task and seed.

    Its first layer makes up for the preparation of pictures that the weights were learnt with; exact, as that layer
    pads nothing.
    """
    with seeded(generator(task, "head", seed)):
        model = untrained(classes=classes, dense=dense)
    published = pretrained.PRETRAINED[NETWORK]
    state = {**published.weights(NETWORK, model)}
    state = {name: value for name, value in state.items() if name.startswith("features.")}
    weight, bias = (state[f"{FIRST}.{name}"].double() for name in ("weight", "bias"))
    mean, std = (torch.tensor(each).double() for each in (published.transform.mean, published.transform.std))
    scaled = weight / std.reshape(-1, 1, 1)
    state[f"{FIRST}.bias"] = (bias - (scaled * mean.reshape(-1, 1, 1)).sum((1, 2, 3))).float()
    state[f"{FIRST}.weight"] = (scaled.flip(1) if published.transform.bgr else scaled).float()
    model.load_state_dict(state, strict=False)
    return model


@functools.lru_cache(maxsize=4)
def start(classes: int, task: str, seed: int, *, dense: bool = False) -> Given:
    """What training goes on from. Raises `InputError` where the weights are not installed, or are others."""
    return given(partial(with_features, classes=classes, task=task, seed=seed, dense=dense))


def dense_and_stages(model: nn.Module, *, number: int) -> list[str]:
    """Names of the last `number` Fire modules, lowest first, and of the dense layer above them."""
    fires = [name for name, module in model.named_modules() if type(module).__name__ == "Fire"]
    return [*fires[len(fires) - number :], DENSE]
