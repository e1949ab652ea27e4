"""What the cache holds, item by item, and what goes when it takes too much."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attribug.sources import DIGEST_CHARACTERS
from attribug.storage.files import DAMAGED
from attribug.storage.folders import COPIES, COPY_CHARACTERS, LOCK, UNSENT

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
    trained_for: str = ""
    """Suite and task that a model was trained for, where that is known."""


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


def sorted_out(
    place: str, files: Mapping[str, File], copies: Mapping[str, str] = {}, whose: Mapping[str, str] = {}
) -> Inventory:
    """Items of a cache's files, by path below it; `copies`: URLs by a copy's name; `whose`: what a model was trained
    for, by the path of its cost."""
    items: list[Item] = []
    parts: dict[str, list[str]] = {}
    foreign = []
    keys = {match.group("folder", "key") for match in map(MODEL.fullmatch, files) if match}
    for path in sorted(files):
        if match := COPY.fullmatch(path):
            parts.setdefault(match["name"], []).append(path)
        elif match := MODEL.fullmatch(path):
            told = whose.get(f"{match['folder']}/{match['key']}.json", "")
            items.append(_model(path, files, match["folder"], match["key"], match["device"] or "cpu", told))
        elif ASIDE.fullmatch(path):
            items.append(_single("damaged", path, files))
        elif match := COST.fullmatch(path) or LEFT.fullmatch(path):
            lock = _lock(match["folder"], match["key"]) if match["key"] else ""
            if match.group("folder", "key") not in keys or path not in _beside(match["folder"], match["key"]):
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


def _model(path: str, files: Mapping[str, File], folder: str, key: str, device: str, trained_for: str) -> Item:
    paths = (path, *(each for each in _beside(folder, key) if each in files))
    size = sum(files[each].bytes for each in paths)
    return Item("model", f"{folder}/{key}", paths, size, files[path].used, _lock(folder, key), device, trained_for)


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


def is_unsent(item: Item) -> bool:
    """Whether a copy holds what its remote place lacks."""
    return item.kind == "copy" and any(path.endswith(UNSENT) for path in item.paths)
