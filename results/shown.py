"""One map as a figure of its own: over its picture, as bars of a vector, or under a sequence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attribug.results.figures import INK
from attribug.results.pictures import Floats, blended, coloured, shares

SIDE = 4.0  # inches of a picture's longer side
BAR, HEAD, WIDE = 0.24, 0.9, 6.0  # inches: of a feature, around all of them, of a figure of bars or lines
CAPTION = "red: speaks for the explained class, blue: against"
NOTE = {"fontsize": 8, "color": "#444444"}
DOTS = 130  # an inch


class Shown(Figure):
    """A figure that notebooks show, also where nobody asked for pyplot."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), facecolor="white", layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, dpi=DOTS, format="png", metadata={"Software": "attribug"})
        return picture.getvalue()


def over_picture(picture: npt.NDArray[np.uint8], values: Floats, title: str | None) -> Shown:
    """A map (H, W) over its picture (H, W, 3), which turns grey."""
    height, width = values.shape
    scale = SIDE / max(height, width)
    figure = Shown(max(scale * width, SIDE / 2), max(scale * height, SIDE / 8) + HEAD / 2)
    axes = _axes(figure, title)
    axes.imshow(blended(picture, values), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(CAPTION, **NOTE)
    return figure


def as_bars(values: Floats, labels: Sequence[str], title: str | None) -> Shown:
    """A map (D,) of a vector as a bar a feature, the first one on top."""
    figure = Shown(WIDE, HEAD + BAR * len(values))
    axes = _axes(figure, title)
    lengths, colours = _bars(values)
    axes.barh(np.arange(len(values)), lengths, color=colours, edgecolor=INK, lw=0.4)
    axes.set_yticks(np.arange(len(values)), labels, fontsize=8)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.axvline(0, color=INK, lw=0.6)
    axes.set_xlabel(CAPTION, **NOTE)
    return figure


def under_sequence(sequence: Floats, values: Floats, title: str | None) -> Shown:
    """A sequence (C, L) as a line a channel, and its map (L,) as bars below."""
    figure = Shown(WIDE, WIDE / 2 + HEAD / 2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(sequence.T, lw=0.8, color=INK)
    heights, colours = _bars(values)
    lower.bar(np.arange(len(values)), heights, width=1.0, color=colours)
    lower.axhline(0, color=INK, lw=0.6)
    lower.set_xlabel(CAPTION, **NOTE)
    if title is not None:
        upper.set_title(title, fontsize=10, parse_math=False)
    return figure


def _axes(figure: Figure, title: str | None) -> Any:
    axes = figure.subplots()
    if title is not None:
        axes.set_title(title, fontsize=10, parse_math=False)
    return axes


def _bars(values: Floats) -> tuple[Floats, Floats]:
    """Lengths and colours of bars; none where a value is no number."""
    return np.where(np.isfinite(values), values, 0.0), coloured(shares(values)) / 255
