"""Vectors and sequences as small pictures: a map's bars and an input's bars or lines, as rasters of a few pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROWS = 48  # pixels of a raster's height
COLUMNS = 64  # pixels of a raster's width; longer inputs are averaged over blocks
GAPS = 3  # pixels a bar, from which on a pixel is left free between bars

Floats = npt.NDArray[np.floating]


def bars(values: Floats) -> npt.NDArray[np.int64]:
    """Which value a pixel shows, (rows, columns): −1 outside of the bars, which stand on zero or hang from it.

    values (D,), finite or not; a value that is not fills its column.
    """
    count = len(values)
    width = max(1, COLUMNS // count)
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    low, high = min(0.0, finite.min(initial=0.0)), max(0.0, finite.max(initial=0.0))
    span = (high - low) or 1.0
    heights = np.linspace(high, low, ROWS)[:, None]  # of a row; the first row is the highest
    half = span / (ROWS - 1) / 2  # every bar is at least one row
    inside = (heights <= np.maximum(finite, 0) + half) & (heights >= np.minimum(finite, 0) - half)
    numbers = np.where(inside | ~np.isfinite(values), np.arange(count), -1)  # (rows, D)
    wide = np.repeat(numbers, width, axis=1)
    if width >= GAPS:
        wide[:, width - 1 :: width] = -1
    return wide


def lines(channels: Floats) -> npt.NDArray[np.bool_]:
    """The pixels on a line through each channel's values, (rows, columns); channels (C, L), all on one scale."""
    values = np.nan_to_num(np.asarray(channels, np.float64))
    places = np.linspace(0, values.shape[1] - 1, COLUMNS)
    values = np.stack([np.interp(places, np.arange(values.shape[1]), channel) for channel in values])
    low, high = values.min(), values.max()
    heights = np.round((high - values) / ((high - low) or 1.0) * (ROWS - 1)).astype(np.int64)  # (C, columns)
    after = np.concatenate([heights[:, 1:], heights[:, -1:]], axis=1)  # a steep piece fills all rows on its way
    rows = np.arange(ROWS)[None, :, None]
    upper, lower = np.minimum(heights, after)[:, None], np.maximum(heights, after)[:, None]
    drawn: npt.NDArray[np.bool_] = ((rows >= upper) & (rows <= lower)).any(axis=0)
    return drawn
