"""Files written atomically and read with suspicion: what is damaged counts as absent."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attribug.errors import StorageError

DAMAGED = "damaged"  # folder beside a damaged file, where it is put aside


def checksum(path: Path) -> str:
    """Of a file's content, less the mark that some editors put before UTF-8; an empty text where there is none."""
    try:
        return hashlib.sha256(path.read_bytes().removeprefix(codecs.BOM_UTF8)).hexdigest()
    except OSError:
        return ""


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
    """The JSON in a file, or None when it is absent or damaged. A byte-order mark says nothing."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


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
