"""ood: the model comes from another task; the examples do not."""

from __future__ import annotations

import pytest
import torch

from attribug.bugs.ood import ood
from attribug.contracts.tasks import Task
from attribug.errors import InputError

SEEDS = (0, 1, 2)


def test_the_stranger_is_the_other_tasks_clean_model(toy: Task) -> None:
    contrast = ood(toy, "two", 1, SEEDS)
    foreign = toy.other("two")
    assert contrast.contaminated.model == foreign.clean(1)
    assert contrast.contaminated.model != toy.clean(1)
    assert {side.examples for side in contrast.sides} == {toy.examples("test")}
    assert contrast.target == "own"


def test_each_model_is_checked_on_its_own_test_set(toy: Task) -> None:
    first, *clean = ood(toy, "two", 1, SEEDS).checks
    foreign = toy.other("two")
    assert first.models == (foreign.clean(1),)
    assert torch.equal(first.examples.load().inputs, foreign.examples("test").load().inputs)
    assert [check.models for check in clean] == [(toy.clean(seed),) for seed in SEEDS]
    assert {check.examples for check in clean} == {toy.examples("test")}
    assert all(check.at_least is not None and check.at_least > 0.5 for check in (first, *clean))


def test_more_classes_are_known_with_fewer_right(digits: Task) -> None:
    """Four fifths of the way from chance."""
    foreign, *clean = ood(digits, "textures", 0, SEEDS).checks
    assert [check.at_least for check in clean] == [pytest.approx(0.9)] * 3
    assert foreign.at_least == pytest.approx(1 / 3 + 0.8 * 2 / 3)


def test_level_zero_is_this_task(toy: Task) -> None:
    contrast = ood(toy, 0, 1, SEEDS)
    assert contrast.contaminated.model == toy.clean(1)
    assert contrast.contaminated in contrast.controls
    assert contrast.contaminated not in contrast.references


def test_inputs_of_another_shape_are_refused(toy: Task) -> None:
    with pytest.raises(InputError, match=r"expected a task with inputs \(1, 12, 12\), found large with \(1, 24, 24\)"):
        ood(toy, "large", 0, SEEDS)


def test_an_unknown_task_is_the_users_mistake(digits: Task) -> None:
    with pytest.raises(InputError, match="unknown task 'texture'; did you mean 'textures'"):
        ood(digits, "texture", 0, SEEDS)
