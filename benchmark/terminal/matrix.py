"""What a run shows in the terminal: the matrix of verdicts, and what keeps cells from having a number."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attribug.results.figures import SYMBOLS
from attribug.tables.analysis import main_controls

if TYPE_CHECKING:
    import pandas as pd

    from attribug.api import Run

STYLES = {"detects": "bold green", "blind": "yellow", "inverted": "magenta", "inconclusive": "dim"}


def print_run(run: Run) -> None:
    """The matrix of verdicts, what went wrong, and where the files are."""
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    for task, rows in run.headline.groupby("task", sort=False):
        console.print(matrix(str(task), rows, run))
    console.print(
        "  ".join(f"{symbol} {verdict}" for verdict, symbol in SYMBOLS.items())
        + "\nnumber: effect, the probability that the explanation tells the bug from its control (.5 = cannot)"
        + "\n* true by construction: the bug was confirmed on these predictions",
        style="dim",
    )
    if run.outcome is None or run.outcome.jobs == 0:
        console.print(f"nothing to do: {run.name} holds this run already")
    for line in _faults(run):
        console.print(line, soft_wrap=True)
    files = (
        f"{len(run.results)} rows in {run.name}/results.csv; analysis/ ranks, adds and compares; run.json has every "
        "check, figures/ the galleries"
    )
    console.print(files, soft_wrap=True)


def _faults(run: Run) -> list[str]:
    """What keeps cells of the matrix from having a number, a line each."""
    facts = run.facts
    lines = [
        f"not taken: {c['task']} / {c['bug']} {c['level']} / seed {c['seed']}: {c['check']}: {c['figure']:.3g}, "
        f"expected {c['expected']}"
        for c in facts["checks"]
        if not c["holds"] and c["figure"] is not None
    ]
    lines += [f"failed: {f['cell']} / {f['method'] or 'all methods'}: {f['reason']}" for f in facts["failures"]]
    if facts.get("damaged"):
        lines.append(f"damaged, set aside and made anew: {', '.join(facts['damaged'])}")
    if facts.get("unanalysed"):
        lines.append(f"analysis/ is missing: {facts['unanalysed']}")
    unsupported = run.results[run.results["verdict"] == "unsupported"]
    for (bug, method, reason), rows in unsupported.groupby(["bug", "method", "reason"], sort=False):
        planned = (run.results["bug"] == bug) & (run.results["method"] == method)
        partly = len(rows) < planned.sum()  # then it is the metric that declines
        metric = f" / {', '.join(dict.fromkeys(rows['metric']))}" if partly else ""
        lines.append(f"unsupported: {bug} / {method}{metric}: {reason}")
    lines += [f"not measured: {reason}" for reason in run.plan.refusals]
    measured = {f"{metric.name}@{post}" for metric, post in run.plan.measured}
    for name, bug in run.plan.bugs.items():
        if bug.primary not in measured:
            lines.append(f"not in the matrix: {name}: its primary metric {bug.primary} was not measured")
    return lines


def matrix(task: str, rows: pd.DataFrame, run: Run) -> Table:
    """Methods × bugs: symbol and effect."""
    title = Text(f"{run.plan.suite.name}: {task}, {run.plan.suite.seeds} models a side")
    table = Table(title=title, title_justify="left")
    table.add_column("method", no_wrap=True)
    places = list(dict.fromkeys((cell.bug, cell.level) for cell in run.plan.cells if cell.task == task))
    for bug, level in places:
        table.add_column(f"{bug}\n{level}\n{run.plan.bugs[bug].primary}", justify="center")
    cells = {(r.method, r.bug, r.level): r for r in rows.itertuples()}
    order = [method.name for method, _ in run.plan.methods]
    for method in order:
        line = []
        for bug, level in places:
            row = cells.get((method, bug, level))
            if row is None:
                line.append(Text(""))
                continue
            verdict, effect = str(row.verdict), float(row.effect)  # type: ignore[arg-type]
            sure = method == "predictions" and run.plan.bugs[bug].seen_in_predictions and verdict == "detects"
            line.append(_cell(verdict, effect, sure))
        table.add_row(method, *line)
    for label, asked in _queries(task, run).items():
        table.add_row(label, *(asked.get(place, Text("")) for place in places))
    return table


def _queries(task: str, run: Run) -> dict[str, dict[tuple[str, str], Text]]:
    """Rows of the direct queries, what outputs tell of another version of the input, by name and place."""
    queries = [m.name for m, _ in run.plan.measured if m.kind == "response" and m.reads == "probabilities"]
    main = run.results["control"] == run.results["bug"].map(main_controls(run.plan))
    rows = run.results[(run.results["task"] == task) & run.results["metric"].isin(queries) & main]
    found: dict[str, dict[tuple[str, str], Text]] = {}
    for row in rows.itertuples():
        sure = str(row.reason).startswith("true by construction")
        text = _cell(str(row.verdict), float(row.effect), sure)  # type: ignore[arg-type]
        found.setdefault(f"{row.method}, {row.metric}", {})[str(row.bug), str(row.level)] = text
    return found


def _cell(verdict: str, effect: float, sure: bool) -> Text:
    """Symbol and effect, marked where the row is true by construction."""
    number = "" if math.isnan(effect) else f" {effect:.2f}"
    return Text(f"{SYMBOLS[verdict]}{number}{'*' if sure else ''}", STYLES.get(verdict, "red"))
