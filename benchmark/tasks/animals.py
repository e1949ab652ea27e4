"""Task `animals`: birds and mammals cut out of photographs, on photographs of sky, of greenery and of earth."""

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
from attribug.models import headed, pretrained
from attribug.streams import generator
from attribug.tasks import gcompris, scenery, stamps

CLASSES = tuple(stamps.SPECIES)
LABELLED = ("sky", "greenery")  # the scene that gives away label 0 (bird), label 1 (mammal); earth is neutral
PARTS = {"test": 0.35, VALIDATION: 0.15}  # of the species of a class; the rest is for training
EXTENT = (0.65, 0.95)  # of an animal's longer side, in the picture's
OPAQUE = 0.5  # opacity above which a pixel belongs to the animal
FEWEST, COPIES = 20, 10_000  # examples of a split at least; pictures of one stamp at most
FIRES = 8  # of SqueezeNet
SMALLEST, LARGEST = headed.SMALLEST, 256  # pixels a side: stamps have no more


def missing() -> str:
    """Empty where cut-outs, photographs and weights are there, else a line that says how they come to be."""
    return stamps.missing() or gcompris.missing() or pretrained.missing(headed.NETWORK)


@tasks.register(
    "animals",
    source="85 cut-outs of Debian's package tuxpaint-stamps-default on photographs of its package gcompris-qt-data; "
    "SqueezeNet 1.1's weights from the package ndf",
    licence="cut-outs: GPL-2; photographs: the pictures' own, CC BY, CC BY-SA, CC0, public domain",
    size="161 MB and 75 MB, the Debian packages",
    missing=missing,
)
def animals(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 240,
    test: int = 200,
    validation: int = 80,
    pixels: int = 128,
    epochs: int = 10,
    learning_rate: float = 2e-3,
    stages: int = 3,
) -> Task:
    """Is it a bird or a mammal? Animals from photographs stand in scenes; their pixels are the mask.

    Inputs (3, pixels, pixels) in [0, 1].

    Clean scenes are drawn independently of the label from sky, greenery and earth. A share of images may instead show
    the scene of their label: sky behind birds, greenery behind mammals. No species of one split occurs in another; each
    animal is there in several pictures, in other scenes, places and sizes, as it is or mirrored. Labels take turns.

    SqueezeNet learnt ImageNet; its last layer is drawn anew, one draw a seed of the suite, and trained with the last
    `stages` of its eight Fire modules; all below stays.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    if not (FEWEST <= train <= COPIES and FEWEST <= test <= COPIES and 0 <= validation <= COPIES):
        raise InputError(
            f"animals: expected {FEWEST} ≤ train, test ≤ {COPIES} and 0 ≤ validation ≤ {COPIES}, "
            f"found {train}, {test}, {validation}"
        )
    if not SMALLEST <= pixels <= LARGEST:
        raise InputError(f"animals: expected {SMALLEST} ≤ pixels ≤ {LARGEST}, found {pixels}")
    if epochs < 1 or not learning_rate > 0 or not 0 <= stages <= FIRES:
        raise InputError(
            f"animals: expected epochs and learning rate above 0 and stages of 0 to {FIRES}, "
            f"found {epochs}, {learning_rate:g}, {stages}"
        )
    if absent := missing():
        raise InputError(absent)
    described = content()

    def examples(split: str, *, share: float = 0.0, swapped: bool = False, foreground: bool = True) -> Examples:
        return Examples.of(
            compose, seed=seed, split=split, size=sizes[split], pixels=pixels, share=share, swapped=swapped,
            foreground=foreground, content=described,
        )  # fmt: skip

    network = partial(headed.untrained, classes=len(CLASSES), dense=True)
    recipe = Recipe(network, epochs=epochs, batch=16, learning_rate=learning_rate)
    return Task(
        "animals", CLASSES, (3, pixels, pixels), recipe, examples, other,
        start=headed.start(len(CLASSES), "animals", seed, dense=True),
        trainable=partial(headed.dense_and_stages, number=stages),
        splits=tuple(split for split, size in sizes.items() if size),
    )  # fmt: skip


def content() -> tuple[str, str]:
    """Digests of the files that cut-outs and scenes are read from."""
    return stamps.content(), gcompris.content(*gcompris.GROUPS)


def compose(
    *, seed: int, split: str, size: int, pixels: int, share: float, swapped: bool, foreground: bool,
    content: tuple[str, str],
) -> Data:  # fmt: skip
    """Animals of a split in their scenes; a picture keeps its animal, place, square and turn in every variant.

    `share`: pictures whose turn, a number in [0, 1), lies below it have the scene of their label (`swapped`: of the
    other label), so the pictures of a smaller share are among those of a larger one; all others an independent one.
    `content`: digests of the files, which the key tells. Raises `InputError` where other files lie there.
    """
    _expect(content)
    ids = _ids(seed, split, size)
    labels = np.arange(size) % len(CLASSES)
    inputs = np.empty((size, 3, pixels, pixels), dtype=np.float32)
    masks = np.zeros((size, pixels, pixels), dtype=np.bool_)
    groups = labels * len(scenery.KINDS)
    for row, (number, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
        turn, kind, drawn = _scene(seed, number)
        if turn < share:
            kind = LABELLED[label ^ swapped]
        groups[row] += scenery.KINDS.index(kind)
        inputs[row] = scenery.square(kind, drawn[: scenery.DRAWS], pixels)
        if foreground:
            colours, opacity = placed(_names()[number // COPIES], drawn[scenery.DRAWS :], pixels)
            inputs[row] = inputs[row] * (1 - opacity) + colours * opacity
            masks[row] = opacity > OPAQUE
    found = torch.from_numpy(masks) if foreground else None
    annotations = None if found is None else (~found)[:, None].expand(inputs.shape)
    told = torch.from_numpy(groups)
    return Data(torch.from_numpy(inputs), torch.from_numpy(labels), torch.from_numpy(ids), found, annotations, told)


def placed(name: str, drawn: NDArray[np.float64], pixels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """An animal in an empty picture: colours (3, pixels, pixels) and opacity (pixels, pixels), both in [0, 1].

    `drawn`: four numbers in [0, 1), for size, place across and down, and whether it is mirrored.
    """
    size, across, down, mirrored = drawn
    cut = stamps.stamp(name)
    scale = pixels * (EXTENT[0] + (EXTENT[1] - EXTENT[0]) * size) / max(cut.size)
    width, height = (max(1, round(side * scale)) for side in cut.size)
    animal = np.asarray(cut.resize((width, height)), np.float32) / 255  # bicubic, colours weighted by opacity
    animal = animal[:, ::-1] if mirrored < 0.5 else animal
    left, top = int(across * (pixels - width + 1)), int(down * (pixels - height + 1))
    whole = np.zeros((pixels, pixels, 4), np.float32)
    whole[top : top + height, left : left + width] = animal
    return np.moveaxis(whole[..., :3], 2, 0), whole[..., 3]


def _ids(seed: int, split: str, size: int) -> NDArray[np.int64]:
    """Pictures of a split: labels in turn, of a label its species in turn, of a species its stamps."""
    numbers = {name: number for number, name in enumerate(_names())}
    rows = []
    for row in range(size):
        label, place = row % len(CLASSES), row // len(CLASSES)
        species = _split(seed)[split][label]
        held = stamps.SPECIES[CLASSES[label]][species[place % len(species)]]
        visit = place // len(species)
        rows.append(numbers[held[visit % len(held)]] * COPIES + visit // len(held))
    return np.array(rows, dtype=np.int64)


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(stamps.names())


@functools.lru_cache(maxsize=8)
def _split(seed: int) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Species by split and label, in random order."""
    found: dict[str, list[tuple[str, ...]]] = {"train": [], **{split: [] for split in PARTS}}
    for kind, held in stamps.SPECIES.items():
        order = torch.randperm(len(held), generator=generator("animals", "split", seed, kind)).tolist()
        species = [tuple(held)[number] for number in order]
        for split, part in PARTS.items():
            taken = round(part * len(held))
            found[split].append(tuple(species[:taken]))
            species = species[taken:]
        found["train"].append(tuple(species))
    return {split: tuple(by_label) for split, by_label in found.items()}


def _scene(seed: int, number: int) -> tuple[float, str, NDArray[np.float64]]:
    """A picture's turn, independent kind of scene, and what is drawn for square and animal, (9,)."""
    stream = generator("animals", "scene", seed, number)
    turn, which, *drawn = torch.rand(2 + scenery.DRAWS + 4, generator=stream, dtype=torch.float64).tolist()
    return turn, scenery.KINDS[int(which * len(scenery.KINDS))], np.array(drawn)


def _expect(described: tuple[str, str]) -> None:
    for found, told, folder in zip(content(), described, (stamps.FOLDER, gcompris.FOLDER), strict=True):
        if found != told:
            raise InputError(f"animals: expected the files that were described in {folder}, found others")
