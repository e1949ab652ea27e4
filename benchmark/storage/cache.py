"""The user's cache: shows what lies there and removes what is chosen."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from attribug.storage import locations
from attribug.storage.files import read_json
from attribug.storage.folders import COPIES, LOCK, copies_folder
from attribug.storage.inventory import COST, GONE, File, chosen, is_unsent, sorted_out
from attribug.storage.locations import Location

if TYPE_CHECKING:
    from attribug.storage.inventory import Inventory, Item
    from attribug.storage.remote import Remote


class Cache:
    """The user's cache: models where it is, copies where they are, and what is remote."""

    def __init__(self) -> None:
        self._place: Location = locations.cache()

    def places(self) -> list[Inventory]:
        """What lies on this machine, then what lies at the cache's URL, if it has one."""
        remote = self._place.remote
        here = str(self._place.folder) if remote is None else f"{self._place.folder}, copy of {remote.name}"
        files = self._files()
        inventories = [sorted_out(here, files, self._copies(), self._whose(files))]
        return inventories if remote is None else [*inventories, sorted_out(remote.name, _remote_files(remote))]

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
        if is_unsent(item):
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
        copies = _files_below(copies_folder(), COPIES)
        if self._place.remote is None:
            return files | copies
        return files | {path: file for path, file in copies.items() if not path.startswith(f"{COPIES}/{own}")}

    def _whose(self, files: Mapping[str, File]) -> dict[str, str]:
        """What models were trained for, by the path of what they cost."""
        costs = {path: read_json(self._path(path)) for path in files if COST.fullmatch(path)}
        return {path: str(cost.get("trained_for", "")) for path, cost in costs.items() if isinstance(cost, dict)}

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
