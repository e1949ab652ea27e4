"""Runs that go wrong are many: quick pictures, and caches of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from attribug.results import figures, plots
from attribug.storage import models
from doubles.pieces import forgotten


@pytest.fixture(autouse=True)
def _hostile_pieces_are_gone_afterwards() -> Iterator[None]:
    with forgotten():
        yield


@pytest.fixture
def lone(in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process do everything in it, and nobody else writes to their caches."""
    monkeypatch.setattr(models, "SECONDS_TO_WRITE", 0)


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are a few bytes: drawing them would take most of the time. They are written all the same."""
    monkeypatch.setattr(figures, "gallery", lambda picture, **_: picture.write(b"picture" * 100))
    monkeypatch.setattr(plots, "drawings", lambda *_: dict.fromkeys(("effects_a.svg", "curve_b.svg"), lambda: "<svg/>"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
