"""Galleries of Shared Interest's cases: what a model looks at, beside what people marked, one row a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from attribug.results.pictures import blended

CASES = {
    "human aligned": "right, and looks where people look",
    "sufficient subset": "right, and looks at a part of it",
    "context dependent": "right, and looks at it and at much else",
    "sufficient context": "right, and looks elsewhere",
    "confuser": "wrong, though it looks where people look",
    "insufficient subset": "wrong, and looks at a part of it",
    "context confusion": "wrong, and looks at it and at much else",
    "distracted": "wrong, and looks elsewhere",
}
"""Shared Interest's eight cases, in words."""
TILE, LABELS, TOP, BOTTOM, ROW_GAP = 1.15, 2.6, 0.75, 0.6, 0.12  # inches
CAPTION = (
    "Each example: what the model sees, then the map over it; outlined: what people marked (white), further masks "
    "(grey).\nRed speaks for the predicted class, blue against; each map on its own scale."
)
OUTLINES = ("#ffffff", "#9a9a9a", "#6f6f6f")


@dataclass(frozen=True)
class Shown:
    """An example of a gallery."""

    picture: npt.NDArray[np.floating]
    """(C, H, W) in [0, 1]."""
    map: npt.NDArray[np.floating]
    """(H, W)."""
    masks: npt.NDArray[np.bool_]
    """(M, H, W), the main one first."""
    said: str
    """What the model predicts, and what is right."""


def case_gallery(
    path: Path | BinaryIO, rows: Mapping[str, Sequence[Shown]], shares: Mapping[str, str], title: str
) -> None:
    """Draws some examples of every case. shares: how often a case is, in words; cases of other names come last."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = [*(case for case in CASES if case in rows), *(case for case in rows if case not in CASES)]
    across = max(len(rows[case]) for case in ordered)
    width, height = LABELS + 2 * across * TILE, TOP + len(ordered) * (TILE + ROW_GAP) + BOTTOM
    figure = Figure(figsize=(max(width, 7.0), height), facecolor="white")
    FigureCanvasAgg(figure)
    width = max(width, 7.0)
    for row, case in enumerate(ordered):
        top = TOP + row * (TILE + ROW_GAP)
        words = "\n".join(filter(None, [case, CASES.get(case, ""), shares.get(case, "")]))
        figure.text(
            0.15 / width, 1 - (top + TILE / 2) / height, words, ha="left", va="center", fontsize=8, linespacing=1.35
        )
        for place, shown in enumerate(rows[case]):
            for number, picture in enumerate(_pair(shown)):
                left = LABELS + (2 * place + number) * TILE
                box = (left / width, 1 - (top + TILE) / height, 0.94 * TILE / width, 0.94 * TILE / height)
                axes = figure.add_axes(box)
                axes.imshow(picture, interpolation="nearest")
                _outlined(axes, shown.masks)
                axes.set_axis_off()
                if number == 0:
                    axes.set_title(shown.said, fontsize=6.5, pad=1.5, loc="left")
    figure.text(0.15 / width, 1 - 0.12 / height, title, ha="left", va="top", fontsize=11)
    figure.text(0.15 / width, 0.12 / height, CAPTION, ha="left", va="bottom", fontsize=7.5, color="#444444")
    figure.savefig(path, dpi=110, format="png", metadata={"Software": "attribug"})


def _pair(shown: Shown) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """What the model sees, and the map over it, (H, W, 3) each."""
    channels = np.moveaxis(np.clip(np.nan_to_num(shown.picture), 0, 1), 0, -1)
    channels = channels if channels.shape[-1] == 3 else np.repeat(channels.mean(-1, keepdims=True), 3, axis=-1)
    seen: npt.NDArray[np.uint8] = np.round(255 * channels).astype(np.uint8)
    return seen, blended(seen, shown.map)


def _outlined(axes: Any, masks: npt.NDArray[np.bool_]) -> None:
    """The masks' edges, the main one on top."""
    for mask, colour in reversed([*zip(masks, OUTLINES, strict=False)]):
        if mask.any() and not mask.all():
            axes.contour(np.pad(mask.astype(float), 1)[1:-1, 1:-1], levels=[0.5], colors=[colour], linewidths=0.9)
