"""A run's folder → one HTML page; the plugins that made the run need not be at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from attribug.analysis import EMPTY, read_analysis
from attribug.drawing import pictures
from attribug.registry import InputError
from attribug.results import published
from attribug.results.headline import PLACE, Pieces
from attribug.results.narrative import took
from attribug.results.report import Place, Report, page
from attribug.results.schema import TableError, read_results
from attribug.store import ANALYSIS, COSTS, RESULTS, RUN, Tensors, read_json, write_atomically
from attribug.tables import COST_COLUMNS

PAGE = "report.html"
RENEW = "run the suite again to renew it"
FACTS = {"suite": dict, "pieces": dict, "checks": list, "versions": dict, "machine": dict, "seconds": dict}
"""What the page cannot do without."""


def report(folder: Path, output: Path | None = None) -> Path:
    """Writes the page of a run, by default to `report.html` in its folder; returns where it is.

    Raises:
        InputError: no folder, or tables or facts in it that are absent, damaged, older than this version, or do not
            belong together.
    """
    text = page(load(folder))
    path = folder / PAGE if output is None else output
    write_atomically(path, lambda place: place.write_text(text, encoding="utf-8"))
    return path


def load(folder: Path) -> Report:
    """Everything that the page of a run tells. What is not essential may be missing: analysis, costs, galleries.

    Raises:
        InputError: as `report`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a run, found {'a file' if folder.exists() else 'nothing'}")
    try:
        results = read_results(folder / RESULTS)
    except TableError as error:
        raise InputError(str(error)) from None
    facts = _facts(folder, results)
    costs = _costs(folder / COSTS)
    read = {path.stem: _analysis(path) for path in sorted((folder / ANALYSIS).glob("*.csv"))}
    analysis = {name: table for name, table in read.items() if table is not None}
    galleries = {} if costs is None else _galleries(Tensors(folder / "galleries"), costs, facts)
    bugs = facts["pieces"]["bugs"]
    primary, controls = ({name: bug[fact] for name, bug in bugs.items()} for fact in ("primary", "control"))
    literature = published.beside(results, controls), published.findings(results, primary, controls)
    return Report(results, facts, analysis, costs, galleries, *literature)


def _facts(folder: Path, results: pd.DataFrame) -> dict[str, Any]:
    """run.json, when it is that of these results."""
    path = folder / RUN
    facts = read_json(path)
    if not isinstance(facts, dict):
        found = "something else" if path.exists() else "no file"
        raise InputError(f"{path}: expected what a run writes, found {found}; {RENEW}")
    missing = [name for name, kind in FACTS.items() if not isinstance(facts.get(name), kind)]
    if missing:
        raise InputError(f"{path}: expected {', '.join(FACTS)}, found no {', '.join(missing)}; {RENEW}")
    written = facts.get("files", {}).get(RESULTS)
    if written is not None and written != hashlib.sha256((folder / RESULTS).read_bytes()).hexdigest():
        raise InputError(f"{folder / RESULTS}: expected the table that run.json tells of, found another; {RENEW}")
    pieces: Pieces = facts["pieces"]
    for kind, column in (("tasks", "task"), ("bugs", "bug"), ("methods", "method"), ("metrics", "metric")):
        unknown = sorted(set(results[column]) - set(pieces.get(kind, {})))
        if unknown:
            raise InputError(f"{path}: expected facts of all {kind}, found none of {', '.join(unknown)}; {RENEW}")
    return facts


def _costs(path: Path) -> pd.DataFrame | None:
    """costs.csv, None when it is absent or damaged."""
    numbers = ("seed", *COST_COLUMNS[COST_COLUMNS.index("seconds") :])
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).reindex(columns=list(COST_COLUMNS), fill_value="")
        return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})
    except (OSError, ValueError):
        return None


def _analysis(path: Path) -> pd.DataFrame | None:
    """A table of the analysis, None when it is damaged."""
    try:
        table = read_analysis(path)
    except (OSError, ValueError):
        return None
    return table if set(EMPTY.get(path.stem, ())) <= set(table.columns) else None


def _galleries(galleries: Tensors, costs: pd.DataFrame, facts: Mapping[str, Any]) -> dict[Place, dict[str, Any]]:
    """By place: the maps of the first model in which the bug took, as in the run's own figures."""
    records = costs[costs["kind"] == "record"]
    found: dict[Place, dict[str, Any]] = {}
    for (*names, seed), part in records.groupby([*PLACE, "seed"], sort=True):
        place: Place = (str(names[0]), str(names[1]), str(names[2]))
        held, checked = took([check for check in facts["checks"] if check["seed"] == seed], place)
        if place not in found and held == checked:
            keys = dict(zip(part["method"], part["key"], strict=True))
            order = [name for name in facts["suite"].get("methods", ()) if name in keys]
            maps = pictures(galleries, {name: keys[name] for name in [*order, *(keys.keys() - set(order))]})
            found |= {place: maps} if maps else {}
    return found
