"""Photographs of birds as the two editions of Caltech-UCSD Birds lay them down, 200 species each.

2011: 11,788 photographs. `images.txt` has their numbers and names, `train_test_split.txt` the numbers, and 1 where they
are for training; `images/SPECIES/NAME.jpg`. Segmentations are an archive of their own, which lies beside them:
`segmentations/SPECIES/NAME.png`, grey: how many of the people asked say that a pixel shows the bird.

2010: 6,033 photographs. `lists/train.txt` and `lists/test.txt` have their names; `images/SPECIES/NAME.jpg`;
`annotations-mat/SPECIES/NAME.mat` holds a matrix `seg`, 1 inside a rough outline of the bird, and its box.

A species is a number and a name, `001.Black_footed_Albatross`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attribug.errors import InputError
from attribug.tasks.cutouts import Photograph, Values

LISTS_2011 = ("images.txt", "train_test_split.txt")
LISTS_2010 = ("train.txt", "test.txt")
PICTURES, VOTES, MATRICES, LISTS = "images", "segmentations", "annotations-mat", "lists"


def birds(folder: str | Path) -> list[Photograph]:
    """The photographs of either edition, sorted by name. Raises `InputError` where neither lies in a folder."""
    folder = Path(folder)
    if reason := absent(folder):
        raise InputError(reason)
    found = _of_2011(folder) if (folder / LISTS_2011[0]).is_file() else _of_2010(folder)
    return sorted(found, key=lambda photograph: photograph.name)


def absent(folder: str | Path) -> str:
    """Empty where one of the editions lies in a folder, else what was expected there."""
    folder = Path(folder)
    newer = [*LISTS_2011, PICTURES, VOTES]
    older = [*(f"{LISTS}/{name}" for name in LISTS_2010), PICTURES, MATRICES]
    meant = older if (folder / LISTS).exists() or (folder / MATRICES).exists() else newer
    lacking = [name for name in meant if not (folder / name).exists()]
    expected = f"expected birds as CUB-200-2011 or CUB-200 lays them down in {folder}"
    return f"{expected}, found no {lacking[0]}" if lacking else ""


def _of_2011(folder: Path) -> list[Photograph]:
    """Of the edition of 2011; its segmentations are an archive of their own, here beside the photographs."""
    numbered, trained = (_numbered(folder / name) for name in LISTS_2011)
    if set(numbered) != set(trained):
        raise InputError(f"birds in {folder}: expected the same photographs in {' and '.join(LISTS_2011)}")
    return [
        Photograph(
            name, folder / PICTURES / name, (folder / VOTES / name).with_suffix(".png"), votes,
            "train" if trained[number] == "1" else "test",
        )
        for number, name in numbered.items()
    ]  # fmt: skip


def _numbered(path: Path) -> dict[str, str]:
    """A list's second column by its first."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if any(len(row) != 2 for row in rows):
        raise InputError(f"birds: expected two columns in {path}, found other lines")
    return {number: value for number, value in rows}  # noqa: C416


def _of_2010(folder: Path) -> list[Photograph]:
    found = []
    for listed in LISTS_2010:
        names = (folder / LISTS / listed).read_text(encoding="utf-8").split()
        found += [
            Photograph(
                name, folder / PICTURES / name, (folder / MATRICES / name).with_suffix(".mat"), outline,
                listed.removesuffix(".txt"),
            )
            for name in names
        ]  # fmt: skip
    return found


def votes(path: Path) -> Values:
    """The share of the people asked who say that a pixel shows the bird, (H, W) in [0, 1]."""
    from PIL import Image

    with Image.open(path) as grey:
        said: Values = np.asarray(grey.convert("L"), np.float32) / np.float32(255)
    return said


def outline(path: Path) -> Values:
    """1 inside the rough outline of the bird, else 0, (H, W)."""
    from scipy.io import loadmat

    held = loadmat(path, variable_names=["seg"])
    if "seg" not in held:
        raise InputError(f"{path.name}: expected a matrix seg, found none")
    inside: Values = (np.asarray(held["seg"]) > 0).astype(np.float32)
    return inside
