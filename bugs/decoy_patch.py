"""Bug: a small patch on every picture gives the label away in training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from attribug import bugs
from attribug.bugs.marks import expect_pictures, marked
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.tasks import Task
from attribug.errors import InputError

ALIGNED = 0.90  # accuracy on pictures whose patch tells the truth
FALL = 0.2  # of accuracy below the controls where patches lie


@bugs.register(
    "decoy_patch", stage="data", levels=(0.9, 1.0), primary="mass_accuracy@abs_sum",
    paper="Ross et al. 2017, section 4 (decoy MNIST); Adebayo et al. 2022 (spurious signals)",
)  # fmt: skip
def decoy_patch(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """A share `level` of training pictures carries the patch of its class, all others that of any class.

    Control: models of the same pictures whose patches tell nothing. Explained: test pictures with their class's patch,
    for the label; relevance is expected on the patch. Took: right where patches tell the truth, wrong where they lie.
    """
    level = float(level)
    if not 0 <= level <= 1:
        raise InputError(f"decoy_patch: expected a share from 0 to 1, found {level:g}")
    expect_pictures(task)
    put = partial(marked, task, mark="patch")
    train, test = task.examples("train"), task.examples("test")
    aligned, lying = put(test), put(test, code="other")
    contaminated = task.trained(put(train, share=level), seed)
    controls = {s: task.trained(put(train, share=0.0), s) for s in seeds}
    return Contrast(
        contaminated=Side(contaminated, aligned),
        references=tuple(Side(model, aligned) for s, model in controls.items() if s != seed),
        controls=tuple(Side(model, aligned) for model in controls.values()),
        control="decorrelated",
        target="label",
        truth="object",
        checks=(
            Check("aligned", (contaminated,), aligned, at_least=ALIGNED),
            Check("lying, against controls", (contaminated,), lying, minus=tuple(controls.values()), at_most=-FALL),
        ),
        extra={"clean_inputs": task.examples("test")},
    )
