"""Small pictures inside a page: attribution maps and inputs as PNG data URIs. Of images a pixel a pixel; of vectors and
sequences bars, or lines."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from attribug.results.bars import bars, lines
from attribug.results.figures import PERCENTILE

LARGEST = 64  # pixels of a side; larger maps are averaged over blocks
WIDEST = 224  # pixels of a picture with a map over it
LEVELS = 127  # of the colour map, odd: zero has a colour of its own
UNDEFINED, GAP = LEVELS, LEVELS + 1  # places in the palette: no finite number, nothing at all
BETWEEN = 2  # pixels between two maps
INK = 90  # grey of lines and bars

Floats = npt.NDArray[np.floating]


def strip(maps: Sequence[Floats]) -> tuple[str, int, int]:
    """Maps (H, W), (L,) or (D,) side by side, red for and blue against, each on its own scale: data URI, width,
    height."""
    from PIL import Image

    shown = [_shown(np.asarray(each, np.float64)) for each in maps]
    gap = np.full((len(shown[0]), BETWEEN), GAP, np.uint8)
    row = np.concatenate([part for each in shown for part in (gap, each)][1:], axis=1)
    image = Image.fromarray(row)
    image.putpalette(_palette())
    return _uri(image, transparency=GAP), row.shape[1], row.shape[0]


def photograph(picture: Floats) -> tuple[str, int, int]:
    """An input: data URI, width, height. An image (C, H, W) in [0, 1], of which other than three channels are averaged;
    a sequence (C, L) as a line a channel; a vector (D,) as bars."""
    from PIL import Image

    if picture.ndim < 3:
        drawn = lines(picture) if picture.ndim == 2 else bars(_shorter(np.asarray(picture, np.float64))) >= 0
        ink = np.where(drawn, INK, 255).astype(np.uint8)
        return _uri(Image.fromarray(ink)), ink.shape[1], ink.shape[0]
    channels = np.stack([_smaller(channel) for channel in np.asarray(picture, np.float64)], axis=-1)
    bytes_ = np.round(np.clip(np.nan_to_num(channels), 0, 1) * 255).astype(np.uint8)
    bytes_ = bytes_ if bytes_.shape[-1] == 3 else bytes_.mean(-1).astype(np.uint8)
    return _uri(Image.fromarray(bytes_)), bytes_.shape[1], bytes_.shape[0]


def overlay(shown: npt.NDArray[np.uint8], values: Floats | None) -> str:
    """A map (H, W) over its grey picture (H, W, 3), red for and blue against, the stronger the less of the picture is
    seen: data URI; without a map the picture itself."""
    from PIL import Image

    image = Image.fromarray(shown if values is None else blended(shown, values))
    if max(image.size) > WIDEST:
        image.thumbnail((WIDEST, WIDEST))
    return _uri(image.quantize(128))


def blended(shown: npt.NDArray[np.uint8], values: Floats) -> npt.NDArray[np.uint8]:
    """A map (H, W) over its picture (H, W, 3), which turns grey: (H, W, 3)."""
    from PIL import Image

    share = shares(values)
    light = Image.fromarray(shown).convert("L").convert("RGB").point(lambda grey: 128 + grey // 2)
    opacity = Image.fromarray(np.round(255 * np.abs(share) ** 0.5).astype(np.uint8))
    return np.asarray(Image.composite(Image.fromarray(coloured(share)), light, opacity))


def shares(values: Floats) -> npt.NDArray[np.float64]:
    """Values of a map over that which gets full colour: `PERCENTILE` of the absolute ones, or the largest where this is
    0; in [−1, 1], 0 where a value is no number."""
    numbers = np.asarray(values, np.float64)
    with np.errstate(over="ignore"):
        return np.nan_to_num(np.clip(numbers / _limit(numbers), -1, 1))


def coloured(share: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Red, green and blue of shares of full colour, (*shape, 3)."""
    from matplotlib import colormaps

    colours: npt.NDArray[np.uint8] = np.round(colormaps["RdBu_r"](0.5 + share / 2)[..., :3] * 255).astype(np.uint8)
    return colours


def _limit(values: Floats) -> float:
    """The absolute value that gets full colour; 1 where all are 0 or no numbers."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.percentile(finite, PERCENTILE)) if finite.size else 0.0
    return limit or float(finite.max(initial=0.0)) or 1.0


def _smaller(channel: Floats) -> Floats:
    """Means over blocks, so that neither side is longer than `LARGEST`; what is left over at the ends is cut off."""
    block = -(-max(channel.shape) // LARGEST)
    down, across = (min(block, length) for length in channel.shape)
    height, width = channel.shape[0] // down, channel.shape[1] // across
    blocks = channel[: height * down, : width * across].reshape(height, down, width, across)
    means: Floats = blocks.mean(axis=(1, 3))
    return means


def _shorter(values: Floats) -> Floats:
    """Means over blocks of neighbours, so that there are at most `LARGEST`."""
    shorter: Floats = _smaller(values[None])[0]
    return shorter


def _shown(values: Floats) -> npt.NDArray[np.uint8]:
    """Places in the palette of a map, (H, W) or of bars."""
    if values.ndim == 2:
        return _indices(_smaller(values))
    values = _shorter(values)
    numbers = bars(values)
    return np.where(numbers >= 0, _indices(values[None])[0][numbers], GAP).astype(np.uint8)


def _indices(channel: Floats) -> npt.NDArray[np.uint8]:
    """Places in the palette; full colour at `PERCENTILE` of the absolute values."""
    middle = LEVELS // 2
    with np.errstate(over="ignore"):
        places = np.round(middle + middle * np.clip(channel / _limit(channel), -1, 1))
    return np.where(np.isfinite(channel), np.nan_to_num(places), UNDEFINED).astype(np.uint8)


@cache
def _palette() -> bytes:
    """Red, green and blue of every place."""
    return coloured(np.linspace(-1, 1, LEVELS)).tobytes() + bytes([128] * 3) + bytes([255] * 3)


def _uri(image: object, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, **options)  # type: ignore[attr-defined]
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
