"""A comparison as text, Markdown (a step summary of CI), JUnit XML (a test report) or JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from rich.console import Console
from rich.table import Table

from attribug.results.comparison import Comparison
from attribug.results.comparison_words import UNMEASURED, explained, place, told_status
from attribug.results.difference import Difference
from attribug.results.narrative import number
from attribug.results.published import SETTINGS, STAND_INS

MOST_ROWS = 60
"""Rows that text and Markdown show; JSON and JUnit have all."""
MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]#~$"} | {"<": "&lt;", ">": "&gt;", "|": "&#124;"})
TITLES = ("bug", "method", "metric", "status", "verdict", "effect", "value", "difference, 95 % interval", "note")


def text(comparison: Comparison) -> str:
    """A table of the rows that are not the same, for a terminal."""
    shown, more = _shown(comparison)
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, markup=False, soft_wrap=True)
    if len(shown):
        table = Table(title=f"{comparison.baseline} → {comparison.candidate}", title_justify="left")
        for title in TITLES:
            table.add_column(title)
        for _, row in shown.iterrows():
            table.add_row(*_cells(row))
        console.print(table)
    for line in (*more, *([comparison.conclusion] if comparison.ok else [])):  # else it is the error's line
        console.print(line)
    return out.getvalue()


def markdown(comparison: Comparison) -> str:
    """A heading, the outcome and a table; what comes from files is escaped."""
    shown, more = _shown(comparison)
    symbol = "✅" if comparison.ok else "❌"
    lines = [f"### {symbol} attribug compare", "", _escaped(comparison.conclusion), ""]
    if len(shown):
        lines += ["| " + " | ".join(TITLES) + " |", "|" + "---|" * len(TITLES)]
        lines += ["| " + " | ".join(_escaped(cell) for cell in _cells(row)) + " |" for _, row in shown.iterrows()]
    return "\n".join([*lines, *(["", *more] if more else [])]) + "\n"


def junit(comparison: Comparison) -> str:
    """One test case a row: a regression is a failure, what was not measured an error."""
    alarms = comparison.table["alarm"]
    counts = {"tests": len(alarms), "failures": int((alarms == "regression").sum()),
              "errors": int((alarms == UNMEASURED).sum())}  # fmt: skip
    name = f"attribug compare {comparison.baseline} {comparison.candidate}"
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(suites, "testsuite", _legal({"name": name, **counts}))
    for _, row in comparison.table.iterrows():
        facts = {"classname": f"{row['task']}.{row['bug']}.{row['level']}", "name": place(row)}
        case = ElementTree.SubElement(suite, "testcase", _legal(facts))
        if row["alarm"]:
            kind = "error" if row["alarm"] == UNMEASURED else "failure"
            ElementTree.SubElement(case, kind, _legal({"message": explained(row), "type": row["status"]}))
    if not comparison.compared:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "attribug", "name": "something was compared"})
        ElementTree.SubElement(case, "error", _legal({"message": comparison.conclusion}))
        suite.set("tests", str(counts["tests"] + 1))
        suite.set("errors", str(counts["errors"] + 1))
    if comparison.notes:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(comparison.notes)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def as_json(comparison: Comparison) -> str:
    """Everything: outcome, counts, every row; numbers that do not exist are null."""
    rows = [{name: _plain(entry) for name, entry in row.items()} for row in comparison.table.to_dict("records")]
    facts = {
        "baseline": comparison.baseline, "candidate": comparison.candidate, "ok": comparison.ok,
        "exit_code": comparison.code, "conclusion": comparison.conclusion, "counts": comparison.counts, "rows": rows,
        "only_baseline": comparison.alone[0], "only_candidate": comparison.alone[1], "notes": comparison.notes,
    }  # fmt: skip
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": text, "markdown": markdown, "junit": junit, "json": as_json,
}  # fmt: skip


def _differences(found: Difference) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of one method less another."""
    titles = ["bug", "metric", found.method, found.other, "difference, 95 % interval", "tells"]
    rows = [
        [f"{row['task']} / {row['bug']} {row['level']}, {row['control']}", f"{row['metric']}@{row['post']}",
         number(row["effect"]), number(row["other_effect"]),
         _interval(row.rename({"ci_low": "low", "ci_high": "high"})), row["tells"]]
        for _, row in found.table.iterrows()
    ]  # fmt: skip
    return titles, rows


def difference_text(found: Difference) -> str:
    """One method less another, for a terminal."""
    titles, rows = _differences(found)
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, markup=False, soft_wrap=True)
    title = f"{found.method} minus {found.other}: effects on the same models and images"
    table = Table(title=title, title_justify="left")
    for title in titles:
        table.add_column(title)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in (*found.alone, found.conclusion):
        console.print(line)
    return out.getvalue()


def difference_markdown(found: Difference) -> str:
    """The same as Markdown."""
    titles, rows = _differences(found)
    lines = [f"### {_escaped(found.conclusion)}", "", "| " + " | ".join(map(_escaped, titles)) + " |"]
    lines += ["|" + "---|" * len(titles), *("| " + " | ".join(map(_escaped, row)) + " |" for row in rows)]
    return "\n".join([*lines, *(["", *map(_escaped, found.alone)] if found.alone else [])]) + "\n"


def difference_json(found: Difference) -> str:
    """The same as JSON."""
    rows = [{name: _plain(entry) for name, entry in row.items()} for row in found.table.to_dict("records")]
    facts = {"method": found.method, "other": found.other, "conclusion": found.conclusion, "rows": rows,
             "alone": found.alone}  # fmt: skip
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


DIFFERENCE_FORMATS: dict[str, Callable[[Difference], str]] = {
    "text": difference_text, "markdown": difference_markdown, "json": difference_json,
}  # fmt: skip


def published_text(beside: pd.DataFrame, findings: pd.DataFrame, deviations: pd.DataFrame) -> str:
    """Published findings and values beside ours, and what differs from the paper, for a terminal."""
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, markup=False)
    for title, titles, rows in _published(beside, findings, deviations):
        table = Table(title=title, title_justify="left", show_lines=title != VALUES)
        for name in titles:
            table.add_column(name)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in _unmeasured(beside, deviations):
        console.print(line)
    return out.getvalue()


def published_markdown(beside: pd.DataFrame, findings: pd.DataFrame, deviations: pd.DataFrame) -> str:
    """The same as Markdown."""
    lines = []
    for title, titles, rows in _published(beside, findings, deviations):
        lines += [f"### {title}", "", "| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
        lines += ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows] + [""]
    return "\n".join([*lines, *map(_escaped, _unmeasured(beside, deviations))]) + "\n"


def published_json(beside: pd.DataFrame, findings: pd.DataFrame, deviations: pd.DataFrame) -> str:
    """The same as JSON, everything that was not measured included."""
    tables = {"findings": findings, "values": beside, "deviations": deviations}
    facts = {
        title: [{name: _plain(entry) for name, entry in row.items()} for row in table.to_dict("records")]
        for title, table in tables.items()
    }
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


PUBLISHED_FORMATS: dict[str, Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], str]] = {
    "text": published_text, "markdown": published_markdown, "json": published_json,
}  # fmt: skip
FINDINGS = "Published findings: does this run agree, task by task? Mean over methods [95 % interval]"
VALUES, DEVIATIONS = "Published values beside ours", "What differs from the paper"
OURS = ("ours", "control", "floor")


def _published(
    beside: pd.DataFrame, findings: pd.DataFrame, deviations: pd.DataFrame
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of the tables of findings, of values and of what differs, as far as there are any."""
    tasks = list(dict.fromkeys(findings["task"]))
    listed = [
        [name, part["test"].iloc[0], *[_agreement(row) for _, row in part.iterrows()]]
        for name, part in findings.groupby("finding", sort=False)
    ]
    values = [
        [row["source"], row["method"], row["quantity"], _number(row["paper"]),
         f"{row['task']} / {row['bug']} {row['level']}", row["match"], *map(_number, row[list(OURS)]), row["verdict"]]
        for _, row in beside[beside["ours"].notna()].iterrows()
    ]  # fmt: skip
    columns = ["source", "method", "quantity", "paper", "our cell", "which is", *OURS, "verdict"]
    tables = [(FINDINGS, ["finding", "test", *tasks], listed), (VALUES, columns, values)]
    differing = deviations.astype(str).to_numpy().tolist()
    return [
        *(table for table in tables if table[2]),
        *([(DEVIATIONS, list(deviations), differing)] if differing else []),
    ]


def _agreement(row: pd.Series) -> str:
    """`yes .83 [.71, .95]`, as a cell of findings × tasks."""
    if not row["methods"]:
        return str(row["agrees"])
    return f"{row['agrees']}\n{number(row['estimate'])} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


def _unmeasured(beside: pd.DataFrame, deviations: pd.DataFrame) -> list[str]:
    """What of the published was not measured; where it is all of it, which settings there are."""
    absent = beside[beside["ours"].isna()]
    names = ", ".join(f"{len(rows)} of {quantity}" for quantity, rows in absent.groupby("quantity"))
    lines = [f"published values without ours in this run: {names}"] if names and len(absent) < len(beside) else []
    if len(absent) < len(beside) or len(deviations):
        return lines
    named = "; ".join(f"{theirs} by {' or '.join(ours)}" for theirs, ours in STAND_INS.items())
    listed = [f"  {setting}" for setting in SETTINGS]
    return ["no row of this run measures a published setting; these there are:", *listed, f"stand-ins: {named}"]


def _number(number: float) -> str:
    return f"{number:.3g}"


def _shown(comparison: Comparison) -> tuple[pd.DataFrame, list[str]]:
    """The rows to show, alarms first, and what else there is, a line each."""
    rows = comparison.table[comparison.table["status"] != "same"]
    order = {"regression": 0, "unmeasured": 1, "": 2}
    rows = rows.sort_values("alarm", key=lambda column: column.map(order), kind="stable")
    left = len(rows) - MOST_ROWS
    more = [f"… and {left} more rows; --format json has all"] if left > 0 else []
    if len(rows) and not comparison.ok:
        more.append("✗ fails the gate; all other rows are harmless")
    more += comparison.notes
    return rows.head(MOST_ROWS), more


def _cells(row: pd.Series) -> list[str]:
    changed = row["verdict_old"] != row["verdict_new"] and isinstance(row["verdict_old"], str)
    verdicts = [str(row[name]) for name in ("verdict_old", "verdict_new") if isinstance(row[name], str)]
    return [
        f"{row['task']} / {row['bug']} {row['level']}, {row['control']}",
        str(row["method"]),
        f"{row['metric']}@{row['post']}",
        told_status(row),
        " → ".join(verdicts) if changed else verdicts[-1],
        _change(row["effect_old"], row["effect_new"]),
        _change(row["old"], row["new"]),
        _interval(row),
        str(row["note"]),
    ]


def _change(old: float, new: float) -> str:
    said = [f"{number:.4g}" for number in (old, new) if not math.isnan(number)]
    return " → ".join(dict.fromkeys(said))


def _interval(row: pd.Series) -> str:
    if math.isnan(row["difference"]):
        return ""
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:+.3g}, {row['high']:+.3g}]"
    return f"{row['difference']:+.3g}{interval}"


def _escaped(cell: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return " ".join(cell.split()).translate(MARKDOWN)


def _legal(facts: dict[str, Any]) -> dict[str, str]:
    """Attributes without the characters that XML 1.0 has no way to write."""
    return {name: "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
            for name, text in facts.items()}  # fmt: skip


def _plain(entry: Any) -> Any:
    if isinstance(entry, float) and not math.isfinite(entry):
        return None
    return entry
