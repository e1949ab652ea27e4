"""Bugs of a model that is given: what is damaged is what is said, beside copies with slightly other weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from attribug import bugs
from attribug.bugs.batchnorm_mode import mistake
from attribug.bugs.head_permutation import permute
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import Derived
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError, Unsupported
from attribug.models import brought
from doubles import mine

SEEDS = (0, 1, 2)
OF_A_MODEL: list[tuple[str, Level]] = [
    ("reinit", "all"), ("reinit", 1), ("reinit_bottom", 1), ("reinit_single", 1), ("weight_noise", 1.0),
    ("head_permutation", 1.0), ("batchnorm_mode", "lost"), ("batchnorm_mode", "training"),
]  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    from attribug.conformance.tasks import small

    mine.register(0)
    return small("own")


def of(task: Task, name: str, level: Level, seed: int = 1) -> Contrast:
    return bugs.get(name).function(task, level, seed, SEEDS)


@pytest.mark.parametrize(("name", "level"), OF_A_MODEL)
def test_the_damaged_model_is_beside_itself_and_perturbed_copies(task: Task, name: str, level: Level) -> None:
    contrast, given = of(task, name, level), task.given
    assert given is not None
    (reference,) = contrast.references
    assert (reference.model, reference.draw) == (given.spec, -1)
    assert isinstance(contrast.contaminated.model, Derived)
    assert contrast.contaminated.model.base == given.spec
    assert [side.seed for side in contrast.controls] == list(SEEDS)
    assert len({of(task, name, level, seed).contaminated.model.key for seed in SEEDS}) == len(SEEDS)
    assert contrast.control == "perturbed"


@pytest.mark.parametrize("name", [*dict.fromkeys(name for name, _ in OF_A_MODEL), "preprocessing", "ood"])
def test_level_zero_is_one_of_the_controls(task: Task, name: str) -> None:
    contrast = of(task, name, 0)
    assert contrast.contaminated in contrast.controls


@pytest.mark.parametrize("last", [False, True], ids=["lost", "training"])
def test_batch_normalisation_does_what_torch_does(last: bool) -> None:
    model, inputs = mine.trained(steps=5), mine.bars(5, 7).inputs
    expected = copy.deepcopy(model)
    for module in expected.modules():
        if isinstance(module, nn.BatchNorm2d) and last:
            module.momentum = 0.0
            module.train()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    mistake(model, torch.Generator(), level="training" if last else "lost")
    with torch.no_grad():
        one_by_one = torch.cat([expected(each[None]) for each in inputs])
        torch.testing.assert_close(model(inputs), one_by_one)


def test_outputs_change_places() -> None:
    model, inputs = mine.trained(steps=5), mine.bars(5, 7).inputs
    with torch.no_grad():
        before = model(inputs)
        permute(model, torch.Generator().manual_seed(0), layer="5", share=1.0)
        after = model(inputs)
    same = [[bool(torch.allclose(after[:, i], before[:, j])) for j in range(3)] for i in range(3)]
    assert [sum(row) for row in same] == [1, 1, 1]
    assert not any(same[k][k] for k in range(3)), "none keeps its own"


def test_noise_must_exceed_the_controls(task: Task) -> None:
    with pytest.raises(Unsupported, match=r"the control has noise of 0\.05 already"):
        of(task, "weight_noise", 0.05)
    assert of(task, "weight_noise", 0.06)


@pytest.mark.parametrize(("name", "level", "reason"), [
    ("ood", "against", "expected a second model or data of another domain: --against NAME, --against PLACE"),
    ("reinit", 9, "expected a level from 1 to 2 or 'all' for task own, found 9"),
    ("preprocessing", "bgr", "one channel has no order"),
])  # fmt: skip
def test_what_does_not_fit_is_declined(task: Task, name: str, level: Level, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        of(task, name, level)


@pytest.mark.parametrize(("name", "level"), [("weight_noise", -1.0), ("head_permutation", 2.0), ("decoy_patch", 2.0),
                                             ("watermark", -1.0), ("batchnorm_mode", "found"),
                                             ("preprocessing", "rgb")])  # fmt: skip
def test_levels_out_of_range_are_refused(task: Task, name: str, level: Level) -> None:
    with pytest.raises(InputError, match=f"{name}: expected "):
        of(task, name, level)


def test_nothing_is_said_of_scale_where_nobody_knows(task: Task) -> None:
    assert task.given is not None
    unknown = replace(task, given=replace(task.given, mean=None, std=None))
    with pytest.raises(Unsupported, match="nobody says mean and std"):
        of(unknown, "preprocessing", "normalisation")


def test_a_second_model_stands_beside_the_first(task: Task) -> None:
    contrast = of(replace(task, stranger=task.given), "ood", "against")
    assert contrast.target == "own"
    assert contrast.checks[0].name == "outputs differ"


def stranger_of(task: Task, labels: torch.Tensor | None = None, **changes: Any) -> Task:
    """The task of a second data set."""
    data = mine.bars(9, 40)
    data = replace(data, labels=data.labels if labels is None else labels)
    examples = lambda split: brought.examples(data.select(torch.arange(len(data))[split == "test" :: 2]))  # noqa: E731
    return replace(task, name="against", examples=examples, **changes)


def test_a_stranger_learns_the_second_data_and_is_asked_about_the_first(task: Task) -> None:
    stranger = stranger_of(task)
    contrast, given = of(replace(task, stranger=stranger), "ood", "against"), task.given
    assert given is not None
    assert contrast.contaminated.model == stranger.clean(1)
    assert {side.examples for side in contrast.sides} == {given.examples}
    assert [side.model for side in contrast.references] == [given.spec]
    assert contrast.target == "own"
    knows, moved = contrast.checks[:2]
    assert (knows.models, knows.examples) == ((stranger.clean(1),), stranger.examples("test"))
    assert moved.minus == (given.spec,)


@pytest.mark.parametrize(("counts", "least"), [((20, 20), 0.75), ((10, 10, 10, 10), 0.625), ((30, 10), 0.875)])
def test_a_stranger_must_know_more_than_the_commonest_label(task: Task, counts: tuple[int, ...], least: float) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    check = of(replace(task, stranger=stranger_of(task, labels)), "ood", "against").checks[0]
    assert check.at_least == pytest.approx(least)
    assert not check.holds(least - 0.01)


def test_what_cannot_learn_the_second_data_declines(task: Task) -> None:
    with pytest.raises(Unsupported, match="a class has 1 example"):
        of(replace(task, stranger=stranger_of(task, untrained="a class has 1 example")), "ood", "against")
