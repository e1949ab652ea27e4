"""Stored artefacts: content-addressed, written atomically, verified when read; what is damaged counts as absent."""

from __future__ import annotations

import hashlib
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


def cache_folder() -> Path:
    """`$ATTRIBUG_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("ATTRIBUG_CACHE") or platformdirs.user_cache_dir("attribug", appauthor=False))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
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
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8") and None)


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
                expected = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        return tensors if _checksum(tensors) == expected else None

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Writes tensors atomically."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
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

    def __init__(self, cache: Path, given: Path | None = None) -> None:
        self.given = None if given is None else Tensors(given)
        self.cache = Tensors(cache / "models")

    def load_weights(self, key: str) -> dict[str, Tensor] | None:
        """The weights, or None when they are absent or damaged."""
        return (self.given or self.cache).load(key)

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        """Keeps weights in the cache."""
        if self.given is not None:
            raise InputError(f"--models {self.given.folder}: no model {key} there; leave --models out to train it")
        self.cache.save(key, weights)


class Records:
    """A run's records (Parquet, outcome in the file's metadata), galleries and figures of checks, by content key."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "records"
        self.galleries = Tensors(out / "galleries")

    def save(self, key: str, record: Record) -> None:
        """Writes a record; its gallery first, so that a record never lacks it."""
        import pyarrow as pa
        from pyarrow import parquet

        if record.gallery:
            self.galleries.save(key, record.gallery)
        facts = {name: getattr(record, name) for name in ("verdict", "reason", "scoring_seconds", "nonfinite")}
        facts |= {"cost": asdict(record.cost), "rows": len(record.scores), "gallery": bool(record.gallery)}
        table = pa.Table.from_pandas(record.scores, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"attribug": json.dumps(facts).encode()})
        write_atomically(
            self._path(key),
            lambda temporary: parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True),
        )

    def load(self, key: str) -> Record | None:
        """The record without its gallery, or None when it is absent or damaged."""
        import pyarrow as pa
        from pyarrow import parquet

        from attribug.query import Cost
        from attribug.scoring import Record

        try:
            table = parquet.read_table(self._path(key), page_checksum_verification=True)
            facts = json.loads(table.schema.metadata[b"attribug"])
            if facts.pop("rows") != table.num_rows:
                return None
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            return None
        gallery = facts.pop("gallery")
        record = Record(scores=table.to_pandas(), cost=Cost(**facts.pop("cost")), **facts)
        return record if not gallery or self.galleries.path(key).exists() else None

    def save_checks(self, key: str, figures: dict[str, float]) -> None:
        """Keeps the figures of a contrast's checks."""
        write_json(self.folder / f"{key}.json", {"figures": figures, "key": key})

    def load_checks(self, key: str) -> dict[str, float] | None:
        """The figures by check name, or None."""
        stored = read_json(self.folder / f"{key}.json")
        intact = isinstance(stored, dict) and stored.get("key") == key and isinstance(stored.get("figures"), dict)
        return stored["figures"] if intact else None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.parquet"
