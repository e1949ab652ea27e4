"""Task `cifar100`: which of a hundred kinds a small photograph shows, from CIFAR-100."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from attribug import data_sources, tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task
from attribug.data_places import data_folder
from attribug.errors import InputError, Unsupported, one_line
from attribug.models.networks import plain_cnn
from attribug.streams import generator

CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
)  # fmt: skip
SIDE = 32
MOST, HELD_OUT = 49_000, 9_900
"""Photographs to train on and held out: somewhat fewer than are published, as those that are there twice count once."""
FEWEST = (20, 10)  # training and test examples
WIDTHS = (32, 64, 128)


def missing() -> str:
    """Empty where the data are there, else a line that says how they come to be."""
    return data_sources.missing("cifar100")


@tasks.register(
    "cifar100",
    source="CIFAR-100 as torchvision stores it: $ATTRIBUG_DATA/cifar-100-python",
    licence="none stated; its makers ask to be cited",
    size="169 MB",
    missing=missing,
    paper="Krizhevsky 2009 (Learning Multiple Layers of Features from Tiny Images)",
)
def cifar100(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 10_000,
    test: int = 1000,
    validation: int = 1000,
    epochs: int = 15,
) -> Task:
    """Which of a hundred classes does the small photograph of CIFAR-100 show? There are no masks.

    Inputs (3, 32, 32) in [0, 1]; classes are the fine ones.

    Training examples are among the published ones to train on, test examples among those to test. The network has three
    stages of convolutions and a dense layer after the average of its last maps; size and epochs are our choice, and
    were not tried on the data themselves.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    _expect_sizes(sizes, epochs)
    if absent := missing():
        raise InputError(f"cifar100: data are missing: {absent}")

    def examples(split: str, **scene: object) -> Examples:
        if scene:
            raise Unsupported("task cifar100 has no background apart from its subject")
        return Examples.of(compose, seed=seed, split=split, size=sizes[split])

    shape = (3, SIDE, SIDE)
    network = partial(plain_cnn, shape=shape, classes=len(CLASSES), widths=WIDTHS, pooled=True)
    recipe = Recipe(network, epochs=epochs, batch=64, learning_rate=3e-3)
    splits = tuple(split for split, size in sizes.items() if size)
    return Task("cifar100", CLASSES, shape, recipe, examples, other, splits=splits)


def compose(*, seed: int, split: str, size: int) -> Data:
    """Photographs of a split in an order that the seed draws; the last of those held out are for validation. Raises
    `InputError` where there are fewer, and where the files are not those that were published."""
    images, labels, _ = read(str(data_folder()))
    pool = _pools(str(data_folder()), seed)["train" if split == "train" else "test"]
    if size > len(pool):
        raise InputError(f"cifar100: expected {size} photographs for {split}, found {len(pool)}")
    ids = (pool[-size:] if split == VALIDATION else pool[:size]).copy()  # the pool itself is remembered
    inputs = torch.from_numpy(images[ids]).permute(0, 3, 1, 2).float().contiguous() / 255  # (N, 3, 32, 32)
    return Data(inputs, torch.from_numpy(labels[ids]), torch.from_numpy(ids))


@functools.lru_cache(maxsize=1)
def read(root: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Photographs (N, 32, 32, 3), labels (N,), and how many of them, the first ones, are there to train on.

    torchvision compares each file's checksum with the published one before it reads it. Raises `InputError` where that
    fails, or where labels mean something else than `CLASSES`.
    """
    from torchvision.datasets import CIFAR100

    try:
        parts = [CIFAR100(root, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise InputError(f"cifar100: expected the published files in {root}, found: {one_line(error)}") from error
    if tuple(parts[0].classes) != CLASSES:
        raise InputError(f"cifar100: expected the published names of {len(CLASSES)} classes, found others")
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return np.concatenate([part.data for part in parts]), labels, len(parts[0])


@functools.lru_cache(maxsize=3)
def _pools(root: str, seed: int) -> dict[str, NDArray[np.int64]]:
    """Numbers of photographs to train on and of those held out; one that is there twice is taken once."""
    images, _, training = read(root)
    first: dict[bytes, int] = {}
    for number, image in enumerate(images):
        first.setdefault(hashlib.sha256(image.tobytes()).digest(), number)
    known = np.fromiter(first.values(), dtype=np.int64)
    stream = generator("cifar100", "split", seed)
    parts = {"train": known[known < training], "test": known[known >= training]}
    return {part: each[torch.randperm(len(each), generator=stream).numpy()] for part, each in parts.items()}


def _expect_sizes(sizes: Mapping[str, int], epochs: int) -> None:
    train, test, validation = (sizes[split] for split in ("train", "test", VALIDATION))
    few, fewest = FEWEST
    if not few <= train <= MOST or not fewest <= test <= HELD_OUT:
        raise InputError(
            f"cifar100: expected {few} ≤ train ≤ {MOST} and {fewest} ≤ test ≤ {HELD_OUT}, found {train}, {test}"
        )
    if not 0 <= validation <= HELD_OUT - test:
        raise InputError(f"cifar100: expected validation of 0 to {HELD_OUT} − test, found {validation}")
    if epochs < 1:
        raise InputError(f"cifar100: expected epochs of at least 1, found {epochs}")
