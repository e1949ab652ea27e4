"""Figures of a run: galleries of maps, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
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
    "perturbed": "weights\nperturbed",
}  # fmt: skip
TILE, HEADER, GAP = 0.78, 0.6, 0.25  # inches; in tiles: room for columns' titles, between examples
PERCENTILE = 99.5  # of a map's absolute values: full colour
LABELS, TOP, BOTTOM = 1.9, 0.55, 0.65  # inches: room for methods' names, for the title, for the caption
CAPTION = (
    "A method that sees the bug changes more from the first column to the third than to the second.\n"
    "Red: speaks for the explained class, blue: against; each map on its own scale. "
    "Number: effect (.5 = cannot tell bug from control, 1 = always)."
)

Pictures = Mapping[str, npt.NDArray[np.floating]]


def gallery(
    path: Path | BinaryIO, maps: Mapping[str, Pictures], verdicts: pd.DataFrame, *, bug: str, level: str, control: str
) -> None:
    """Draws every method's maps under reference, control and contaminated model, a few examples side by side.

    maps: by method, `inputs` (n, C, H, W) in [0, 1] and, by role, channel sums (n, H, W); verdicts: index method,
    columns verdict and effect.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inputs = next(iter(maps.values()))["inputs"]
    roles = [role for role in ROLES if all(role in pictures for pictures in maps.values())]
    across, down = len(inputs) * (len(roles) + GAP), len(maps) + 1 + HEADER
    width, height = LABELS + across * TILE, TOP + down * TILE + BOTTOM
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(maps) + 2, len(inputs) * (len(roles) + 1),
        width_ratios=[*[1] * len(roles), GAP] * len(inputs), height_ratios=[1, HEADER, *[1] * len(maps)],
        left=LABELS / width, right=1, top=1 - TOP / height, bottom=BOTTOM / height, wspace=0.06, hspace=0.08,
    )  # fmt: skip
    for example, picture in enumerate(inputs):
        first = example * (len(roles) + 1)
        _image(figure.add_subplot(grid[0, first + len(roles) // 2]), picture)
        for column, role in enumerate(roles):
            for row, (method, pictures) in enumerate(maps.items(), start=2):
                axes = figure.add_subplot(grid[row, first + column])
                _map(axes, pictures[role][example])
                if row == 2:
                    axes.set_title(_title(role, bug, control), fontsize=7, pad=4)
                if example == 0 and column == 0:
                    axes.set_ylabel(_label(method, verdicts), rotation=0, ha="right", va="center", fontsize=8)
    note: dict[str, Any] = {"ha": "left", "fontsize": 8, "color": "#444444"}
    middle = 1 - (TOP + TILE / 2) / height
    figure.text((LABELS - 0.1) / width, middle, "the explained input", **{**note, "ha": "right", "va": "center"})
    figure.text(0.15 / width, 0.12 / height, CAPTION, va="bottom", **note)
    title = f"{bug} at level {level}: what each method shows"
    figure.text(0.15 / width, 1 - 0.15 / height, title, ha="left", va="top", fontsize=12)
    figure.savefig(path, dpi=130, format="png", metadata={"Software": "attribug"})


def _title(role: str, bug: str, control: str) -> str:
    titles = {
        "reference": ("trained" if bug.startswith("reinit") else "clean") + " model\n(reference)",
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


def _image(axes: object, picture: npt.NDArray[np.floating]) -> None:
    shown = np.clip(np.moveaxis(picture, 0, -1), 0, 1)
    axes.imshow(shown if shown.shape[-1] == 3 else shown.mean(-1), cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
    _bare(axes)


def _map(axes: object, picture: npt.NDArray[np.floating]) -> None:
    finite = np.abs(picture[np.isfinite(picture)])
    limit = float(np.percentile(finite, PERCENTILE)) if finite.size else 0.0
    axes.imshow(picture, cmap="RdBu_r", vmin=-limit or -1.0, vmax=limit or 1.0, interpolation="nearest")  # type: ignore[attr-defined]
    _bare(axes)


def _bare(axes: object) -> None:
    axes.set_xticks([])  # type: ignore[attr-defined]
    axes.set_yticks([])  # type: ignore[attr-defined]
    for spine in axes.spines.values():  # type: ignore[attr-defined]
        spine.set_linewidth(0.4)
