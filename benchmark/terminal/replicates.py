"""What further suite seeds say of verdicts, in the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from attribug.results.narrative import number
from attribug.results.replication import ALL, COUNTS, MATRIX, PLACE, Replication, sentence, summed
from attribug.storage.folders import REPLICATION

if TYPE_CHECKING:
    import pandas as pd

    from attribug.api import Replicated


def print_replicated(found: Replicated) -> None:
    """Counts of a bug and of a method, every contradicted verdict of the matrix, what failed, and where the file is."""
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    seeds = tuple(run.plan.suite.seed for run in found.runs)
    told = Replication(seeds, found.table, found.contradictions)
    for by in (PLACE, ("method",)):
        console.print(_table(found.table, by))
    console.print(sentence(told), soft_wrap=True)
    console.print(sentence(told, ALL), soft_wrap=True)
    shown = found.contradictions[found.contradictions["rows"] == MATRIX]
    for row in shown.itertuples():
        console.print(f"CONTRADICTED: {_contradiction(row)}", style="bold red", soft_wrap=True)
    for run in found.runs:
        for failure in run.facts["failures"]:
            said = f"failed: {run.name}: {failure['cell']} / {failure['method'] or 'all methods'}: {failure['reason']}"
            console.print(said, soft_wrap=True)
    if all(run.outcome is None or run.outcome.jobs == 0 for run in found.runs):
        console.print(f"nothing to do: {found.runs[0].name} holds all {len(found.runs)} runs already", soft_wrap=True)
    console.print(f"{len(found.table)} rows in {found.runs[0].name}/{REPLICATION}", soft_wrap=True)


def _table(counts: pd.DataFrame, by: Sequence[str]) -> Table:
    sums = summed(counts, by)
    table = Table(title=f"verdicts of the matrix under other suite seeds, by {', '.join(by)}", title_justify="left")
    for name in by:
        table.add_column(name, no_wrap=True)
    for name in (*COUNTS[:-2], "covered"):
        table.add_column(name, justify="right")
    for _, row in sums.iterrows():
        share = "" if math.isnan(row["coverage"]) else f"{100 * row['coverage']:.0f} % of {row['intervals']}"
        table.add_row(*(str(row[name]) for name in (*by, *COUNTS[:-2])), share)
    return table


def _contradiction(row: Any) -> str:
    mine = f"{row.verdict} {number(row.effect)} [{number(row.ci_low)}, {number(row.ci_high)}] under seed {row.seed}"
    other = f"{row.other_verdict} {number(row.other_effect)} [{number(row.other_ci_low)}, {number(row.other_ci_high)}]"
    measured = f"{row.task} / {row.bug} {row.level} / {row.method}, {row.metric}@{row.post}"
    return f"{measured}: {mine}, {other} under seed {row.other_seed}"
