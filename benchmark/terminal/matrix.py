"""What a run shows in the terminal: the matrix of verdicts, and what keeps cells from having a number."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attribug.contracts.pieces import metric_and_post
from attribug.results import advice, undecided
from attribug.results.figures import SYMBOLS
from attribug.results.headline import CONSTRUCTED, headline
from attribug.results.narrative import units
from attribug.results.power import sentence
from attribug.results.schema import MENDED
from attribug.tables.analysis import is_shown, main_controls
from attribug.terminal import aligned
from attribug.terminal.mended import tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from attribug.api import Run

STYLES = {"detects": "bold green", "blind": "yellow", "inverted": "magenta", "inconclusive": "dim"}


def print_run(run: Run, asked: Sequence[str] = ()) -> None:
    """The matrix of verdicts, what went wrong, and where the files are; of metrics that were `asked` for by name and
    are no bug's primary one, a matrix each."""
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    for task in dict.fromkeys(run.headline["task"]):
        console.print(matrix(str(task), run))
    for measured in _further(run, asked):
        for task in dict.fromkeys(run.results.loc[_measured_by(run.results, measured), "task"]):
            console.print(matrix(str(task), run, measured))
    for table in () if run.alignment is None else aligned.tables(run.alignment):
        console.print(table)
    if len(run.results):
        _print_legend(console)
        for line in _advice(run):
            console.print(line, soft_wrap=True)
    for table in () if run.fixes is None else tables(run.fixes):
        console.print(table)
    power = run.analysis.get("power")  # an older run has none
    if power is not None and (told := sentence(run.headline, power)):
        console.print(f"{told} (analysis/power.csv)", soft_wrap=True)
    if run.outcome is None or run.outcome.jobs == 0:
        console.print(f"nothing to do: {run.name} holds this run already")
    for line in _faults(run):
        console.print(line, soft_wrap=True)
    console.print(_files(run), soft_wrap=True)


MOST_REASONS = 15
"""Lines that tell why verdicts are open: with the matrix they fill a screen."""


def _advice(run: Run) -> list[str]:
    """Where one method is the best and where predictions are enough; then why verdicts are open, a line a reason."""
    rows = headline(run.results, run.facts["suite"], run.facts["pieces"])
    found = advice.advise(rows, run.analysis.get("added"))
    return [*advice.lines(found), *undecided.lines(rows, MOST_REASONS)]


def _print_legend(console: Console) -> None:
    """What symbols and numbers of the matrix mean."""
    console.print(
        "  ".join(f"{symbol} {verdict}" for verdict, symbol in SYMBOLS.items())
        + "\nnumber: effect, the probability that the explanation tells the bug from its control (.5 = cannot)"
        + "\n* true by construction: the bug was confirmed on these predictions",
        style="dim",
    )


def _files(run: Run) -> str:
    """Where everything is."""
    if run.alignment is not None and not len(run.results):
        return (
            f"{len(run.alignment)} rows in {run.name}/alignment.csv; alignment_cases.csv has Shared Interest's cases, "
            "run.json has what failed, figures/ the galleries"
        )
    return (
        f"{len(run.results)} rows in {run.name}/results.csv; analysis/ ranks, adds and compares; run.json has every "
        "check, figures/ the galleries"
    )


def _faults(run: Run) -> list[str]:
    """What keeps cells of the matrix from having a number, a line each."""
    facts = run.facts
    lines = _not_taken(facts["checks"])
    lines += [f"failed: {f['cell']} / {f['method'] or 'all methods'}: {f['reason']}" for f in facts["failures"]]
    if facts.get("damaged"):
        lines.append(f"damaged, set aside and made anew: {', '.join(facts['damaged'])}")
    if facts.get("unanalysed"):
        lines.append(f"analysis/ is missing: {facts['unanalysed']}")
    lines += _declined(run.results)
    lines += [f"not measured: {reason}" for reason in run.plan.refusals]
    measured = {f"{metric.name}@{post}" for metric, post in run.plan.measured}
    for name, bug in run.plan.bugs.items():
        if bug.primary not in measured:
            lines.append(f"not in the matrix: {name}: its primary metric {bug.primary} was not measured")
    return lines


def _not_taken(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Checks that do not hold; one that fails for several seeds of a cell in a line, with the range of its figures."""
    asked: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for each in checks:
        place = f"{each['task']} / {each['bug']} {each['level']}"
        asked.setdefault((place, each["check"], each["expected"]), []).append(each)
    lines = []
    for (place, check, expected), seeds in asked.items():
        failed = [each for each in seeds if not each["holds"] and each["figure"] is not None]
        if not failed:
            continue
        figures = sorted(each["figure"] for each in failed)
        who = f"seed {failed[0]['seed']}" if len(failed) == 1 else f"{len(failed)} of {len(seeds)} seeds"
        told = " to ".join(dict.fromkeys(f"{figure:.3g}" for figure in (figures[0], figures[-1])))
        lines.append(f"not taken: {place} / {who}: {check}: {told}, expected {expected}")
    return lines


def _declined(results: pd.DataFrame) -> list[str]:
    """Why rows are unsupported: a bug on this task, methods, or a metric; all that one reason keeps away in a line."""
    rows = results[results["verdict"] == "unsupported"]
    everybody = set(results["method"])
    bugs_of: dict[tuple[str, str, str], list[str]] = {}  # by reason, method and metric
    for bug in dict.fromkeys(rows["bug"].astype(str)):
        here = rows[rows["bug"] == bug]
        for reason in dict.fromkeys(here["reason"].astype(str)):
            part = here[here["reason"] == reason]
            if set(part["method"]) == everybody:
                bugs_of.setdefault((reason, "", ""), []).append(bug)
                continue
            for method in dict.fromkeys(part["method"].astype(str)):
                own = dict.fromkeys(part.loc[part["method"] == method, "metric"].astype(str))
                planned = results[(results["bug"] == bug) & (results["method"] == method)]
                partly = set(own) < set(planned["metric"])  # then it is the metric that declines
                bugs_of.setdefault((reason, method, ", ".join(own) if partly else ""), []).append(bug)
    methods_of: dict[tuple[str, str, str], list[str]] = {}  # by bugs, metric and reason
    for (reason, method, metric), bugs in bugs_of.items():
        methods_of.setdefault((", ".join(bugs), metric, reason), []).append(method)
    return [
        f"unsupported: {' / '.join(filter(None, [bugs, ', '.join(methods), metric]))}: {reason}"
        for (bugs, metric, reason), methods in methods_of.items()
    ]


def _further(run: Run, asked: Sequence[str]) -> list[str]:
    """Of metrics that were asked for, each under its first post, those that no matrix of primary metrics shows."""
    shown = {bug.primary for bug in run.plan.bugs.values()}
    shown |= {method.headline for method, _ in run.plan.methods if method.headline}
    names = []
    for each in asked:
        name, post = metric_and_post(each)
        posts = [own for metric, own in run.plan.measured if metric.name == name and post in {None, own}]
        if posts and not any(f"{name}@{own}" in shown for own in posts):
            names.append(f"{name}@{posts[0]}")
    return names


def _measured_by(rows: pd.DataFrame, measured: str) -> pd.Series:
    same: pd.Series = (rows["metric"].astype(str) + "@" + rows["post"].astype(str)) == measured
    return same


def matrix(task: str, run: Run, measured: str = "") -> Table:
    """Methods × bugs: symbol and effect; what explains nothing last. By each bug's primary metric, or by another one
    that was `measured`, metric@post."""
    controls = main_controls(run.plan)
    places = list(dict.fromkeys((cell.bug, cell.level) for _, cell in run.plan.contrasted if cell.task == task))
    mine = dict.fromkeys(controls[bug] for bug, _ in places)
    title = Text(f"{run.plan.suite.name}: {task}, {units(run.plan.suite.seeds, mine)}")
    table = Table(title=title, title_justify="left")
    table.add_column("method", no_wrap=True)
    for bug, level in places:
        name = bug.replace(MENDED, f"\n{MENDED}")
        metric = measured or run.plan.bugs[bug].primary
        table.add_column(f"{name}\n{level}\n{metric}", justify="center", overflow="fold")
    rows = run.results[run.results["task"] == task]
    if measured:
        main = rows["control"] == rows["bug"].map(controls)
        rows = shown = rows[_measured_by(rows, measured) & main]
    else:
        shown = rows[is_shown(rows, run.plan)]
    cells = _cells(shown, shown["method"])
    ordered = sorted((method for method, _ in run.plan.methods), key=lambda method: method.is_yardstick)
    lines = {each.name: cells.get(each.name, {}) for each in ordered if not measured or each.name in cells}
    lines |= _direct_queries(rows.drop(shown.index), run)
    for label, line in lines.items():
        table.add_row(label, *(line.get(place, Text("")) for place in places))
    return table


Line = dict[tuple[str, str], Text]
"""Cells of one line by bug and level."""


def _direct_queries(rows: pd.DataFrame, run: Run) -> dict[str, Line]:
    """Lines of the direct queries, what outputs tell of another version of the input, by name."""
    queries = [metric.name for metric, _ in run.plan.measured if metric.asks_directly]
    main = rows["control"] == rows["bug"].map(main_controls(run.plan))
    asked = rows[rows["metric"].isin(queries) & main]
    return _cells(asked, asked["method"] + ", " + asked["metric"])


def _cells(rows: pd.DataFrame, labels: pd.Series) -> dict[str, Line]:
    """Cells by the label of their row's line."""
    found: dict[str, Line] = {}
    for label, row in zip(labels, rows.itertuples(), strict=True):
        sure = str(row.reason).startswith(CONSTRUCTED)
        cell = _cell(str(row.verdict), float(row.effect), sure)  # type: ignore[arg-type]
        found.setdefault(label, {})[str(row.bug), str(row.level)] = cell
    return found


def _cell(verdict: str, effect: float, sure: bool) -> Text:
    """Symbol and effect, marked where the row is true by construction."""
    number = "" if math.isnan(effect) else f" {effect:.2f}"
    return Text(f"{SYMBOLS[verdict]}{number}{'*' if sure else ''}", STYLES.get(verdict, "red"))
