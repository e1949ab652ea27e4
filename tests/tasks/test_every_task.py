"""What every registered task must keep: the package's checks, and broken tasks that each check refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attribug import tasks
from attribug.conformance.checks import check, run_check
from attribug.conformance.tasks import (  # fmt: skip
    CHECKS,
    check_a_key_tells_everything,
    check_data_are_here,
    check_examples_have_their_form,
    check_facts_fit_together,
    check_ids_are_unique,
    check_masks_have_their_form,
    check_network_fits,
    check_no_test_example_was_trained_on,
    check_variants_keep_ids_and_labels,
)
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.pieces import TaskSource
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported

BROKEN = "test_broken"
SHAPE = (1, 4, 4)


@pytest.mark.parametrize("name", tasks.names())
@pytest.mark.parametrize("check", CHECKS)
def test_task(check: Callable[..., str | None], name: str) -> None:
    source = tasks.get(name)
    if source.missing is not None and source.missing():
        pytest.skip(source.missing())
    result = run_check(check, "task", source)
    assert result.passed, str(result)


# --- a sound task, and how to break it ---


def squares(*, split: str, size: int, seed: int, change: Callable[[Data, str], Data] | None, share: float) -> Data:
    """Noise whose left half, which is the mask, is bright for label 1."""
    stream = torch.Generator().manual_seed(seed + 10 * (split == "test"))
    labels, masks = torch.arange(size) % 2, torch.zeros((size, *SHAPE[1:]), dtype=torch.bool)
    masks[:, :, :2] = True
    inputs = torch.rand((size, *SHAPE), generator=stream) + masks[:, None] * labels.reshape(-1, 1, 1, 1) + share
    data = Data(inputs, labels, torch.arange(size) + 1000 * (split == "test"), masks)
    return data if change is None else change(data, split)


def network(classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


def task(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 500,
    test: int = 100,
    change: Callable[[Data, str], Data] | None = None,
    variants: bool = True,
    **facts: Any,
) -> Task:
    """A task that is sound without further arguments."""
    sizes = {"train": train, "test": test}

    def examples(split: str, *, share: float = 0.0, swapped: bool = False, foreground: bool = True) -> Examples:
        if not variants and share:
            raise Unsupported("no backgrounds")
        marks = share + swapped / 2 + (not foreground) / 4
        return Examples.of(squares, split=split, size=sizes[split], seed=seed, change=change, share=marks)

    given = {"name": BROKEN, "classes": ("dark", "bright"), "shape": SHAPE, "recipe": Recipe(network, epochs=1)}
    return Task(**{**given, "examples": examples, "other": other, **facts})


@pytest.fixture
def register():
    """Registers a task, whose name is free again afterwards."""

    def enter(function: Callable[..., Task], **facts: Any) -> TaskSource:
        tasks.register(BROKEN, **facts)(function)
        return tasks.get(BROKEN)

    yield enter
    tasks._registry._entries.pop(BROKEN, None)


def with_(data: Data, **parts: Any) -> Data:
    known = {"inputs": data.inputs, "labels": data.labels, "ids": data.ids, "masks": data.masks}
    return Data(**{**known, **parts})


def broken(change: Callable[[Data, str], Data]) -> Callable[..., Task]:
    """The sound task with other data."""
    made: Callable[..., Task] = partial(task, change=change)
    return lambda *, seed, other, train=500, test=100: made(seed=seed, other=other, train=train, test=test)


def with_facts(**facts: Any) -> Callable[..., Task]:
    """The sound task with other facts."""
    return lambda *, seed, other, train=500, test=100: task(seed=seed, other=other, train=train, test=test, **facts)


def last_label_is_two(data: Data, split: str) -> Data:
    labels = data.labels.clone()
    labels[-1] = 2
    return with_(data, labels=labels)


def one_nan(data: Data, split: str) -> Data:
    inputs = data.inputs.clone()
    inputs[3, 0, 0, 0] = torch.nan
    return with_(data, inputs=inputs)


def one_empty_mask(data: Data, split: str) -> Data:
    masks = data.masks.clone()
    masks[3] = False
    return with_(data, masks=masks)


def first_test_image_is_a_training_image(data: Data, split: str) -> Data:
    inputs = data.inputs.clone()
    inputs[0] = 0.5
    return with_(data, inputs=inputs)


def ids_by_background(data: Data, split: str) -> Data:
    return with_(data, ids=data.ids + (data.inputs.min() >= 1).long())


def labels_by_background(data: Data, split: str) -> Data:
    return with_(data, labels=(data.labels + (data.inputs.min() >= 1).long()) % 2)


def noise_from_nowhere(data: Data, split: str) -> Data:
    return with_(data, inputs=data.inputs + torch.rand(()))


def noise_from_numpy(data: Data, split: str) -> Data:
    return with_(data, inputs=data.inputs + float(np.random.rand()))


CALLS = [0]


def other_ids_at_every_call(data: Data, split: str) -> Data:
    CALLS[0] += 1
    return with_(data, ids=data.ids.roll(CALLS[0]))


def one_key_for_all(*, seed: int, other: Callable[[str], Task], train: int = 50, test: int = 20) -> Task:
    sound = task(seed=seed, other=other, train=train, test=test)

    def examples(split: str, **options: Any) -> Examples:
        return Examples(split, sound.examples(split, **options).build)

    return task(seed=seed, other=other, examples=examples)


def a_key_from_nowhere(*, seed: int, other: Callable[[str], Task], train: int = 50, test: int = 20) -> Task:
    sound = task(seed=seed, other=other, train=train, test=test)

    def examples(split: str, **options: Any) -> Examples:
        CALLS[0] += 1
        return Examples(f"{split} {CALLS[0]}", sound.examples(split, **options).build)

    return task(seed=seed, other=other, examples=examples)


def no_variants(*, seed: int, other: Callable[[str], Task], train: int = 50, test: int = 20) -> Task:
    sound = task(seed=seed, other=other, train=train, test=test)

    def examples(split: str) -> Examples:
        return sound.examples(split)

    return task(seed=seed, other=other, examples=examples)


def no_task(*, seed: int, other: Callable[[str], Task]) -> str:
    return "a task"


BROKEN_TASKS = [
    (check_data_are_here, with_facts(), {"missing": lambda: "apt install it"}, "missing data: apt install it"),
    (check_data_are_here, no_task, {}, "expected a Task, found str"),
    (check_facts_fit_together, with_facts(name="other"), {}, "name: expected 'test_broken', found 'other'"),
    (check_facts_fit_together, with_facts(classes=("one",)), {}, "classes: expected at least two"),
    (check_facts_fit_together, with_facts(classes=("one", "one")), {}, "classes: expected each once"),
    (check_facts_fit_together, with_facts(recipe=Recipe(network, epochs=0)), {}, "epochs: .* 1, found 0"),
    (check_examples_have_their_form, with_facts(shape=(4, 4)), {}, r"expected \(120, 4, 4\) .*found \(120, 1, 4, 4\)"),
    (check_examples_have_their_form, broken(lambda d, s: with_(d, inputs=d.inputs.double())), {}, "found .*float64"),
    (check_examples_have_their_form, broken(one_nan), {}, "train inputs: expected finite values"),
    (check_examples_have_their_form, broken(last_label_is_two), {}, "train labels: expected several in 0 … 1"),
    (check_examples_have_their_form, broken(lambda d, s: with_(d, labels=d.labels * 0)), {}, "found 0 … 0"),
    (check_examples_have_their_form, broken(lambda d, s: with_(d, labels=d.labels.float())), {}, "torch.float32"),
    (check_masks_have_their_form, broken(lambda d, s: with_(d, masks=d.masks[:, None])), {}, r"found \(120, 1, 4, 4\)"),
    (check_masks_have_their_form, broken(lambda d, s: with_(d, masks=d.masks.float())), {}, "masks: .*found .*float32"),
    (check_masks_have_their_form, broken(one_empty_mask), {}, "a part of every input, found 1 empty or full"),
    (check_ids_are_unique, broken(lambda d, s: with_(d, ids=d.ids // 2)), {}, "train ids: expected 120 ids, found 60"),
    (check_ids_are_unique, broken(lambda d, s: with_(d, ids=d.ids % 1000)), {}, "none in both splits, found 30"),
    (check_ids_are_unique, broken(lambda d, s: with_(d, ids=d.ids.int())), {}, "found .*torch.int32"),
    (check_no_test_example_was_trained_on, broken(first_test_image_is_a_training_image), {}, "found 1 in both splits"),
    (check_variants_keep_ids_and_labels, broken(ids_by_background), {}, "share=1.0: expected the ids of the plain"),
    (check_variants_keep_ids_and_labels, broken(labels_by_background), {}, "expected the plain examples' labels"),
    (check_variants_keep_ids_and_labels, no_variants, {}, "expected examples or Unsupported, found TypeError"),
    (check_variants_keep_ids_and_labels, one_key_for_all, {}, "expected a key of its own, found that of another"),
    (check_a_key_tells_everything, broken(noise_from_nowhere), {}, "draws from a global generator"),
    (check_a_key_tells_everything, broken(noise_from_numpy), {}, "draws from a global generator"),
    (check_a_key_tells_everything, broken(other_ids_at_every_call), {}, "one key, but loading twice gave other ids"),
    (check_a_key_tells_everything, a_key_from_nowhere, {}, "expected one key for one seed, found two"),
    (check_network_fits, with_facts(recipe=Recipe(partial(network, 3), epochs=1)), {}, r"\(2, 2\), found \(2, 3\)"),
    (check_network_fits, with_facts(recipe=Recipe(nn.Identity, epochs=1)), {}, r"\(2, 2\), found \(2, 1, 4, 4\)"),
]


@pytest.mark.parametrize(("check", "function", "facts", "reason"), BROKEN_TASKS)
def test_broken_task_is_refused(check, function, facts, reason, register) -> None:
    result = run_check(check, "task", register(function, **facts))
    assert not result.passed
    assert re.search(reason, result.reason), result.reason
    assert "\n" not in result.reason


def test_every_check_refuses_something() -> None:
    assert {check for check, *_ in BROKEN_TASKS} == set(CHECKS)


@pytest.mark.parametrize(("facts", "notes"), [
    ({}, set()),
    ({"variants": False}, {"unsupported: no backgrounds"}),
    ({"variants": False, "change": lambda data, split: with_(data, masks=None)},
     {"unsupported: no backgrounds", "no masks"}),
])  # fmt: skip
def test_checks_refuse_only_what_is_broken(facts, notes, register) -> None:
    register(with_facts(**facts))
    results = check("task", BROKEN)
    assert [str(result) for result in results if not result.passed] == []
    assert {result.reason for result in results} - {""} == notes


def test_a_task_without_its_data_fails_in_one_line(register) -> None:
    register(with_facts(), missing=lambda: "apt install it")
    (result,) = check("task", BROKEN)
    assert (result.check, result.reason) == ("data are here", "missing data: apt install it")
