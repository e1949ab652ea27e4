"""Panel `mnist_block`: digits with a coloured block, models that learnt it and models that could not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attribug import bugs, panels
from attribug.contracts.contrasts import Side
from attribug.contracts.subjects import Ask, Regions, Subject

DATA = {"decorrelated": "decorrelated", "correlated": "biased"}
"""Names of test sets in tables, and in a contrast."""


@panels.register("mnist_block", paper="Bang et al. 2024 (Explanation Alignment), the coloured block on MNIST")
def mnist_block(ask: Ask, *, seed: int, seeds: Sequence[int]) -> Iterator[Subject]:
    """A block's colour tells the digit to one model and nothing to the other: which of both do maps show?

    The spurious model learnt where the colour tells, the normal one where it tells nothing.

    Masks: the block, 5 × 5 pixels in a corner, and the digit. The normal model learns from images whose block has any
    colour. Both are asked on images whose block names the digit (`correlated`), and on such whose block has any colour
    (`decorrelated`), for the class that they predict.
    """
    task, shortcut = ask("mnist_block"), bugs.get("shortcut").function
    for each in seeds:
        contrast = shortcut(task, 1.0, each, seeds)
        normal = next(side.model for side in contrast.controls if side.seed == each)
        for name, model in {"normal": normal, "spurious": contrast.contaminated.model}.items():
            for data, held in DATA.items():
                side = Side(model, contrast.tests[held])
                masks = Regions.told(side.examples, block="annotated", digit="object")
                yield Subject(name, data, side, masks, tested=side)
