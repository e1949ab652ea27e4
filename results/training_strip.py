"""A picture of training images: clean ones above the same as the model with the bug had them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

MOST = 8
"""Images side by side."""
RED = "#a3240f"
TILE, LEFT, LINE = 0.95, 1.1, 0.28  # inches


class Pair(NamedTuple):
    """One image (C, H, W) in [0, 1] and its label: as a clean model learnt it, and as the model with the bug did."""

    clean: npt.NDArray[np.floating]
    buggy: npt.NDArray[np.floating]
    clean_label: int
    buggy_label: int


def training_strip(path: Path | BinaryIO, pairs: Sequence[Pair]) -> None:
    """Draws pairs one above the other, with their labels; a label that is another is red."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = LEFT + len(pairs) * TILE, 2 * (TILE + LINE)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    for line, name in enumerate(("clean", "with the bug")):
        bottom = height - (line + 1) * (TILE + LINE)
        figure.text(0.08 / width, (bottom + TILE / 2) / height, name, ha="left", va="center", fontsize=9)
        for place, pair in enumerate(pairs):
            box = ((LEFT + place * TILE) / width, bottom / height, 0.94 * TILE / width, 0.94 * TILE / height)
            axes = figure.add_axes(box)
            axes.imshow(_shown(pair.buggy if line else pair.clean), interpolation="nearest")
            axes.set_axis_off()
            label = pair.buggy_label if line else pair.clean_label
            axes.set_title(f"label {label}", fontsize=8, pad=2, color="black" if label == pair.clean_label else RED)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": "attribug"})


def _shown(image: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """(H, W, 3) in [0, 1]; other than three channels are averaged."""
    channels = np.moveaxis(np.clip(np.nan_to_num(image), 0, 1), 0, -1)
    return channels if channels.shape[-1] == 3 else np.repeat(channels.mean(-1, keepdims=True), 3, axis=-1)
