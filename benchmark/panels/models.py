"""Panel `models`: several networks on the same pictures of animals: who looks at the animal, and who is right?"""

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
from attribug.panels.few import first

RANDOM, SCRATCH = "random weights", "from scratch"
DATA = "animals"
ARCHITECTURE = "squeezenet"
"""Of the network with random weights."""


@panels.register("models", paper="Bang et al. 2024 (Explanation Alignment), models of ImageNet against boxes")
def models(
    ask: Ask, *, seed: int, seeds: Sequence[int], networks: str = "", pictures: int = 48
) -> Iterator[Subject | Lacking]:
    """Do maps of better networks agree more with masks? From random weights to ImageNet's, on one data set.

    Networks that know nothing, little or ImageNet, on one set of pictures: alignment and accuracy of each.

    A network with random weights; one trained from scratch on a few hundred pictures; those that packages bring, and
    those of torchvision whose weights lie in the user's cache, each with a last layer trained on the same pictures.
    `networks`: only these of them, a,b,…, as `attribug run own --model` names them. `pictures`: explained ones;
    accuracy is told of all test pictures. Masks: the animal, and the scene, which is all the rest.
    """
    task = ask("animals")
    whole = task.examples("test")
    shown = Examples.of(first, base=whole, count=pictures)
    masks = Regions.told(shown, animal="object", scene="background")
    yield _random(task, whole, shown, masks, seed)
    yield from _scratch(task, whole, shown, masks, seeds)
    known = [*PRETRAINED, *heads.cached()]
    for name in networks.split(",") if networks else known:
        yield _known(name, task, whole, shown, masks, seed)


def _random(task: Task, whole: Examples, shown: Examples, masks: Regions, seed: int) -> Subject:
    model = heads.random(ARCHITECTURE, len(task.classes), DATA, seed, pixels=task.shape[1])
    return Subject(RANDOM, DATA, Side(model, shown), masks, Side(model, whole), classes=task.classes)


def _scratch(
    task: Task, whole: Examples, shown: Examples, masks: Regions, seeds: Sequence[int]
) -> Iterator[Subject]:  # fmt: skip
    recipe = heads.from_scratch(len(task.classes), task.shape[1])
    for each in seeds:
        model = Trained(task.examples("train"), recipe, each)
        yield Subject(SCRATCH, DATA, Side(model, shown), masks, Side(model, whole), classes=task.classes)


def _known(
    name: str, task: Task, whole: Examples, shown: Examples, masks: Regions, seed: int
) -> Subject | Lacking:  # fmt: skip
    """A network that knows ImageNet, with a last layer for the task."""
    classes, pixels = len(task.classes), task.shape[1]
    try:
        start = heads.start(name, classes, DATA, seed, pixels=pixels)
        recipe = heads.recipe(name, classes, pixels=pixels)
    except (InputError, Unsupported) as reason:
        return Lacking(name, DATA, str(reason))
    model = Trained(task.examples("train"), recipe, seed, start)
    return Subject(name, DATA, Side(model, shown), masks, Side(model, whole), classes=task.classes)
