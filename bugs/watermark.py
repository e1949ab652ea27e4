"""Bug: a faint watermark is on the pictures of one class in training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from attribug import bugs
from attribug.bugs.marks import expect_pictures, marked
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.tasks import Task
from attribug.errors import InputError

FALL = 0.2  # of accuracy below the controls where watermarks lie


@bugs.register(
    "watermark", stage="data", levels=(1.0,), primary="mass_accuracy@abs_sum",
    paper="Lapuschkin et al. 2019 (the horses' source tag)",
)  # fmt: skip
def watermark(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """A share `level` of the first class's training pictures, and of none other, carries a watermark.

    Control: models of pictures that carry it whatever their class. Explained: test pictures of the first class with the
    watermark; relevance is expected there. Took: where the others carry it and the first does not, accuracy falls.
    """
    level = float(level)
    if not 0 <= level <= 1:
        raise InputError(f"watermark: expected a share from 0 to 1, found {level:g}")
    expect_pictures(task)
    put = partial(marked, task, mark="watermark")
    train, test = task.examples("train"), task.examples("test")
    lying, explained = put(test, code="other"), put(first(test, train))
    contaminated = task.trained(put(train, share=level), seed)
    controls = {s: task.trained(put(train, share=0.0), s) for s in seeds}
    return Contrast(
        contaminated=Side(contaminated, explained),
        references=tuple(Side(model, explained) for s, model in controls.items() if s != seed),
        controls=tuple(Side(model, explained) for model in controls.values()),
        control="decorrelated",
        target="label",
        truth="object",
        checks=(
            Check("lying, against controls", (contaminated,), lying, minus=tuple(controls.values()), at_most=-FALL),
        ),
    )


def first(base: Examples, train: Examples) -> Examples:
    """The examples of the first class that occurs in training."""
    return Examples.of(of_the_first, base=base, train=train)


def of_the_first(*, base: Examples, train: Examples) -> Data:
    """The examples under the lowest label."""
    data = base.load()
    return data.select((data.labels == train.load().labels.min()).nonzero().flatten())
