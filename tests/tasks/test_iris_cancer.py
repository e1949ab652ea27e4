"""iris_cancer: rows rebuilt from scikit-learn's tables one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.preprocessing import StandardScaler

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError


def iris_cancer(seed: int = 0, **options: Any) -> Task:
    return tasks.get("iris_cancer").function(seed=seed, other=None, **options)


def tables() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Flowers and tumours by label."""
    iris, cancer = load_iris(), load_breast_cancer()
    flowers = [iris.data[iris.target == 1], iris.data[iris.target == 2]]
    return flowers, [cancer.data[cancer.target == label][:50] for label in (0, 1)]


def rebuilt(data: Data, train: Data) -> np.ndarray:
    """Which species lies beside each tumour; everything else is what scikit-learn has, standardised."""
    flowers, tumours = tables()
    rows = [np.concatenate([flowers[number // 50][number % 50], tumours[number // 50][number % 50]]) for number in
            train.ids.tolist()]  # fmt: skip
    scaler = StandardScaler().fit(rows)
    found = []
    for number, label, inputs in zip(data.ids.tolist(), data.labels.tolist(), data.inputs.numpy(), strict=True):
        assert number // 50 == label
        candidates = [
            scaler.transform([np.concatenate([flowers[species][number % 50], tumours[label][number % 50]])])[0]
            for species in (0, 1)
        ]
        assert np.allclose(inputs[4:], candidates[0][4:], atol=1e-5)
        (species,) = [each for each in (0, 1) if np.allclose(inputs[:4], candidates[each][:4], atol=1e-5)]
        found.append(species)
    return np.array(found)


@pytest.mark.parametrize("split", ["train", "test"])
def test_flowers_tell_the_class_as_often_as_is_said(split: str) -> None:
    task, right = iris_cancer(), {}
    train = task.examples("train").load()
    for share in (0.0, 0.5, 1.0):
        data = task.examples(split, share=share).load()
        species = rebuilt(data, train)
        assert torch.equal(data.groups, 2 * data.labels + torch.from_numpy(species))
        right[share] = set(np.flatnonzero(species == data.labels.numpy()))
    assert right[0.0] < right[0.5] < right[1.0]
    assert len(right[1.0]) == {"train": 66, "test": 34}[split]
    lying = task.examples(split, share=1.0, swapped=True).load()
    assert (rebuilt(lying, train) != lying.labels.numpy()).all()


def test_clean_tumours_have_no_flower() -> None:
    task = iris_cancer()
    clean, told = task.examples("test").load(), task.examples("test", share=1.0).load()
    assert not clean.inputs[:, :4].any()
    assert torch.equal(clean.inputs[:, 4:], told.inputs[:, 4:])
    for data in (clean, told):
        assert data.annotations is not None
        assert torch.equal(data.annotations, (torch.arange(34) < 4).expand(34, 34))
    assert clean.groups is None
    assert task.features[:4] == tuple(load_iris().feature_names)


@pytest.mark.parametrize("swapped", [False, True])
def test_no_tumour_and_no_flower_is_in_two_splits(swapped: bool) -> None:
    task = iris_cancer(test=40)
    parts = [task.examples(split, share=1.0, swapped=swapped).load() for split in ("train", "test")]
    assert [len(data) for data in parts] == [60, 40]
    for columns in (slice(0, 4), slice(4, 34)):
        one, other = ({tuple(row) for row in data.inputs[:, columns].tolist()} for data in parts)
        both = one & other
        assert len(both) <= (3 if columns.stop == 4 else 0), both  # some flowers measure the same
    assert iris_cancer(1).examples("test").load().ids.tolist() != iris_cancer(0).examples("test").load().ids.tolist()


@pytest.mark.parametrize("test", [9, 35, 92])
def test_wrong_sizes_are_refused(test: int) -> None:
    with pytest.raises(InputError, match=f"expected an even test of 10 to 90, found {test}"):
        iris_cancer(test=test)
