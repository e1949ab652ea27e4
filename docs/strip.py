"""The picture of the README: what two methods show of two bugs, from the kept maps of a run of `quick`.

attribug run --keep-maps && python docs/strip.py      # in a folder of its own; writes strip.png beside this file
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import attribug
from attribug.results.pictures import coloured, shares

PLACE = Path(__file__).with_name("strip.png")
BUGS = {
    ("spurious_background", 1): "Bug: the background tells the class",
    ("reinit", 3): "Bug: the last three layers are random",
}
METHODS = {"gradient": "gradient", "guided_backprop": "guided\nbackprop"}
IMAGE = 3  # which of the explained ones
SEED, OTHERS = 0, (1, 2)  # of the buggy model, and of others trained alike
SIDES = ("input", "clean model", "control", "with the bug")


def strip() -> Figure:
    """Of each bug the input and, a method a row, the maps of a clean model, a control and the model with the bug."""
    run = attribug.run("quick", keep_maps=True)
    figure = Figure(figsize=(9.2, 2.7), facecolor="white")
    FigureCanvasAgg(figure)
    for part, ((bug, level), title) in zip(figure.subfigures(1, len(BUGS), wspace=0.02), BUGS.items(), strict=True):
        part.suptitle(title, fontsize=10, fontweight="bold", y=0.985)
        grid = part.subplots(len(METHODS), len(SIDES), squeeze=False)
        part.subplots_adjust(left=0.155, right=0.99, top=0.84, bottom=0.01, wspace=0.05, hspace=0.05)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, side in zip(grid[0], SIDES, strict=True):
            axes.set_title(side, fontsize=8.5, pad=3)
        for row, (method, name) in zip(grid, METHODS.items(), strict=True):
            told = maps(run, method, bug, level)
            row[0].text(-0.1, 0.5, name, transform=row[0].transAxes, fontsize=8.5, ha="right", va="center")
            row[0].imshow(picture(run, bug, level, told[0].ids[IMAGE]))
            for axes, each in zip(row[1:], told, strict=True):
                axes.imshow(coloured(shares(np.asarray(each.maps[IMAGE]).sum(0))), interpolation="nearest")
    return figure


def maps(run, method, bug, level):
    """Of a clean model, a control, the buggy model."""
    control = run.facts["pieces"]["bugs"][bug]["control"]
    clean, other = (SEED, SEED) if control == "retrained" else OTHERS
    sides = {"reference": clean, control: other, "contaminated": SEED}
    return [run.maps(method, bug, level, side=side, seed=seed, contrast=SEED) for side, seed in sides.items()]


def picture(run, bug, level, example):
    """The input (H, W, 3) of an example."""
    (cell,) = (c for _, c in run.plan.contrasted if (c.bug, c.level, c.seed) == (bug, str(level), SEED))
    data = cell.contrast.contaminated.examples.load()
    (row,) = (data.ids == int(example)).nonzero().flatten().tolist()
    return data.inputs[row].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    strip().savefig(PLACE, dpi=130, metadata={"Software": "attribug"})
