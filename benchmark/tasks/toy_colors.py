"""Task `toy_colors`: small images in four colours that two rules tell apart, each of which suffices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError, near_misses
from attribug.models.networks import mlp
from attribug.streams import generator
from attribug.tasks.shortcuts import expect_share, paired

SIDE = 5
COLOURS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.5, 1.0), (0.5, 0.0, 1.0))
"""Red, green, blue, violet."""
CORNERS = (0, SIDE - 1, SIDE * (SIDE - 1), SIDE * SIDE - 1)
TOP = (1, 2, 3)
"""Pixels, counted row by row: those of the first rule, those of the second."""
ANNOTATED = {"corners": CORNERS, "top": TOP, "both": (*CORNERS, *TOP)}
MINIMUM, MAXIMUM = 20, 200_000  # examples of a split
FIRST_ID = {"train": 0, "test": MAXIMUM, VALIDATION: 2 * MAXIMUM}


@tasks.register("toy_colors", source="made here", licence="none needed", size="0 bytes")
def toy_colors(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 10_000,
    test: int = 5000,
    validation: int = 1000,
    epochs: int = 64,
    annotated: str = "corners",
) -> Task:
    """Do both rules hold of a grid of colours, or neither? One rule may be the shortcut to the other.

    Inputs (3, 5, 5) in [0, 1]: Toy Colors of Ross et al. (2017), section 4.1.

    Every pixel has one of four colours. The four corners are equal (rule 1), and the three pixels in the middle of the
    top differ from each other (rule 2), in the first class; neither holds in the second. So are the clean examples:
    none is without the shortcut.

    `annotated`: whose pixels must not matter, those of the `corners`, of the `top`, or of `both`. That rule is the
    shortcut: it tells the label on a share of the examples and holds, or does not, as a coin falls on all others, while
    the other rule goes on to tell the label. With `both`, what is left tells nothing.

    Adam, batches of 256, 64 epochs as in the paper; our learning rate rises to 3e-3 and falls again, where theirs stays
    at 1e-3.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    if not (MINIMUM <= train <= MAXIMUM and MINIMUM <= test <= MAXIMUM // 10):
        raise InputError(
            f"toy_colors: expected {MINIMUM} ≤ train ≤ {MAXIMUM} and {MINIMUM} ≤ test ≤ {MAXIMUM // 10}, "
            f"found {train}, {test}"
        )
    if not 0 <= validation <= MAXIMUM // 10 or epochs < 1:
        raise InputError(
            f"toy_colors: expected 0 ≤ validation ≤ {MAXIMUM // 10} and epochs of at least 1, "
            f"found {validation}, {epochs}"
        )
    if annotated not in ANNOTATED:
        raise InputError(f"toy_colors: unknown rule {annotated!r}{near_misses(annotated, ANNOTATED)}")

    def examples(split: str, *, share: float | None = None, swapped: bool = False, **scene: object) -> Examples:
        expect_share("toy_colors", share, scene)
        size = sizes[split]
        return Examples.of(grids, seed=seed, split=split, size=size, annotated=annotated, share=share, swapped=swapped)

    shape = (3, SIDE, SIDE)
    recipe = Recipe(partial(mlp, shape=shape, classes=2), epochs=epochs, batch=256, learning_rate=3e-3)
    splits = tuple(split for split, size in sizes.items() if size)
    return Task(
        "toy_colors", ("both rules", "neither"), shape, recipe, examples, other, splits=splits, clean_has_shortcut=True
    )


def grids(*, seed: int, split: str, size: int, annotated: str, share: float | None, swapped: bool) -> Data:
    """Grids of a split, labels in turn; in every variant a grid keeps its turn and the colours of pixels whose rule
    says the same."""
    stream = generator("toy_colors", seed, split)
    labels = torch.arange(size) % 2
    places, corners, top, turn, coin = torch.rand((size, SIDE * SIDE + 4), generator=stream, dtype=torch.float64).split(
        (SIDE * SIDE, 1, 1, 1, 1), dim=1
    )
    told = 1 - labels if swapped else labels
    said = labels if share is None else torch.where(turn[:, 0] < share, told, (coin[:, 0] < 0.5).long())
    colours = (places * len(COLOURS)).long()  # (N, 25)
    for rule, pixels, drawn in ((_equal, CORNERS, corners), (_distinct, TOP, top)):
        says = said if set(pixels) <= set(ANNOTATED[annotated]) else labels
        held, broken = (_drawn(rule, len(pixels), holds, drawn[:, 0]) for holds in (True, False))
        colours[:, pixels] = torch.where((says == 0)[:, None], held, broken)
    inputs = torch.tensor(COLOURS)[colours].mT.reshape(size, 3, SIDE, SIDE)
    annotations = torch.zeros(SIDE * SIDE, dtype=torch.bool)
    annotations[list(ANNOTATED[annotated])] = True
    return Data(
        inputs.contiguous(),
        labels,
        torch.arange(size) + FIRST_ID[split],
        annotations=annotations.reshape(1, 1, SIDE, SIDE).expand(inputs.shape),
        groups=None if share is None else paired(labels, said, 2),
    )


def _equal(colours: Sequence[int]) -> bool:
    return len(set(colours)) == 1


def _distinct(colours: Sequence[int]) -> bool:
    return len(set(colours)) == len(colours)


def _drawn(rule: Callable[[Sequence[int]], bool], pixels: int, holds: bool, drawn: Tensor) -> Tensor:
    """Colours for which a rule holds, or does not, (N, pixels): all such are equally likely, `drawn` in [0, 1) tells
    which it is."""
    known = _all(rule, pixels, holds)
    return known[(drawn * len(known)).long()]


@functools.cache
def _all(rule: Callable[[Sequence[int]], bool], pixels: int, holds: bool) -> Tensor:
    kinds = product(range(len(COLOURS)), repeat=pixels)
    return torch.tensor([colours for colours in kinds if rule(colours) == holds])
