"""Objects cut out of photographs by somebody's segmentations, to stand on other backgrounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribug.errors import InputError, one_line

Values = NDArray[np.float32]
MARGIN = 0.1  # of the object's longer side, on each side of it


@dataclass(frozen=True)
class Photograph:
    """A photograph of an object that somebody segmented; nothing is read yet."""

    name: str
    """Tells it from the others of its data set."""
    picture: Path
    mask: Path
    objects: Callable[[Path], Values]
    """Reads how much each pixel belongs to the object, (H, W) in [0, 1], of the file `mask`."""
    published: str
    """The split that its makers put it into: `train` or `test`."""

    @property
    def told(self) -> tuple[str, str, int, int]:
        """What tells its content without reading it: name, split, bytes of both files. 0: there is none."""
        picture, mask = (path.stat().st_size if path.is_file() else 0 for path in (self.picture, self.mask))
        return self.name, self.published, picture, mask


def cut_out(photograph: Photograph, pixels: int) -> tuple[Values, Values]:
    """The square around the object, (3, pixels, pixels) in [0, 1], and how much each pixel belongs to it, (pixels,
    pixels) in [0, 1].

    What lies beyond the photograph's edge repeats it, and belongs to nothing. Raises `InputError` for files that are
    not there, cannot be read, differ in size, or segment nothing.
    """
    from PIL import Image

    try:
        with Image.open(photograph.picture) as opened:
            picture = np.asarray(opened.convert("RGB"))
        objects = photograph.objects(photograph.mask)
    except InputError:
        raise
    except Exception as error:  # whatever an absent or damaged file makes of its reader
        raise InputError(f"photograph {photograph.name}: cannot be read: {one_line(error)}") from error
    if picture.shape[:2] != objects.shape:
        sizes = f"expected a mask of {picture.shape[:2]} as its picture, found {objects.shape}"
        raise InputError(f"photograph {photograph.name}: {sizes}")
    top, left, side = around(objects, photograph.name)
    shown = _square(picture, top, left, side, "edge")
    belongs = _square(objects, top, left, side, "constant")
    size, how = (pixels, pixels), Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(shown).resize(size, how), np.float32) / 255
    alpha = np.asarray(Image.fromarray(belongs).resize(size, how), np.float32)
    return np.ascontiguousarray(np.moveaxis(small, 2, 0)), alpha.clip(0, 1)


def around(objects: Values, name: str) -> tuple[int, int, int]:
    """Top, left and side of the square around an object, which may reach beyond the photograph. Raises `InputError`
    where nothing belongs to it."""
    if not objects.max() > 0:
        raise InputError(f"photograph {name}: expected a segmented object, found none")
    inside = solid(objects)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    longer = max(height, width)
    side = longer + 2 * max(1, round(MARGIN * longer))
    return int(rows[0]) - (side - height) // 2, int(columns[0]) - (side - width) // 2, side


def solid(objects: Values) -> NDArray[np.bool_]:
    """The pixels that belong to an object at least half as much as the surest one: masks of few votes are none less."""
    found: NDArray[np.bool_] = objects >= objects.max() / 2
    return found


def _square(values: NDArray[Any], top: int, left: int, side: int, beyond: Any) -> NDArray[Any]:
    """The square of an image (H, W) or (H, W, C), which is continued beyond its edges."""
    height, width = values.shape[:2]
    before = (max(0, -top), max(0, -left))
    after = (max(0, top + side - height), max(0, left + side - width))
    inside = values[max(0, top) : top + side, max(0, left) : left + side]
    around = [(before[0], after[0]), (before[1], after[1]), *[(0, 0)] * (values.ndim - 2)]
    return np.pad(inside, around, mode=beyond)
