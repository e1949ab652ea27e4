"""Photographs of dogs from Oxford-IIIT Pet, as torchvision lays it down: 25 breeds, about 200 photographs of each.

`images/NAME.jpg`; `annotations/trainval.txt` and `annotations/test.txt`, a line each: name, number of the breed among
all 37, species (1 cat, 2 dog), number of the breed in its species; `annotations/trimaps/NAME.png`: 1 the animal, 2 what
is around it, 3 the border between them, which is neither.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attribug.errors import InputError
from attribug.tasks.cutouts import Photograph, Values

LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
PICTURES, TRIMAPS = "images", "annotations/trimaps"
DOG = "2"
COLUMNS = 4
ANIMAL, BORDER = 1, 3


def dogs(folder: str | Path) -> list[Photograph]:
    """The photographs of dogs, sorted by name. Raises `InputError` where they do not lie in a folder."""
    folder = Path(folder)
    if reason := absent(folder):
        raise InputError(reason)
    found = []
    for split, listed in LISTS.items():
        for line in (folder / listed).read_text(encoding="utf-8").splitlines():
            columns = line.split()
            if not columns or line.startswith("#"):
                continue
            if len(columns) != COLUMNS:
                raise InputError(f"dogs: expected {COLUMNS} columns in {folder / listed}, found {line!r}")
            name, _, species, _ = columns
            if species == DOG:
                trimap_file = folder / TRIMAPS / f"{name}.png"
                found.append(Photograph(name, folder / PICTURES / f"{name}.jpg", trimap_file, trimap, split))
    return sorted(found, key=lambda photograph: photograph.name)


def absent(folder: str | Path) -> str:
    """Empty where the data set lies in a folder, else what was expected there."""
    folder = Path(folder)
    lacking = [name for name in (PICTURES, TRIMAPS, *LISTS.values()) if not (folder / name).exists()]
    return f"expected dogs as Oxford-IIIT Pet lays them down in {folder}, found no {lacking[0]}" if lacking else ""


def trimap(path: Path) -> Values:
    """1 on the animal, one half on its border, else 0, (H, W)."""
    from PIL import Image

    with Image.open(path) as opened:
        values = np.asarray(opened)
    if values.ndim != 2:
        raise InputError(f"{path.name}: expected one channel, found shape {values.shape}")
    animal: Values = (values == ANIMAL).astype(np.float32)
    animal[values == BORDER] = 0.5
    return animal
