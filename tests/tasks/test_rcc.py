"""Qt's resource files: what was written is read, and no damage makes a traceback."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

from attribug.errors import InputError
from attribug.tasks.rcc import FOLDER, VERSIONS, ZLIB, ZSTD, read_rcc

FILES = {"/a/first.txt": b"first", "/a/b/zeros.bin": bytes(5000), "/a/b/empty": b"", "/ö.txt": "süß".encode()}


def written(path: Path, version: int, *, flags: int = 0, files: dict[str, bytes] = FILES) -> Path:
    """A resource file as Qt's compiler lays them out: header, data, names, tree in order of breadth."""
    data, names, nodes = bytearray(), bytearray(), [("", "")]
    for folder, _ in nodes:
        below = {each[len(folder) :].split("/")[1] for each in files if each.startswith(f"{folder}/")}
        nodes += [(f"{folder}/{name}", name) for name in sorted(below)]
    tree = bytearray()
    for whole, name in nodes:
        children = [number for number, (each, _) in enumerate(nodes) if each and each.rpartition("/")[0] == whole]
        tree += struct.pack(">I", len(names) if whole else 0)
        if whole in files:
            tree += struct.pack(">HHHI", flags, 0, 1, len(data))
            content = files[whole]
            content = struct.pack(">I", len(content)) + zlib.compress(content) if flags & ZLIB else content
            data += struct.pack(">I", len(content)) + content
        else:
            tree += struct.pack(">HII", FOLDER, len(children), children[0])
        tree += struct.pack(">Q", 1234) if version > 1 else b""
        if whole:
            names += struct.pack(">HI", len(name), 99) + name.encode("utf-16-be")
    size = 20 if version < 3 else 24
    places = (size + len(data) + len(names), size, size + len(data))
    header = b"qres" + struct.pack(">4I", version, *places) + (struct.pack(">I", flags) if version > 2 else b"")
    path.write_bytes(header + data + names + tree)
    return path


@pytest.mark.parametrize("flags", [0, ZLIB])
@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_written_is_read(tmp_path: Path, version: int, flags: int) -> None:
    path = written(tmp_path / "some.rcc", version, flags=flags)
    assert read_rcc(path) == FILES
    assert read_rcc(path, ".txt") == {name: FILES[name] for name in ("/a/first.txt", "/ö.txt")}


@pytest.mark.parametrize("flags", [0, ZLIB])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_cut_file_is_told_in_one_line(tmp_path: Path, version: int, flags: int) -> None:
    content = written(tmp_path / "whole.rcc", version, flags=flags).read_bytes()
    for length in (*range(0, len(content), 10), len(content) - 1):
        (tmp_path / "cut.rcc").write_bytes(content[:length])
        with pytest.raises(
            InputError, match=r"resources .*cut.rcc: expected a whole Qt resource file, found "
        ) as error:
            read_rcc(tmp_path / "cut.rcc")
        assert "\n" not in str(error.value)


def test_damaged_bytes_are_read_or_told(tmp_path: Path) -> None:
    content = written(tmp_path / "whole.rcc", 3, flags=ZLIB, files={n: v[:50] for n, v in FILES.items()}).read_bytes()
    draws = random.Random(0)
    told = 0
    for place in range(len(content)):
        (tmp_path / "damaged.rcc").write_bytes(content[:place] + draws.randbytes(1) + content[place + 1 :])
        try:
            read_rcc(tmp_path / "damaged.rcc")
        except InputError:
            told += 1
    assert told > len(content) / 4


def changed(path: Path, place: int, form: str, value: int) -> Path:
    """The file with another number at a place, counted from the end where it is negative."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place % len(content), value)
    path.write_bytes(content)
    return path


def test_what_else_is_refused(tmp_path: Path) -> None:
    one = {"/a": b"abc"}
    with pytest.raises(InputError, match="found /a compressed by zstd, not by zlib"):
        read_rcc(written(tmp_path / "a.rcc", 3, flags=ZSTD, files=one))
    with pytest.raises(InputError, match="found version 4, not one of 1 to 3"):
        read_rcc(written(tmp_path / "a.rcc", 4, files=one))
    with pytest.raises(InputError, match="found another beginning, b'PK"):
        read_rcc(changed(written(tmp_path / "a.rcc", 1, files=one), 0, ">H", 0x504B))
    with pytest.raises(InputError, match="found node 0 in two folders"):  # the root holds itself
        read_rcc(changed(written(tmp_path / "a.rcc", 1, files=one), -28 + 10, ">I", 0))
    with pytest.raises(InputError, match="found a folder of 4294967295 files"):
        read_rcc(changed(written(tmp_path / "a.rcc", 1, files=one), -28 + 6, ">I", 2**32 - 1))
    with pytest.raises(InputError, match="found /a of another size than is told, 2 bytes"):
        read_rcc(changed(written(tmp_path / "a.rcc", 3, flags=ZLIB, files=one), 24 + 4, ">I", 2))
    with pytest.raises(InputError, match=r"resources .*absent.rcc: cannot be read: No such file"):
        read_rcc(tmp_path / "absent.rcc")
