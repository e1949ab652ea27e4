"""Panels of the tiny task: models that learnt, and one that did not, held against halves; and panels that break."""

from collections.abc import Iterator, Sequence

import torch

from attribug import panels
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Examples
from attribug.contracts.models import Derived
from attribug.contracts.subjects import Ask, Lacking, Regions, Subject
from attribug.errors import Unsupported


@panels.register("halved")
def halved(ask: Ask, *, seed: int, seeds: Sequence[int], flawed: bool = False) -> Iterator[Subject | Lacking]:
    """Models of halves, and one that answers the other way round; masks: the bright half, a strip or nothing."""
    task = ask("tiny")
    test = task.examples("test")
    masks = Regions.of(("bright", "strip"), stripped, examples=test, flawed=flawed)
    for each in seeds:
        side = Side(task.clean(each), test)
        yield Subject("trained", "test", side, masks, tested=side, classes=task.classes)
    wrong = Side(Derived(task.clean(seeds[0]), turned, seeds[0]), test)
    yield Subject("turned", "test", wrong, masks, tested=wrong, classes=task.classes)
    unknown = Side(task.clean(seeds[0]), test)
    yield Subject("unlabelled", "test", unknown, masks, tested=None)
    yield Lacking("elsewhere", "test", "nobody has brought it")


@panels.register("raising")
def raising(ask: Ask, *, seed: int, seeds: Sequence[int]) -> Iterator[Subject]:
    """Raises before it says anything."""
    raise RuntimeError("no panel")


@panels.register("absent")
def absent(ask: Ask, *, seed: int, seeds: Sequence[int]) -> Iterator[Subject]:
    """Has no data."""
    raise Unsupported("data are missing: nobody has any")


@panels.register("doubled")
def doubled(ask: Ask, *, seed: int, seeds: Sequence[int]) -> Iterator[Subject]:
    """Says the same model twice."""
    task = ask("tiny")
    side = Side(task.clean(seeds[0]), task.examples("test"))
    for _ in range(2):
        yield Subject("one", "test", side, Regions.told(side.examples, bright="object"), tested=side)


def stripped(*, examples: Examples, flawed: bool) -> dict[str, torch.Tensor]:
    """The bright half, and the upper quarter, of which every fourth example shows nothing; flawed: of another size."""
    masks = examples.load().masks
    assert masks is not None
    strip = torch.zeros_like(masks)
    strip[:, : strip.shape[1] // 4] = True
    strip[::4] = False
    return {"bright": masks, "strip": strip[:, 1:] if flawed else strip}


def turned(model: torch.nn.Module, stream: torch.Generator) -> None:
    """Its last layer says the other class, in place."""
    with torch.no_grad():
        last = model[4]
        last.weight.copy_(last.weight.flip(0))
        last.bias.copy_(last.bias.flip(0))
