"""A remote folder, reached through fsspec; whatever goes wrong there is one line."""

from __future__ import annotations

import contextlib
import datetime
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attribug.errors import InputError, one_line
from attribug.storage.files import DAMAGED

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"})
"""Protocols that write a file whole or not at all, and know no folders: to make one could make a bucket."""
PATIENCE = {"connect_timeout": 5, "read_timeout": 15, "retries": {"mode": "standard", "total_max_attempts": 2}}
OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": PATIENCE, "use_listings_cache": False}}
"""By protocol, where the user's fsspec settings say nothing else: S3 by itself waits for many minutes for a server that
does not answer, and remembers sizes that others have changed."""
INSTALL = {"s3": "pip install 'attribug[s3]'"}
CONNECTIONS = 8  # at once
ANSWER_SECONDS, TRANSFER_SECONDS = 30.0, 600.0  # that a request, or a file, may take


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
        sizes = {path: int(info["size"] or 0) for path, info in self._listed(below).items()}
        return {path: size for path, size in sizes.items() if not hidden(path)}

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
                listing = self._files.find(self._place(below), detail=True, **self._within(ANSWER_SECONDS))
            except FileNotFoundError:
                return {}
        start = len(self._root.rstrip("/")) + 1
        return {name[start:]: info for name, info in listing.items() if info["type"] == "file"}

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


def hidden(path: str) -> bool:
    parts = path.split("/")
    return any(not part or part.startswith(".") for part in parts) or DAMAGED in parts
