"""What every registered panel must keep: the package's checks, and broken panels that each check refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribug import panels
from attribug.conformance.checks import check, run_check
from attribug.conformance.panels import (  # fmt: skip
    CHECKS,
    check_alike_subjects_are_held_against_the_same_masks,
    check_descriptions_repeat_themselves,
    check_each_is_asked_once,
    check_masks_fit_the_examples,
    check_subjects_are_described,
)
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived
from attribug.contracts.pieces import Panel
from attribug.contracts.subjects import Ask, Lacking, Regions, Subject
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported
from attribug.models import brought
from attribug.running.bringing import asked_for
from doubles import mine

BROKEN = "test_broken"
SEED = 0  # of the conformance tests
Told = Iterator[Subject | Lacking]


@pytest.fixture
def _brought() -> Iterator[None]:
    """The panel `own` has something to show: a small model, data and masks that were brought."""
    found = mine.register(SEED)
    masks = found.examples.load().masks
    assert masks is not None
    brought.register(brought.key(asked_for({}), SEED), replace(found, regions=brought.regions({"bar": masks})))
    yield
    mine.register(SEED)


@pytest.mark.usefixtures("_brought")
@pytest.mark.parametrize("name", panels.names())
def test_panel(name: str) -> None:
    results = check("panel", name)
    assert [str(result) for result in results if not result.passed] == []
    assert len(results) == len(CHECKS)
    notes = {result.reason for result in results} - {""}
    assert all("data are missing" in note for note in notes), "nothing but absent data leaves a shipped panel unchecked"


# --- a sound panel, and how to break it ---


def sound(task: Task, seeds: Sequence[int]) -> list[Subject]:
    """Clean models of digits, which are held against the object and what lies around it."""
    test = task.examples("test")
    masks = Regions.told(test, object="object", around="background")
    sides = [Side(task.clean(each), test) for each in seeds]
    return [Subject("clean", "test", side, masks, tested=side) for side in sides]


def nothing(task: Task, seeds: Sequence[int]) -> Told:
    yield from ()


def of_no_reason(task: Task, seeds: Sequence[int]) -> Told:
    yield from sound(task, seeds)
    yield Lacking("other", "test", "")


def of_text(task: Task, seeds: Sequence[int]) -> Iterator[Any]:
    yield "clean"


def of_networks(task: Task, seeds: Sequence[int]) -> Told:
    """Of a network instead of its description."""
    first, *_ = sound(task, seeds)
    yield replace(first, side=replace(first.side, model=nn.Identity()))


def raising(task: Task, seeds: Sequence[int]) -> Told:
    yield from sound(task, seeds)
    raise RuntimeError("no\npanel")


def shaken(model: nn.Module, stream: torch.Generator, *, by: float) -> None:
    """No change: what a description tells is its parameters."""


def drawn(task: Task, seeds: Sequence[int]) -> Told:
    """Another model each time."""
    first, *_ = sound(task, seeds)
    by = float(torch.rand(()))
    yield replace(first, side=replace(first.side, model=Derived(task.clean(seeds[0]), partial(shaken, by=by), 0)))


def named_anew(task: Task, seeds: Sequence[int]) -> Told:
    """The same model, under another name each time."""
    first, *_ = sound(task, seeds)
    yield replace(first, model=f"clean {int(torch.randint(2**40, ()))}")


def asked_elsewhere(task: Task, seeds: Sequence[int]) -> Told:
    """The same model is explained each time, and another one tested."""
    first, *_ = sound(task, seeds)
    yield replace(first, tested=Side(task.clean(int(torch.randint(2**40, ()))), first.side.examples))


def twice(task: Task, seeds: Sequence[int]) -> Told:
    first, *_ = sound(task, seeds)
    yield from (first, first)


def drawn_twice(task: Task, seeds: Sequence[int]) -> Told:
    """Of different seeds, but the same draw."""
    for each in sound(task, seeds):
        yield replace(each, draw=0)


def with_other_masks(task: Task, seeds: Sequence[int]) -> Told:
    first, second = sound(task, seeds)
    yield from (first, replace(second, regions=Regions.told(first.side.examples, object="object")))


def half(*, base: Examples) -> Data:
    """The first half of some examples."""
    data = base.load()
    return data.select(torch.arange(len(data) // 2))


def with_other_examples(task: Task, seeds: Sequence[int]) -> Told:
    """The second model is asked on fewer examples."""
    first, second = sound(task, seeds)
    side = replace(second.side, examples=Examples.of(half, base=second.side.examples))
    yield from (first, replace(second, side=side))


def with_masks_of_others(task: Task, seeds: Sequence[int]) -> Told:
    """Masks of all examples, for the first half of them."""
    first, *_ = sound(task, seeds)
    yield replace(first, side=replace(first.side, examples=Examples.of(half, base=first.side.examples)))


def edited(*, examples: Examples, edit: Callable[[Tensor], Any]) -> dict[str, Any]:
    """Masks of objects, changed."""
    masks = examples.load().masks
    assert masks is not None
    return {"object": edit(masks)}


def cropped(masks: Tensor) -> Tensor:
    return masks[:, 1:]


def graded(masks: Tensor) -> Tensor:
    return masks.float()


def emptied(masks: Tensor) -> Tensor:
    return masks & False


def same(masks: Tensor) -> Tensor:
    return masks


def masked(*names: str, edit: Callable[[Tensor], Any]) -> Callable[[Task, Sequence[int]], Told]:
    """A panel of masks under these names, of which only `object` is there, changed."""

    def told(task: Task, seeds: Sequence[int]) -> Told:
        for each in sound(task, seeds):
            yield replace(each, regions=Regions.of(names, edited, examples=each.side.examples, edit=edit))

    return told


@pytest.fixture
def register() -> Iterator[Callable[..., Panel]]:
    """Registers a panel of digits, which is forgotten afterwards."""

    def enter(told: Callable[[Task, Sequence[int]], Iterator[Any]]) -> Panel:
        @panels.register(BROKEN)
        def function(ask: Ask, *, seed: int, seeds: Sequence[int]) -> Iterator[Any]:
            yield from told(ask("digits"), seeds)

        return panels.get(BROKEN)

    yield enter
    panels._registry.forget(BROKEN)


ALIKE, FIT = check_alike_subjects_are_held_against_the_same_masks, check_masks_fit_the_examples
REPEAT = check_descriptions_repeat_themselves
BROKEN_PANELS = [
    (check_subjects_are_described, nothing, "expected at least one subject, found none"),
    (check_subjects_are_described, of_no_reason, "a Lacking: expected a reason, found none"),
    (check_subjects_are_described, of_text, "expected a Subject or Lacking, found str"),
    (check_subjects_are_described, of_networks, "expected a Trained, Derived or Given model, found Identity"),
    (check_subjects_are_described, raising, "RuntimeError: no"),
    (REPEAT, drawn, "described twice, found other subjects"),
    (REPEAT, named_anew, "described twice, found other subjects"),
    (REPEAT, asked_elsewhere, "described twice, found other subjects"),
    (check_each_is_asked_once, twice, r"once, found \('clean', 'test', 0\) twice"),
    (check_each_is_asked_once, drawn_twice, r"once, found \('clean', 'test', 0\) twice"),
    (ALIKE, with_other_masks, "clean on test: found other examples or masks"),
    (ALIKE, with_other_examples, "clean on test: found other examples or masks"),
    (FIT, with_masks_of_others, r"mask object: expected \(15, 32, 32\) of torch.bool, found \(\(30, 32, 32\)"),
    (FIT, masked("object", edit=cropped), r"mask object: expected \(30, 32, 32\) .* found \(\(30, 31, 32\)"),
    (FIT, masked("object", edit=graded), r"expected .* of torch.bool, found \(\(30, 32, 32\), torch.float32\)"),
    (FIT, masked("object", edit=emptied), "mask object: expected something on an example, found none"),
    (FIT, masked("object", "around", edit=same), "mask around: expected .* of torch.bool, found None"),
    (FIT, masked(edit=same), "regions: expected a name at least, found none"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "told", "reason"), BROKEN_PANELS)
def test_broken_panel_is_refused(check, told, reason, register) -> None:
    result = run_check(check, "panel", register(told))
    assert not result.passed
    assert re.search(reason, result.reason), result.reason
    assert "\n" not in result.reason


def test_every_check_refuses_something() -> None:
    assert {check for check, *_ in BROKEN_PANELS} == set(CHECKS)


def test_checks_refuse_only_what_is_broken(register) -> None:
    register(sound)
    results = check("panel", BROKEN)
    assert [(result.passed, result.reason) for result in results] == [(True, "")] * len(CHECKS)


def told_or_lacking(task: Task, seeds: Sequence[int]) -> Told:
    """One of several that cannot be asked: what the others are is checked."""
    yield from sound(task, seeds)
    yield Lacking("other", "test", "nobody has brought it")


def lacking(task: Task, seeds: Sequence[int]) -> Told:
    yield Lacking("other", "test", "nobody has brought it")


def declining(task: Task, seeds: Sequence[int]) -> Told:
    yield from sound(task, seeds)
    raise Unsupported("nobody has brought it")


@pytest.mark.parametrize(("told", "note"), [
    (told_or_lacking, ""), (lacking, "unsupported: nobody has brought it"),
    (declining, "unsupported: nobody has brought it"),
])  # fmt: skip
def test_what_cannot_be_asked_is_noted(told, note, register) -> None:
    register(told)
    results = check("panel", BROKEN)
    assert [(result.passed, result.reason) for result in results] == [(True, note)] * len(CHECKS)
