"""Downloads from a server of this machine: taken up again, verified, unpacked; and whatever servers do wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from attribug import data_sources
from attribug.data_sources import File, Source
from attribug.errors import InputError, Missing, StorageError
from attribug.storage import fetching

CONTENT = bytes(range(256)) * 12_000  # three chunks
NAME = "thing.bin"


@dataclass
class Server:
    """What it has, and how it misbehaves."""

    address: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    """Bytes that each of the next answers ends after."""
    asked: list[str] = field(default_factory=list)
    """The ranges that were asked for; empty texts where everything was."""


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            served.asked.append(asked)
            if not self.path.endswith(NAME):
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.ranges else 0
            if start >= len(served.content):
                self.send_error(416)
                return
            body = served.content[start:]
            self.send_response(206 if asked and served.ranges else 200)
            if asked and served.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: served.breaks_after.pop(0)] if served.breaks_after else body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        served.address = f"http://127.0.0.1:{http.server_address[1]}"
        yield served
        http.shutdown()
        thread.join()


def file(server: Server, content: bytes = CONTENT, **changes: Any) -> File:
    md5 = hashlib.md5(content).hexdigest()
    given = {"urls": (f"{server.address}/{NAME}",), "path": f"sub/{NAME}", "checksum": f"md5:{md5}"}
    return File(**{**given, "makes": f"sub/{NAME}", **changes})


def part(folder: Path) -> Path:
    return folder / "sub" / f"{NAME}.part"


class TestDownload:
    def test_is_what_the_server_has_and_told_on_the_way(self, server: Server, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []
        fetching.get(file(server), tmp_path, lambda *each: told.append(each))
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT
        assert {name for name, *_ in told} == {NAME}
        assert [there for _, there, _ in told] == sorted(there for _, there, _ in told)
        assert told[-1][1:] == (len(CONTENT), len(CONTENT))
        assert [path.name for path in (tmp_path / "sub").iterdir()] == [NAME]

    def test_what_is_there_is_not_asked_for(self, server: Server, tmp_path: Path) -> None:
        for _ in range(2):
            fetching.get(file(server), tmp_path)
        assert server.asked == [""]

    def test_goes_on_where_it_broke_off(self, server: Server, tmp_path: Path) -> None:
        part(tmp_path).parent.mkdir()
        part(tmp_path).write_bytes(CONTENT[:1000])
        fetching.get(file(server), tmp_path)
        assert server.asked == ["bytes=1000-"]
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT

    def test_a_whole_part_is_taken_as_it_is(self, server: Server, tmp_path: Path) -> None:
        part(tmp_path).parent.mkdir()
        part(tmp_path).write_bytes(CONTENT)
        fetching.get(file(server), tmp_path)
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT
        assert not part(tmp_path).exists()

    def test_a_part_of_something_else_is_begun_anew(self, server: Server, tmp_path: Path) -> None:
        part(tmp_path).parent.mkdir()
        part(tmp_path).write_bytes(b"something else")
        fetching.get(file(server), tmp_path)
        assert server.asked == ["bytes=14-", ""]
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT

    def test_a_server_without_ranges_gives_everything_again(self, server: Server, tmp_path: Path) -> None:
        server.ranges = False
        part(tmp_path).parent.mkdir()
        part(tmp_path).write_bytes(CONTENT[:1000])
        fetching.get(file(server), tmp_path)
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT

    def test_a_broken_connection_is_taken_up_again(self, server: Server, tmp_path: Path) -> None:
        server.breaks_after = [5000, 7000]
        fetching.get(file(server), tmp_path)
        assert server.asked == ["", "bytes=5000-", "bytes=12000-"]
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT

    def test_one_that_brings_nothing_more_keeps_its_part(self, server: Server, tmp_path: Path) -> None:
        server.breaks_after = [5000, 0]
        with pytest.raises(Missing, match=r"broke off after 5,000 of 3,072,000 bytes; 5,000 bytes are kept"):
            fetching.get(file(server), tmp_path)
        assert part(tmp_path).read_bytes() == CONTENT[:5000]
        fetching.get(file(server), tmp_path)
        assert server.asked[-1] == "bytes=5000-"

    @pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1], b"", b"<html>Sign in first</html>"])
    def test_a_wrong_checksum_leaves_nothing(self, server: Server, tmp_path: Path, content: bytes) -> None:
        server.content = content
        with pytest.raises(Missing, match=r"expected md5:\w{32}, found \w{32}|416"):
            fetching.get(file(server), tmp_path)
        assert not list((tmp_path / "sub").iterdir())

    def test_the_next_address_is_tried(self, server: Server, tmp_path: Path) -> None:
        urls = (f"{server.address}/absent", f"{server.address}/{NAME}")
        fetching.get(file(server, urls=urls), tmp_path)
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT

    def test_no_address_answers(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(Missing, match=r"thing.bin: not downloaded: .*absent: HTTPError: HTTP Error 404"):
            fetching.get(file(server, urls=(f"{server.address}/absent",)), tmp_path)
        with pytest.raises(Missing, match=r"not downloaded: .*refused"):
            fetching.get(file(server, urls=("http://127.0.0.1:9/x",)), tmp_path)

    def test_an_interrupt_leaves_the_part(self, server: Server, tmp_path: Path) -> None:
        def interrupt(name: str, there: int, size: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetching.get(file(server), tmp_path, interrupt)
        assert 0 < part(tmp_path).stat().st_size < len(CONTENT)
        fetching.get(file(server), tmp_path)
        assert (tmp_path / "sub" / NAME).read_bytes() == CONTENT

    def test_a_folder_that_cannot_be_made(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "sub").write_text("a file")
        with pytest.raises(StorageError, match="cannot be written"):
            fetching.get(file(server), tmp_path)

    @pytest.mark.parametrize("kind", ["md5", "sha256"])
    def test_checksums_are_hashlibs_and_may_be_beginnings(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "x").write_bytes(CONTENT)
        digest = hashlib.new(kind, CONTENT).hexdigest()
        assert fetching.matches(tmp_path / "x", f"{kind}:{digest}")
        assert fetching.matches(tmp_path / "x", f"{kind}:{digest[:8]}")
        assert not fetching.matches(tmp_path / "x", f"{kind}:{digest[1:]}")


def tar(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            body = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return held.getvalue()


def zipped(members: dict[str, bytes | zipfile.ZipInfo]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in members.items():
            link = isinstance(content, zipfile.ZipInfo)
            archive.writestr(content if link else name, "/etc/passwd" if link else content)  # type: ignore[arg-type]
    return held.getvalue()


def tar_link() -> tarfile.TarInfo:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return link


def zip_link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    return link


BOTH = pytest.mark.parametrize(("pack", "name"), [(tar, "a.tgz"), (zipped, "a.zip")])


class TestUnpack:
    @BOTH
    def test_archives(self, tmp_path: Path, pack: Callable[..., bytes], name: str) -> None:
        (tmp_path / name).write_bytes(pack({"top/a.txt": b"a", "top/deep/b.txt": b"b"}))
        (tmp_path / "top").mkdir()
        (tmp_path / "top" / "mine.txt").write_bytes(b"mine")
        fetching.unpack(tmp_path / name, tmp_path)
        there = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*.txt")}
        assert there == {"top/a.txt": b"a", "top/deep/b.txt": b"b", "top/mine.txt": b"mine"}
        assert {path.name for path in tmp_path.iterdir()} == {name, "top"}

    def test_one_compressed_file(self, tmp_path: Path) -> None:
        (tmp_path / "images.gz").write_bytes(gzip.compress(CONTENT))
        fetching.unpack(tmp_path / "images.gz", tmp_path)
        assert (tmp_path / "images").read_bytes() == CONTENT

    @BOTH
    @pytest.mark.parametrize("member", ["../out.txt", "a/../../out.txt", "link"])
    def test_nothing_leads_out(self, tmp_path: Path, pack: Callable[..., bytes], name: str, member: str) -> None:
        link: Any = tar_link() if pack is tar else zip_link()
        inside = tmp_path / "inside"
        inside.mkdir()
        (inside / name).write_bytes(pack({member: link if member == "link" else b"out"}))
        with pytest.raises(InputError, match=f"{name}: expected an archive that unpacks safely, found: "):
            fetching.unpack(inside / name, inside)
        assert [path.name for path in tmp_path.rglob("*")] == ["inside", name]

    @pytest.mark.parametrize("content", [b"no archive", gzip.compress(CONTENT)[:-20], tar({"a": CONTENT})[:-500]])
    def test_a_damaged_archive(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(InputError, match="expected an archive that unpacks safely"):
            fetching.unpack(tmp_path / "a.gz", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["a.gz"]

    def test_after_its_download_the_archive_goes(self, server: Server, tmp_path: Path) -> None:
        server.content = tar({"top/a.txt": b"a"})
        made = file(server, server.content, makes="sub/top", into="sub")
        fetching.get(made, tmp_path)
        assert [path.name for path in (tmp_path / "sub").iterdir()] == ["top"]
        fetching.get(made, tmp_path)
        assert len(server.asked) == 1

    def test_an_archive_of_something_else(self, server: Server, tmp_path: Path) -> None:
        server.content = tar({"other/a.txt": b"a"})
        with pytest.raises(InputError, match="expected sub/top in it, found nothing of that name"):
            fetching.get(file(server, server.content, makes="sub/top", into="sub"), tmp_path)

    def test_a_kill_while_unpacking_costs_no_second_download(self, server: Server, tmp_path: Path) -> None:
        server.content = tar({"top/a.txt": b"a"})
        (tmp_path / "sub" / f".{NAME}" / "half").mkdir(parents=True)
        (tmp_path / "sub" / NAME).write_bytes(server.content)
        fetching.get(file(server, server.content, makes="sub/top", into="sub"), tmp_path)
        assert server.asked == []
        assert [path.name for path in (tmp_path / "sub").iterdir()] == ["top"]


class TestFetch:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path / "data"))
        return tmp_path / "data"

    def known(self, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
        monkeypatch.setitem(data_sources.SOURCES, "thing", Source("", "", "", **facts))

    def test_once(self, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        there = folder / "sub" / NAME
        self.known(monkeypatch, there=there.exists, files=lambda: (file(server),))
        assert fetching.fetch("thing")
        assert there.read_bytes() == CONTENT
        assert not fetching.fetch("thing")

    def test_not_twice_at_the_same_time(self, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known(monkeypatch, there=lambda: False, files=lambda: (file(server),))
        folder.mkdir()
        with FileLock(folder / ".thing.lock"), pytest.raises(InputError, match="another process"):
            fetching.fetch("thing")

    def test_what_nobody_downloads_says_what_does(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known(monkeypatch, there=lambda: False, line="apt-get install thing")
        with pytest.raises(InputError, match="get it with: apt-get install thing"):
            fetching.fetch("thing")

    def test_a_librarys_own_function(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        called: list[int] = []
        self.known(monkeypatch, there=lambda: False, getter=lambda: called.append(1))
        assert fetching.fetch("thing")
        assert called == [1]

        def refused() -> None:
            raise ConnectionError("no network")

        self.known(monkeypatch, there=lambda: False, getter=refused)
        with pytest.raises(Missing, match="thing: not downloaded: ConnectionError: no network"):
            fetching.fetch("thing")
