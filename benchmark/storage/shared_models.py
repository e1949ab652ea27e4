"""Models at remote places: fetched where they are missing, sent when they are made."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.storage.tensors import Tensors

if TYPE_CHECKING:
    from attribug.storage.locations import Location


def fetch_models(place: Location, models: Tensors, keys: Collection[str]) -> list[str]:
    """Fetches models that are not here, or damaged here; returns the keys of those that are here alone.

    `models` is a folder at `place`, or `place` itself."""
    if place.remote is None:
        return []
    place.note()
    below = _below(place, models)
    there = place.remote.sizes(below.rstrip("/"))
    seen = Tensors(models.folder, mine=False)  # so that what is fetched in its place is not told as damage
    absent = {key for key in keys if seen.load(key) is None}
    paths = [f"{below}{key}.{kind}" for key in absent for kind in ("safetensors", "json")]
    place.remote.read([path for path in paths if path in there], place.keep)
    return [key for key in keys if key not in absent and f"{below}{key}.safetensors" not in there]


def share_model(place: Location, models: Tensors, key: str, *, fresh: bool = False, adopt: bool = True) -> None:
    """Sends a model unless a valid one is there, which takes its place here where it may (`adopt`); `fresh`: always."""
    if place.remote is None:
        return
    path, cost = (f"{_below(place, models)}{key}.{kind}" for kind in ("safetensors", "json"))
    if fresh:
        place.remote.write({path: models.path(key)})
    elif not place.remote.create(path, models.path(key).read_bytes()):
        theirs: dict[str, bytes] = {}
        place.remote.read([path, cost], theirs.__setitem__)
        if _valid(key, theirs.get(path, b"")):
            for name, content in theirs.items() if adopt else ():
                place.keep(name, content)
            return
        place.remote.write({path: models.path(key)})
    if (place.folder / cost).exists():
        place.remote.write({cost: place.folder / cost})


def _below(place: Location, models: Tensors) -> str:
    """Where models lie below a place, ending in a slash; empty where they are the place."""
    path = models.folder.resolve().relative_to(place.folder.resolve()).as_posix()
    return "" if path == "." else f"{path}/"


def _valid(key: str, content: bytes) -> bool:
    """Whether a file's content is what was written, by the checksum in it."""
    with tempfile.TemporaryDirectory() as folder:
        tensors = Tensors(Path(folder), mine=False)
        tensors.path(key).write_bytes(content)
        return tensors.load(key) is not None
