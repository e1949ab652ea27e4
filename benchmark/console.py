"""What a run shows in the terminal: progress bars, the matrix of verdicts."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from attribug.analysis import main_controls
from attribug.results.figures import SYMBOLS

if TYPE_CHECKING:
    import pandas as pd

    from attribug.api import Run

STYLES = {"detects": "bold green", "blind": "yellow", "inverted": "magenta", "inconclusive": "dim"}
QUARTERS = 4  # of a stage: how often a log without a terminal gets a line


class Bars:
    """Progress of training, explaining and scoring on stderr: bars with time left, or a few lines where there is no
    terminal. A `Reporter`; also a context."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self._console,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._counts: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, totals: Mapping[str, int]) -> None:
        """Shows a bar for every stage that has work."""
        for stage, total in totals.items():
            if total:
                self._counts[stage] = [0, total]
                if self._console.is_terminal:
                    self._tasks[stage] = self._progress.add_task(stage, total=total)
        if self._tasks:
            self._progress.start()

    def advance(self, stage: str, amount: int) -> None:
        """Moves a bar; called from several threads."""
        with self._lock:
            if stage not in self._counts:
                return
            done, total = self._counts[stage]
            self._counts[stage][0] = done + amount
            if stage in self._tasks:
                self._progress.advance(self._tasks[stage], amount)
            elif done * QUARTERS // total < (done + amount) * QUARTERS // total:
                print(f"attribug: {stage} {min(100, 100 * (done + amount) // total)} %", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Stops the bars."""
        self._progress.stop()


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
