"""Outcome → files: results.csv, scores.parquet, costs.csv, analysis, run.json, figures, the index of kept maps; each
whole or not at all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from attribug.errors import one_line
from attribug.results.schema import KEYS, SCORE_COLUMNS, read_results, results_csv
from attribug.storage.files import make_folder, write_atomically, write_json
from attribug.storage.folders import ANALYSIS, COSTS, RESULTS, RUN, SCORES
from attribug.tables.alignment import write_alignment
from attribug.tables.analysis import Distilled, analyses, distilled, joined
from attribug.tables.costs import costs_of
from attribug.tables.figures import draw
from attribug.tables.fixes import write_fixes
from attribug.tables.kept_maps import write_index
from attribug.tables.results import results_of
from attribug.tables.run_facts import run_facts
from attribug.tables.run_folder import checksums
from attribug.tables.scores import gathered, scores_of

if TYPE_CHECKING:
    from attribug.plans.plan import Plan
    from attribug.running.outcome import Outcome


def write(outcome: Outcome, out: Path) -> pd.DataFrame:
    """Writes all files of a run; returns the results."""
    parts: list[Distilled] = []
    write_atomically(out / SCORES, lambda path: _write_scores(outcome, path, parts))
    known = joined(parts)
    results = results_of(outcome, known.estimates)
    _write_csv(costs_of(outcome), out / COSTS)
    write_atomically(out / RESULTS, partial(Path.write_bytes, data=results_csv(results)))
    write_fixes(outcome, out)
    write_alignment(outcome, out)
    write_index(outcome, out)
    unanalysed = _analyse(known, results, outcome.plan, out / ANALYSIS)
    facts = run_facts(outcome, results)
    missing = {"undrawn": draw(outcome, results, facts["pieces"], out), "unanalysed": unanalysed}
    write_json(out / RUN, facts | {"files": checksums(out), **missing})
    return read_results(
        out / RESULTS, empty=not outcome.plan.contrasted
    )  # rounded as in the file, so that everyone reads the same numbers


def _write_scores(outcome: Outcome, path: Path, parts: list[Distilled]) -> None:
    """Writes all scores part by part, and adds what the tables need of each: memory holds one part at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    names = pa.dictionary(pa.int32(), pa.string())
    types = dict.fromkeys(SCORE_COLUMNS, pa.int64()) | dict.fromkeys(KEYS, names)
    schema = pa.schema(types | dict.fromkeys(("value", "benign", "floor"), pa.float64()))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in gathered(scores_of(outcome)):
            pa.default_memory_pool().release_unused()  # what reading took, which Arrow would keep
            parts.append(distilled(part, outcome.plan))
            writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))
            del part  # before the next one is made
    if not parts:
        parts.append(distilled(pd.DataFrame(columns=list(SCORE_COLUMNS)), outcome.plan))


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    write_atomically(path, lambda place: table.to_csv(place, index=False, float_format="%.6g", lineterminator="\n"))


def _analyse(known: Distilled, results: pd.DataFrame, plan: Plan, folder: Path) -> str:
    """Writes one file a table of the analysis; returns why there are none, for they are not worth the results."""
    if known.fault:
        return known.fault
    try:
        tables = analyses(known, results, plan)
    except Exception as error:
        return one_line(error)
    make_folder(folder)
    for name, table in tables.items():
        _write_csv(table, folder / f"{name}.csv")
    return ""
