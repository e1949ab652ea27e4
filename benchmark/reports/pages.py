"""A run's folder → one HTML page; the plugins that made the run need not be at hand."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.errors import InputError
from attribug.reports import comparing, references
from attribug.results.alignment import read_alignment
from attribug.results.headline import PLACE
from attribug.results.html_page import PageContents, Place, page
from attribug.results.mending import read_fixes
from attribug.results.narrative import took
from attribug.storage import locations
from attribug.storage.files import storing, write_atomically
from attribug.storage.folders import ALIGNMENT, ALIGNMENT_CASES, ANALYSIS, COSTS, FIGURES, FIXES, REPORT, RUN, is_url
from attribug.storage.tensors import Tensors
from attribug.tables import replication
from attribug.tables.analysis import EMPTY, read_analysis
from attribug.tables.case_galleries import figure_name
from attribug.tables.costs import COST_COLUMNS
from attribug.tables.figures import pictures
from attribug.tables.run_json import RENEW, RunFacts
from attribug.tables.training_pictures import figure_name as training_name

if TYPE_CHECKING:
    from attribug.results.headline import Pieces

RANKS = ("rank_low", "rank_high")


def write_report(run: str | Path, output: Path | None = None) -> str | Path:
    """Writes the page of a run, by default to `report.html` in its folder or at its URL; returns where it is.

    Raises:
        InputError: no folder, or tables or facts in it that are absent, damaged, older than this version, or do not
            belong together.
    """
    if not is_url(run):
        return _write(Path(run), output)
    with locations.reading(str(run), "galleries") as place:
        path = _write(place.folder, output)
        if output is not None:
            return path
        place.send_file(REPORT)
        return f"{place.name}/{REPORT}"


def _write(folder: Path, output: Path | None) -> Path:
    path = folder / REPORT if output is None else output
    if path.is_dir():
        raise InputError(f"--output {path}: expected a file to write, found a folder")
    text = page(page_contents(folder))
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda place: place.write_text(text, encoding="utf-8"))
    return path


def page_contents(folder: Path) -> PageContents:
    """Everything that the page of a run tells. What is not essential may be missing: analysis, costs, galleries.

    Raises:
        InputError: as `report`.
    """
    expect_folder(folder)
    run = references.load_table(folder, RunFacts)
    results, facts = run.results, run.facts
    expect_pieces(folder, results, facts["pieces"])
    costs = _costs(folder / COSTS)
    read = {path.stem: _analysis(path) for path in sorted((folder / ANALYSIS).glob("*.csv"))}
    analysis = {name: table for name, table in read.items() if table is not None}
    galleries = {} if costs is None else _galleries(Tensors(folder / "galleries"), costs, facts)
    published, findings = (None, None) if references.panels_alone(facts) else comparing.beside_published(run)
    training = _training(folder / FIGURES, results)
    told = {"published": published, "findings": findings, "fixes": _fixes(folder / FIXES)}
    more = {"training": training, **told, **_alignment(folder)}
    contents = PageContents(results, facts, analysis, costs, galleries, replication=replication.read(folder))
    return replace(contents, **more)


def _training(figures: Path, results: pd.DataFrame) -> dict[Place, str]:
    """Clean beside contaminated training images, of the places that have such a figure."""
    places = results[PLACE].drop_duplicates().itertuples(index=False, name=None)
    paths = {(str(t), str(b), str(level)): figures / training_name(t, b, level) for t, b, level in places}
    return {place: _embedded(path) for place, path in paths.items() if path.is_file()}


def _embedded(path: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def expect_folder(folder: Path) -> None:
    """Raises `InputError` where there is no folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a run, found {'a file' if folder.exists() else 'nothing'}")


def expect_pieces(folder: Path, results: pd.DataFrame, pieces: Pieces) -> None:
    """Raises `InputError` where run.json does not tell of something that results have."""
    for kind, column in (("tasks", "task"), ("bugs", "bug"), ("methods", "method"), ("metrics", "metric")):
        unknown = sorted(set(results[column]) - set(pieces[kind]))
        if unknown:
            known = ", ".join(unknown)
            raise InputError(f"{folder / RUN}: expected facts of all {kind}, found none of {known}; {RENEW}")


def _costs(path: Path) -> pd.DataFrame | None:
    """costs.csv, None when it is absent or damaged."""
    numbers = ("seed", *COST_COLUMNS[COST_COLUMNS.index("seconds") :])
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).reindex(columns=list(COST_COLUMNS), fill_value="")
        return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})
    except (OSError, ValueError):
        return None


def _fixes(path: Path) -> pd.DataFrame | None:
    """fixes.csv, None when it is absent or damaged."""
    try:
        return read_fixes(path)
    except (OSError, ValueError):
        return None


def _alignment(folder: Path) -> dict[str, Any]:
    """What panels told: tables and galleries, as far as they are there and not damaged."""
    try:
        table = read_alignment(folder / ALIGNMENT)
        cases = pd.read_csv(folder / ALIGNMENT_CASES, keep_default_na=False)
    except (OSError, ValueError):
        return {}
    drawn = {}
    for panel, model, data in table[["panel", "model", "data"]].drop_duplicates().itertuples(index=False, name=None):
        path = folder / FIGURES / figure_name(panel, model, data)
        if path.is_file():
            drawn[f"{panel}: {model} on {data}"] = _embedded(path)
    return {"alignment": table, "alignment_cases": cases if len(cases) else None, "alignment_galleries": drawn}


def _analysis(path: Path) -> pd.DataFrame | None:
    """A table of the analysis, None when it is damaged."""
    try:
        table = read_analysis(path)
    except (OSError, ValueError):
        return None
    told = [name for name in (*RANKS, "added", "detection_rate", "models") if name in table.columns]
    numeric = all(pd.api.types.is_numeric_dtype(table[name]) for name in told)
    return table if numeric and set(EMPTY.get(path.stem, ())) <= set(table.columns) else None


def _galleries(galleries: Tensors, costs: pd.DataFrame, facts: Mapping[str, Any]) -> dict[Place, dict[str, Any]]:
    """By place: the maps of the first model in which the bug took, as in the run's own figures."""
    records = costs[(costs["kind"] == "record") & costs["task"].isin(facts["pieces"]["tasks"])]
    by_place: dict[Place, dict[str, Any]] = {}
    for (*names, seed), part in records.groupby([*PLACE, "seed"], sort=True):
        place: Place = (str(names[0]), str(names[1]), str(names[2]))
        held, checked = took([check for check in facts["checks"] if check["seed"] == seed], place)
        if place not in by_place and held == checked:
            keys = dict(zip(part["method"], part["key"], strict=True))
            order = [name for name in facts["suite"].get("methods", ()) if name in keys]
            maps = pictures(galleries, {name: keys[name] for name in [*order, *(keys.keys() - set(order))]})
            by_place |= {place: maps} if maps else {}
    return by_place
