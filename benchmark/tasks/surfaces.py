"""Surfaces: photographs of grass, gravel and brick that ship inside scikit-image.

Backgrounds of digits, subject of textures.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

KINDS = ("grass", "brick", "gravel")


@functools.cache
def photograph(kind: str) -> NDArray[np.float32]:
    """The grey photograph of a kind, (512, 512) in [0, 1], brightness stretched to one range for every kind."""
    from skimage import data

    grey = np.asarray(getattr(data, kind)(), dtype=np.float32)
    low, high = np.percentile(grey, [1, 99])
    return np.asarray(np.clip((grey - low) / (high - low), 0, 1), dtype=np.float32)


def crop(kind: str, top: int, left: int, pixels: int) -> NDArray[np.float32]:
    """A square of a photograph, (pixels, pixels)."""
    return photograph(kind)[top : top + pixels, left : left + pixels]
