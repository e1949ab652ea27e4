"""Tables to compare: run folders, files, reference tables that come with attribug."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pandas as pd
import pyarrow as pa

from attribug import results
from attribug.errors import InputError, near_misses, one_line, warn_of_shadow
from attribug.results.comparison import ComparedTable
from attribug.results.schema import TableError, read_results
from attribug.storage import locations
from attribug.storage.files import read_json
from attribug.storage.folders import RESULTS, RUN, SCORES, is_url
from attribug.tables.run_json import Facts, expect_file, read_facts

REFERENCES = Path(results.__file__).parent / "reference"


def references() -> list[str]:
    """Names of the reference tables in the package."""
    return sorted(path.stem for path in REFERENCES.glob("*.csv"))


class FinishedRun(Protocol):
    """What `attribug.run` returns: a folder, and how the user calls it."""

    @property
    def folder(self) -> Path:
        """Of the run, or of the copy of what lies at a URL."""

    @property
    def name(self) -> str:
        """Where the run lies, as the user calls it."""


def load_table(
    source: str | Path | FinishedRun, kind: type[Facts] = Facts, *, with_scores: bool = True
) -> ComparedTable:
    """A table with what is known of it, its scores included where they were kept and are asked for.

    Raises `InputError` where there is none, or it is not what was written.
    """
    if not isinstance(source, str | Path):
        return _load(source.folder, source.name, kind, with_scores)
    if not is_url(source):
        return _load(Path(source), str(source), kind, with_scores)
    with locations.reading(str(source)) as place:
        return _load(place.folder, place.name, kind, with_scores)


def _load(path: Path, name: str, kind: type[Facts], with_scores: bool) -> ComparedTable:
    if name in references():
        reference = REFERENCES / f"{name}.csv"
        if path.exists():
            warn_of_shadow(name, "the reference", str(reference))
        else:
            path = reference
    if not path.exists():
        known = references()
        raise InputError(
            f"{name}: expected a run's folder, a results.csv or a reference ({', '.join(known)}), found no such file"
            f"{near_misses(name, known)}"
        )
    told = read_json(path / RUN) if path.is_dir() else None
    if isinstance(told, dict) and "files" not in told:
        raise InputError(f"{name}: expected a finished run, found one that is not; run the suite again, which goes on")
    table = path / RESULTS if path.is_dir() else path
    notes = table.with_name(RUN) if table.name == RESULTS else table.with_suffix(".json")
    facts = read_facts(notes, kind) if path.is_dir() or notes.exists() else {}
    scores = table.with_name(SCORES) if facts and notes.name == RUN else None
    scores = scores if scores is not None and scores.exists() else None  # a run may be kept without them
    try:
        rows = read_results(table, empty=panels_alone(facts))
        for file in (table, scores):
            if facts and file is not None:
                expect_file(file, facts)
        read = pd.read_parquet(scores) if with_scores and scores is not None else None
        return ComparedTable(name, rows, read, facts)
    except TableError as error:
        raise InputError(str(error)) from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{scores}: {one_line(error)}") from error


def expect_bugs(table: ComparedTable) -> None:
    """Raises `InputError` for a run of panels alone: it has no verdicts."""
    if panels_alone(table.facts):
        raise InputError(f"{table.name}: expected verdicts on bugs, found a run of panels alone; see its alignment.csv")


def panels_alone(facts: Mapping[str, object]) -> bool:
    """Whether a run's suite has panels and no bugs, so that its results have no rows."""
    suite = facts.get("suite")
    return isinstance(suite, dict) and bool(suite.get("panels")) and not suite.get("bugs")
