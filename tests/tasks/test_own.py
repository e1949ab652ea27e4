"""The task of a model that somebody brings: its halves, its scenes, what it declines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attribug.bugs.spurious_background import spurious_background
from attribug.contracts.data import Data, Examples
from attribug.errors import Unsupported
from attribug.models import brought
from attribug.models.preprocessing import raw
from attribug.running.bringing import asked_for
from attribug.tasks.own import half, on_scenes, own, scene
from attribug.tasks.surfaces import KINDS, photograph
from doubles import mine

SEED = 17
MEAN, STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)


def other(name: str) -> Any:
    raise AssertionError(name)


def brought_as(**changes: Any) -> brought.Brought:
    """What the task finds under this seed, with changes."""
    found = replace(mine.register(SEED), **changes)
    brought.register(brought.key(asked_for({}), SEED), found)
    return found


def on(**changes: Any) -> Data:
    given: dict[str, Any] = {"seed": 0, "kinds": (0, 1, 2), "mean": MEAN, "std": STD}
    variant = {"share": 1.0, "swapped": False, "foreground": True} | changes
    return on_scenes(base=Examples.of(mine.bars, size=60, channels=3), **given, **variant)


def test_halves_share_nothing_and_hold_every_class() -> None:
    whole = Examples.of(mine.bars, size=31)
    train, test = (half(base=whole, split=split) for split in ("train", "test"))
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(31))
    for part in (train, test):
        assert sorted(set(part.labels.tolist())) == [0, 1, 2]
    assert abs(len(train) - len(test)) <= 3


def test_objects_stay_and_everything_else_is_scenery() -> None:
    before, after = mine.bars(size=60, channels=3), on()
    assert before.masks is not None
    inside = before.masks[:, None].expand_as(before.inputs)
    assert torch.equal(after.inputs[inside], before.inputs[inside])
    empty = on(foreground=False)
    assert empty.masks is None
    assert torch.equal(after.inputs[~inside], empty.inputs[~inside])
    seen = raw(empty.inputs, MEAN, STD)
    assert float(seen.min()) > -1e-5
    assert float(seen.max()) < 1 + 1e-5


def hues(data: Data) -> torch.Tensor:
    """Mean colour of each picture, brightness aside, (N, 3)."""
    means = raw(data.inputs, MEAN, STD).mean((2, 3))
    return means / means.sum(1, keepdim=True)


def test_scenes_name_the_class_or_another_or_none() -> None:
    own_scene, swapped, free = (hues(on(foreground=False, **each)) for each in ({}, {"swapped": True}, {"share": 0.0}))
    labels = mine.bars(size=60, channels=3).labels
    centres = torch.stack([own_scene[labels == label].mean(0) for label in range(3)])

    def named(each: torch.Tensor) -> torch.Tensor:
        return torch.cdist(each, centres).argmin(1)

    assert torch.equal(named(own_scene), labels)
    assert not (named(swapped) == labels).any()
    assert 5 < int((named(free) == labels).sum()) < 35  # a third of 60, within four deviations
    partly = named(hues(on(foreground=False, share=0.5)))
    more = named(hues(on(foreground=False, share=0.8)))
    changed = (partly == labels) & (more != labels)
    assert not changed.any(), "those of a smaller share are among those of a larger one"


@pytest.mark.parametrize("channels", [1, 3])
def test_scenes_fill_the_picture(channels: int) -> None:
    for number in range(2 * len(KINDS)):
        shown = scene(number, (channels, 20, 30), torch.Generator().manual_seed(number))
        assert shown.shape == (channels, 20, 30)
    with pytest.raises(Unsupported, match=f"at most {photograph(KINDS[0]).shape[0]} pixels a side, found 600"):
        scene(0, (3, 600, 20), torch.Generator())


def test_a_spurious_background_befalls_objects_with_masks() -> None:
    brought_as()
    task = own(seed=SEED, other=other)
    contrast = spurious_background(task, 1.0, 0, (0, 1, 2))
    clean = contrast.controls[0].model
    assert clean.examples != contrast.contaminated.model.examples  # type: ignore[union-attr]
    assert {clean.start, contrast.contaminated.model.start} == {task.start}  # type: ignore[union-attr]
    ids = contrast.contaminated.examples.load().ids
    assert all(torch.equal(examples.load().ids, ids) for examples in contrast.extra.values())
    assert not set(ids.tolist()) & set(clean.examples.load().ids.tolist())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(None, "nobody says the labels"), ([0] * 60, "one label"), ([*range(59), 58], "has 1 example")],
    ids=["no labels", "one label", "one example"],
)
def test_what_cannot_be_trained_declines(labels: list[int] | None, reason: str) -> None:
    if labels is None:
        brought_as(untaught="nobody says the labels", taught=None)
    else:
        brought_as(taught=brought.examples(replace(mine.bars(), labels=torch.tensor(labels))))
    task = own(seed=SEED, other=other)
    with pytest.raises(Unsupported, match=reason):
        task.clean(0)


def test_without_masks_or_scale_there_are_no_scenes() -> None:
    found = brought_as()
    bare = brought.examples(replace(found.examples.load(), masks=None))
    brought_as(examples=bare)
    with pytest.raises(Unsupported, match="--masks"):
        own(seed=SEED, other=other).examples("train", share=1.0)
    brought_as(given=replace(found.given, mean=None, std=None))
    with pytest.raises(Unsupported, match="mean and std"):
        own(seed=SEED, other=other).examples("train", share=1.0)


def partly_marked(*rows: int) -> brought.Brought:
    """What the task finds where these rows have no object."""
    data = mine.register(SEED).examples.load()
    assert data.masks is not None
    masks = data.masks.clone()
    masks[list(rows)] = False
    whole = brought.examples(replace(data, masks=masks))
    return brought_as(examples=whole, taught=whole)


def test_examples_without_an_object_stay_out_of_scenes() -> None:
    partly_marked(1, 4, 5)
    task = own(seed=SEED, other=other)
    for split in ("train", "test"):
        plain, scenes = task.examples(split).load(), task.examples(split, share=1.0).load()
        assert scenes.masks is not None
        assert scenes.masks.flatten(1).any(1).all()
        assert scenes.ids.tolist() == [row for row in plain.ids.tolist() if row not in {1, 4, 5}]
    assert len(plain) == 30
    contrast = spurious_background(task, 1.0, 0, (0, 1))
    ids = contrast.contaminated.examples.load().ids
    assert all(torch.equal(examples.load().ids, ids) for examples in contrast.extra.values())


def test_classes_without_objects_have_no_scenes() -> None:
    labels = mine.bars(SEED).labels
    partly_marked(*(labels == 2).nonzero().flatten().tolist())
    scenes = own(seed=SEED, other=other).examples("train", share=0.0).load()
    assert set(scenes.labels.tolist()) == {0, 1}
    partly_marked(*(labels > 0).nonzero().flatten().tolist())
    reason = r"expected objects of 2 classes or more, .*: masks show objects of 1 in each"
    with pytest.raises(Unsupported, match=reason):
        own(seed=SEED, other=other).examples("train", share=0.0)
