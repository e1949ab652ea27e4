"""Task `squares`: is the square in the picture dark or bright, whatever its background is?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError, near_misses
from attribug.models.networks import bvd_cnn
from attribug.streams import generator
from attribug.tasks.shortcuts import expect_share, paired

CLASSES = ("dark", "bright")
SQUARE = ((0.35, 0.5), (0.55, 0.7))
"""Range of a square's grey, by label."""
BACKGROUND = ((0.05, 0.3), (0.75, 1.0))
"""Range of a background's grey, by the label that it tells."""
NOISE = 0.05  # its deviation, of every pixel
PART = 4  # a square is one fourth of the picture's side
TOLD = {"symmetric": (True, True), "asymmetric": (False, True)}
"""Whether the shortcut tells a class at all, by class."""
SIDES = (32, 64)
MINIMUM, MAXIMUM = 20, 100_000  # examples of a split
FIRST_ID = {"train": 0, "test": MAXIMUM, VALIDATION: 2 * MAXIMUM}


@tasks.register("squares", source="made here", licence="none needed", size="0 bytes")
def squares(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 800,
    test: int = 800,
    validation: int = 200,
    epochs: int = 20,
    width: int = 8,
    pixels: int = 32,
    groups: str = "symmetric",
) -> Task:
    """Is the square dark or bright? It is the mask; the background may tell, and is annotated.

    Inputs (1, 32, 32) in [0, 1].

    After Delzer and Bender (2026), Squares; ranges of grey and sizes are our choice.

    A share of the images of a class has a background that tells it, the rest, to the image, one half of it each
    background: with 800 images, a share of .96 and `groups=symmetric` there are 392, 8, 8 and 392 of them, as in the
    paper; with `asymmetric`, where backgrounds tell nothing of dark squares, 200, 200, 8 and 392. Clean ones are black.

    The paper trains ResNet-18 from scratch; ours is the BVD-CNN.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    if not (MINIMUM <= train <= MAXIMUM and MINIMUM <= test <= MAXIMUM and 0 <= validation <= MAXIMUM):
        raise InputError(
            f"squares: expected {MINIMUM} ≤ train, test ≤ {MAXIMUM} and 0 ≤ validation ≤ {MAXIMUM}, "
            f"found {train}, {test}, {validation}"
        )
    if epochs < 1 or width < 1:
        raise InputError(f"squares: expected epochs and width of at least 1, found {epochs}, {width}")
    if pixels not in SIDES:
        raise InputError(f"squares: expected pixels of {' or '.join(map(str, SIDES))}, found {pixels}")
    if groups not in TOLD:
        raise InputError(f"squares: unknown groups {groups!r}{near_misses(groups, TOLD)}")

    def examples(split: str, *, share: float | None = None, swapped: bool = False, **scene: object) -> Examples:
        expect_share("squares", share, scene)
        made = {"seed": seed, "split": split, "size": sizes[split], "pixels": pixels, "told": TOLD[groups]}
        return Examples.of(pictures, **made, share=share, swapped=swapped)

    network = partial(bvd_cnn, channels=1, classes=2, pixels=pixels, width=width)
    recipe = Recipe(network, epochs=epochs, batch=32, learning_rate=2e-3)
    splits = tuple(split for split, size in sizes.items() if size)
    return Task("squares", CLASSES, (1, pixels, pixels), recipe, examples, other, splits=splits)


def pictures(
    *, seed: int, split: str, size: int, pixels: int, told: tuple[bool, bool], share: float | None, swapped: bool
) -> Data:
    """Squares of a split on their backgrounds, labels in turn; an image keeps square, noise, turn and, within its
    range, the background's grey in every variant."""
    labels = torch.arange(size) % 2
    said = _said(labels, generator("squares", "turns", seed, split), told, share, swapped)
    side = pixels // PART
    inputs = torch.empty((size, 1, pixels, pixels))
    masks = torch.zeros((size, pixels, pixels), dtype=torch.bool)
    for row, (label, tells) in enumerate(zip(labels.tolist(), said.tolist(), strict=True)):
        stream = generator("squares", "image", seed, split, row)
        top, left = (int(torch.randint(pixels - side + 1, (), generator=stream)) for _ in range(2))
        foreground, background = torch.rand(2, generator=stream).tolist()
        low, high = BACKGROUND[tells]
        inputs[row] = 0 if share is None else low + (high - low) * background
        low, high = SQUARE[label]
        inputs[row, :, top : top + side, left : left + side] = low + (high - low) * foreground
        inputs[row] += NOISE * torch.randn((1, pixels, pixels), generator=stream)
        masks[row, top : top + side, left : left + side] = True
    annotations = ~masks[:, None]
    ids = torch.arange(size) + FIRST_ID[split]
    return Data(
        inputs.clamp_(0, 1), labels, ids, masks, annotations, None if share is None else paired(labels, said, 2)
    )


def _said(
    labels: Tensor, stream: torch.Generator, told: tuple[bool, bool], share: float | None, swapped: bool
) -> Tensor:
    """Which label each background tells, (N,). By class, in a random order: the first ones, a share, their own
    (`swapped`: the other), the rest in turn one and the other."""
    said = torch.zeros_like(labels)
    for label in (0, 1):
        rows = (labels == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=stream)]
        telling = 0 if share is None or not (told[label] or swapped) else round(share * len(rows))
        said[rows[:telling]] = 1 - label if swapped else label
        said[rows[telling:]] = torch.arange(telling, len(rows)) % 2
    return said
