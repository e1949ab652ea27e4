"""Task `photographs`: four kinds of photographs, told apart by a last layer on features that ImageNet taught."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models import headed, pretrained
from attribug.models.order import only
from attribug.models.preparation import square
from attribug.streams import generator
from attribug.tasks import gcompris
from attribug.tasks.folders import taking_turns

KINDS = tuple(sorted(gcompris.SCENES.values()))
SMALLEST, LARGEST = 64, 320  # pixels a side: features shrink sixteenfold; the photographs have no more


def missing() -> str:
    """Empty where photographs and weights are there, else a line that says how they come to be."""
    return gcompris.missing() or pretrained.missing(headed.NETWORK)


@tasks.register(
    "photographs",
    source="123 photographs of Debian's package gcompris-qt-data; SqueezeNet 1.1's weights from the package ndf",
    licence="the pictures' own, CC BY, CC BY-SA, CC0, public domain: /usr/share/doc/gcompris-qt-data/copyright",
    size="75 MB, the Debian package",
    missing=missing,
)
def photographs(
    *, seed: int, other: Callable[[str], Task], pixels: int = 128, epochs: int = 10, learning_rate: float = 5e-3
) -> Task:
    """Does the photograph show fishes, monuments, renewable energy or tools?

    Inputs (3, pixels, pixels) in [0, 1], the middle square.

    One half of the photographs of each kind is for training, the other for testing. SqueezeNet learnt ImageNet; its
    last convolution is drawn anew, one draw a seed of the suite, and trained, all below stays.
    """
    if not SMALLEST <= pixels <= LARGEST:
        raise InputError(f"photographs: expected {SMALLEST} ≤ pixels ≤ {LARGEST}, found {pixels}")
    if epochs < 1 or not learning_rate > 0:
        raise InputError(f"photographs: expected epochs and learning rate above 0, found {epochs}, {learning_rate:g}")
    if absent := missing():
        raise InputError(absent)

    def examples(split: str, **scene: object) -> Examples:
        if scene:
            raise Unsupported("task photographs has no background apart from its subject")
        return Examples.of(half, seed=seed, split=split, pixels=pixels, content=gcompris.content())

    network = partial(headed.untrained, classes=len(KINDS))
    recipe = Recipe(network, epochs=epochs, batch=16, learning_rate=learning_rate)
    start = headed.start(len(KINDS), "photographs", seed)
    trainable = partial(only, layer=headed.HEAD)
    return Task("photographs", KINDS, (3, pixels, pixels), recipe, examples, other, start=start, trainable=trainable)


def half(*, seed: int, split: str, pixels: int, content: str) -> Data:
    """Every other photograph of each kind, in an order that the seed draws, kinds in turn; ids from 200,000 on.

    `content`: digest of the package's file, which the key tells. Raises `InputError` where another file lies there.
    """
    inputs, labels = _read(pixels, content)
    shuffled = torch.randperm(len(labels), generator=generator("photographs", "split", seed))
    kept: list[int] = []
    for kind in range(len(KINDS)):
        kept += shuffled[labels[shuffled] == kind].tolist()[split != "train" :: 2]
    rows = torch.tensor(kept)
    rows = rows[taking_turns(labels[rows].tolist())]
    return Data(inputs[rows], labels[rows], rows + 200_000)


@functools.lru_cache(maxsize=1)
def _read(pixels: int, content: str) -> tuple[Tensor, Tensor]:
    """All photographs, (N, 3, pixels, pixels), and their kinds, (N,)."""
    if gcompris.content() != content:
        raise InputError(f"photographs: expected the file that was described in {gcompris.FOLDER}, found another")
    found = gcompris.photographs("scenes")
    inputs = np.empty((len(found), 3, pixels, pixels), np.float32)
    for row, (_, _, picture) in enumerate(found):
        inputs[row] = np.moveaxis(np.asarray(square(picture, pixels), np.float32) / 255, 2, 0)
    return torch.from_numpy(inputs), torch.tensor([KINDS.index(kind) for _, kind, _ in found])
