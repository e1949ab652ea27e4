"""textures: crops of three photographs, test crops from a part that training never shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from attribug import tasks
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported
from attribug.tasks import textures as module
from attribug.tasks.surfaces import KINDS, photograph


def textures(**options: Any) -> Task:
    return tasks.get("textures").function(seed=0, other=None, **{"train": 300, "test": 300, **options})


def columns(monkeypatch: pytest.MonkeyPatch, split: str) -> Iterator[tuple[int, int]]:
    """The photograph's columns that each crop of a split shows."""
    cut: list[tuple[int, int]] = []

    def recorded(kind: str, top: int, left: int, pixels: int) -> np.ndarray:
        square = photograph(kind)[top : top + pixels, left : left + pixels]
        assert square.shape == (pixels, pixels)
        cut.append((left, left + pixels))
        return square

    with monkeypatch.context() as patch:
        patch.setattr(module, "crop", recorded)
        textures().examples(split).load()
    assert len(cut) == 300
    return iter(cut)


def test_crops_of_training_and_test_never_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    rightmost = max(end for _, end in columns(monkeypatch, "train"))
    leftmost = min(start for start, _ in columns(monkeypatch, "test"))
    assert rightmost <= leftmost
    assert max(end for _, end in columns(monkeypatch, "test")) <= 512


def test_classes_come_in_turns_and_are_grey() -> None:
    data = textures(train=30).examples("train").load()
    assert data.labels.tolist() == [0, 1, 2] * 10
    assert torch.equal(data.inputs, data.inputs[:, :1].expand(-1, 3, -1, -1))
    assert tuple(KINDS) == textures().classes


def test_ids_never_meet_those_of_digits() -> None:
    ids = [textures().examples(split).load().ids for split in ("train", "test")]
    assert min(index.min() for index in ids) >= 5000


@pytest.mark.parametrize("scene", [{"share": 1.0}, {"swapped": True}, {"foreground": False}])
def test_backgrounds_are_refused(scene: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="no background"):
        textures().examples("test", **scene)
