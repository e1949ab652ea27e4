"""Panel `own`: the model that somebody brings, held against what people marked on their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attribug import bugs, panels
from attribug.contracts.contrasts import Side
from attribug.contracts.subjects import Ask, Lacking, Subject
from attribug.contracts.tasks import GivenModel
from attribug.errors import Unsupported

if TYPE_CHECKING:
    from attribug.contracts.models import ModelSpec
    from attribug.contracts.regions import Regions
    from attribug.contracts.tasks import Task

YOURS, RANDOM, SECOND = "yours", "random weights", "against"
"""What models and data are called that have no name of their own."""
GIVEN = -1  # the draw of a model that is none


@panels.register("own")
def own(ask: Ask, *, seed: int, seeds: Sequence[int]) -> Iterator[Subject | Lacking]:
    """Do your model's maps agree with the masks more than those of its architecture with random weights?

    The model that somebody brings; its architecture with random weights, a draw a seed; and a second model, where
    `--against` names one.

    All are asked about the same examples, for the class that each predicts itself, and held against the same masks: a
    method whose maps agree with these as much under random weights tells of the pictures, not of the model. `seed` is
    of no matter here: nothing but the draws is random.
    """
    try:
        task = ask("own")
    except Unsupported as reason:
        yield Lacking(YOURS, YOURS, str(reason))
        return
    given = task.given
    if given is None:
        yield Lacking(YOURS, YOURS, "expected a model and data that you bring: --model NAME --data PLACE")
        return
    name = given.called or YOURS
    if task.regions is None:
        yield Lacking(name, YOURS, "expected masks of what people marked: --masks FOLDER")
        return
    yield _subject(name, given.spec, given, task.regions, GIVEN)
    yield from _with_random_weights(task, given, task.regions, seeds)
    if isinstance(task.stranger, GivenModel):
        second = task.stranger.called or SECOND
        second = f"{SECOND} {second}" if second == name else second
        yield _subject(second, task.stranger.spec, task.stranger, task.regions, GIVEN)


def _subject(name: str, model: ModelSpec, given: GivenModel, regions: Regions, draw: int) -> Subject:
    """A model, asked about all of a given one's examples; right or not on those whose labels somebody says."""
    tested = None if given.known is None else Side(model, given.known, draw)
    return Subject(name, YOURS, Side(model, given.examples, draw), regions, tested, "own")


def _with_random_weights(
    task: Task, given: GivenModel, regions: Regions, seeds: Sequence[int]
) -> Iterator[Subject | Lacking]:
    reinit = bugs.get("reinit").function
    for draw in seeds:
        try:
            model = reinit(task, "all", draw, seeds).contaminated.model
        except Unsupported as reason:
            yield Lacking(RANDOM, YOURS, str(reason))
            return
        yield _subject(RANDOM, model, given, regions, draw)
