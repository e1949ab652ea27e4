"""`attribug data` as users meet it: what there is, how it is got, and what cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attribug import data_sources
from attribug.data_sources import SOURCES, File, Source


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_lists_every_source_with_what_one_needs_to_know(inside: Callable[..., Any], folder: Path) -> None:
    answer = inside("data")
    assert answer.returncode == 0
    first, *rest = answer.stdout.splitlines()
    assert first == f"data folder: {folder}"
    assert len(rest) == 2 * len(SOURCES)
    for name, source, facts in zip(SOURCES, rest[::2], rest[1::2], strict=True):
        here = "missing" if data_sources.missing(name) else "here"
        assert source.split()[:2] == [name, here]
        assert facts.strip() == f"{SOURCES[name].size} · {SOURCES[name].licence} · {data_sources.line(name)}"


def test_json(inside: Callable[..., Any], folder: Path) -> None:
    told = json.loads(inside("data", "--json").stdout)
    assert told["folder"] == str(folder)
    assert {row["name"]: row["here"] for row in told["sources"]} == {n: s.there() for n, s in SOURCES.items()}
    assert {"summary", "licence", "size", "line", "fetched"} < set(told["sources"][0])


def test_a_source_that_is_here(inside: Callable[..., Any]) -> None:
    answer = inside("data", "fetch", "digits", "surfaces")
    assert (answer.returncode, answer.stdout) == (0, "digits: already here\nsurfaces: already here\n")


def test_what_cannot_be_downloaded_is_one_line(inside: Callable[..., Any]) -> None:
    answer = inside("data", "fetch", "places")
    assert answer.returncode == 2
    assert answer.stderr.startswith("attribug: places: nothing that attribug downloads; get it with: put the ")
    assert answer.stderr.count("\n") == 1


def test_an_unknown_name_is_refused_before_anything_is_got(inside: Callable[..., Any]) -> None:
    answer = inside("data", "fetch", "digits", "fashon")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "did you mean 'fashion'" in answer.stderr


def test_a_server_that_does_not_answer(inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    file = File(("http://127.0.0.1:9/x",), "x", "md5:00000000", "x")
    monkeypatch.setitem(SOURCES, "thing", Source("", "", "", there=lambda: False, files=lambda: (file,)))
    answer = inside("data", "fetch", "thing")
    assert answer.returncode == 3
    assert answer.stderr.startswith("attribug: x: not downloaded: http://127.0.0.1:9/x: ")
    assert answer.stderr.count("\n") == 1


def test_an_interrupt_says_so(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from attribug.storage import fetching; from attribug.__main__ import main;"
        "fetching.fetch = lambda name, told: signal.raise_signal(signal.SIGINT);"
        "sys.argv = ['attribug', 'data', 'fetch', 'pets']; main()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 130
    assert answer.stderr == "attribug: interrupted; the same command goes on from here\n"
