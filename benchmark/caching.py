"""What the cache holds, and what goes when it takes too much: trained models, and copies of remote places.

With a cache at a URL there are two places, its copy on this machine and the remote one; limits hold for each. Nothing
but attribug's own files is ever removed, and no model that is being trained.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
from filelock import FileLock, Timeout

from attribug import locations
from attribug.keys import DIGEST_CHARACTERS
from attribug.locations import Location, Remote
from attribug.registry import InputError
from attribug.store import COPIES, COPY_CHARACTERS, DAMAGED, LOCK, UNSENT, copies_folder

SECONDS = {"min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
HALF_WRITTEN_SECONDS = SECONDS["h"]  # a younger file may still be written
KEY = f"[0-9a-f]{{{DIGEST_CHARACTERS}}}"
MODEL = re.compile(rf"(?P<folder>models(-(?P<device>\w+))?)/(?P<key>{KEY})\.safetensors")
COST = re.compile(rf"(?P<folder>models(-\w+)?)/(?P<key>{KEY})\.json")
ASIDE = re.compile(rf"models(-\w+)?/{DAMAGED}/{KEY}\.safetensors")
LEFT = re.compile(rf"(?P<folder>models(-\w+)?)/\.(?P<key>{KEY})\..+|\.writable.*")
GONE = ".gone"  # of a copy that is being removed
COPY = re.compile(rf"{COPIES}/(?P<name>[0-9a-f]{{{COPY_CHARACTERS}}})((\{GONE})?/.*|\.url|\{UNSENT})")
USEFUL = ("model", "copy")
KINDS = {
    "model": ("trained model", "trained models"),
    "damaged": ("damaged file set aside", "damaged files set aside"),
    "left": ("file left behind", "files left behind"),
    "copy": ("copy of a remote place", "copies of remote places"),
}
"""Kinds of items; `left`: locks that nobody holds, costs without a model, what a killed run left half-written."""


@dataclass(frozen=True)
class File:
    """A stored file."""

    bytes: int
    used: float
    """When it was written, or a model loaded, in seconds since 1970."""


@dataclass(frozen=True)
class Item:
    """What goes as a whole."""

    kind: str
    name: str
    paths: tuple[str, ...]
    bytes: int
    used: float
    lock: str = ""
    """Path of the lock that whoever removes it must hold."""
    device: str = ""


@dataclass(frozen=True)
class Inventory:
    """What lies in a place."""

    place: str
    items: tuple[Item, ...]
    foreign: tuple[str, ...]
    """Paths that attribug does not know: they stay."""

    @property
    def bytes(self) -> int:
        """Of everything that is attribug's."""
        return sum(item.bytes for item in self.items)

    def of(self, kind: str) -> list[Item]:
        """Items of a kind."""
        return [item for item in self.items if item.kind == kind]


def sorted_out(place: str, files: Mapping[str, File], copies: Mapping[str, str] = {}) -> Inventory:
    """Items of a cache's files, by path below it; `copies`: URLs by a copy's name."""
    items: list[Item] = []
    parts: dict[str, list[str]] = {}
    foreign = []
    keys = {found.group("folder", "key") for found in map(MODEL.fullmatch, files) if found}
    for path in sorted(files):
        if found := COPY.fullmatch(path):
            parts.setdefault(found["name"], []).append(path)
        elif found := MODEL.fullmatch(path):
            items.append(_model(path, files, found["folder"], found["key"], found["device"] or "cpu"))
        elif ASIDE.fullmatch(path):
            items.append(_single("damaged", path, files))
        elif found := COST.fullmatch(path) or LEFT.fullmatch(path):
            lock = _lock(found["folder"], found["key"]) if found["key"] else ""
            if found.group("folder", "key") not in keys or path not in _beside(found["folder"], found["key"]):
                items.append(_single("left", path, files, lock))
        else:
            foreign.append(path)
    for name, below in parts.items():
        label = f"{COPIES}/{name}.url"
        used = files[label].used if label in files else max(files[path].used for path in below)
        size = sum(files[path].bytes for path in below)
        items.append(Item("copy", copies.get(name, name), tuple(below), size, used, f"{COPIES}/{name}/{LOCK}"))
    return Inventory(place, tuple(items), tuple(foreign))


def _lock(folder: str, key: str) -> str:
    return f"{folder}/.{key}{LOCK}"


def _beside(folder: str, key: str) -> tuple[str, str]:
    """What belongs to a model besides its weights: what it cost, and its lock."""
    return f"{folder}/{key}.json", _lock(folder, key)


def _model(path: str, files: Mapping[str, File], folder: str, key: str, device: str) -> Item:
    paths = (path, *(each for each in _beside(folder, key) if each in files))
    size = sum(files[each].bytes for each in paths)
    return Item("model", f"{folder}/{key}", paths, size, files[path].used, _lock(folder, key), device)


def _single(kind: str, path: str, files: Mapping[str, File], lock: str = "") -> Item:
    return Item(kind, path, (path,), files[path].bytes, files[path].used, lock)


def chosen(items: Sequence[Item], now: float, seconds: float | None = None, limit: int | None = None) -> list[Item]:
    """What goes: what is of no use to anybody, what was not used for so many seconds, and of the rest what was used
    least recently until it takes no more than `limit` bytes."""
    ordered = sorted(items, key=lambda item: (item.used, item.name))
    going = [item for item in ordered if _useless(item, now)]
    if seconds is not None:
        going += [item for item in ordered if item.kind in USEFUL and now - item.used > seconds]
    total = sum(item.bytes for item in items) - sum(item.bytes for item in going)
    for item in ordered:
        if limit is not None and total > limit and item.kind in USEFUL and item not in going:
            going.append(item)
            total -= item.bytes
    return going


def _useless(item: Item, now: float) -> bool:
    """Whether nobody can use it: a lock tells by itself whether it is held, another file may just be written."""
    young = item.paths != (item.lock,) and now - item.used < HALF_WRITTEN_SECONDS
    return item.kind == "damaged" or (item.kind == "left" and not young)


def _is_unsent(item: Item) -> bool:
    """Whether a copy holds what its remote place lacks."""
    return item.kind == "copy" and any(path.endswith(UNSENT) for path in item.paths)


class Cache:
    """The user's cache: models where it is, copies where they are, and what is remote."""

    def __init__(self) -> None:
        self._place: Location = locations.cache()

    def places(self) -> list[Inventory]:
        """What lies on this machine, then what lies at the cache's URL, if it has one."""
        remote = self._place.remote
        here = str(self._place.folder) if remote is None else f"{self._place.folder}, copy of {remote.name}"
        found = [sorted_out(here, self._files(), self._copies())]
        return found if remote is None else [*found, sorted_out(remote.name, _remote_files(remote))]

    def prune(
        self, seconds: float | None, limit: int | None, *, dry: bool = False
    ) -> Iterator[tuple[Inventory, list[Item], list[Item]]]:
        """Removes what `chosen` chooses in each place; yields its inventory before, what went, and what is in use.

        `dry`: tells what would go.
        """
        for number, place in enumerate(self.places()):
            wanted = chosen(place.items, time.time(), seconds, limit)
            if number and self._place.remote is not None:
                if not dry:
                    self._place.remote.remove([path for item in wanted for path in item.paths])
                yield place, wanted, []
            else:
                kept = [item for item in wanted if not self._remove(item, dry)]
                yield place, [item for item in wanted if item not in kept], kept

    def _remove(self, item: Item, dry: bool) -> bool:
        """Whether an item is not in use, all of it sent, and was removed."""
        if _is_unsent(item):
            return False
        locks = [self._path(item.lock)] if item.lock else []
        if item.kind == "copy":
            locks += [self._path(path) for path in item.paths if path.endswith(LOCK)]
        with contextlib.ExitStack() as held:
            for lock in dict.fromkeys(locks):
                if lock.exists() or (not dry and lock.parent.is_dir()):
                    try:
                        held.enter_context(FileLock(lock).acquire(timeout=0))
                    except Timeout:
                        return False
            if not dry and item.kind == "copy":
                self._remove_copy(self._path(item.lock).parent)
            for path in [] if dry else [*(self._path(path) for path in item.paths), *locks]:
                path.unlink(missing_ok=True)
        return True

    @staticmethod
    def _remove_copy(folder: Path) -> None:
        """Moves it away first, so that a run which starts finds all of a copy or nothing."""
        gone = folder.with_name(f"{folder.name}{GONE}")
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _path(self, path: str) -> Path:
        first, _, rest = path.partition("/")
        return copies_folder() / rest if first == COPIES else self._place.folder / path

    def _files(self) -> dict[str, File]:
        """Files of the cache by path; those of foreign folders are not looked at."""
        files: dict[str, File] = {}
        root, own = self._place.folder, self._place.folder.name
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            if path.is_dir() and re.fullmatch(r"models(-\w+)?", path.name):
                files |= _files_below(path, path.name)
            elif path.is_dir() and path != copies_folder():
                files[f"{path.name}/"] = File(0, 0.0)
            elif path.is_file():
                files[path.name] = _file(path)
        found = _files_below(copies_folder(), COPIES)
        if self._place.remote is None:
            return files | found
        return files | {path: file for path, file in found.items() if not path.startswith(f"{COPIES}/{own}")}

    def _copies(self) -> dict[str, str]:
        labels = copies_folder().glob("*.url")
        return {path.stem: path.read_text(encoding="utf-8", errors="replace").strip() for path in labels}


def _files_below(folder: Path, name: str) -> dict[str, File]:
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": _file(path) for path in folder.rglob("*") if path.is_file()
    }


def _file(path: Path) -> File:
    try:
        facts = path.stat()
    except FileNotFoundError:  # it has just gone
        return File(0, time.time())
    return File(facts.st_size, facts.st_mtime)


def _remote_files(remote: Remote) -> dict[str, File]:
    return {path: File(size, written) for path, (size, written) in remote.files().items()}


def seconds(text: str) -> float:
    """An age such as 90min, 12h, 30d or 4w. Raises `InputError` for anything else."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)({'|'.join(SECONDS)})", text.strip(), re.ASCII)
    if found is None:
        raise InputError(f"--older-than: expected an age such as 90min, 12h, 30d or 4w, found {text!r}")
    return float(found[1]) * SECONDS[found[2]]


def size(text: str) -> int:
    """Bytes of a size such as 500MB or 2GB. Raises `InputError` for anything else."""
    try:
        return int(pydantic.TypeAdapter(pydantic.ByteSize).validate_python(text))
    except (pydantic.ValidationError, OverflowError):
        raise InputError(f"--max-size: expected a size such as 500MB or 2GB, found {text!r}") from None


def as_json(places: Iterable[Inventory]) -> list[dict[str, Any]]:
    """Inventories in plain values."""
    return [
        {
            "place": place.place,
            "bytes": place.bytes,
            "models": {
                device: _sum(item for item in place.of("model") if item.device == device)
                for device in sorted({item.device for item in place.of("model")})
            },
            "damaged": _sum(place.of("damaged")),
            "left": _sum(place.of("left")),
            "copies": [{"url": c.name, "bytes": c.bytes, "used": _date(c.used)} for c in place.of("copy")],
            "foreign": list(place.foreign),
        }
        for place in places
    ]


def _sum(items: Iterable[Item]) -> dict[str, int]:
    found = list(items)
    return {"count": len(found), "bytes": sum(item.bytes for item in found)}


def lines(place: Inventory) -> Iterator[str]:
    """An inventory in words."""
    yield place.place
    for kind, names in KINDS.items():
        items = place.of(kind)
        name = names[len(items) != 1]
        if items or kind == "model":
            devices = ", ".join(f"{d} {n['count']}" for d, n in as_json([place])[0]["models"].items())
            note = f" ({devices})" if kind == "model" and items else ""
            yield f"  {len(items)} {name}{note}: {shown(sum(item.bytes for item in items))}"
        if kind == "copy":
            yield from (f"    {item.name}: {shown(item.bytes)}, used {_date(item.used)}" for item in items)
    yield f"  total: {shown(place.bytes)}"
    yield from _foreign(place)


def pruned(place: Inventory, gone: Sequence[Item], kept: Sequence[Item], *, dry: bool = False) -> Iterator[str]:
    """What pruning a place did, in words."""
    yield place.place
    for item in gone:
        yield f"  {'would go' if dry else 'gone'}: {item.name}: {shown(item.bytes)}, used {_date(item.used)}"
    for item in kept:
        why = "not sent yet" if _is_unsent(item) else "in use"
        yield f"  {why}, kept: {item.name}: {shown(item.bytes)}"
    freed = sum(item.bytes for item in gone)
    yield f"  {'would free' if dry else 'freed'} {shown(freed)} of {shown(place.bytes)}"
    yield from _foreign(place)


def _foreign(place: Inventory) -> Iterator[str]:
    if place.foreign:
        first, more = ", ".join(place.foreign[:3]), len(place.foreign) - 3
        yield f"  not attribug's, never removed: {first}{f' and {more} more' if more > 0 else ''}"


def shown(count: int) -> str:
    """Bytes for people: 333.3KB."""
    return pydantic.ByteSize(count).human_readable(decimal=True)


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(" ", "minutes").removesuffix("+00:00")
