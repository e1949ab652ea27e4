"""label_flips: the chosen labels of one part are wrong, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain, pairwise

import pytest
import torch
from torch import Tensor

from attribug.bugs.label_flips import label_flips, wrong_labels
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data
from attribug.contracts.models import Trained
from attribug.contracts.tasks import Task
from attribug.errors import InputError

LEVELS = (0.05, 0.1, 0.2)
FIVE = (0, 1, 2, 3, 4)


def trained_on(contrast: Contrast) -> Data:
    model = contrast.contaminated.model
    assert isinstance(model, Trained)
    return model.examples.load()


def flipped(task: Task, level: float, seed: int, seeds: tuple[int, ...] = FIVE) -> tuple[Tensor, Tensor]:
    """Ids of the images whose training label is wrong, and those labels."""
    clean, bad = task.examples("train").load(), trained_on(label_flips(task, level, seed, seeds))
    wrong = clean.labels != bad.labels
    return bad.ids[wrong], bad.labels[wrong]


@pytest.mark.parametrize("level", LEVELS)
def test_only_labels_change(toy: Task, level: float) -> None:
    clean, bad = toy.examples("train").load(), trained_on(label_flips(toy, level, 1, FIVE))
    assert torch.equal(bad.inputs, clean.inputs)
    assert torch.equal(bad.ids, clean.ids)
    assert clean.masks is not None
    assert torch.equal(bad.masks, clean.masks)
    assert not torch.equal(bad.labels, clean.labels)


@pytest.mark.parametrize("train", [100, 103, 104])
@pytest.mark.parametrize(("level", "count"), [(0.05, 5), (0.1, 10), (0.2, 20)])
def test_the_share_of_wrong_labels(make_toy: Callable[..., Task], train: int, level: float, count: int) -> None:
    task = make_toy("toy", classes=3, train=train)
    for seed in FIVE:
        ids, _ = flipped(task, level, seed)
        assert len(ids) == count  # a fifth of 103 or 104 would be 21, but a part has 20


def test_few_seeds_cut_the_set_into_five_parts_all_the_same(toy: Task) -> None:
    assert len(flipped(toy, 0.2, 0, (0,))[0]) == 20
    with pytest.raises(InputError, match=r"at most 1/5 with 1 seeds, found 0\.25"):
        label_flips(toy, 0.25, 0, (0,))


@pytest.mark.parametrize("seeds", [(0, 1, 2), FIVE, tuple(range(1000, 1007))])
def test_models_flip_disjoint_parts(toy: Task, seeds: tuple[int, ...]) -> None:
    level = 1 / max(len(seeds), 5)
    parts = [set(flipped(toy, level, seed, seeds)[0].tolist()) for seed in seeds]
    assert all(parts)
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_smaller_levels_are_nested_in_larger_ones(toy: Task) -> None:
    for seed in FIVE:
        found = [dict(zip(*(t.tolist() for t in flipped(toy, level, seed)), strict=True)) for level in LEVELS]
        for low, high in pairwise(found):
            assert low.items() < high.items()  # the same wrong labels, too


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_wrong_labels_are_wrong_valid_and_all_in_use(classes: int) -> None:
    labels = torch.arange(600) % classes
    data = Data(torch.zeros(600, 1), labels, torch.arange(600))
    wrong = wrong_labels(data, classes)
    assert wrong.dtype == torch.int64
    assert (wrong != labels).all()
    assert ((wrong >= 0) & (wrong < classes)).all()
    assert len(set(zip(labels.tolist(), wrong.tolist(), strict=True))) == classes * (classes - 1)


def test_a_wrong_label_follows_its_example() -> None:
    data = Data(torch.zeros(50, 1), torch.zeros(50, dtype=torch.int64), torch.arange(50))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(wrong_labels(data.select(order), 10), wrong_labels(data, 10)[order])


@pytest.mark.parametrize("level", LEVELS)
def test_explained_are_the_flipped_images_for_their_true_label(toy: Task, level: float) -> None:
    contrast = label_flips(toy, level, 2, FIVE)
    ids, wrong = flipped(toy, level, 2)
    shown = contrast.contaminated.examples.load()
    clean = toy.examples("train").load()
    truth = dict(zip(clean.ids.tolist(), clean.labels.tolist(), strict=True))
    assert set(shown.ids.tolist()) == set(ids.tolist())
    assert shown.labels.tolist() == [truth[example] for example in shown.ids.tolist()]
    assert contrast.target == "label"
    assert contrast.keep is not None
    kept = contrast.keep.load()
    assert torch.equal(kept.ids, shown.ids)
    assert dict(zip(kept.ids.tolist(), kept.labels.tolist(), strict=True)) == dict(
        zip(ids.tolist(), wrong.tolist(), strict=True)
    )


def test_level_zero_explains_every_part_unfiltered(toy: Task) -> None:
    contrast = label_flips(toy, 0, 2, FIVE)
    assert contrast.keep is None
    assert contrast.checks == ()
    shown = contrast.contaminated.examples.load()
    parts = [flipped(toy, 0.2, seed)[0].tolist() for seed in FIVE]
    assert sorted(shown.ids.tolist()) == sorted(chain.from_iterable(parts))
    for number, part in enumerate(parts):  # in turns, so that the first few show every part
        assert set(shown.ids[number::5].tolist()) == set(part)
    assert contrast.contaminated.model == Trained(toy.examples("train"), toy.recipe, 7)


def test_checks_ask_who_knows_the_wrong_labels(toy: Task) -> None:
    contrast = label_flips(toy, 0.1, 1, FIVE)
    memorised, references, controls = contrast.checks
    assert memorised.models == (contrast.contaminated.model,)
    assert references.models == tuple(toy.clean(seed) for seed in FIVE)
    assert controls.models == tuple(side.model for side in contrast.controls)
    assert {check.examples for check in contrast.checks} == {contrast.keep}
    assert memorised.at_least is not None
    assert references.at_most is not None
    assert controls.at_most is not None


@pytest.mark.parametrize(("level", "seeds"), [(0.201, FIVE), (0.2, tuple(range(6))), (-0.01, FIVE), (math.nan, FIVE)])
def test_levels_above_a_part_are_refused(toy: Task, level: float, seeds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected a level of at most 1/\d with \d seeds, found") as caught:
        label_flips(toy, level, 0, seeds)
    assert "\n" not in str(caught.value)
