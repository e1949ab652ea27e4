"""Bug: what a task knows as its shortcut gives the label away in training."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import bugs
from attribug.bugs.decorrelated import against_decorrelated
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Examples
from attribug.contracts.tasks import Task
from attribug.errors import InputError

ALIGNED = 0.90  # accuracy on examples whose shortcut tells the truth


@bugs.register(
    "shortcut", stage="data", levels=(1.0,), primary="mass_accuracy@abs_sum",
    paper="Ross et al. 2017, section 4 (right for the wrong reasons)",
)  # fmt: skip
def shortcut(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """In training the task's own shortcut tells the label, so the model need not look at anything else.

    On a share `level` of training examples the task's own shortcut tells the label, on all others anything.

    Control: models of the same examples in which it tells nothing. Explained: test examples on which it tells the
    label, for the label; relevance is expected where they are annotated. Took: right there, wrong where it lies.
    """
    level = float(level)
    if not 0 <= level <= 1:
        raise InputError(f"shortcut: expected a share from 0 to 1, found {level:g}")

    def shown(split: str, share: float = 1.0, *, swapped: bool = False) -> Examples:
        return task.examples(split, share=share, swapped=swapped)

    return against_decorrelated(
        task, seed, seeds, shown=shown, level=level, explained=shown("test"), truth="annotated", aligned=ALIGNED,
        clean=None if task.clean_has_shortcut else task.examples("test"),
    )  # fmt: skip
