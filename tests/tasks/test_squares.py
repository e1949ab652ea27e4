"""squares: groups counted from the pixels are exactly those of the paper, and lie within each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError


def squares(seed: int = 0, **options: Any) -> Task:
    return tasks.get("squares").function(seed=seed, other=None, **{"train": 800, "test": 200, **options})


def seen(data: Data) -> list[tuple[int, int]]:
    """Whether square and background are bright, told from the pixels."""
    assert data.masks is not None
    found = []
    for image, mask in zip(data.inputs[:, 0], data.masks, strict=True):
        found.append((int(image[mask].mean() > 0.525), int(image[~mask].mean() > 0.525)))
    return found


@pytest.mark.parametrize(("options", "counts"), [
    ({}, {(0, 0): 392, (0, 1): 8, (1, 0): 8, (1, 1): 392}),
    ({"groups": "asymmetric"}, {(0, 0): 200, (0, 1): 200, (1, 0): 8, (1, 1): 392}),
])  # fmt: skip
def test_groups_are_the_papers_to_the_image(options: dict[str, str], counts: dict[tuple[int, int], int]) -> None:
    task = squares(**options)
    data = task.examples("train", share=0.96).load()
    found = seen(data)
    assert Counter(found) == counts
    assert [label for label, _ in found] == data.labels.tolist()
    assert data.groups is not None
    assert data.groups.tolist() == [2 * label + told for label, told in found]
    balanced = squares(**options).examples("test", share=0.0).load()
    assert set(Counter(seen(balanced)).values()) == {50}
    validation = Counter(seen(task.examples("validation", share=0.96).load()))
    assert validation[1, 0] == 2


def test_backgrounds_lie_where_they_are_swapped() -> None:
    for groups in ("symmetric", "asymmetric"):
        data = squares(groups=groups).examples("test", share=1.0, swapped=True).load()
        assert all(label != told for label, told in seen(data))


@pytest.mark.parametrize("pixels", [32, 64])
def test_squares_stay_in_every_variant(pixels: int) -> None:
    task = squares(pixels=pixels)
    clean = task.examples("test").load()
    assert clean.masks is not None
    assert clean.masks.flatten(1).sum(1).tolist() == [(pixels // 4) ** 2] * 200
    right: dict[float, set[int]] = {}
    for share in (0.0, 0.5, 1.0):
        data = task.examples("test", share=share).load()
        assert torch.equal(data.inputs[data.masks[:, None]], clean.inputs[clean.masks[:, None]])
        assert torch.equal(data.annotations, ~data.masks[:, None])
        assert torch.equal(data.ids, clean.ids)
        right[share] = {row for row, (label, told) in enumerate(seen(data)) if label == told}
    assert right[0.5] <= right[1.0]
    assert [len(each) for each in right.values()] == [100, 150, 200]


@pytest.mark.parametrize(("options", "told"), [
    ({"pixels": 48}, "expected pixels of 32 or 64, found 48"), ({"groups": "symetric"}, "did you mean 'symmetric'"),
    ({"validation": -1}, "found 800, 200, -1"), ({"width": 0}, "at least 1, found 20, 0"),
])  # fmt: skip
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        squares(**options)
