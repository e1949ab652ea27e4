"""torchvision's classifiers for pictures in [0, 1], with a last layer of their own: from scratch, or on what ImageNet
taught them where its weights were downloaded before."""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribug.contracts.models import Given
from attribug.errors import InputError, near_misses, one_line
from attribug.models.given import given
from attribug.models.own import RANDOM, own
from attribug.models.training import seeded
from attribug.models.wrapped import OfPictures
from attribug.streams import generator

LIBRARY = "torchvision"
TRIED = 2  # pictures: batch normalisation wants more than one


def untrained(*, name: str, classes: int, pixels: int) -> nn.Module:
    """The classifier `torchvision:NAME` of as many classes, with random weights, for pictures (N, 3, H, W) in [0, 1].

    It normalises them itself, by the mean and standard deviation of its makers, and sees them at `pixels` a side.
    Raises `InputError` for a name that is none of torchvision's classifiers.
    """
    import torchvision

    library, _, what = name.rpartition(":")
    known = torchvision.models.list_models(torchvision.models)
    if library != LIBRARY or what not in known:
        expected = f"expected {LIBRARY}:NAME, a classifier of torchvision"
        close = near_misses(what, known)
        raise InputError(f"network {name!r}: {expected}{close if 'did you mean' in close else ''}")
    model: nn.Module = torchvision.models.get_model(what, weights=None, num_classes=classes)
    makers: Any = torchvision.models.get_model_weights(what).DEFAULT.transforms()
    return OfPictures(model, makers.mean, makers.std, pixels)


def with_features(*, name: str, classes: int, pixels: int, task: str, seed: int) -> nn.Module:
    """The same network with ImageNet's weights below its last layer, which is drawn: one draw a task and seed.

    Raises `InputError` where the weights are not in torch's cache.
    """
    with seeded(generator(task, "head", seed)):
        model = untrained(name=name, classes=classes, pixels=pixels)
        published = own(name)
    if published.weights == RANDOM:
        raise InputError(f"network {name!r}: expected torchvision's weights in {_cache()}, found none")
    network = model.get_submodule("network")
    ours = network.state_dict()
    state = {n: each for n, each in published.model.state_dict().items() if n in ours and ours[n].shape == each.shape}
    network.load_state_dict(state, strict=False)
    return model


def has_features(name: str) -> bool:
    """Whether weights of a classifier were downloaded before."""
    return any(_cache().glob(f"{name.rpartition(':')[2]}-*.pth"))


@functools.lru_cache(maxsize=4)
def start(name: str, classes: int, pixels: int, task: str, seed: int) -> Given:
    """What training goes on from, where `has_features`; raises as `with_features`."""
    return given(partial(with_features, name=name, classes=classes, pixels=pixels, task=task, seed=seed))


@functools.lru_cache(maxsize=8)
def expect_fits(name: str, classes: int, pixels: int) -> None:
    """Raises `InputError` for a network that gives no logits (N, classes) in training for pictures of that size."""
    with seeded(generator("library")):
        model = untrained(name=name, classes=classes, pixels=pixels)
        try:
            with torch.no_grad():
                outputs: Any = model(torch.zeros(TRIED, 3, pixels, pixels))
        except Exception as error:  # whatever a network makes of pictures of another size than its own
            raise InputError(
                f"network {name!r}: does not take pictures of {pixels} pixels: {one_line(error)}"
            ) from error
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != (TRIED, classes):
        raise InputError(f"network {name!r}: expected logits {(TRIED, classes)} while it trains, found {found}")


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"
