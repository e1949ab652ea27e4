"""Faces as CelebA and CelebAMask-HQ list them, and what the tasks made of them share: label, network, ranges.

Both data sets have lists of one form: the number of pictures, the names of the columns, and a line a picture, its file
and a whole number for each column. An attribute is 1 where a face has it, else −1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION
from attribug.errors import InputError, one_line
from attribug.models import heads
from attribug.models.preparation import Preparation

CLASSES = ("not_smiling", "smiling")
SMILING = "Smiling"
NETWORK = "torchvision:resnet50"
BATCH = 64
FEWEST, MOST = 4, 100_000  # examples of a split
SMALLEST, LARGEST = 32, 512  # pixels a side
BYTES = 4 * 3 + 1  # of a pixel: three channels in float32, and the mask


# --- lists ---


def table(path: Path, columns: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Some columns of a list by picture, in the list's order. Raises `InputError` where it has another form."""
    lines = _lines(path)
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise InputError(f"faces: expected a number of pictures and names of columns in {path}, found neither")
    names = lines[1].split()
    lacking = [column for column in columns if column not in names]
    if lacking:
        raise InputError(f"faces: expected a column {lacking[0]} in {path}, found none")
    places = [1 + names.index(column) for column in columns]
    rows = (line.split() for line in lines[2:])
    found = {row[0]: _numbers(row, places, len(names) + 1, path) for row in rows}
    if len(found) != int(lines[0]):
        raise InputError(f"faces: expected {lines[0].strip()} pictures in {path}, as it says, found {len(found)}")
    return found


def attributes(path: Path, names: Sequence[str]) -> dict[str, tuple[bool, ...]]:
    """Whether faces have some attributes, by picture. Raises `InputError` as `table`, and for values but 1 and −1."""
    found = table(path, names)
    for picture, values in found.items():
        if not set(values) <= {-1, 1}:
            raise InputError(f"faces: expected 1 or -1 for {picture} in {path}, found {values}")
    return {picture: tuple(value == 1 for value in values) for picture, values in found.items()}


def columns(path: Path, number: int, *, header: bool = False) -> list[list[str]]:
    """Rows of a list that has so many columns, below a line of names where it has a `header`. Raises `InputError` where
    a row has another number of them."""
    rows = [line.split() for line in _lines(path)[header:]]
    for row in rows:
        if len(row) != number:
            raise InputError(f"faces: expected {number} columns in {path}, found {' '.join(row)!r}")
    return rows


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"faces: {path} cannot be read: {one_line(error)}") from error
    return [line for line in text.splitlines() if line.strip()]


def _numbers(row: list[str], places: Sequence[int], width: int, path: Path) -> tuple[int, ...]:
    try:
        if len(row) == width:
            return tuple(int(row[place]) for place in places)
    except ValueError:
        pass
    raise InputError(f"faces: expected {width - 1} whole numbers for {row[0]} in {path}, found others")


# --- pictures ---


def shown(path: Path, pixels: int, size: tuple[int, int] | None = None) -> Tensor:
    """The middle square of a picture, (3, pixels, pixels) in [0, 1]. Raises `InputError` where it cannot be read, or
    has another `size` (width, height)."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            found, picture = opened.size, Preparation(pixels)(opened.convert("RGB"))
    except Exception as error:  # whatever an absent or damaged file makes of its reader
        raise InputError(f"picture {path.name}: cannot be read: {one_line(error)}") from error
    if size not in {None, found}:
        raise InputError(f"picture {path.name}: expected (width, height) {size}, found {found}")
    return picture


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def rectangle(corners: Sequence[float], size: tuple[int, int], pixels: int) -> Tensor:
    """The pixels that a rectangle (left, top, right, bottom) of a picture of some size (width, height) touches in what
    `shown` makes of it, (pixels, pixels) bool."""
    side = min(size)
    margins = [(length - side) / 2 for length in size] * 2
    left, top, right, bottom = (
        (place - margin) * pixels / side for place, margin in zip(corners, margins, strict=True)
    )
    mask = torch.zeros((pixels, pixels), dtype=torch.bool)
    rows, across = _touched(top, bottom, pixels), _touched(left, right, pixels)
    mask[rows, across] = True
    return mask


def _touched(first: float, last: float, pixels: int) -> slice:
    low, high = (int(each) for each in np.clip([np.floor(first), np.ceil(last)], 0, pixels))
    return slice(low, high)


# --- what tasks share ---


def expect(task: str, sizes: dict[str, int], pixels: int, epochs: int, learning_rate: float) -> None:
    """Raises `InputError` for options out of range."""
    for split, size in sizes.items():
        least = 0 if split == VALIDATION else FEWEST
        if not least <= size <= MOST:
            raise InputError(f"{task}: expected {least} ≤ {split} ≤ {MOST}, found {size}")
    if not SMALLEST <= pixels <= LARGEST:
        raise InputError(f"{task}: expected {SMALLEST} ≤ pixels ≤ {LARGEST}, found {pixels}")
    if epochs < 1 or not learning_rate > 0:
        raise InputError(f"{task}: expected epochs and learning rate above 0, found {epochs}, {learning_rate:g}")


def learner(
    task: str, network: str, seed: int, *, sizes: dict[str, int], pixels: int, epochs: int, learning_rate: float
) -> dict[str, Any]:
    """Recipe, start, splits and notes of a `Task` whose network is one of `attribug.models.heads`, on ImageNet's
    weights where these are on this machine. Raises `InputError` for a network that does not fit."""
    heads.expect_trains(network, len(CLASSES), pixels)
    absent = heads.missing(network)
    recipe = Recipe(
        partial(heads.untrained, name=network, classes=len(CLASSES), pixels=pixels), epochs=epochs, batch=BATCH,
        learning_rate=learning_rate,
    )  # fmt: skip
    begun = f"from random weights: {absent}" if absent else "from what ImageNet taught it"
    train = sizes["train"]
    gigabytes = train * pixels * pixels * BYTES / 1e9
    held = f"{train} training images of {pixels} pixels a side take {gigabytes:.1f} GB of a worker's memory"
    return {
        "recipe": recipe,
        "start": None if absent else heads.start(network, len(CLASSES), task, seed, pixels=pixels),
        "splits": tuple(split for split, size in sizes.items() if size),
        "notes": (
            f"{task}: {network} is trained {begun}",
            f"{task}: {held}, in every version of them that it holds",
        ),
    }
