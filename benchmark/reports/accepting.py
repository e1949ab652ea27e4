"""Keeps a run as the new reference: its table, its provenance, its models."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribug.errors import InputError, Missing, StorageError
from attribug.reports.references import REFERENCES, expect_bugs, load_table, references
from attribug.results.schema import results_csv
from attribug.storage import locations, shared_models
from attribug.storage.files import checksum, read_json, write_atomically, write_json
from attribug.storage.folders import RESULTS, is_url
from attribug.storage.models import Models
from attribug.storage.tensors import Tensors
from attribug.tables.run_json import RunFacts

if TYPE_CHECKING:
    from attribug.reports.references import FinishedRun
    from attribug.results.comparison import ComparedTable

KEPT_FACTS = ("schema", "written", "suite", "plan", "device", "machine", "versions", "revision", "models", "contrasts")
KEPT_PIECES = {"bugs": ("primary", "control"), "metrics": ("kind", "visible", "bounds", "reads")}


def accept(baseline: str | Path, candidate: str | Path | FinishedRun) -> Path:
    """Keeps the candidate as reference: a table and its provenance (versions, machine, settings, checks, what models).

    `baseline` is a reference's name or the path of a .csv file, which need not exist yet. A reference that comes with
    its models (a folder of its name beside the table) gets the candidate's. Returns the table's path. Raises
    `InputError` for a candidate that failed in part or that is no run's folder, or a path that cannot be written.
    """
    if isinstance(candidate, str | Path) and not is_url(candidate) and not Path(candidate).is_dir():
        raise InputError(f"{candidate}: expected a run's folder, which knows where numbers come from, found none")
    run = load_table(candidate, RunFacts)
    expect_bugs(run)
    if run.facts["failures"]:
        raise InputError(f"{run.name}: expected a whole run, found {len(run.facts['failures'])} failed records")
    path = _reference(baseline)
    folder, notes = path.with_suffix(""), path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            _keep_models(run, folder, _kept_before(notes))
        write_atomically(path, partial(Path.write_bytes, data=results_csv(run.results)))
        write_json(notes, _provenance(run.facts) | {"files": {path.name: checksum(path)}})
    except (OSError, StorageError) as error:
        told = error.found if isinstance(error, StorageError) else error.strerror or error
        raise InputError(f"--accept {path}: cannot be written: {told}") from error
    return path


def _reference(name: str | Path) -> Path:
    """The file that a reference is kept in: one's own, or in a checkout one of the package's."""
    path = Path(name)
    if path.is_dir() or (path.exists() and path.suffix != ".csv"):  # also one that is called like a reference
        found = "folder" if path.is_dir() else "file"
        raise InputError(f"--accept: expected a reference's name or a .csv file to write, found the {found} {path}")
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


def _kept_before(notes: Path) -> set[str]:
    """Keys of the models that an earlier reference kept."""
    told = read_json(notes)
    models = told.get("models") if isinstance(told, dict) else None
    return set(models) if isinstance(models, dict) else set()


def _keep_models(run: ComparedTable, folder: Path, before: set[str]) -> None:
    """Copies the run's models from the cache, unless they are there; an earlier reference's go."""
    weights = {key: model["weights"] for key, model in run.facts["models"].items()}
    cache = locations.cache()
    kept, cached = Tensors(folder), Models(cache.folder, device=run.facts["device"]).cache
    wanted = [key for key, checked in weights.items() if kept.checksum(key) != checked]
    shared_models.fetch_models(cache, cached, wanted)
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
