"""Sources of data and weights in words, and how far their downloads are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from attribug import data_sources
from attribug.data_places import data_folder

HERE, MISSING = "here", "missing"


def lines() -> Iterator[str]:
    """The folder of what is downloaded; each source in two lines."""
    yield f"data folder: {data_folder()}"
    width = max(map(len, data_sources.SOURCES))
    for name, source in data_sources.SOURCES.items():
        yield f"{name:<{width}}  {HERE if source.there() else MISSING:<{len(MISSING)}}  {source.what}"
        facts = f"{source.size} · {source.licence} · {data_sources.line(name)}"
        yield f"{'':<{width}}  {'':<{len(MISSING)}}  {facts}"


def as_json() -> dict[str, Any]:
    """The same in plain values."""
    return {
        "folder": str(data_folder()),
        "sources": [
            {
                "name": name,
                "summary": source.what,
                "licence": source.licence,
                "size": source.size,
                "here": source.there(),
                "line": data_sources.line(name),
                "fetched": source.fetched,
            }
            for name, source in data_sources.SOURCES.items()
        ],
    }


class Downloads:
    """Bars of downloads on stderr, where that is a terminal. A context."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Downloads:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def told(self, file: str, there: int, size: int) -> None:
        """Moves a file's bar; `size` 0: nobody knows."""
        if file not in self._bars:
            self._bars[file] = self._progress.add_task(file, total=size or None)
        self._progress.update(self._bars[file], completed=there)
