"""Bug: a faint watermark is on the pictures of one class in training."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import bugs
from attribug.bugs.decorrelated import against_decorrelated
from attribug.bugs.marks import expect_pictures, marked, marks_of, unmarked
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.tasks import Task
from attribug.errors import InputError


@bugs.register(
    "watermark", stage="data", levels=(1.0,), primary="mass_accuracy@abs_sum",
    paper="Lapuschkin et al. 2019 (the horses' source tag)",
)  # fmt: skip
def watermark(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """In training a watermark marks one class alone, so the model may take it for that class.

    A share `level` of the first class's training pictures, and of none other, carries a watermark.

    Control: models of pictures that carry it whatever their class. Explained: test pictures of the first class with the
    watermark; relevance is expected there. Took: where the others carry it and the first does not, accuracy falls.
    """
    level = float(level)
    if not 0 <= level <= 1:
        raise InputError(f"watermark: expected a share from 0 to 1, found {level:g}")
    expect_pictures(task)
    explained = marked(task, first(task.examples("test"), task.examples("train")), mark="watermark")
    return against_decorrelated(
        task, seed, seeds, shown=marks_of(task, "watermark"), level=level, explained=explained, truth="object",
        aligned=None, clean=unmarked(task),
    )  # fmt: skip


def first(base: Examples, train: Examples) -> Examples:
    """The examples of the first class that occurs in training."""
    return Examples.of(of_the_first, base=base, train=train)


def of_the_first(*, base: Examples, train: Examples) -> Data:
    """The examples under the lowest label."""
    data = base.load()
    return data.select((data.labels == train.load().labels.min()).nonzero().flatten())
