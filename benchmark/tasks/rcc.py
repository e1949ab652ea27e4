"""Qt's resource files (`.rcc`, versions 1 to 3): a tree of files in one, as Qt's programs ship their pictures.

All numbers are big-endian. A header names the places of three parts: the tree's nodes, the names, the data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from attribug.errors import InputError, one_line

MAGIC = b"qres"
VERSIONS = range(1, 4)
ZLIB, FOLDER, ZSTD = 1, 2, 4
"""Flags of a node."""


def read_rcc(path: str | Path, ending: str = "") -> dict[str, bytes]:
    """The files in a resource file whose paths end so, by path, as they were before they were compressed.

    Of a file in several languages, the first. Raises `InputError` for what is no whole resource file, or holds what
    was compressed otherwise than by zlib.
    """
    path = Path(path)
    try:
        return _Resources(path.read_bytes()).files(ending)
    except OSError as error:
        raise InputError(f"resources {path}: cannot be read: {error.strerror}") from error
    except (ValueError, zlib.error) as error:
        told = one_line(error) if isinstance(error, zlib.error | UnicodeDecodeError) else str(error)
        raise InputError(f"resources {path}: expected a whole Qt resource file, found {told}") from error


class _Resources:
    """A resource file's bytes. What does not fit raises `ValueError` that says what was found."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        if content[: len(MAGIC)] != MAGIC:
            raise ValueError(f"another beginning, {content[: len(MAGIC)]!r}")
        (version, self.tree, self.data, self.names) = self._numbers(">4I", len(MAGIC), "header")
        if version not in VERSIONS:
            raise ValueError(f"version {version}, not one of {VERSIONS.start} to {VERSIONS.stop - 1}")
        self.node = ">IHII" if version == 1 else ">IHIIQ"  # the last is when the file was changed

    def files(self, ending: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path, flags, offset in self._leaves():
            if path.endswith(ending) and path not in found:
                found[path] = self._unpacked(path, flags, self.data + offset)
        return found

    def _leaves(self) -> Iterator[tuple[str, int, int]]:
        """Path, flags and place in the data of every file."""
        seen: set[int] = set()
        waiting = [(0, "")]
        while waiting:
            number, folder = waiting.pop()
            if number in seen:
                raise ValueError(f"node {number} in two folders")
            seen.add(number)
            place = self.tree + number * struct.calcsize(self.node)
            name, flags, one, two, *_ = self._numbers(self.node, place, f"node {number}")
            path = f"{folder}/{self._name(name)}" if number else ""
            if not flags & FOLDER:  # of which country and language it is, and where it lies
                yield path, flags, two
            else:  # how many it holds, and the first of them
                if two + one > len(self.content):
                    raise ValueError(f"a folder of {one} files")
                waiting += [(child, path) for child in reversed(range(two, two + one))]

    def _name(self, offset: int) -> str:
        place = self.names + offset
        (length,) = self._numbers(">H", place, "name")
        return self._part(place + 6, 2 * length, "name").decode("utf-16-be")  # after a hash of four bytes

    def _unpacked(self, path: str, flags: int, place: int) -> bytes:
        (size,) = self._numbers(">I", place, path)
        packed = self._part(place + 4, size, path)
        if flags & ZSTD:
            raise ValueError(f"{path} compressed by zstd, not by zlib")
        if not flags & ZLIB:
            return packed
        if size < 4:
            raise ValueError(f"{path} cut")
        whole = int.from_bytes(packed[:4], "big")
        reader = zlib.decompressobj()
        content = reader.decompress(packed[4:], whole + 1)  # never more than is told
        if len(content) != whole or not reader.eof:
            raise ValueError(f"{path} of another size than is told, {whole} bytes")
        return content

    def _numbers(self, form: str, place: int, what: str) -> tuple[int, ...]:
        return struct.unpack(form, self._part(place, struct.calcsize(form), what))

    def _part(self, place: int, size: int, what: str) -> bytes:
        part = self.content[place : place + size]
        if len(part) < size:
            raise ValueError(f"{what} cut at byte {len(self.content)}")
        return part
