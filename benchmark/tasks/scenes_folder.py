"""Photographs of scenes by their names in Places: `sky`, `bamboo_forest`, in a folder of one's own or as Places lays
them down.

Looked for, in this order: `SCENE/`, `S/SCENE/` (its first letter), both also below `data_256`, `data_256_standard`,
`data_large`, `data_large_standard`, `train`, `val`; and Places365's validation photographs, which lie in `val_256` or
`val_large` in one heap: `places365_val.txt` tells their numbers, `categories_places365.txt` what these mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from attribug.errors import InputError, one_line
from attribug.tasks.cutouts import Values
from attribug.tasks.picture_files import SUFFIXES

BELOW = ("", "data_256", "data_256_standard", "data_large", "data_large_standard", "train", "val")
HEAPS = ("val_256", "val_large")
HEAP_LIST, CATEGORIES = "places365_val.txt", "categories_places365.txt"
SMALLEST_PART = 0.7  # of a scene's shorter side, that a crop shows


def scenes(folder: str | Path, name: str) -> list[Path]:
    """The photographs of a scene, sorted by path. Raises `InputError` where there are none."""
    found = _found(Path(folder), name)
    if not found:
        raise InputError(absent(folder, name))
    return found


def absent(folder: str | Path, name: str) -> str:
    """Empty where there are photographs of a scene, else what was expected."""
    expected = f"expected photographs of scenes in {folder}, found none in {name}/ or {name[0]}/{name}/"
    return "" if _found(Path(folder), name) else expected


def crop(path: Path, pixels: int, stream: torch.Generator) -> Values:
    """A square part of a scene, drawn from the stream, (3, pixels, pixels) in [0, 1]."""
    from PIL import Image

    share, top, left = torch.rand(3, generator=stream, dtype=torch.float64).tolist()
    try:
        with Image.open(path) as opened:
            scene = opened.convert("RGB")
    except Exception as error:  # whatever a damaged file makes of its reader
        raise InputError(f"scene {path.name}: no picture: {one_line(error)}") from error
    side = min(scene.size) * (SMALLEST_PART + (1 - SMALLEST_PART) * share)
    left, top = left * (scene.width - side), top * (scene.height - side)
    box = (left, top, left + side, top + side)
    part = scene.resize((pixels, pixels), Image.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(np.moveaxis(np.asarray(part, np.float32) / 255, 2, 0))


def _found(folder: Path, name: str) -> list[Path]:
    for place in _places(folder, name):
        if place.is_dir() and (found := _pictures(place)):
            return found
    return _in_a_heap(folder, name)


def _places(folder: Path, name: str) -> Iterator[Path]:
    for part in BELOW:
        yield folder / part / name
        yield folder / part / name[0] / name


def _pictures(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _in_a_heap(folder: Path, name: str) -> list[Path]:
    """A scene's photographs among Places365's for validation."""
    numbers, named = folder / CATEGORIES, folder / HEAP_LIST
    heap = next((folder / each for each in HEAPS if (folder / each).is_dir()), None)
    if heap is None or not (numbers.is_file() and named.is_file()):
        return []
    meant = dict(_pairs(numbers)).get(f"/{name[0]}/{name}")
    return sorted(heap / picture for picture, number in _pairs(named) if number == meant)


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        first, _, second = line.strip().rpartition(" ")
        if first:
            yield first, second
