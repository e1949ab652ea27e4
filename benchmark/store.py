"""Stored artefacts: content-addressed, written atomically, verified when read; what is damaged counts as absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from attribug.registry import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.scoring import Record

RESULTS, SCORES, COSTS, RUN = "results.csv", "scores.parquet", "costs.csv", "run.json"
ANALYSIS, FIGURES = "analysis", "figures"
"""Names of a run's files and folders."""
SEAL_BYTES = 32  # of a SHA-256


def cache_folder() -> Path:
    """`$ATTRIBUG_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("ATTRIBUG_CACHE") or platformdirs.user_cache_dir("attribug", appauthor=False))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, flushes it to disk and moves it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """The JSON in a file, or None when it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class Tensors:
    """Named tensors by key, safetensors files with a checksum in their header."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where an artefact lies."""
        return self.folder / f"{key}.safetensors"

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors, or None when they are absent or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                facts = file.metadata() or {}
        except (OSError, SafetensorError):
            return None
        return tensors if facts.get("key") == key and facts.get("sha256") == _checksum(tensors) else None

    def checksum(self, key: str) -> str:
        """What the file says the tensors' checksum is; an empty text when it is absent or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                return str((file.metadata() or {}).get("sha256", ""))
        except (OSError, SafetensorError):
            return ""

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Writes tensors atomically."""
        from safetensors.torch import save_file

        # clones, because weights that two modules share cannot be written as one
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        metadata = {"sha256": _checksum(tensors), "key": key}
        write_atomically(self.path(key), lambda temporary: save_file(tensors, temporary, metadata=metadata))


def _checksum(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(_bytes()).numpy().tobytes())
    return total.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8


class Models:
    """Trained weights: the cache's, or a folder of given ones, which is then the only source."""

    def __init__(self, cache: Path, given: Path | None = None, device: str = "cpu") -> None:
        self.given = None if given is None else Tensors(given)
        self.cache = Tensors(cache / ("models" if device == "cpu" else f"models-{device}"))  # trained there, not alike

    def path(self, key: str) -> Path:
        """Where a model's weights lie."""
        return (self.given or self.cache).path(key)

    def load_weights(self, key: str) -> dict[str, Tensor] | None:
        """The weights, or None when they are absent or damaged."""
        return (self.given or self.cache).load(key)

    def checksum(self, key: str) -> str:
        """Of a model's weights: tells whether two runs had the same ones."""
        return (self.given or self.cache).checksum(key)

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        """Keeps weights in the cache."""
        if self.given is not None:
            raise InputError(f"--models {self.given.folder}: no model {key} there; leave --models out to train it")
        self.cache.save(key, weights)

    def save_cost(self, key: str, cost: dict[str, float]) -> None:
        """Keeps what a training cost beside its weights."""
        write_json(self.cache.folder / f"{key}.json", cost)

    def load_cost(self, key: str) -> dict[str, float]:
        """What a training cost, whenever it was; empty where that is not known."""
        cost = read_json((self.given or self.cache).folder / f"{key}.json")
        return cost if isinstance(cost, dict) else {}


class Records:
    """A run's records (a checksum, then Parquet with the outcome in its metadata), galleries and figures of checks, by
    content key."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "records"
        self.galleries = Tensors(out / "galleries")

    def save(self, key: str, record: Record) -> None:
        """Writes a record; its gallery first, so that a record never lacks it."""
        import pyarrow as pa
        from pyarrow import parquet

        if record.gallery:
            self.galleries.save(key, record.gallery)
        kept = ("verdict", "reason", "scoring_seconds", "peak_megabytes", "rows", "lost")
        facts = {name: getattr(record, name) for name in kept}
        facts |= {"cost": asdict(record.cost), "census": asdict(record.census), "gallery": bool(record.gallery)}
        table = pa.Table.from_pandas(record.scores, preserve_index=False)
        table = table.replace_schema_metadata({
            **(table.schema.metadata or {}),
            b"attribug": json.dumps(facts).encode(),
        })
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd")
        sealed = _seal(key, buffer.getvalue()) + buffer.getvalue()
        write_atomically(self._path(key), lambda temporary: temporary.write_bytes(sealed))

    def load(self, key: str) -> Record | None:
        """The record without its gallery, or None when it is absent or damaged."""
        import pyarrow as pa
        from pyarrow import parquet

        from attribug.attribution import Census
        from attribug.query import Cost
        from attribug.scoring import Record

        try:
            stored = self._path(key).read_bytes()
        except OSError:
            return None
        seal, content = stored[:SEAL_BYTES], stored[SEAL_BYTES:]
        if seal != _seal(key, content):  # before Parquet reads it: few damages make it raise
            return None
        table = parquet.read_table(pa.BufferReader(content))
        facts = json.loads(table.schema.metadata[b"attribug"])
        gallery = facts.pop("gallery")
        lost = {name: (verdict, reason) for name, (verdict, reason) in facts.pop("lost").items()}
        cost, census = Cost(**facts.pop("cost")), Census(**facts.pop("census"))
        record = Record(scores=table.to_pandas(), cost=cost, census=census, lost=lost, **facts)
        return record if not gallery or self.galleries.load(key) is not None else None

    def save_checks(self, key: str, figures: dict[str, float]) -> None:
        """Keeps the figures of a contrast's checks."""
        write_json(self.folder / f"{key}.json", {"figures": figures, "sha256": _seal_figures(key, figures)})

    def load_checks(self, key: str) -> dict[str, float] | None:
        """The figures by check name, or None."""
        stored = read_json(self.folder / f"{key}.json")
        figures = stored.get("figures") if isinstance(stored, dict) else None
        intact = isinstance(figures, dict) and stored.get("sha256") == _seal_figures(key, figures)
        return figures if intact else None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.record"


def _seal(key: str, content: bytes) -> bytes:
    """Checksum of an artefact's key and bytes."""
    return hashlib.sha256(key.encode() + content).digest()


def _seal_figures(key: str, figures: dict[str, float]) -> str:
    return _seal(key, json.dumps(figures, sort_keys=True).encode()).hex()
