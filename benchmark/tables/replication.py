"""A suite's replicates: where they lie in its run's folder, what is written of them, and whether that is still true."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from attribug.results.replication import (
    CELL,
    CONTRADICTION_COLUMNS,
    COUNT_COLUMNS,
    COUNTS,
    Replication,
    contradictions,
    counted_cells,
    paired,
)
from attribug.results.schema import KEYS, is_mended
from attribug.storage.files import checksum, read_json, write_atomically, write_json
from attribug.storage.folders import REPLICATION, REPLICATION_NOTES, RESULTS
from attribug.tables.analysis import is_shown

if TYPE_CHECKING:
    from attribug.plans.plan import Plan

REPLICATES = "replicates"
AGAIN = "run attribug replicate again"


def replicate_folder(folder: Path, seed: int) -> Path:
    """Where the run of a further suite seed lies."""
    return folder / REPLICATES / str(seed)


def replicated(tables: Mapping[int, pd.DataFrame], plan: Plan) -> Replication:
    """What results by suite seed, two or more, say of each other."""
    met = [table[~is_mended(table["bug"])] for table in tables.values()]  # what fixes leave is no bug
    pairs = paired(met, list(tables))
    shown = is_shown(pairs, plan)
    return Replication(tuple(tables), counted_cells(pairs, shown), contradictions(pairs, shown))


def write(replication: Replication, folder: Path) -> None:
    """Writes replication.csv, and beside it what it rests on: checksums of all results, and the contradictions."""
    first, *others = replication.seeds
    places = {first: folder} | {seed: replicate_folder(folder, seed) for seed in others}
    table = replication.counts.to_csv(index=False, lineterminator="\n")
    write_atomically(folder / REPLICATION, partial(Path.write_text, data=table, encoding="utf-8"))
    found = replication.contradictions.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    notes = {"seeds": list(replication.seeds), "table": checksum(folder / REPLICATION), "contradictions": found,
             "results": {str(seed): checksum(place / RESULTS) for seed, place in places.items()}}  # fmt: skip
    write_json(folder / REPLICATION_NOTES, notes)


def read(folder: Path) -> Replication | None:
    """What was written, `stale` where it is not of the results that lie there now; None where nothing was."""
    if not (folder / REPLICATION).exists():
        return None
    notes = read_json(folder / REPLICATION_NOTES)
    try:
        seeds = tuple(int(seed) for seed in notes["seeds"])
        results = {int(seed): str(text) for seed, text in notes["results"].items()}
        counts = _table((folder / REPLICATION).read_text(encoding="utf-8"), COUNT_COLUMNS)
        found = _table(notes["contradictions"], CONTRADICTION_COLUMNS)
        known = notes["table"] == checksum(folder / REPLICATION) and bool(seeds) and set(results) == set(seeds)
        counts = counts.astype(dict.fromkeys(COUNTS, int))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known, seeds, counts, found = False, (), _empty(COUNT_COLUMNS), _empty(CONTRADICTION_COLUMNS)
    if not known:
        return Replication(seeds, counts, found, f"{REPLICATION} is not what attribug wrote; {AGAIN}")
    first, *others = seeds
    found_now = {seed: checksum(replicate_folder(folder, seed) / RESULTS) for seed in others}
    there = {first: checksum(folder / RESULTS)} | {seed: text for seed, text in found_now.items() if text}  # or removed
    other = [str(seed) for seed, text in there.items() if text != results[seed]]
    if other:
        said = f"{REPLICATION} was made from other results than those that lie there now (seed {', '.join(other)})"
        return Replication(seeds, counts, found, f"{said}; {AGAIN}")
    return Replication(seeds, counts, found)


def _table(text: str, columns: tuple[str, ...]) -> pd.DataFrame:
    texts = {*KEYS, *CELL, "rows", "verdict", "other_verdict"}
    table = pd.read_csv(StringIO(text), dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values={
        name: [""] for name in columns if name not in texts
    })  # fmt: skip
    return table[list(columns)]


def _empty(columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))
