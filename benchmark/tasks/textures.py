"""Task `textures`: which photograph a crop comes from; knows nothing of digits, hence out-of-domain for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models.networks import bvd_cnn
from attribug.streams import generator
from attribug.tasks.surfaces import KINDS, crop, photograph

PIXELS = 32
SPAN = 64  # pixels of the photograph that a crop covers, averaged down: fewer show a single stone or a single brick
TRAINING_SHARE = 0.75  # of a photograph's width, from the left
MINIMUM, MAXIMUM = 20, 20_000  # examples of a split


@tasks.register(
    "textures",
    source="photographs of grass, gravel and brick from scikit-image",
    licence="CC0 (CC0textures)",
    size="0 bytes beyond the packages",
)
def textures(
    *, seed: int, other: Callable[[str], Task], train: int = 1500, test: int = 500, epochs: int = 10, width: int = 16
) -> Task:
    """Is the texture grass, brick or gravel? Test crops lie in another part of each photograph.

    Grey crops (3, 32, 32) in [0, 1].
    """
    if not (MINIMUM <= train <= MAXIMUM and MINIMUM <= test <= MAXIMUM):
        raise InputError(f"textures: expected {MINIMUM} ≤ train, test ≤ {MAXIMUM}, found {train}, {test}")
    if epochs < 1 or width < 1:
        raise InputError(f"textures: expected epochs and width of at least 1, found {epochs}, {width}")
    sizes = {"train": train, "test": test}

    def examples(split: str, **scene: object) -> Examples:
        if scene:
            raise Unsupported("task textures has no background apart from its subject")
        return Examples.of(crops, seed=seed, split=split, size=sizes[split])

    start = 2**0.5  # the gain: crops differ little from their mean, and smaller first weights leave some seeds stuck
    network = partial(bvd_cnn, channels=3, classes=len(KINDS), pixels=PIXELS, width=width, gain=start)
    recipe = Recipe(network, epochs=epochs, batch=32, learning_rate=1e-3)
    return Task("textures", KINDS, (3, PIXELS, PIXELS), recipe, examples, other)


def crops(*, seed: int, split: str, size: int) -> Data:
    """Crops, flipped at random, classes in turn; ids from 100,000 on."""
    inputs = np.empty((size, 3, PIXELS, PIXELS), dtype=np.float32)
    labels = np.arange(size, dtype=np.int64) % len(KINDS)
    for row in range(size):
        stream = generator("textures", seed, split, row)
        kind = KINDS[labels[row]]
        height, width = photograph(kind).shape
        border = int(width * TRAINING_SHARE)
        low, high = (0, border) if split == "train" else (border, width)
        left = low + int(torch.randint(high - low - SPAN, (), generator=stream))
        top = int(torch.randint(height - SPAN, (), generator=stream))
        square = crop(kind, top, left, SPAN).reshape(PIXELS, SPAN // PIXELS, PIXELS, SPAN // PIXELS).mean((1, 3))
        if torch.rand((), generator=stream) < 0.5:
            square = square[:, ::-1]
        inputs[row] = square
    ids = torch.arange(size) + 100_000 + MAXIMUM * (split == "test")
    return Data(torch.from_numpy(inputs), torch.from_numpy(labels), ids)
