"""Stored artefacts: content-addressed, written atomically, verified when read; what is damaged counts as absent."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock, Timeout

from attribug.registry import InputError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.scoring import Record

RESULTS, SCORES, COSTS, RUN = "results.csv", "scores.parquet", "costs.csv", "run.json"
ANALYSIS, FIGURES, REPORT = "analysis", "figures", "report.html"
"""Names of a run's files and folders."""
TABLES = (RESULTS, SCORES, COSTS, REPORT, RUN)
"""Files that lie in a run's folder itself."""
CONTENT = ("records", "galleries", "maps")
"""Folders of a run whose files are named by what determines them."""
CACHE = "ATTRIBUG_CACHE"
LOCK, DAMAGED = ".lock", "damaged"
COPIES, COPY_CHARACTERS, UNSENT = "copies", 16, ".unsent"
SEAL_BYTES = 32  # of a SHA-256
SECONDS_TO_WRITE = 3600.0  # whatever is half-written for longer has lost its writer


def cache_folder() -> Path:
    """`$ATTRIBUG_CACHE`, else the user's cache folder; where the former is a URL, the copy of what lies there."""
    given = os.environ.get(CACHE)
    if given and is_url(given):
        return copy_folder(given)
    return Path(given) if given else _user_cache()


def is_url(place: str | Path) -> bool:
    """Whether a place is the URL of a remote one; a `Path` never is."""
    return isinstance(place, str) and "://" in place


def copies_folder() -> Path:
    """Where copies of remote places lie: in the cache, or the user's cache folder where that is remote itself."""
    given = os.environ.get(CACHE)
    return (Path(given) if given and not is_url(given) else _user_cache()) / COPIES


def copy_folder(url: str) -> Path:
    """The folder that a URL's copy lies in."""
    return copies_folder() / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:COPY_CHARACTERS]


def _user_cache() -> Path:
    return Path(platformdirs.user_cache_dir("attribug", appauthor=False))


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Whatever the system refuses inside is told as a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        found = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(path, found) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, flushes it to disk and moves it into place.

    The folder must be there: one that vanished in the middle of a run must not come back with half of its files. Raises
    `StorageError` where the system refuses.
    """
    with storing(path):
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
            with contextlib.suppress(OSError):  # what made the writing fail is the reason to tell
                temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes the last level of a folder's path; raises `StorageError` where the system refuses, or the rest is gone."""
    with storing(folder):
        folder.mkdir(exist_ok=True)


def note_use(path: Path) -> None:
    """Sets a file's time to now: what was used least recently goes first when the cache is pruned."""
    with contextlib.suppress(OSError):  # a cache that can only be read is never pruned
        os.utime(path)


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


@contextlib.contextmanager
def claimed(folder: Path, option: str = "--out ", seconds: float = 0) -> Iterator[None]:
    """Locks a run's folder, within seconds and until the context is left; the lock dies with its holder. Removes what a
    killed run left half-written.

    Raises:
        InputError: another run holds it.
    """
    lock = FileLock(folder / LOCK)
    with storing(folder / LOCK):
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            said = f"{option}{folder}: another run is writing there; wait for it, or choose another"
            raise InputError(said) from None
    try:
        with storing(folder):
            for path in _half_written(folder):
                path.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _half_written(folder: Path) -> list[Path]:
    """What a killed run left half-written in its folder; other hidden files are the user's."""
    files = [path for name in TABLES for path in folder.glob(f".{name}.*")]
    below = [path for name in (*CONTENT, ANALYSIS, FIGURES) for path in (folder / name).glob(".*")]
    return [path for path in (*files, *below) if path.is_file()]


class Damaged:
    """Files that are not what was written: they are moved into `damaged/` beside their place, and made anew."""

    def __init__(self, mine: bool = True) -> None:
        self.mine = mine
        self.names: list[str] = []
        """What was found, as folder and name."""

    def set_aside(self, path: Path) -> None:
        """Notes a damaged file, and moves it out of the way where that is possible."""
        self.names.append(f"{path.parent.name}/{path.name}")
        if self.mine:
            with contextlib.suppress(OSError):
                aside = path.parent / DAMAGED / path.name
                aside.parent.mkdir(exist_ok=True)
                path.replace(aside)


class Tensors:
    """Named tensors by key, safetensors files with a checksum in their header."""

    def __init__(self, folder: Path, *, mine: bool = True) -> None:
        """`mine`: damaged files may be moved."""
        self.folder = folder
        self.damaged = Damaged(mine)

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
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            tensors, facts = {}, {}
        if facts.get("key") == key and facts.get("sha256") == _checksum(tensors):
            return tensors
        self.damaged.set_aside(self.path(key))
        return None

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
        from safetensors.torch import save

        # clones, because weights that two modules share cannot be written as one
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        metadata = {"sha256": _checksum(tensors), "key": key}
        content = save(tensors, metadata)  # its `save_file` hides the reasons of the system
        make_folder(self.folder)
        write_atomically(self.path(key), lambda temporary: temporary.write_bytes(content))


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

    def save_cost(self, key: str, cost: dict[str, float]) -> None:
        """Keeps what a training cost beside its weights."""
        make_folder(self.cache.folder)
        write_json(self.cache.folder / f"{key}.json", cost)

    def load_cost(self, key: str) -> dict[str, float]:
        """What a training cost, whenever it was; empty where that is not known."""
        cost = read_json(self.source.folder / f"{key}.json")
        return cost if isinstance(cost, dict) else {}


class Records:
    """A run's records (a checksum, then Parquet with the outcome in its metadata), galleries, kept maps and figures of
    checks, by content key."""

    def __init__(self, out: Path, *, mine: bool = True) -> None:
        """`mine`: damaged files may be moved."""
        self.folder = out / "records"
        self.damaged = Damaged(mine)
        self.galleries = Tensors(out / "galleries", mine=mine)
        self.maps = Tensors(out / "maps", mine=mine)

    def save(self, key: str, record: Record) -> None:
        """Writes a record; its gallery first, so that a record never lacks it."""
        import pyarrow as pa
        from pyarrow import parquet

        if record.gallery:
            self.galleries.save(key, record.gallery)
        kept = ("verdict", "reason", "scoring_seconds", "peak_megabytes", "rows", "maps_kept", "lost")
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
        make_folder(self.folder)
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
        except FileNotFoundError:
            return None
        except OSError:
            stored = b""
        seal, content = stored[:SEAL_BYTES], stored[SEAL_BYTES:]
        if seal != _seal(key, content):  # before Parquet reads it: few damages make it raise
            self.damaged.set_aside(self._path(key))
            return None
        table = parquet.read_table(pa.BufferReader(content))
        facts = json.loads(table.schema.metadata[b"attribug"])
        gallery = facts.pop("gallery")
        lost = {name: (verdict, reason) for name, (verdict, reason) in facts.pop("lost").items()}
        cost, census = Cost(**facts.pop("cost")), Census(**facts.pop("census"))
        record = Record(scores=table.to_pandas(), cost=cost, census=census, lost=lost, **facts)
        return record if not gallery or self.galleries.load(key) is not None else None

    @property
    def found_damaged(self) -> list[str]:
        """Files that were set aside, as folder and name."""
        return [name for store in (self, self.galleries, self.maps) for name in store.damaged.names]

    def save_checks(self, key: str, figures: dict[str, float]) -> None:
        """Keeps the figures of a contrast's checks."""
        make_folder(self.folder)
        write_json(self.folder / f"{key}.json", {"figures": figures, "sha256": _seal_figures(key, figures)})

    def load_checks(self, key: str) -> dict[str, float] | None:
        """The figures by check name, or None."""
        path = self.folder / f"{key}.json"
        stored = read_json(path)
        figures = stored.get("figures") if isinstance(stored, dict) else None
        if isinstance(figures, dict) and stored.get("sha256") == _seal_figures(key, figures):
            return figures
        if path.exists():
            self.damaged.set_aside(path)
        return None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.record"


def _seal(key: str, content: bytes) -> bytes:
    """Checksum of an artefact's key and bytes."""
    return hashlib.sha256(key.encode() + content).digest()


def _seal_figures(key: str, figures: dict[str, float]) -> str:
    return _seal(key, json.dumps(figures, sort_keys=True).encode()).hex()
