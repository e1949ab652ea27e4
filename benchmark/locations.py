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
import datetime
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from attribug.engines.jobs import Job, Train
from attribug.registry import InputError, StorageError, one_line
from attribug.store import (
    ANALYSIS,
    CACHE,
    CONTENT,
    DAMAGED,
    FIGURES,
    LOCK,
    RUN,
    TABLES,
    UNSENT,
    Tensors,
    cache_folder,
    claimed,
    copy_folder,
    is_url,
    make_folder,
    storing,
    write_atomically,
)

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"})
"""Protocols that write a file whole or not at all, and know no folders: to make one could make a bucket."""
PATIENCE = {"connect_timeout": 5, "read_timeout": 15, "retries": {"mode": "standard", "total_max_attempts": 2}}
OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": PATIENCE, "use_listings_cache": False}}
"""By protocol, where the user's fsspec settings say nothing else: S3 by itself waits for many minutes for a server that
does not answer, and remembers sizes that others have changed."""
INSTALL = {"s3": "pip install 'attribug[s3]'"}
CONNECTIONS = 8  # at once
ANSWER_SECONDS, TRANSFER_SECONDS = 30.0, 600.0  # that a request, or a file, may take
READER_SECONDS = 60.0  # a reader waits for another one


class Remote:
    """A remote folder. Whatever goes wrong there is an `InputError`."""

    def __init__(self, url: str, option: str = "") -> None:
        """`option`: what the user gave it as, for messages."""
        self.url = url.rstrip("/")
        self.name = re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:…@", self.url)  # no password in messages
        if "://" not in self.url:  # s3:// would be a folder here
            raise InputError(f"{option}{url}: expected a URL that names a place, found none after ://")
        self.option = option
        self._files, self._root, protocol = _connected(self.url, f"{option}{self.name}")
        self._whole = protocol in OBJECT_STORES

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, by path from the root; none that is hidden."""
        found = {path: int(info["size"] or 0) for path, info in self._listed(below).items()}
        return {path: size for path, size in found.items() if not _hidden(path)}

    def files(self) -> dict[str, tuple[int, float]]:
        """Bytes of every file, and when it was written, in seconds since 1970; the hidden ones, too."""
        with self._told():
            return {path: (int(info["size"] or 0), self._time(info)) for path, info in self._listed().items()}

    def read(self, paths: Iterable[str], keep: Callable[[str, bytes], object]) -> None:
        """Gives the content of every file that exists to `keep`."""

        def one(path: str) -> None:
            with self._told():
                try:
                    content = self._files.cat_file(self._place(path), **self._within(TRANSFER_SECONDS))
                except FileNotFoundError:
                    return
            keep(path, content)

        self._each(one, paths)

    def write(self, files: Mapping[str, Path]) -> None:
        """Writes local files by the path that they get."""
        def one(path: str) -> None:
            try:
                content = files[path].read_bytes()
            except FileNotFoundError:  # it was damaged, and has just been set aside
                return
            with self._told():
                self._put(path, content)

        self._each(one, files)

    def create(self, path: str, content: bytes) -> bool:
        """Writes a file that is not there yet; False where it is. Exclusive where the store is able to."""
        with self._told():
            if self._whole:
                try:
                    limit = self._within(TRANSFER_SECONDS)
                    self._files.pipe_file(self._place(path), content, mode="create", **limit)
                    return True
                except FileExistsError:
                    return False
                except (OSError, NotImplementedError, TypeError, ValueError):
                    pass  # it cannot, or it cannot be reached, which what follows meets again
            self._files.invalidate_cache()
            if self._files.exists(self._place(path), **self._within(ANSWER_SECONDS)):
                return False
            self._put(path, content)
            return True

    def remove(self, paths: Iterable[str]) -> None:
        """Removes files; who was first does not matter."""

        def one(path: str) -> None:
            with self._told(), contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._place(path), **self._within(ANSWER_SECONDS))

        self._each(one, paths)

    def expect_writable(self) -> None:
        """Raises `InputError` where nothing can be written."""
        with self._told():
            self._put(".writable", b"", ANSWER_SECONDS)
            self._files.rm_file(self._place(".writable"), **self._within(ANSWER_SECONDS))

    def _listed(self, below: str = "") -> dict[str, dict[str, Any]]:
        with self._told():
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._place(below), detail=True, **self._within(ANSWER_SECONDS))
            except FileNotFoundError:
                return {}
        start = len(self._root.rstrip("/")) + 1
        return {name[start:]: info for name, info in found.items() if info["type"] == "file"}

    def _time(self, info: Mapping[str, Any]) -> float:
        """When a listed file was written: its listing tells with some file systems."""
        told = info.get("LastModified", info.get("mtime"))
        told = self._files.modified(info["name"]) if told is None else told
        return float(told.timestamp() if isinstance(told, datetime.datetime) else told)

    def _place(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}" if path else self._root

    def _within(self, seconds: float) -> dict[str, float]:
        """An argument that ends a call which takes longer: fsspec's, of the file systems that it runs in a loop."""
        return {"timeout": seconds} if self._files.async_impl else {}

    def _put(self, path: str, content: bytes, seconds: float = TRANSFER_SECONDS) -> None:
        place = self._place(path)
        if self._whole:
            self._files.pipe_file(place, content, **self._within(seconds))
            return
        folder, _, name = place.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}"
        self._files.makedirs(folder, exist_ok=True)
        self._files.pipe_file(temporary, content)
        self._files.mv(temporary, place)

    def _each(self, do: Callable[[str], None], paths: Iterable[str]) -> None:
        """Several at once where the file system is made for it."""
        if not self._files.async_impl:
            for path in paths:
                do(path)
            return
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(do, paths))  # an error cancels what has not begun

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except TimeoutError as error:
            raise InputError(f"{self.option}{self.name}: expected an answer, found none in time") from error
        except Exception as error:  # whatever a file system raises
            said = f"{self.option}{self.name}: expected a place that can be reached, read and written"
            raise InputError(f"{said}, found: {one_line(error)}") from error


def _connected(url: str, name: str) -> tuple[Any, str, str]:
    """A file system, the folder in it, and its protocol. Connects later. Raises `InputError` where there is none."""
    import fsspec
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0].rpartition("::")[2]
    settings = fsspec.config.conf.get(protocol, {})
    options = {key: value for key, value in OPTIONS.get(protocol, {}).items() if key not in settings}
    try:
        files, root = url_to_fs(url, **options)
    except ImportError as error:
        install = INSTALL.get(protocol, str(error))
        raise InputError(f"{name}: expected a package for {protocol}://, which is not installed: {install}") from error
    except Exception as error:
        raise InputError(f"{name}: expected a URL that fsspec understands, found: {one_line(error)}") from error
    return files, root, protocol


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
        there = {path: size for path, size in self.remote.sizes().items() if path.partition("/")[0] in folders}
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
    return not _hidden(path) and (first in {*CONTENT, ANALYSIS, FIGURES} if below else first in TABLES)


def _is_content(path: str) -> bool:
    return path.partition("/")[0] in CONTENT


def _hidden(path: str) -> bool:
    parts = path.split("/")
    return any(not part or part.startswith(".") for part in parts) or DAMAGED in parts


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


class Exchange:
    """What a run fetches from, and sends to, the remote places of its folder and its cache."""

    def __init__(self, out: Location, cache: Location, models: Tensors, *, fresh: bool) -> None:
        """`models`: the cache's; `fresh`: nothing is fetched, and what is made replaces what is there."""
        self._out, self._cache, self._models, self._fresh = out, cache, models, fresh
        self._unsent: list[str] = []
        self._late = False

    def begin(self, keys: Collection[str]) -> None:
        """Fetches records and the models of these keys; what an earlier run left unsent is sent."""
        for place in (self._out, self._cache):
            place.note_unsent(True)
        if not self._fresh:
            self._out.fetch(*CONTENT)
            for key in fetch_models(self._cache, self._models, keys):
                share_model(self._cache, self._models, key)
        self._out.send()

    def sent(self, job: Job) -> None:
        """Sends what a job has made, before anything that rests on it starts. Once a place cannot be reached, what is
        left waits for the end: no run of hours should die of a lost minute."""
        if isinstance(job, Train):
            self._unsent.append(job.key)
        if not self._late:
            try:
                self._send()
            except InputError:
                self._late = True  # `end` meets it again

    def end(self) -> None:
        """Sends what is left, and the tables. Raises `InputError` where that fails; it is all here still."""
        try:
            self._send()
            self._out.send(tables=True)
            for place in (self._out, self._cache):
                place.note_unsent(False)
        except InputError as error:
            raise InputError(f"{error}; nothing is lost: the same command sends it") from error

    def _send(self) -> None:
        while self._unsent:
            adopt = not self._late  # else something may rest on ours
            share_model(self._cache, self._models, self._unsent[0], fresh=self._fresh, adopt=adopt)
            self._unsent.pop(0)
        self._out.send()
