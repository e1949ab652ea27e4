"""Folds: a training set cut into parts, each of which one model does without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attribug.contracts.data import Examples
from attribug.errors import InputError
from attribug.streams import generator

if TYPE_CHECKING:
    from attribug.contracts.data import Data


def order(count: int, seed: int) -> Tensor:
    """The seeded permutation that deals `count` examples out to folds, (count,) int64."""
    return torch.randperm(count, generator=generator("folds", seed))


def folds_of(count: int, folds: int, seed: int) -> Tensor:
    """The fold of each of `count` examples, (count,) int64 in [0, folds); sizes differ by one at most.

    Raises `InputError` for fewer than two folds, or fewer examples than folds.
    """
    if not 2 <= folds <= count:
        raise InputError(f"folds: expected 2 to {count}, the number of training examples, found {folds}")
    fold = torch.empty(count, dtype=torch.int64)
    fold[order(count, seed)] = torch.arange(count) % folds
    return fold


def without(examples: Examples, *, fold: int, folds: int, seed: int) -> Examples:
    """All examples but those of one fold."""
    return Examples.of(_without, examples=examples, fold=fold, folds=folds, seed=seed)


def _without(*, examples: Examples, fold: int, folds: int, seed: int) -> Data:
    data = examples.load()
    return data.select((folds_of(len(data), folds, seed) != fold).nonzero()[:, 0])
