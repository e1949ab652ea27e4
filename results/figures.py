"""Figures of a run: galleries of maps, drawn with matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

SYMBOLS = {
    "detects": "●", "blind": "○", "inverted": "◐", "inconclusive": "?",
    "not taken": "–", "unsupported": "×", "failed": "!",
}  # fmt: skip
ROLES = ("reference", "control", "contaminated")
CONTROL_NAMES = {
    "clean": "another\nclean model", "other_flips": "other\nlabels flipped", "retrained": "layers\nretrained",
    "perturbed": "weights\nperturbed", "stored_anew": "pictures\nstored anew",
    "decorrelated": "another\ndecorrelated model",
}  # fmt: skip
REFERENCE_NAMES = {
    "retrained": "trained model", "perturbed": "this model", "stored_anew": "this model",
    "decorrelated": "decorrelated model",
}  # fmt: skip
"""Of the model that both are compared with, by the control."""
TILE, HEADER, GAP = 0.78, 0.6, 0.25  # inches; in tiles: room for columns' titles, between examples
PERCENTILE = 99.5  # of a map's absolute values: full colour
LABELS, TOP, BOTTOM = 1.9, 0.55, 0.65  # inches: room for methods' names, for the title, for the caption
LINE, LETTERS = 0.14, 110  # inches and letters of a line of the caption
NAMES = 24  # most features that are named
CAPTION = (
    "A method that sees the bug changes more from the first column to the third than to the second.\n"
    "Red: speaks for the explained class, blue: against; each map on its own scale. "
    "Number: effect (.5 = cannot tell bug from control, 1 = always)."
)

INK = "#5a5a5a"  # of lines and bars

Pictures = Mapping[str, npt.NDArray[np.floating]]


def gallery(
    path: Path | BinaryIO, maps: Mapping[str, Pictures], verdicts: pd.DataFrame, *, bug: str, level: str, control: str,
    features: Sequence[str] = (),
) -> None:  # fmt: skip
    """Draws every method's maps under reference, control and contaminated model, a few examples side by side.

    maps: by method, `inputs` (n, C, H, W) in [0, 1], (n, C, L) or (n, D), and, by role, channel sums (n, *spatial);
    verdicts: index method, columns verdict and effect; features: names of the entries of vectors.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inputs = next(iter(maps.values()))["inputs"]
    roles = [role for role in ROLES if all(role in pictures for pictures in maps.values())]
    across, down = len(inputs) * (len(roles) + GAP), len(maps) + 1 + HEADER
    caption = "\n".join([CAPTION, *textwrap.wrap(bars_told(features), LETTERS)])
    bottom = BOTTOM + LINE * (caption.count("\n") - CAPTION.count("\n"))
    width, height = LABELS + across * TILE, TOP + down * TILE + bottom
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(maps) + 2, len(inputs) * (len(roles) + 1),
        width_ratios=[*[1] * len(roles), GAP] * len(inputs), height_ratios=[1, HEADER, *[1] * len(maps)],
        left=LABELS / width, right=1, top=1 - TOP / height, bottom=bottom / height, wspace=0.06, hspace=0.08,
    )  # fmt: skip
    for example, picture in enumerate(inputs):
        first = example * (len(roles) + 1)
        _input(figure.add_subplot(grid[0, first + len(roles) // 2]), picture)
        for (column, role), (row, method) in product(enumerate(roles), enumerate(maps, start=2)):
            axes = figure.add_subplot(grid[row, first + column])
            _map(axes, maps[method][role][example])
            if row == 2:
                axes.set_title(_title(role, control), fontsize=7, pad=4)
            if example == 0 and column == 0:
                axes.set_ylabel(_label(method, verdicts), rotation=0, ha="right", va="center", fontsize=8)
    _write_around(figure, (width, height), f"{bug} at level {level}: what each method shows", caption)
    figure.savefig(path, dpi=130, format="png", metadata={"Software": "attribug"})


def _write_around(figure: Any, size: tuple[float, float], title: str, caption: str) -> None:
    """What stands above, beside and below the pictures; size in inches."""
    width, height = size
    note: dict[str, Any] = {"ha": "left", "fontsize": 8, "color": "#444444"}
    middle = 1 - (TOP + TILE / 2) / height
    figure.text((LABELS - 0.1) / width, middle, "the explained input", **{**note, "ha": "right", "va": "center"})
    figure.text(0.15 / width, 0.12 / height, caption, va="bottom", **note)
    figure.text(0.15 / width, 1 - 0.15 / height, title, ha="left", va="top", fontsize=12)


def bars_told(features: Sequence[str]) -> str:
    """Which bar is which, in words; empty where features have no names, or are too many to be told apart."""
    return f"Bars from left to right: {', '.join(features)}." if 0 < len(features) <= NAMES else ""


def reference_name(control: str) -> str:
    """What the reference is, by the control beside it."""
    return REFERENCE_NAMES.get(control, "clean model")


def _title(role: str, control: str) -> str:
    titles = {
        "reference": reference_name(control) + "\n(reference)",
        "control": CONTROL_NAMES.get(control, control) + "\n(control)",
        "contaminated": "with the\nbug",
    }
    return titles[role]


def _label(method: str, verdicts: pd.DataFrame) -> str:
    if method not in verdicts.index:
        return method
    verdict, effect = str(verdicts.loc[method, "verdict"]), float(verdicts.loc[method, "effect"])  # type: ignore[arg-type]
    number = "" if np.isnan(effect) else f" {effect:.2f}"
    return f"{method}\n{SYMBOLS[verdict]} {verdict}{number}"


def _input(axes: Any, picture: npt.NDArray[np.floating]) -> None:
    """An image (C, H, W), a sequence (C, L) as a line a channel, or a vector (D,) as bars."""
    if picture.ndim == 3:
        _image(axes, picture)
        return
    if picture.ndim == 2:
        axes.plot(picture.T, linewidth=0.6, color=INK)
    else:
        _bars(axes, picture, INK)
    _bare(axes)


def _bars(axes: Any, values: npt.NDArray[np.floating], colours: Any) -> None:
    axes.axhline(0, linewidth=0.4, color=INK)
    axes.vlines(np.arange(len(values)), 0, values, colors=colours, linewidth=max(0.3, 0.8 * TILE * 72 / len(values)))
    axes.set_xlim(-0.5, len(values) - 0.5)


def _image(axes: object, picture: npt.NDArray[np.floating]) -> None:
    shown = np.clip(np.moveaxis(picture, 0, -1), 0, 1)
    axes.imshow(shown if shown.shape[-1] == 3 else shown.mean(-1), cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
    _bare(axes)


def _map(axes: Any, picture: npt.NDArray[np.floating]) -> None:
    """A map (H, W) as an image, (L,) or (D,) as bars."""
    from matplotlib import colormaps

    finite = np.abs(picture[np.isfinite(picture)])
    limit = float(np.percentile(finite, PERCENTILE)) if finite.size else 0.0
    limit = limit or 1.0
    if picture.ndim == 2:
        axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        _bars(axes, picture, colormaps["RdBu_r"](0.5 + np.nan_to_num(picture) / limit / 2))
    _bare(axes)


def _bare(axes: object) -> None:
    axes.set_xticks([])  # type: ignore[attr-defined]
    axes.set_yticks([])  # type: ignore[attr-defined]
    for spine in axes.spines.values():  # type: ignore[attr-defined]
        spine.set_linewidth(0.4)
