"""Comparing runs with each other and with references: finds both tables, and keeps a run as the new reference."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug import listing, results
from attribug.registry import InputError, Missing, near_misses
from attribug.results import published
from attribug.results.comparison import EFFECT, Comparison, Measured
from attribug.results.comparison import compare as compare_tables
from attribug.results.schema import SCHEMA_VERSION, TableError, read_results, write_results
from attribug.store import RESULTS, RUN, SCORES, Tensors, cache_folder, read_json, write_atomically, write_json

if TYPE_CHECKING:
    from attribug.api import Run

REFERENCES = Path(results.__file__).parent / "reference"
KEPT_FACTS = ("schema", "written", "suite", "plan", "device", "machine", "versions", "revision", "models", "contrasts")
KEPT_PIECES = {"bugs": ("primary", "control"), "metrics": ("kind", "visible", "bounds", "reads")}


def references() -> list[str]:
    """Names of the reference tables in the package."""
    return sorted(path.stem for path in REFERENCES.glob("*.csv"))


def compare(
    baseline: str | Path | Run,
    candidate: str | Path | Run,
    *,
    tolerance: float | Mapping[str, float] | None = None,
    only_verdicts: bool = False,
) -> Comparison:
    """Compares two runs of one suite: folders, results.csv files, names of references, or what `run` returned.

    `tolerance`: the difference of values that counts for nothing, of all metrics or by metric (`effect` for effects);
    `only_verdicts` gates verdicts alone. See `attribug.results.comparison`. Raises `InputError` for what is no table,
    a damaged one, or one of another suite or schema.
    """
    allowed = {"": float(tolerance)} if isinstance(tolerance, int | float) else dict(tolerance or {})
    for name, value in allowed.items():
        if not 0 <= value < math.inf:
            raise InputError(f"tolerance{f' {name}' if name else ''}: expected a number of at least 0, found {value:g}")
    sides = [measured(side) for side in (baseline, candidate)]
    present = {name for side in sides for name in side.results["metric"].unique()} | {EFFECT, ""}
    for name in allowed:
        if name not in present:
            raise InputError(f"tolerance: neither table has a metric {name!r}{near_misses(name, present - {''})}")
    kinds = {row["name"]: row["kind"] for row in listing.listed("metrics")}
    try:
        return compare_tables(sides[0], sides[1], tolerance=allowed, only_verdicts=only_verdicts, kinds=kinds)
    except TableError as error:
        raise InputError(str(error)) from error


def measured(source: str | Path | Run) -> Measured:
    """A table with what is known of it. Raises `InputError` where there is none, or it is not what was written."""
    path = Path(source) if isinstance(source, str | Path) else source.folder
    name = str(path)
    if not path.exists() and name in references():
        path = REFERENCES / f"{name}.csv"
    if not path.exists():
        known = references()
        raise InputError(
            f"{name}: expected a run's folder, a results.csv or a reference ({', '.join(known)}), found no such file"
            f"{near_misses(name, known)}"
        )
    table = path / RESULTS if path.is_dir() else path
    notes = table.with_name(RUN) if table.name == RESULTS else table.with_suffix(".json")
    facts = read_json(notes)
    if path.is_dir() and not (isinstance(facts, dict) and "files" in facts and table.exists()):
        raise InputError(f"{name}: expected a finished run, found no {RESULTS} beside a whole {RUN}; run "
                         "the suite again, which goes on from where it stopped")  # fmt: skip
    facts = facts if isinstance(facts, dict) else {}
    if facts.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise InputError(f"{name}: expected a table of schema {SCHEMA_VERSION}, found schema {facts['schema']}")
    try:
        rows = read_results(table)
    except TableError as error:
        raise InputError(str(error)) from error
    scores = table.with_name(SCORES) if notes.name == RUN else None
    for file in (table, scores):
        if file is not None and facts and _checksum(file) != facts.get("files", {}).get(file.name):
            found = "none" if not file.exists() else "another: it was cut or edited"
            raise InputError(f"{file}: expected the file that {notes.name} tells of, found {found}")
    return Measured(name, rows, None if scores is None or not facts else pd.read_parquet(scores), facts)


def compare_published(candidate: str | Path | Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Published values and findings beside a run's: see `attribug.results.published`. Raises `InputError` as `compare`,
    and for a table that does not know its bugs' primary metrics."""
    found = measured(candidate)
    bugs = found.facts.get("pieces", {}).get("bugs")
    if not bugs:
        raise InputError(f"{found.name}: expected a run's folder or a reference, which know their bugs, found a table")
    primary, controls = ({name: bug[fact] for name, bug in bugs.items()} for fact in ("primary", "control"))
    return published.beside(found.results, controls), published.findings(found.results, primary, controls)


def accept(baseline: str | Path, candidate: str | Path | Run) -> Path:
    """Keeps the candidate as reference: a table and its provenance (versions, machine, settings, checks, what models).

    `baseline` is a reference's name or the path of a .csv file, which need not exist yet. A reference that comes with
    its models (a folder of its name beside the table) gets the candidate's. Returns the table's path. Raises
    `InputError` for a candidate that failed in part or that is no run's folder, or a path that cannot be written.
    """
    found = measured(candidate)
    if not found.facts.get("plan"):
        raise InputError(f"{found.name}: expected a run's folder, which knows where numbers come from, found a table")
    if found.facts.get("failures"):
        raise InputError(f"{found.name}: expected a whole run, found {len(found.facts['failures'])} failed records")
    path = Path(baseline)
    if path.is_dir():
        raise InputError(f"--accept: expected a reference's name or a .csv file to write, found the folder {path}")
    if path.suffix != ".csv":
        path = REFERENCES / f"{baseline}.csv"
        if "site-packages" in path.parts:
            raise InputError(f"--accept: {baseline!r} belongs to the installed package; name a .csv file to write")
    folder = path.with_suffix("")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            _keep_models(found, folder)
        write_results(found.results, path)
        write_json(path.with_suffix(".json"), _provenance(found.facts) | {"files": {path.name: _checksum(path)}})
    except OSError as error:
        raise InputError(f"--accept {path}: cannot be written: {error.strerror or error}") from error
    return path


def _keep_models(run: Measured, folder: Path) -> None:
    """Copies the run's models from the cache; those of an earlier reference go."""
    keys = list(run.facts["models"])
    cached = Tensors(cache_folder() / "models")
    absent = [key for key in keys if cached.checksum(key) != run.facts["models"][key]["weights"]]
    if absent:
        raise Missing(f"{run.name}: {len(absent)} of its {len(keys)} models are not in the cache; run the suite again")
    for key in keys:
        write_atomically(folder / f"{key}.safetensors", partial(shutil.copyfile, cached.path(key)))
    for stale in set(folder.glob("*.safetensors")) - {folder / f"{key}.safetensors" for key in keys}:
        stale.unlink()


def _provenance(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a reference keeps of run.json: what made it, and what its rows mean."""
    checks = {
        f"{check['task']} / {check['bug']} {check['level']} / seed {check['seed']} / {check['check']}": check["figure"]
        for check in facts["checks"]
    }
    pieces = {
        kind: {name: {fact: piece[fact] for fact in wanted} for name, piece in facts["pieces"][kind].items()}
        for kind, wanted in KEPT_PIECES.items()
    }
    suite = {name: value for name, value in facts["suite"].items() if name != "cost"}
    return {name: facts[name] for name in KEPT_FACTS} | {"suite": suite, "checks": checks, "pieces": pieces}


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
