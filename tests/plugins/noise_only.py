"""A bug that is none: perturbed copies of a given model stand as contaminated beside others, so nothing may be seen."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import bugs
from attribug.contracts.contrasts import Contrast
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported
from attribug.models.perturbed import against_perturbed, perturbed

OTHERS = 500  # far from the control's draws


@bugs.register("noise_only", stage="model", levels=(1, 2), graded=False)
def noise_only(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """Copies with noise of the control's size, drawn anew at each level; at level 0 the control's own."""
    if task.given is None:
        raise Unsupported("expected a given model")
    draw = seed + OTHERS * int(level)
    return against_perturbed(task.given, perturbed(task.given, draw), seed, seeds)
