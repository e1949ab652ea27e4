"""Task `celeba`: does a face smile, where the colour of its hair may tell? After Bang et al. (2024).

Photographs as CelebA's makers lay them down, and torchvision: `img_align_celeba/NNNNNN.jpg`, 178 × 218 pixels, and
lists of attributes, of landmarks and of partitions, of which each person is in one only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attribug import data_sources, keys, tasks
from attribug.contracts.data import DATA_LIBRARIES, Data, Examples
from attribug.contracts.tasks import VALIDATION, Task
from attribug.data_places import data_folder
from attribug.errors import InputError
from attribug.streams import generator
from attribug.tasks import faces
from attribug.tasks.faces import CLASSES
from attribug.tasks.shortcuts import expect_share, paired

PICTURES = "img_align_celeba"
ATTRIBUTES, LANDMARKS = "list_attr_celeba.txt", "list_landmarks_align_celeba.txt"
PARTITION = "list_eval_partition.txt"
PARTITIONS = {"0": "train", "1": VALIDATION, "2": "test"}
"""Splits by CelebA's numbers of partitions."""
HAIR = ("Blond_Hair", "Black_Hair")
"""The colour that tells label 0 (not smiling), label 1 (smiling)."""
CORNERS = ("leftmouth_x", "leftmouth_y", "rightmouth_x", "rightmouth_y")
ASIDE, ALONG = 0.5, 0.5
"""How far the mouth's rectangle reaches beyond its corners, to either side, and above and below, in widths of it."""
SIZE = (178, 218)
"""Of every picture: landmarks are places in it."""
FIRST_ID = {"train": 0, "test": faces.MOST, VALIDATION: 2 * faces.MOST}


def missing(*, folder: str = "") -> str:
    """Empty where CelebA is there, else a line that says how it comes to be."""
    reason = absent(_place(folder))
    if not reason:
        return ""
    return f"{reason}; {data_sources.line('celeba')}" if folder else data_sources.line("celeba")


def absent(folder: Path) -> str:
    """Empty where CelebA lies in a folder, else what was expected there."""
    lacking = [name for name in (PICTURES, ATTRIBUTES, LANDMARKS, PARTITION) if not (folder / name).exists()]
    return f"expected faces as CelebA lays them down in {folder}, found no {lacking[0]}" if lacking else ""


@tasks.register(
    "celeba",
    source="CelebA, as its makers and torchvision lay it down: $ATTRIBUG_DATA/celeba",
    licence="non-commercial research only, as its makers say; the photographs are their makers'",
    size="1.4 GB",
    missing=missing,
)
def celeba(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 20_000,
    test: int = 2000,
    validation: int = 1000,
    pixels: int = 128,
    epochs: int = 5,
    learning_rate: float = 3e-4,
    network: str = faces.NETWORK,
    folder: str = "",
) -> Task:
    """Does the face smile? In CelebA's photographs hair may tell it; the mask is the mouth.

    Inputs (3, pixels, pixels) in [0, 1], as in the smile experiment of Bang et al. (2024).

    A share of the faces has the hair of its label: black where they smile, blond where they do not; of the others, to
    the face, one half of either label has either hair, as all clean ones. With a share of 1 they are the paper's 10,000
    black-haired faces that smile and 10,000 blond ones that do not.

    Nobody's hair is dyed: an example stands for two photographs of its label, of one hair and of the other, and every
    variant shows one of them. No photograph is in two examples. Splits are CelebA's partitions, so nobody is in two.
    `swapped` may ask for more blond smiles and black-haired faces without one than training has; then it says so.

    The mask is the mouth: the rectangle around its two corners, half its width wider on each side and half its width
    higher and lower; annotated is all else. Groups are labels and what the hair says.

    The network is torchvision's ResNet-50 with a last layer for two classes, which goes on from ImageNet's weights
    where these are in torch's cache, and from random ones elsewhere; all of it is trained. `network`: another one, as
    `torchvision:NAME`, or `lite0`, `lite1`, `lite2` or `squeezenet`, whose weights packages bring. `folder`: another
    place of the data. No number of epochs was tried on these data here.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    faces.expect("celeba", sizes, pixels, epochs, learning_rate)
    if lacking := missing(folder=folder):
        raise InputError(f"celeba: {lacking}")
    place = _place(folder)

    def examples(split: str, *, share: float = 0.0, swapped: bool = False, **scene: object) -> Examples:
        expect_share("celeba", share, scene)
        made: dict[str, Any] = {"seed": seed, "split": split, "size": sizes[split], "share": share, "swapped": swapped}
        content = described(place, chosen(place, **made))
        made["pixels"] = pixels
        key = keys.digest("examples", photographs, made, content, keys.versions(*DATA_LIBRARIES, "pillow"))
        return Examples(key, partial(photographs, place=place, content=content, **made))

    learner = faces.learner(
        "celeba", network, seed, sizes=sizes, pixels=pixels, epochs=epochs, learning_rate=learning_rate
    )
    return Task("celeba", CLASSES, (3, pixels, pixels), examples=examples, other=other, **learner)


# --- what there is ---


@dataclass(frozen=True)
class Face:
    """A photograph of somebody whose hair is blond or black."""

    name: str
    """Of its file."""
    hair: int
    """The label that it tells."""
    corners: tuple[int, ...]
    """Of the mouth: x and y on the picture's left, x and y on its right."""

    @property
    def mouth(self) -> tuple[float, float, float, float]:
        """The mouth's rectangle in the picture: left, top, right, bottom."""
        (x, y), (right, bottom) = self.corners[:2], self.corners[2:]
        width = abs(right - x)
        aside, along = ASIDE * width, ALONG * width
        return min(x, right) - aside, min(y, bottom) - along, max(x, right) + aside, max(y, bottom) + along

    @property
    def has_mouth(self) -> bool:
        """Whether the mouth has a width, and its rectangle a part in the picture's middle square."""
        left, top, right, bottom = self.mouth
        across, down = ((length - min(SIZE)) / 2 for length in SIZE)
        return left < right and across < right and left < SIZE[0] - across and down < bottom and top < SIZE[1] - down


def _place(folder: str) -> Path:
    return Path(folder) if folder else data_folder() / "celeba"


@functools.lru_cache(maxsize=2)
def _groups(place: Path) -> dict[tuple[str, int, int], list[Face]]:
    """Faces by split, label and the label that their hair tells, by name. Hair of both colours or of neither, and
    mouths of which nothing is seen, are left out. Raises `InputError` for lists that disagree."""
    told = faces.attributes(place / ATTRIBUTES, (faces.SMILING, *HAIR))
    corners = faces.table(place / LANDMARKS, CORNERS)
    partitions = dict(faces.columns(place / PARTITION, 2))
    if not set(told) == set(corners) == set(partitions):
        raise InputError(f"celeba: expected the same pictures in {ATTRIBUTES}, {LANDMARKS} and {PARTITION}")
    if odd := set(partitions.values()) - set(PARTITIONS):
        raise InputError(f"celeba: expected partitions 0, 1 and 2 in {place / PARTITION}, found {min(odd)}")
    found: dict[tuple[str, int, int], list[Face]] = {
        (split, label, hair): [] for split in PARTITIONS.values() for label in (0, 1) for hair in (0, 1)
    }
    for name in sorted(told):
        smiles, blond, black = told[name]
        face = Face(name, int(black), corners[name])
        if blond != black and face.has_mouth:
            found[PARTITIONS[partitions[name]], int(smiles), face.hair].append(face)
    return found


def described(place: Path, chosen: Sequence[Face]) -> str:
    """Digest of some photographs: names, mouths and sizes of their files, wherever they lie."""
    sizes = [(face.name, face.corners, faces.size_of(place / PICTURES / face.name)) for face in chosen]
    return keys.digest("celeba", sizes)


# --- who is shown ---


def chosen(place: Path, *, seed: int, split: str, size: int, share: float, swapped: bool) -> list[Face]:
    """The photograph of every example of a split, labels in turn.

    By label, in a random order: the first ones, a share, have the hair of their label (`swapped`: the other), the rest
    in turn blond and black, so that those of a smaller share are among those of a larger. Raises `InputError` where
    there are too few photographs.
    """
    groups = _groups(place)
    found: list[Face] = [Face("", 0, ())] * size
    for label in range(len(CLASSES)):
        number = (size + 1 - label) // 2
        order = torch.randperm(number, generator=generator("celeba", "turns", seed, split, label)).tolist()
        ranks = [_hair_and_rank(turn, number, label, round(share * number), swapped) for turn in order]
        for hair in range(len(HAIR)):
            group = groups[split, label, hair]
            asked = {row: rank for row, (shown, rank) in enumerate(ranks) if shown == hair}
            _expect_enough(split, label, hair, max(asked.values(), default=-1) + 1, len(group))
            shuffled = _shuffled(seed, split, label, hair, len(group))
            for row, rank in asked.items():
                found[label + len(CLASSES) * row] = group[shuffled[rank]]
    return found


def _hair_and_rank(turn: int, number: int, label: int, telling: int, swapped: bool) -> tuple[int, int]:
    """The hair of the example at a turn of its label's `number`, and its place among the photographs of that hair.

    An example keeps both photographs in every variant; those that it shows of itself come first, so that a balanced
    split asks for half of each group only.
    """
    free = turn % 2
    hair = free if turn >= telling else label ^ int(swapped)
    return hair, turn // 2 + (0 if hair == free else (number + 1 - hair) // 2)


@functools.lru_cache(maxsize=32)
def _shuffled(seed: int, split: str, label: int, hair: int, number: int) -> list[int]:
    order: list[int] = torch.randperm(number, generator=generator("celeba", "faces", seed, split, label, hair)).tolist()
    return order


def _expect_enough(split: str, label: int, hair: int, asked: int, there: int) -> None:
    if asked > there:
        group = f"{split} photographs of {HAIR[hair]} and label {CLASSES[label]}"
        raise InputError(f"celeba: expected at least {asked} {group}, found {there}; ask for a smaller {split}")


# --- what they look like ---


def photographs(
    *, place: Path, content: str, seed: int, split: str, size: int, pixels: int, share: float, swapped: bool
) -> Data:
    """Faces of a split, their mouths as masks. Raises `InputError` where other files lie there than were described."""
    shown = chosen(place, seed=seed, split=split, size=size, share=share, swapped=swapped)
    if described(place, shown) != content:
        raise InputError(f"celeba: expected the photographs that were described in {place}, found others")
    labels = torch.arange(size) % len(CLASSES)
    inputs = torch.empty((size, 3, pixels, pixels))
    masks = torch.zeros((size, pixels, pixels), dtype=torch.bool)
    for row, face in enumerate(shown):
        inputs[row] = faces.shown(place / PICTURES / face.name, pixels, SIZE)
        masks[row] = faces.rectangle(face.mouth, SIZE, pixels)
    annotations = (~masks)[:, None].expand(inputs.shape)
    said = torch.tensor([face.hair for face in shown])
    return Data(inputs, labels, torch.arange(size) + FIRST_ID[split], masks, annotations, paired(labels, said, 2))
