"""Bug: a small patch on every picture gives the label away in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attribug import bugs
from attribug.bugs.decorrelated import against_decorrelated
from attribug.bugs.marks import expect_pictures, marks_of, unmarked
from attribug.contracts.contrasts import Contrast
from attribug.contracts.tasks import Task
from attribug.errors import InputError

ALIGNED = 0.90  # accuracy on pictures whose patch tells the truth


@bugs.register(
    "decoy_patch", stage="data", levels=(0.9, 1.0), primary="mass_accuracy@abs_sum",
    paper="Ross et al. 2017, section 4 (decoy MNIST); Adebayo et al. 2022 (spurious signals)",
)  # fmt: skip
def decoy_patch(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """In training a small patch tells the class, so the model need not look at anything else.

    A share `level` of training pictures carries the patch of its class, all others that of any class.

    Control: models of the same pictures whose patches tell nothing. Explained: test pictures with their class's patch,
    for the label; relevance is expected on the patch. Took: right where patches tell the truth, wrong where they lie.
    """
    level = float(level)
    if not 0 <= level <= 1:
        raise InputError(f"decoy_patch: expected a share from 0 to 1, found {level:g}")
    expect_pictures(task)
    shown = marks_of(task, "patch")
    contrast = against_decorrelated(
        task, seed, seeds, shown=shown, level=level, explained=shown("test"), truth="object", aligned=ALIGNED,
        clean=unmarked(task),
    )  # fmt: skip
    return replace(contrast, extra={"clean_inputs": task.examples("test")})
