"""Names and places of what is stored: a run's folder, the cache, copies of remote places; one writer at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from attribug.data_places import CACHE, COPIES, COPY_CHARACTERS, cache_folder, copies_folder, copy_folder, is_url
from attribug.errors import InputError
from attribug.storage.files import storing

__all__ = [
    "CACHE", "COPIES", "COPY_CHARACTERS", "cache_folder", "claimed", "copies_folder", "copy_folder", "half_written",
    "is_url",
]  # fmt: skip
RESULTS, SCORES, COSTS, RUN = "results.csv", "scores.parquet", "costs.csv", "run.json"
FIXES = "fixes.csv"
ALIGNMENT, ALIGNMENT_CASES, ALIGNMENT_SCORES = "alignment.csv", "alignment_cases.csv", "alignment.parquet"
ANALYSIS, FIGURES, REPORT = "analysis", "figures", "report.html"
REPLICATION, REPLICATION_NOTES = "replication.csv", "replication.json"
"""Names of a run's files and folders."""
TABLES = (RESULTS, SCORES, COSTS, FIXES, ALIGNMENT, ALIGNMENT_CASES, ALIGNMENT_SCORES, REPORT, RUN)
"""Files that lie in a run's folder itself."""
CONTENT = ("records", "galleries", "maps")
"""Folders of a run whose files are named by what determines them."""
MAPS_INDEX = "maps/index.parquet"
"""Which kept map is which: a table, though it lies in a folder of those that are named by content."""
SHARED = "shared"
"""Folder of maps that several contrasts ask for: there while a run goes on, and after a kill until it went on."""
LOCK = ".lock"
UNSENT = ".unsent"


@contextlib.contextmanager
def claimed(folder: Path, option: str = "--out ", seconds: float = 0) -> Iterator[None]:
    """Locks a run's folder, within seconds and until the context is left; the lock dies with its holder. Removes what a
    killed run left half-written.

    Raises:
        InputError: another run holds it.
    """
    lock = FileLock(folder / LOCK)
    with storing(folder / LOCK):
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            said = f"{option}{folder}: another run is writing there; wait for it, or choose another"
            raise InputError(said) from None
    try:
        with storing(folder):
            for path in half_written(folder):
                path.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def half_written(folder: Path) -> list[Path]:
    """What a killed run left half-written in its folder; other hidden files are the user's."""
    files = [path for name in (*TABLES, REPLICATION, REPLICATION_NOTES) for path in folder.glob(f".{name}.*")]
    below = [path for name in (*CONTENT, SHARED, ANALYSIS, FIGURES) for path in (folder / name).glob(".*")]
    return [path for path in (*files, *below) if path.is_file()]
