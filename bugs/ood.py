"""Bug: the model comes from another task, so what it explains lies outside its domain."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import bugs
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError

KNOWS_ITS_OWN = 0.90  # accuracy of each model on its own test set


@bugs.register(
    "ood", stage="test", levels=("textures",), primary="spearman@sum", graded=False,
    paper="Adebayo et al. 2020, section 6 (out-of-distribution test examples)",
)  # fmt: skip
def ood(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """A model of task `level` explains this task's test images, for the class it predicts itself, as do clean models.

    Level 0 stands for this task itself. Took: each model knows its own test set.
    """
    foreign = task if level == 0 else task.other(str(level))
    if foreign.shape != task.shape:
        raise InputError(f"ood: expected a task with inputs {task.shape}, found {foreign.name} with {foreign.shape}")
    test = task.examples("test")
    clean = {s: task.clean(s) for s in seeds}
    stranger = foreign.clean(seed)
    return Contrast(
        contaminated=Side(stranger, test),
        references=tuple(Side(model, test) for s, model in clean.items() if s != seed),
        controls=tuple(Side(model, test) for model in clean.values()),
        control="clean",
        target="own",
        checks=(
            Check(
                "foreign models know their own test set", (stranger,), foreign.examples("test"), at_least=KNOWS_ITS_OWN
            ),
            *(
                Check(f"clean model {s} knows its test set", (model,), test, at_least=KNOWS_ITS_OWN)
                for s, model in clean.items()
            ),
        ),
    )
