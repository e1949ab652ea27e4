"""A finished run from its place, for Python: its tables, its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attribug.errors import InputError
from attribug.reports import pages, references
from attribug.reports.references import FinishedRun
from attribug.storage import locations
from attribug.storage.folders import is_url
from attribug.tables.finished import StoredRun
from attribug.tables.run_json import RunFacts


def load(place: str | Path) -> StoredRun:
    """A finished run, from its folder or URL; the plugins that made it need not be at hand.

    Raises `InputError` for anything else: no folder, a run that is not finished, tables or facts that are absent,
    damaged, older than this version, or do not belong together.
    """
    if not isinstance(place, str | Path):
        raise InputError(f"run: expected a run's folder or its URL, found {type(place).__name__}")
    if not is_url(place):
        return _loaded(Path(place), None)
    with locations.reading(str(place)) as copy:
        return _loaded(copy.folder, copy.name)


def _loaded(folder: Path, url: str | None) -> StoredRun:
    pages.expect_folder(folder)
    table = references.load_table(folder, RunFacts, with_scores=False)
    pages.expect_pieces(folder, table.results, table.facts["pieces"])
    return StoredRun(folder, table.results, url=url)


def report(run: str | Path | FinishedRun, output: str | Path | None = None) -> str | Path:
    """Writes the page of a run, a folder, its URL or what `run` and `load` return, by default to `report.html` in its
    folder or at its URL; returns where it is.

    Raises `InputError` as `load`.
    """
    place: Any = run if isinstance(run, str | Path) else getattr(run, "name", None)
    if not isinstance(place, str | Path):
        raise InputError(f"run: expected a run, its folder or its URL, found {type(run).__name__}")
    return pages.write_report(place, None if output is None else Path(output))
