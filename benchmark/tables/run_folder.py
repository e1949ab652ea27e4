"""A run's folder: made ready, locked, and recognised when it is finished."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.errors import InputError, StorageError
from attribug.results.schema import SCHEMA_VERSION
from attribug.storage.files import checksum, read_json, storing, write_json
from attribug.storage.folders import (
    ALIGNMENT,
    ALIGNMENT_CASES,
    ALIGNMENT_SCORES,
    ANALYSIS,
    COSTS,
    FIGURES,
    FIXES,
    MAPS_INDEX,
    RESULTS,
    RUN,
    SCORES,
    claimed,
)
from attribug.tables import kept_maps

if TYPE_CHECKING:
    from attribug.plans.plan import Plan
    from attribug.storage.locations import Location


@contextmanager
def prepare(place: Location, stored: Location, plan: Plan) -> Iterator[None]:
    """Makes the run's folder and the cache; a context in which no other run writes to the former.

    Raises:
        InputError: one cannot be written, holds another suite, or another run is writing there.
    """
    out, cache = place.folder, stored.folder
    place.note()
    stored.note()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: expected a folder, found a file")
    for name, folder in (("--out", out), ("--out", out / "records"), ("--out", out / "galleries"), ("cache", cache)):
        try:
            with storing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
        except StorageError as error:
            said = f"{name} {folder}: expected a folder that can be written, found: {error.found}"
            raise InputError(said) from error
    if place.remote is None:
        _expect_suite(out, plan)  # before anything is touched
    with claimed(out):
        for remote in (place, stored):
            remote.expect_writable()
        place.fetch_tables()
        if _expect_suite(out, plan) is None:
            write_json(out / RUN, {"schema": SCHEMA_VERSION, "suite": plan.suite.model_dump()})
            place.send_file(RUN)
        yield


def _expect_suite(out: Path, plan: Plan) -> str | None:
    """Name of the suite whose results a folder holds, if any; raises `InputError` where it is another."""
    before = _suite_of(out)
    if before not in {None, plan.suite.name}:
        raise InputError(f"--out {out}: expected results of suite {plan.suite.name!r}, found {before!r}")
    return before


def _suite_of(out: Path) -> str | None:
    """Name of the suite whose results a folder holds; None where there are none, or run.json is damaged."""
    before = read_json(out / RUN)
    suite = before.get("suite") if isinstance(before, dict) else None
    name = suite.get("name") if isinstance(suite, dict) else None
    return name if isinstance(name, str) else None


def finished(place: Location, plan: Plan, *, with_maps: bool = False) -> bool:
    """Whether the folder holds exactly this plan's tables and figures, with nothing failed; `with_maps`: and all maps
    were kept, and are there (of a remote place they are only fetched when they are asked for)."""
    out = place.folder
    before = read_json(out / RUN)
    return (
        isinstance(before, dict) and before.get("plan") == plan.key and not before.get("failures")
        and (not with_maps or before.get("maps_kept") is True)
        and before.get("files") == checksums(out)
        and (not with_maps or place.remote is not None or kept_maps.whole(out))
    )  # fmt: skip


def checksums(out: Path) -> dict[str, str]:
    """Checksums of tables, figures and the index of kept maps: a damaged or missing one makes the run unfinished."""
    folders = [path for folder in (ANALYSIS, FIGURES) for path in sorted((out / folder).glob("*"))]
    tables = (RESULTS, SCORES, COSTS, FIXES, ALIGNMENT, ALIGNMENT_CASES, ALIGNMENT_SCORES, MAPS_INDEX)
    paths = [*(out / name for name in tables), *folders]
    return {path.name: checksum(path) for path in paths if path.is_file()}
