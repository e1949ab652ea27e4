"""Figures of a run: galleries of maps, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

SYMBOLS = {
    "detects": "●", "blind": "○", "inverted": "◐", "inconclusive": "?", "not taken": "–", "unsupported": "×", "failed": "!",
}  # fmt: skip
ROLES = ("reference", "control", "contaminated")
CONTROL_NAMES = {
    "clean": "another\nclean model", "other_flips": "other\nlabels flipped", "retrained": "layers\nretrained", "perturbed": "weights\nperturbed",
}  # fmt: skip
PERCENTILE = 99.5  # of a map's absolute values: full colour
TILE = 0.78  # inches
HEADER = 0.55  # of a tile: room for the columns' titles

Pictures = Mapping[str, npt.NDArray[np.floating]]


def gallery(path: Path, maps: Mapping[str, Pictures], verdicts: pd.DataFrame, *, bug: str, level: str, control: str) -> None:
    """Draws inputs and every method's maps under reference, control and contaminated model, a few examples side by side.

    maps: by method, `inputs` (n, C, H, W) in [0, 1] and, by role, channel sums (n, H, W); verdicts: index method, columns
    verdict and effect.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inputs = next(iter(maps.values()))["inputs"]
    roles = [role for role in ROLES if all(role in pictures for pictures in maps.values())]
    n, width = len(inputs), len(roles)
    figure = Figure(figsize=(2.4 + n * width * TILE + 0.3 * n, 1.75 + (len(maps) + 1 + HEADER) * TILE), facecolor="white")
    FigureCanvasAgg(figure)
    ratios = ([1.0] * width + [0.25]) * n
    grid = figure.add_gridspec(
        len(maps) + 2, len(ratios) - 1, width_ratios=ratios[:-1], height_ratios=[1, HEADER, *[1] * len(maps)],
        left=2.3 / figure.get_figwidth(), right=0.99, top=1 - 0.6 / figure.get_figheight(), bottom=0.75 / figure.get_figheight(), wspace=0.06, hspace=0.08,
    )  # fmt: skip
    titles = {"reference": "clean model\n(reference)", "control": CONTROL_NAMES.get(control, control) + "\n(control)", "contaminated": "with the\nbug"}
    if bug.startswith("reinit"):
        titles["reference"] = "trained model\n(reference)"
    for example in range(n):
        first = example * (width + 1)
        shown = figure.add_subplot(grid[0, first + width // 2])
        _image(shown, inputs[example])
        if example == 0:
            shown.set_ylabel("the explained input", rotation=0, ha="right", va="center", fontsize=8, labelpad=6 + 72 * TILE * (width // 2))
        for column, role in enumerate(roles):
            for row, (method, pictures) in enumerate(maps.items(), start=2):
                axes = figure.add_subplot(grid[row, first + column])
                _map(axes, pictures[role][example])
                if row == 2:
                    axes.set_title(titles[role], fontsize=7, pad=4)
                if example == 0 and column == 0:
                    axes.set_ylabel(_label(method, verdicts), rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
    figure.suptitle(f"{bug} at level {level}: what each method shows", x=0.02, y=1 - 0.12 / figure.get_figheight(), ha="left", va="top", fontsize=12)
    figure.text(0.02, 0.12 / figure.get_figheight(), _caption(verdicts), ha="left", va="bottom", fontsize=8, color="#444444")
    figure.savefig(path, dpi=130, format="png", metadata={"Software": "attribug"})


def _label(method: str, verdicts: pd.DataFrame) -> str:
    if method not in verdicts.index:
        return method
    verdict, effect = verdicts.loc[method, "verdict"], float(verdicts.loc[method, "effect"])  # type: ignore[arg-type]
    number = "" if np.isnan(effect) else f" {effect:.2f}"
    return f"{method}\n{SYMBOLS[str(verdict)]} {verdict}{number}"


def _caption(verdicts: pd.DataFrame) -> str:
    return (
        "A method that sees the bug changes from the first column to the third more than from the first to the second.\n"
        "Red: speaks for the explained class, blue: against; each map on its own scale. "
        "Number: effect (.5 = cannot tell bug from control, 1 = always)."
    )


def _image(axes: object, picture: npt.NDArray[np.floating]) -> None:
    shown = np.clip(np.moveaxis(picture, 0, -1), 0, 1)
    axes.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
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
