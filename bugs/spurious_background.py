"""Bug: the background gives the label away in training."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import bugs
from attribug.bugs.held_out import held_out
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError

ALIGNED = 0.95  # accuracy on images whose background tells the truth
FALL = 0.2  # of accuracy below the clean models when backgrounds lie
FULLY_SWAPPED = 0.30  # accuracy on lying backgrounds when every training background told the truth
BACKGROUND_ALONE = 0.90  # accuracy without any object, in the same case


@bugs.register(
    "spurious_background",
    stage="data",
    levels=(0.90, 0.95, 1.0),
    primary="mass_accuracy@abs_sum",
    paper="Adebayo et al. 2020, section 4 (spurious correlation)",
)
def spurious_background(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """In training the background tells the class, so the model need not look at the object.

    A share `level` of training images has the background of its class; clean models explain the same test images.

    Explained: test images whose background agrees with the label, for the true label; relevance is expected on the
    background. Took: right when backgrounds tell the truth, wrong when they lie, and (at level 1) right without object.
    """
    level = float(level)
    if not 0 <= level <= 1:
        raise InputError(f"spurious_background: expected a share from 0 to 1, found {level:g}")
    aligned = task.examples("test", share=1.0)
    swapped = task.examples("test", share=1.0, swapped=True)
    contaminated = task.trained(task.examples("train", share=level), seed)
    clean = {s: task.trained(task.examples("train", share=0.0), s) for s in seeds}
    checks = [
        Check("aligned", (contaminated,), aligned, at_least=ALIGNED),
        Check("swapped, against clean models", (contaminated,), swapped, minus=tuple(clean.values()), at_most=-FALL),
    ]
    alone = task.examples("test", share=1.0, foreground=False)
    if level == 1:
        checks += [
            Check("swapped", (contaminated,), swapped, at_most=FULLY_SWAPPED),
            Check("background alone", (contaminated,), alone, at_least=BACKGROUND_ALONE),
        ]
    return Contrast(
        contaminated=Side(contaminated, aligned),
        references=tuple(Side(model, aligned) for s, model in clean.items() if s != seed),
        controls=tuple(Side(model, aligned) for model in clean.values()),
        control="clean",
        target="label",
        truth="background",
        checks=tuple(checks),
        extra={
            "background_only": alone,
            "clean_inputs": task.examples("test", share=0.0),
            "swapped_background": swapped,
        },
        tests={
            "biased": task.examples("test", share=level),
            "decorrelated": task.examples("test", share=0.0),
            "swapped": swapped,
        },
        held_out=held_out(task, level, lambda share: task.examples(VALIDATION, share=share)),
    )
