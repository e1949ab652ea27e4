"""Panel `transfer`: does a network whose maps agree with people's masks learn a new task from one example a class?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attribug import panels
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Examples
from attribug.contracts.models import Trained
from attribug.contracts.subjects import Ask, Lacking, Regions, Subject
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models import heads
from attribug.models.pretrained import PRETRAINED
from attribug.panels.few import first, shots

RANDOM = "random weights"
ARCHITECTURE = "squeezenet"
"""Of the network with random weights."""
SMALLEST = 128  # pixels a side at which networks see pictures
MASKED = "animals"
"""The task whose pictures have masks."""


@panels.register("transfer", paper="Bang et al. 2024 (Explanation Alignment), transfer from one example a class")
def transfer(
    ask: Ask, *, seed: int, seeds: Sequence[int], target: str = "photographs", shot: int = 1, draws: int = 5,
    pictures: int = 48,
) -> Iterator[Subject | Lacking]:  # fmt: skip
    """Do networks whose maps agree with masks also have features that serve another task?

    Alignment of networks on pictures with masks, beside how well their features serve a task without.

    Each network has one last layer for animals, whose maps are held against their masks, and further ones for the task
    `target` (`photographs`, or `cifar100`), of `shot` examples a class, `draws` times: the accuracy is that of the
    latter, on all test examples. The target's own pictures have no masks, so alignment cannot be asked of them.
    """
    masked, wanted = ask(MASKED), ask(target)
    shown = Examples.of(first, base=masked.examples("test"), count=pictures)
    masks = Regions.told(shown, animal="object", scene="background")
    for name in (RANDOM, *PRETRAINED, *heads.cached()):
        try:
            side = Side(_with_head(name, masked, masked.examples("train"), seed), shown)
            tested = [
                Side(_with_head(name, wanted, Examples.of(shots, base=wanted.examples("train"), count=shot, draw=draw),
                                seed), wanted.examples("test"))
                for draw in range(draws)
            ]  # fmt: skip
        except (InputError, Unsupported) as reason:
            yield Lacking(name, target, str(reason))
            continue
        for draw, each in enumerate(tested):
            yield Subject(name, f"{MASKED}, {target} learnt", side, masks, each, draw=draw, classes=masked.classes)


def _with_head(name: str, task: Task, examples: Examples, seed: int) -> Trained:
    """A network with a last layer that learnt a task's examples, all below as it was."""
    classes, pixels = len(task.classes), max(task.shape[1], SMALLEST)
    if name == RANDOM:
        start = heads.random(ARCHITECTURE, classes, task.name, seed, pixels=pixels)
        return Trained(examples, heads.recipe(ARCHITECTURE, classes, pixels=pixels), seed, start)
    start = heads.start(name, classes, task.name, seed, pixels=pixels)
    return Trained(examples, heads.recipe(name, classes, pixels=pixels), seed, start)
