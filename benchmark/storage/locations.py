"""Where runs and caches lie: in a folder, or at a URL (`s3://bucket/runs/x`), reached through fsspec.

Everything works on local folders. A URL has a copy in one (`copies/` in the cache): what is missing there is fetched,
what a run makes is sent as soon as it is made, and what a killed run left unsent is sent when it goes on.
Content-addressed files are fetched once, for loading verifies them; tables and run.json always, for they change.

Two runs on one machine share the copy of their cache, and with it its locks: nothing is trained twice. On several
machines the same model may be trained twice; who sends it first wins, and the others take it before anything rests on
theirs. Nothing locks a remote run's folder across machines: two runs there do the same work twice, to the same tables.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock

from attribug.errors import InputError, StorageError
from attribug.storage.files import make_folder, storing, write_atomically
from attribug.storage.folders import (
    ANALYSIS,
    CACHE,
    CONTENT,
    FIGURES,
    LOCK,
    MAPS_INDEX,
    RUN,
    TABLES,
    UNSENT,
    cache_folder,
    claimed,
    copy_folder,
    is_url,
)
from attribug.storage.remote import Remote, hidden

READER_SECONDS = 60.0  # a reader waits for another one


@dataclass
class Location:
    """A folder and, where the user gave a URL, the remote place that it is a copy of."""

    folder: Path
    remote: Remote | None = None
    _agreed: dict[str, int] = field(default_factory=dict)
    """When files were written here that are the same there, in nanoseconds."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        return str(self.folder) if self.remote is None else self.remote.name

    def note(self) -> None:
        """Makes a copy's folder and tells beside it what it is a copy of, and that it was used."""
        if self.remote is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                text = f"{self.remote.name}\n"
                write_atomically(_label(self.folder), lambda place: place.write_text(text, encoding="utf-8"))
            except (OSError, StorageError) as error:
                found = error.found if isinstance(error, StorageError) else error.strerror or str(error)
                where = self.folder.parent
                said = f"{where}: expected a folder that can be written, for the copy of {self.name}"
                raise InputError(f"{said}, found: {found}") from error

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keeps a copy from being pruned, for as long as the context lasts."""
        if self.remote is None:
            yield
            return
        self.note()
        lock = self.folder / f".{uuid.uuid4().hex}{LOCK}"
        with storing(lock):
            held = FileLock(lock).acquire()
        try:
            yield
        finally:
            held.lock.release()
            lock.unlink(missing_ok=True)

    def note_unsent(self, whether: bool) -> None:
        """Tells beside a copy whether something in it is not sent yet: then it is not pruned."""
        if self.remote is not None:
            mark = self.folder.with_name(f"{self.folder.name}{UNSENT}")
            with storing(mark):
                mark.touch() if whether else mark.unlink(missing_ok=True)

    def expect_writable(self) -> None:
        """Raises `InputError` where nothing can be written at the remote place."""
        if self.remote is not None:
            self.remote.expect_writable()

    def fetch_tables(self) -> None:
        """Makes the copy's tables, figures and run.json those of the remote place; content-addressed files stay."""
        if self.remote is None:
            return
        there = {path for path in self.remote.sizes() if _of_run(path)}
        tables = {path for path in there if not _is_content(path)}
        stale = [path for path in self._files() if path not in tables and not _is_content(path)]
        self.remote.read(tables, self.keep)
        for path in stale:
            (self.folder / path).unlink(missing_ok=True)

    def fetch(self, *folders: str) -> None:
        """Fetches the content-addressed files in these folders that are not here, or that were cut."""
        if self.remote is None:
            return
        sizes = {path: size for path, size in self.remote.sizes().items() if _is_content(path)}
        there = {path: size for path, size in sizes.items() if path.partition("/")[0] in folders}
        here = {path: _size(self.folder / path) for path in there}
        self.remote.read([path for path, size in there.items() if here[path] != size], self.keep)
        self._agreed |= {path: _written(self.folder / path) for path in there}

    def send(self, *, tables: bool = False) -> None:
        """Sends what a run has made since it was fetched or sent; tables only where they are whole, run.json last.
        Figures that are no more go there too."""
        if self.remote is None:
            return
        files = {path: _written(self.folder / path) for path in self._files() if tables or _is_content(path)}
        changed = [path for path, written in files.items() if self._agreed.get(path) != written]
        for part in (
            [path for path in changed if _is_content(path)],
            [path for path in changed if not _is_content(path) and path != RUN],
            [path for path in changed if path == RUN],
        ):
            self.remote.write({path: self.folder / path for path in part})
            self._agreed |= {path: files[path] for path in part}
        if tables:
            gone = [path for path in self._agreed if not _is_content(path) and path not in files]
            self.remote.remove(gone)
            for path in gone:
                del self._agreed[path]

    def send_file(self, name: str) -> None:
        """Sends one file."""
        if self.remote is not None:
            self.remote.write({name: self.folder / name})

    def keep(self, path: str, content: bytes) -> None:
        """Writes what was read from the remote place, unless it is here."""
        place = self.folder / path
        if not place.exists() or place.read_bytes() != content:
            make_folder(place.parent)
            write_atomically(place, partial(Path.write_bytes, data=content))
        self._agreed[path] = _written(place)

    def _files(self) -> list[str]:
        """What is a run's, by path."""
        paths = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        return sorted(path for path in paths if _of_run(path))


def _label(folder: Path) -> Path:
    """The file that tells what a copy is a copy of."""
    return folder.with_name(f"{folder.name}.url")


def _of_run(path: str) -> bool:
    """Whether a path is one that runs write; never one that leads elsewhere."""
    first, below, _ = path.partition("/")
    return not hidden(path) and (first in {*CONTENT, ANALYSIS, FIGURES} if below else first in TABLES)


def _is_content(path: str) -> bool:
    return path.partition("/")[0] in CONTENT and path != MAPS_INDEX


def _size(path: Path) -> int:
    """-1 where there is no file."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _written(path: Path) -> int:
    """In nanoseconds; -1 where there is no file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def at(place: str | Path, option: str = "") -> Location:
    """The location that a user names. Raises `InputError` for a URL that nothing can open."""
    if not is_url(place):
        return Location(Path(place))
    remote = Remote(str(place), option)
    return Location(copy_folder(remote.url), remote)


def cache() -> Location:
    """The cache: `$ATTRIBUG_CACHE`, which may be a URL, else the user's cache folder."""
    given = os.environ.get(CACHE)
    return at(given, "cache ") if given and is_url(given) else Location(cache_folder())


@contextlib.contextmanager
def reading(url: str, *folders: str) -> Iterator[Location]:
    """The copy of a run, with these of its content-addressed folders, for as long as the context lasts.

    Raises:
        InputError: no run there, or a run of this machine is writing there.
    """
    place = at(url)
    with named(place):
        place.note()
        with claimed(place.folder, "", READER_SECONDS):
            place.fetch_tables()
            place.fetch(*folders)
            if not (place.folder / RUN).exists():
                raise InputError(f"{place.name}: expected the URL of a run's folder, found no {RUN} there")
            yield place


@contextlib.contextmanager
def named(*places: Location) -> Iterator[None]:
    """Messages name the URL that the user gave, not its copy."""
    try:
        yield
    except InputError as error:
        told = [str(argument) for argument in error.args]
        for place in places:
            if place.remote is not None:
                for folder in (place.folder.resolve(), place.folder):
                    told = [text.replace(str(folder), place.name) for text in told]
        error.args = tuple(told)
        raise
