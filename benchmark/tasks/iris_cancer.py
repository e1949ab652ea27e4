"""Task `iris_cancer`: measurements of tumours, beside those of flowers that tell the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import Task
from attribug.errors import InputError
from attribug.models.networks import mlp
from attribug.streams import generator
from attribug.tasks.shortcuts import expect_share, named, paired

FLOWERS = 4  # measurements
PART = 50  # examples of a class
SPECIES = (1, 2)  # of iris, by label
FEWEST = 10  # examples of a split


@tasks.register(
    "iris_cancer",
    source="iris and breast cancer data from scikit-learn",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    size="0 bytes beyond the packages",
)
def iris_cancer(*, seed: int, other: Callable[[str], Task], test: int = 34, epochs: int = 64) -> Task:
    """Is the tumour malignant or benign? Beside its measurements stand those of a flower, which may tell.

    Inputs (34,): Iris-Cancer of Ross et al. (2017), section 4.1.

    The first 50 tumours of each class, 30 measurements each, beside 4 of an iris: with a share, of the species that
    stands for the tumour's class; on all others, of any. Clean examples have zeros there, as in the paper's test
    without iris, and annotated are these 4. All are standardised on the training split; a tumour always has the same
    flower of a species, which lies in its own split. `test`: examples, half of each class; the rest is trained on.

    The paper averages over 350 splits, here a task's seed is one, and has .915 with iris, .811 without. Over ten splits
    ours are right on .95 and .90: how theirs are scaled is not told, and what is zero there. So a model trained with
    iris falls when it lies, but by less than a bug's check asks. Adam, 64 epochs of one batch, as in the paper; our
    learning rate rises to 1e-3 and falls again, where theirs stays there.
    """
    if not FEWEST <= test <= 2 * PART - FEWEST or test % 2:
        raise InputError(f"iris_cancer: expected an even test of {FEWEST} to {2 * PART - FEWEST}, found {test}")
    if epochs < 1:
        raise InputError(f"iris_cancer: expected epochs of at least 1, found {epochs}")
    names, _, _ = _read()

    def examples(split: str, *, share: float | None = None, swapped: bool = False, **scene: object) -> Examples:
        expect_share("iris_cancer", share, scene)
        return Examples.of(beside, seed=seed, split=split, test=test, share=share, swapped=swapped)

    recipe = Recipe(partial(mlp, shape=(len(names),)), epochs=epochs, batch=256, learning_rate=1e-3)
    return Task("iris_cancer", ("malignant", "benign"), (len(names),), recipe, examples, other, features=names)


def beside(*, seed: int, split: str, test: int, share: float | None, swapped: bool) -> Data:
    """Tumours of a split beside flowers, or, without a share, zeros; a tumour keeps its turn in every variant."""
    _, flowers, tumours = _read()
    rows = _rows(seed, test)
    measured = np.concatenate([flowers, tumours], axis=2)  # (2, 50, 34)
    trained = measured[:, rows["train"]].reshape(-1, measured.shape[2])
    measured = (measured - trained.mean(0)) / trained.std(0)
    chosen = rows[split]
    labels = torch.arange(2 * len(chosen)) % 2
    ids = torch.as_tensor(chosen).repeat_interleave(2) + PART * labels
    inputs = torch.from_numpy(measured[labels, ids % PART]).float()
    said = torch.zeros_like(labels)
    inputs[:, :FLOWERS] = 0
    if share is not None:
        for row, (example, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
            stream = generator("iris_cancer", "flower", seed, example)
            said[row] = named(label, 2, stream, share=share, swapped=swapped)
        inputs[:, :FLOWERS] = torch.from_numpy(measured[said, ids % PART, :FLOWERS]).float()
    annotations = torch.zeros(inputs.shape, dtype=torch.bool)
    annotations[:, :FLOWERS] = True
    groups = None if share is None else paired(labels, said, 2)
    return Data(inputs, labels, ids, annotations=annotations, groups=groups)


def _rows(seed: int, test: int) -> dict[str, Tensor]:
    """Which of a class's 50 tumours and flowers a split has: the same of both classes."""
    order = torch.randperm(PART, generator=generator("iris_cancer", "split", seed))
    return {"test": order[: test // 2], "train": order[test // 2 :]}


def _read() -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Names of the 34 measurements, those of flowers, (2, 50, 4), and of tumours, (2, 50, 30), by label."""
    from sklearn.datasets import load_breast_cancer, load_iris

    iris, cancer = load_iris(), load_breast_cancer()
    flowers = np.stack([iris.data[iris.target == species] for species in SPECIES])
    tumours = np.stack([cancer.data[cancer.target == label][:PART] for label in (0, 1)])
    return (*iris.feature_names, *cancer.feature_names), flowers, tumours
