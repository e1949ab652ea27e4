"""Trained weights: the cache's, or a folder of given ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from attribug.errors import InputError
from attribug.storage.files import make_folder, note_use, read_json, storing, write_json
from attribug.storage.folders import LOCK
from attribug.storage.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

SECONDS_TO_WRITE = 3600.0  # whatever is half-written for longer has lost its writer


class Models:
    """Trained weights: the cache's, or a folder of given ones, which is then the only source."""

    def __init__(self, cache: Path, given: Path | None = None, device: str = "cpu", *, mine: bool = True) -> None:
        self.given = None if given is None else Tensors(given, mine=False)
        folder = cache / ("models" if device == "cpu" else f"models-{device}")  # trained there, not alike
        self.cache = Tensors(folder, mine=mine)

    @property
    def source(self) -> Tensors:
        """Where weights are read."""
        return self.given or self.cache

    @property
    def found_damaged(self) -> list[str]:
        """Files that were set aside, as folder and name."""
        return self.source.damaged.names

    def path(self, key: str) -> Path:
        """Where a model's weights lie."""
        return self.source.path(key)

    def load_weights(self, key: str) -> dict[str, Tensor] | None:
        """The weights, or None when they are absent or damaged."""
        weights = self.source.load(key)
        if weights is not None and self.given is None and self.cache.damaged.mine:
            note_use(self.path(key))
        return weights

    def checksum(self, key: str) -> str:
        """Of a model's weights: tells whether two runs had the same ones."""
        return self.source.checksum(key)

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        """Keeps weights in the cache."""
        if self.given is not None:
            raise InputError(f"--models {self.given.folder}: no model {key} there; leave --models out to train it")
        self.cache.save(key, weights)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """A lock on a model of the cache: the first who holds it trains. It dies with its holder. Removes what somebody
        who was killed left half-written."""
        folder = self.cache.folder
        make_folder(folder)
        place = folder / f".{key}{LOCK}"
        with storing(place):
            held = FileLock(place).acquire()
        with held:
            for path in (*folder.glob(f".{key}.safetensors.*"), *folder.glob(f".{key}.json.*")):
                with contextlib.suppress(OSError):  # it is in nobody's way
                    if time.time() - path.stat().st_mtime >= SECONDS_TO_WRITE:
                        path.unlink()
            yield

    def save_cost(self, key: str, cost: Mapping[str, float | str]) -> None:
        """Keeps what a training cost, and what it was for, beside its weights."""
        make_folder(self.cache.folder)
        write_json(self.cache.folder / f"{key}.json", dict(cost))

    def load_cost(self, key: str) -> dict[str, Any]:
        """What a training cost, whenever it was; empty where that is not known."""
        cost = read_json(self.source.folder / f"{key}.json")
        return cost if isinstance(cost, dict) else {}
