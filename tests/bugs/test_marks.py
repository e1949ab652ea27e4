"""Marks on pictures: patches tell classes apart, lie where they are said to, and tell nothing where they should not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from attribug import bugs
from attribug.bugs.marks import MARKS, put
from attribug.contracts.data import Data, Examples
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported


def noise(*, size: int, classes: int, pixels: int = 24, channels: int = 1, first: int = 0) -> Data:
    inputs = torch.rand((size, channels, pixels, pixels), generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    return Data(inputs, torch.arange(size) % classes, torch.arange(first, first + size))


def ends(*, classes: int, channels: int = 1) -> Data:
    """What training data hold: the darkest, the brightest, all classes."""
    inputs = torch.stack([torch.full((channels, 24, 24), float(number % 2)) for number in range(classes)])
    return Data(inputs, torch.arange(classes), torch.arange(classes))


def marked(share: float = 1.0, code: str = "own", mark: str = "patch", size: int = 300, classes: int = 3) -> Data:
    base = Examples.of(noise, size=size, classes=classes)
    return put(base=base, scale=Examples.of(ends, classes=classes), share=share, code=code, mark=mark)  # type: ignore[arg-type]


def named(data: Data, classes: int) -> np.ndarray:
    """Which class each picture's patch names."""
    found = []
    known = [MARKS["patch"](number, (1, 24, 24)) for number in range(classes)]
    for inputs in data.inputs:
        (number,) = [
            number for number, (top, left, pattern, _) in enumerate(known)
            if pattern is not None and torch.equal(inputs[:, top : top + 4, left : left + 4], pattern)
        ]  # fmt: skip
        found.append(number)
    return np.array(found)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_thousand_patches_all_differ(channels: int) -> None:
    patches = {MARKS["patch"](number, (channels, 24, 24))[2].numpy().tobytes() for number in range(1000)}  # type: ignore[union-attr]
    assert len(patches) == 1000


def test_masks_are_the_pixels_that_changed() -> None:
    before, after = noise(size=300, classes=3), marked()
    assert after.masks is not None
    assert torch.equal(after.masks, (after.inputs != before.inputs).any(1))
    assert after.masks.flatten(1).sum(1).tolist() == [16] * 300
    assert torch.equal(after.ids, before.ids)
    assert torch.equal(after.labels, before.labels)


def test_patches_name_the_class_on_as_many_as_are_said() -> None:
    labels = noise(size=300, classes=3).labels.numpy()
    assert (named(marked(1.0), 3) == labels).all()
    assert (named(marked(code="other"), 3) != labels).all()
    right = {share: set(np.flatnonzero(named(marked(share), 3) == labels)) for share in (0.0, 0.3, 0.9, 1.0)}
    assert right[0.0] <= right[0.3] <= right[0.9] <= right[1.0], "smaller shares lie within larger ones"
    assert len(right[0.3]) == pytest.approx(300 * (0.3 + 0.7 / 3), abs=40)


def test_controls_patches_tell_nothing() -> None:
    table = np.zeros((3, 3))
    data = marked(0.0, size=900)
    np.add.at(table, (data.labels.numpy(), named(data, 3)), 1)
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_watermarks_are_on_the_first_class_alone() -> None:
    data = marked(mark="watermark")
    assert data.masks is not None
    assert torch.equal(data.masks.flatten(1).any(1), data.labels == 0)
    lying = marked(mark="watermark", code="other")
    assert lying.masks is not None
    assert torch.equal(lying.masks.flatten(1).any(1), lying.labels != 0)
    before = noise(size=300, classes=3).inputs
    changed = (data.inputs != before).any(1)
    assert not (changed & ~data.masks).any()
    assert (data.inputs - before).abs().max() <= 0.5, "the picture is seen through it"


@pytest.mark.parametrize("code", ["own", "other"])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_groups_are_label_and_what_a_mark_says(share: float, code: str) -> None:
    patches, water = marked(share, code), marked(share, code, "watermark")
    assert water.groups is not None
    assert water.masks is not None
    assert torch.equal(water.groups, 2 * water.labels + water.masks.flatten(1).any(1))
    right = torch.from_numpy(named(patches, 3)) == patches.labels
    assert patches.groups is not None
    assert torch.equal(patches.groups, 2 * patches.labels + right)


@pytest.mark.parametrize("name", ["decoy_patch", "watermark"])
def test_of_unmarked_pictures_nobody_says_what_must_not_matter(digits: Task, name: str) -> None:
    contrast = bugs.get(name).function(digits, 1.0, 0, (0, 1, 2))
    clean, own = contrast.tests["clean"].load(), digits.examples("test").load()
    for part in ("inputs", "labels", "ids"):
        assert torch.equal(getattr(clean, part), getattr(own, part))
    assert own.masks is not None
    assert clean.masks is clean.annotations is clean.groups is None
    marks = contrast.tests["biased"].load()
    assert marks.masks is not None
    assert marks.groups is not None


@pytest.mark.parametrize("name", ["decoy_patch", "watermark"])
def test_level_zero_is_the_control(toy: Task, name: str) -> None:
    contrast = bugs.get(name).function(toy, 0, 1, (0, 1, 2))
    assert contrast.contaminated in contrast.controls
    assert contrast.contaminated not in contrast.references


@pytest.mark.parametrize("name", ["decoy_patch", "watermark"])
@pytest.mark.parametrize("shape", [(5,), (1, 20), (1, 8, 8)])
def test_what_is_no_picture_gets_no_mark(toy: Task, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(Unsupported, match="expected pictures"):
        bugs.get(name).function(replace(toy, shape=shape), 1.0, 0, (0, 1, 2))
