"""Scenes behind cut-outs: sky, greenery and earth, squares of photographs of Debian's package gcompris-qt-data.

Each box below is a part of a photograph in which nothing else is to be seen: no animal, no building, no mill.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attribug.tasks import gcompris

if TYPE_CHECKING:
    from PIL import Image

BOXES = {
    "sky": (
        ("horse", 0, 0, 1024, 190), ("windmill8", 235, 0, 320, 165), ("windmill13", 0, 0, 190, 54),
        ("windmill15", 0, 0, 240, 44), ("bayterek", 0, 104, 72, 235), ("bayterek", 158, 0, 213, 150),
        ("victoriaMemorial", 205, 0, 300, 190), ("victoriaMemorial", 0, 0, 85, 180), ("windmill", 0, 0, 92, 60),
        ("windmill3", 252, 0, 320, 100), ("windmill1", 172, 0, 232, 230), ("statueOfLiberty", 180, 0, 240, 300),
        ("eiffelTower", 0, 0, 75, 135), ("kutubMinar", 0, 0, 175, 170), ("windmill6", 0, 100, 125, 250),
        ("christTheRedeemer", 0, 0, 92, 120), ("windmill4", 0, 0, 70, 120), ("parthenon", 245, 0, 320, 70),
        ("greatPyramid", 0, 0, 72, 62), ("usCapitol", 0, 0, 112, 60), ("leMusee", 0, 0, 92, 58),
        ("windmill2", 0, 0, 95, 78), ("giraffe", 0, 0, 330, 55),
    ),
    "greenery": (
        ("bison", 0, 585, 1024, 768), ("chicken", 0, 520, 430, 683), ("chicken", 200, 20, 350, 170),
        ("cow", 0, 480, 200, 768), ("hedgehog", 0, 0, 1024, 110), ("hedgehog", 730, 570, 1024, 731),
        ("lemur", 660, 0, 1024, 250), ("moose", 0, 0, 240, 290), ("moose", 815, 0, 1024, 320),
        ("pig", 0, 640, 1024, 768), ("sheep", 0, 0, 225, 742), ("sheep", 775, 0, 1024, 742),
        ("chameleon", 560, 0, 1024, 230), ("dam1", 0, 155, 95, 239), ("dam4", 0, 200, 320, 240),
    ),
    "earth": (
        ("jaguar", 0, 0, 470, 240), ("jaguar", 760, 0, 1024, 320), ("kangaroo", 0, 300, 270, 560),
        ("kangaroo", 590, 250, 1024, 460), ("Komodo dragon", 0, 0, 1024, 160), ("crocodile", 0, 340, 450, 506),
        ("greatPyramid", 125, 95, 230, 175),
    ),
}  # fmt: skip
"""By kind: photograph, then left, top, right and bottom, pixels of it."""
KINDS = tuple(BOXES)
SMALLEST = 0.6  # a square's side, of the box's shorter one
DRAWS = 5
"""Numbers that tell a square: which box, how large, where across and down, mirrored or not."""


def square(kind: str, drawn: NDArray[np.float64], pixels: int) -> NDArray[np.float32]:
    """A square of a photograph of a kind, (3, pixels, pixels) in [0, 1]; `drawn`: five numbers in [0, 1)."""
    boxes = _boxes()[kind]
    which, size, across, down, mirrored = drawn
    found = boxes[int(which * len(boxes))]
    side = round(min(found.size) * (SMALLEST + (1 - SMALLEST) * size))
    left, top = (int(place * (free - side + 1)) for place, free in zip((across, down), found.size, strict=True))
    taken = found.crop((left, top, left + side, top + side)).resize((pixels, pixels))  # bicubic
    channels = np.moveaxis(np.asarray(np.asarray(taken) / 255, np.float32), 2, 0)
    return channels[:, :, ::-1] if mirrored < 0.5 else channels


@functools.cache
def _boxes() -> dict[str, list[Image.Image]]:
    found = {name: picture for group in gcompris.GROUPS for name, _, picture in gcompris.photographs(group)}
    return {kind: [found[name].crop(box) for name, *box in boxes] for kind, boxes in BOXES.items()}  # type: ignore[arg-type]
