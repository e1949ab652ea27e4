"""Comparing runs with each other and with references: finds both tables, and keeps a run as the new reference."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from attribug import listing, locations, results
from attribug.registry import InputError, Missing, near_misses, one_line
from attribug.results import published
from attribug.results.comparison import EFFECT, Comparison, Measured
from attribug.results.comparison import compare as compare_tables
from attribug.results.schema import TableError, read_results, write_results
from attribug.run_json import Facts, RunFacts, checksum, expect_file, read_facts
from attribug.store import RESULTS, RUN, SCORES, Models, Tensors, is_url, read_json, write_atomically, write_json

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
    """Compares two runs of one suite: folders, their URLs, results.csv files, names of references, or what `run`
    returned.

    `tolerance`: the difference of values that counts for nothing, of all metrics or by metric (`effect` for effects);
    `only_verdicts` gates verdicts alone. See `attribug.results.comparison`. Raises `InputError` for what is no table,
    a damaged one, or one of another suite or schema.
    """
    allowed = _tolerances(tolerance)
    sides = [load(side) for side in (baseline, candidate)]
    present = {name for side in sides for name in side.results["metric"].unique()} | {EFFECT, ""}
    for name in allowed:
        if name not in present:
            raise InputError(f"tolerance: neither table has a metric {name!r}{near_misses(name, present - {''})}")
    kinds = {row["name"]: row["kind"] for row in listing.listed("metrics")}
    try:
        return compare_tables(sides[0], sides[1], tolerance=allowed, only_verdicts=only_verdicts, kinds=kinds)
    except TableError as error:
        raise InputError(str(error)) from error


def load(source: str | Path | Run, kind: type[Facts] = Facts) -> Measured:
    """A table with what is known of it. Raises `InputError` where there is none, or it is not what was written."""
    if not isinstance(source, str | Path):
        return _load(source.folder, source.name, kind)
    if not is_url(source):
        return _load(Path(source), str(source), kind)
    with locations.reading(str(source)) as place:
        return _load(place.folder, place.name, kind)


def _load(path: Path, name: str, kind: type[Facts]) -> Measured:
    if not path.exists() and name in references():
        path = REFERENCES / f"{name}.csv"
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
        rows = read_results(table)
        for file in (table, scores):
            if facts and file is not None:
                expect_file(file, facts)
        return Measured(name, rows, None if scores is None else pd.read_parquet(scores), facts)
    except TableError as error:
        raise InputError(str(error)) from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{scores}: {one_line(error)}") from error


def compare_published(candidate: str | Path | Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Published values and findings beside a run's: see `attribug.results.published`. Raises `InputError` as `compare`,
    and for a table that does not know its bugs' primary metrics."""
    return beside_published(load(candidate))


def beside_published(found: Measured) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As `compare_published`, of a table that was loaded."""
    bugs = found.facts.get("pieces", {}).get("bugs")
    if not bugs:
        raise InputError(f"{found.name}: expected a run's folder or a reference, which know their bugs, found a table")
    primary, controls = ({name: bug[fact] for name, bug in bugs.items()} for fact in ("primary", "control"))
    return published.beside(found.results, controls), published.findings(found.results, primary, controls)


def _tolerances(tolerance: float | Mapping[str, float] | None) -> dict[str, float]:
    """By metric, `""` for all."""
    given = {} if tolerance is None else dict(tolerance) if isinstance(tolerance, Mapping) else {"": tolerance}
    allowed = {}
    for name, value in given.items():
        said = f"tolerance{f' {name}' if name else ''}: expected a number of at least 0, found {value!r}"
        try:
            allowed[str(name)] = float(value)
        except (TypeError, ValueError):
            raise InputError(said) from None
        if not 0 <= allowed[str(name)] < math.inf:
            raise InputError(said)
    return allowed


def accept(baseline: str | Path, candidate: str | Path | Run) -> Path:
    """Keeps the candidate as reference: a table and its provenance (versions, machine, settings, checks, what models).

    `baseline` is a reference's name or the path of a .csv file, which need not exist yet. A reference that comes with
    its models (a folder of its name beside the table) gets the candidate's. Returns the table's path. Raises
    `InputError` for a candidate that failed in part or that is no run's folder, or a path that cannot be written.
    """
    if isinstance(candidate, str | Path) and not is_url(candidate) and not Path(candidate).is_dir():
        raise InputError(f"{candidate}: expected a run's folder, which knows where numbers come from, found none")
    found = load(candidate, RunFacts)
    if found.facts["failures"]:
        raise InputError(f"{found.name}: expected a whole run, found {len(found.facts['failures'])} failed records")
    path = _reference(baseline)
    folder, notes = path.with_suffix(""), path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            _keep_models(found, folder, _before(notes))
        write_results(found.results, path)
        write_json(notes, _provenance(found.facts) | {"files": {path.name: checksum(path)}})
    except OSError as error:
        raise InputError(f"--accept {path}: cannot be written: {error.strerror or error}") from error
    return path


def _reference(name: str | Path) -> Path:
    """The file that a reference is kept in: one's own, or in a checkout one of the package's."""
    path = Path(name)
    if path.is_dir():
        raise InputError(f"--accept: expected a reference's name or a .csv file to write, found the folder {path}")
    if path.suffix == ".csv" and path.name != RESULTS:
        if path.with_suffix(".json").is_dir():
            raise InputError(f"--accept {path}: expected a place for {path.stem}.json, found a folder of that name")
        return path
    if str(name) not in references():
        known = ", ".join(references())
        raise InputError(f"--accept: expected a .csv file but {RESULTS}, or a reference ({known}), found {str(name)!r}")
    if not (REFERENCES.parents[1] / "pyproject.toml").exists():
        raise InputError(f"--accept: {str(name)!r} belongs to the installed package; name a .csv file to write")
    return REFERENCES / f"{name}.csv"


def _before(notes: Path) -> set[str]:
    """Keys of the models that an earlier reference kept."""
    told = read_json(notes)
    models = told.get("models") if isinstance(told, dict) else None
    return set(models) if isinstance(models, dict) else set()


def _keep_models(run: Measured, folder: Path, before: set[str]) -> None:
    """Copies the run's models from the cache, unless they are there; an earlier reference's go."""
    weights = {key: model["weights"] for key, model in run.facts["models"].items()}
    cache = locations.cache()
    kept, cached = Tensors(folder), Models(cache.folder, device=run.facts["device"]).cache
    wanted = [key for key, checked in weights.items() if kept.checksum(key) != checked]
    locations.fetch_models(cache, cached, wanted)
    absent = [key for key in wanted if cached.checksum(key) != weights[key]]
    if absent:
        raise Missing(f"{run.name}: {len(absent)} of its {len(weights)} models are not in the cache; run it again")
    for key in wanted:
        write_atomically(kept.path(key), partial(shutil.copyfile, cached.path(key)))
    for stale in before - set(weights):
        kept.path(stale).unlink(missing_ok=True)


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
