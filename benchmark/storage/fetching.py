"""Data from their owners' servers: downloads that go on where they broke off, are verified, and are unpacked aside.

Nothing half done bears the name that it has when it is whole: a download ends in `.part` until its checksum is right,
and an archive is unpacked into a folder of its own, whose content then moves to its place.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import shutil
import stat
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from filelock import FileLock, Timeout

from attribug import data_sources
from attribug.data_places import data_folder
from attribug.data_sources import File
from attribug.errors import InputError, Missing, StorageError, one_line
from attribug.storage.files import storing

PART = ".part"
TRIES = 5  # of a connection that breaks off, as long as each brings something
SECONDS = 60  # without an answer
CHUNK = 1 << 20
BEYOND = 416  # HTTP's answer to whoever has all there is

Told = Callable[[str, int, int], None]
"""Is told a file's name, how many bytes of it are there, and how many it has; 0 where nobody knows."""


def fetch(name: str, told: Told = lambda file, there, size: None) -> bool:
    """Gets a source, where it is not there; returns whether there was anything to do.

    Raises:
        InputError: there is no such source; it cannot be downloaded, and the line says how it comes to be; another
            process is at it; an archive holds what it must not.
        Missing: no server gave it, or not what was expected; the same command goes on.
    """
    source = data_sources.get(name)
    if source.there():
        return False
    if not source.fetched:
        raise InputError(f"{name}: nothing that attribug downloads; get it with: {source.line}")
    if source.getter is not None:
        try:
            source.getter()
        except (OSError, HTTPException) as error:
            raise Missing(f"{name}: not downloaded: {one_line(error)}") from error
    for file in source.files() if source.files is not None else ():
        with _alone(name):
            get(file, data_folder(), told)
    return True


def get(file: File, folder: Path, told: Told = lambda file, there, size: None) -> None:
    """Downloads a file below a folder, verifies and unpacks it, where that was not done before; raises as `fetch`."""
    path = folder / file.path
    if (folder / file.makes).exists():
        return
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.is_file() and matches(path, file.checksum)):
        _downloaded(file, path, told)
    if file.into is not None:
        unpack(path, folder / file.into)
        if not (folder / file.makes).exists():
            raise InputError(f"{path.name}: expected {file.makes} in it, found nothing of that name")
        path.unlink()


def matches(path: Path, checksum: str) -> bool:
    """Whether a file's content has a checksum, or one that begins so."""
    kind, _, expected = checksum.partition(":")
    return _digest(path, kind).startswith(expected)


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    folder = data_folder()
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f".{name}.lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"{name}: another process is getting it; wait for it") from None


# --- download ---


def _downloaded(file: File, path: Path, told: Told) -> None:
    """The file at its place, from the first address that gives it."""
    part, found = path.with_name(path.name + PART), []
    for url in file.urls:
        try:
            _from(url, part, file.checksum, told)
        except (OSError, HTTPException) as error:
            found.append(f"{url}: {one_line(error)}")
            continue
        with storing(path):
            part.replace(path)
        return
    there = part.stat().st_size if part.exists() else 0
    kept = f"; {there:,} bytes are kept in {part.name}, the same command goes on from there" if there else ""
    raise Missing(f"{path.name}: not downloaded: {', '.join(found)}{kept}")


def _from(url: str, part: Path, checksum: str, told: Told) -> None:
    """All of a file, verified. What does not match goes: a part that another content began is begun anew, once.

    Raises `OSError` where the server or its content fails.
    """
    begun = part.exists()
    _whole(url, part, told)
    if begun and not matches(part, checksum):
        part.unlink()
        _whole(url, part, told)
    if not matches(part, checksum):
        found = _digest(part, checksum.partition(":")[0])
        part.unlink()
        raise OSError(f"expected {checksum}, found {found}")


def _whole(url: str, part: Path, told: Told) -> None:
    """Reads on until the end; a connection that breaks off is taken up again as long as that helps."""
    for left in reversed(range(TRIES)):
        before = part.stat().st_size if part.exists() else 0
        try:
            _read_on(url, part, told)
        except HTTPError:
            raise
        except (OSError, HTTPException):
            grown = part.exists() and part.stat().st_size > before
            if not grown or not left:
                raise
        else:
            return


def _read_on(url: str, part: Path, told: Told) -> None:
    """Appends to a part what it lacks, or begins anew where the server gives everything only.

    Raises `OSError` where the connection breaks off.
    """
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "attribug"})
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        answer = urllib.request.urlopen(request, timeout=SECONDS)
    except HTTPError as error:
        error.close()
        if there and error.code == BEYOND:
            return
        raise
    with answer:
        goes_on = (answer.headers.get("Content-Range") or "").startswith(f"bytes {there}-")
        there = there if goes_on else 0
        size = there + int(answer.headers.get("Content-Length") or 0)
        with storing(part):
            file = part.open("ab" if goes_on else "wb")
        with file:
            while chunk := answer.read(CHUNK):
                with storing(part):
                    file.write(chunk)
                    file.flush()
                there += len(chunk)
                told(part.name.removesuffix(PART), there, size)
    if there < size:
        raise ConnectionError(f"the connection broke off after {there:,} of {size:,} bytes")


# --- unpack ---


def unpack(archive: Path, into: Path) -> None:
    """Unpacks a tar or zip archive, or one compressed file, into a folder; what is there of other names stays.

    Raises `InputError` where something would lie outside the folder, or leads there, and where it cannot be read.
    """
    aside = into / f".{archive.name}"
    with storing(into):
        into.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
    try:
        _extract(archive, aside)
        with storing(into):
            _move(aside, into)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    try:
        if tarfile.is_tarfile(archive):
            if not hasattr(tarfile, "data_filter"):
                raise InputError(f"{archive.name}: unpacking it safely takes Python 3.11.4 or later")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _expect_inside(packed, folder)
                packed.extractall(folder)
        else:
            with gzip.open(archive) as file, (folder / archive.stem).open("wb") as unpacked:
                shutil.copyfileobj(file, unpacked)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{archive.name}: expected an archive that unpacks safely, found: {one_line(error)}"
        ) from error
    except OSError as error:
        raise StorageError(folder, str(error.strerror)) from error


def _expect_inside(packed: zipfile.ZipFile, folder: Path) -> None:
    """Raises `BadZipFile` for a member that would not lie in the folder, and for a link."""
    for member in packed.infolist():
        outside = not (folder / member.filename).resolve().is_relative_to(folder.resolve())
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise zipfile.BadZipFile(f"{member.filename!r} leads out of the folder")


def _move(folder: Path, into: Path) -> None:
    """Moves what a folder holds, each whole folder at once where there is none of its name."""
    for path in folder.iterdir():
        there = into / path.name
        if path.is_dir() and there.is_dir():
            _move(path, there)
        else:
            path.replace(there)
