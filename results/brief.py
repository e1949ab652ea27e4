"""Runs and comparisons at a glance, as notebooks show them: a few lines of text, a table of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from attribug.results import undecided
from attribug.results.alignment import KEYS, chosen, told_metrics
from attribug.results.figures import SYMBOLS
from attribug.results.headline import PLACE, headline, places
from attribug.results.narrative import counted, number, units

LINE, LONG_LINE = 90, 180  # letters of a list, of a sentence
NAME, CELL = 60, 300  # letters of a name, of a sentence in a table
MOST_COLUMNS, MOST_LINES = 40, 60
"""Of a matrix; results have the rest."""
MOST_REASONS = 8  # lines that tell why verdicts are open
MOST_METHODS = 4  # of a table of alignment
MOST_ROWS = 20  # of a comparison
FIRST = 3  # rows that a comparison's text names
SPOT = ["model", "data", "mask"]
LEGEND = "Effect: the probability that the explanation tells the bug from its control; .5 is guessing."


def run_text(name: str, facts: Mapping[str, Any], results: pd.DataFrame, alignment: pd.DataFrame | None) -> str:
    """What a run is, in at most seven lines and less than 1,000 letters, whatever its names.

    name: where it lies; facts: run.json; results: its table; alignment: of its panels, if any.
    """
    suite, pieces, failed = facts["suite"], facts["pieces"], len(facts["failures"])
    state = f"{counted(failed, 'record')} failed" if failed else "complete"
    controls = [bug["control"] for bug in pieces["bugs"].values()]
    place = _cut(name, len(name))
    place = place if len(place) <= LONG_LINE else f"…{place[1 - LONG_LINE :]}"  # a path's end tells more
    lines = [f"attribug run of {_cut(suite['name'], NAME)}, {state}: {place}"]
    lines += [_named(kind, suite, pieces) for kind in ("tasks", "bugs")] if len(results) else []
    beside = f", {units(suite['seeds'], controls)}" if len(results) else ""
    lines.append(_named("methods", suite, pieces, beside))
    if len(results):
        found = headline(results, suite, pieces)["verdict"]
        counts = {verdict: int((found == verdict).sum()) for verdict in SYMBOLS}
        lines.append("headline: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    if alignment is not None:
        named = list(dict.fromkeys(alignment["panel"]))
        lines.append(f"{counted(len(named), 'panel')}, {counted(len(alignment), 'row')}: {_listed(named)}")
    more = ".headline, .results, .analysis" if len(results) else ".alignment, .cases"
    return "\n".join([*lines, f"→ {more}, .facts, .maps(…), attribug.report(run)"])


def run_html(facts: Mapping[str, Any], results: pd.DataFrame, alignment: pd.DataFrame | None) -> str:
    """A run's matrix, a table a task; of a run of panels alone their short tables. Every text is escaped."""
    if not len(results):
        return _alignment(pd.DataFrame(columns=list(KEYS)) if alignment is None else alignment)
    suite, pieces = facts["suite"], facts["pieces"]
    rows = headline(results, suite, pieces)
    legend = " · ".join(f"{symbol} {verdict}" for verdict, symbol in SYMBOLS.items())
    parts = [_matrix(str(task), rows[rows["task"] == task], suite, pieces) for task in dict.fromkeys(rows["task"])]
    why = [_text(line, CELL) for line in undecided.lines(rows, MOST_REASONS)]
    parts.append(f"<p>{escape(legend)}<br>{escape(LEGEND)} * true by construction.</p>")
    return _framed([*parts, *([f"<p>{'<br>'.join(why)}</p>"] if why else [])])


def comparison_text(conclusion: str, counts: Mapping[str, int], alarms: Sequence[str], total: int) -> str:
    """What became of a table in at most six lines. alarms: the first rows that raise one, in words; total: of all."""
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    lines = [f"Comparison: {told or 'no rows'}", conclusion, *(f"– {alarm}" for alarm in alarms[:FIRST])]
    more = total - len(alarms[:FIRST])
    lines += [f"… and {counted(more, 'further row')}: .table has all"] if more > 0 else []
    return "\n".join(_cut(line, LONG_LINE) for line in lines)


def comparison_html(
    conclusion: str, counts: Mapping[str, int], alarms: Sequence[tuple[str, str, str]], total: int
) -> str:
    """The rows that raise an alarm, at most `MOST_ROWS`, as place, status and what happened. Every text is escaped."""
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    head = f"<p>{_text(conclusion, CELL)}<br>{escape(told or 'no rows')}</p>"
    shown = alarms[:MOST_ROWS]
    table = _table("", ("row", "status", "what happened"), [[_text(cell, CELL) for cell in row] for row in shown])
    more = total - len(shown)
    return _framed([head, *([table] if shown else []), *([_said(f"… and {more} more")] if more else [])])


def _matrix(task: str, rows: pd.DataFrame, suite: Mapping[str, Any], pieces: Mapping[str, Any]) -> str:
    """Methods × bugs of a task: symbol and effect."""
    everything = places(rows, suite)
    columns, labels = everything[:MOST_COLUMNS], list(dict.fromkeys(rows["label"]))
    cells = {
        (row["label"], *(row[name] for name in PLACE)): f"{SYMBOLS[row['verdict']]} {number(row['effect'])}".strip()
        + ("*" if row["constructed"] else "")
        for row in rows.to_dict("records")
    }
    lines = [
        [_text(label, NAME), *(escape(cells.get((label, *place), "")) for place in columns)]
        for label in labels[:MOST_LINES]
    ]
    controls = dict.fromkeys(pieces["bugs"][bug]["control"] for _, bug, _ in everything)
    heads = ["method", *(f"{_text(bug, NAME)}<br>{_text(level, NAME)}" for _, bug, level in columns)]
    caption = f"{_text(suite['name'], NAME)}: {_text(task, NAME)}, {escape(units(suite['seeds'], controls))}"
    left = len(everything) - len(columns), len(labels) - len(lines)
    more = [counted(count, noun) for count, noun in zip(left, ("column", "method"), strict=True) if count]
    return _table(caption, heads, lines) + (_said(f"… and {' and '.join(more)} more in .headline") if more else "")


def _alignment(alignment: pd.DataFrame) -> str:
    """A table a panel: a row a model, data and mask, a column for some methods, in each cell two metrics."""
    measured = alignment[alignment["metric"] != ""].drop_duplicates([name for name in KEYS if name != "post"])
    parts = []
    for panel, part in measured.groupby("panel", sort=False):
        methods, metrics = chosen(part, MOST_METHODS), told_metrics(part)
        cells = {tuple(row[name] for name in (*SPOT, "method", "metric")): row for row in part.to_dict("records")}
        lines = [
            [*(_text(name, NAME) for name in place), number(float(rows["accuracy"].iloc[0])),
             *(escape(_values(cells, (*place, method), metrics)) for method in methods)]
            for place, rows in part.groupby(SPOT, sort=False)
        ]  # fmt: skip
        caption = f"{_text(panel, NAME)}: {escape(' and '.join(metrics))}"
        heads = [*SPOT, "accuracy", *(_text(method, NAME) for method in methods)]
        parts.append(_table(caption, heads, lines[:MOST_LINES]))
        more = len(lines) - MOST_LINES
        parts += [_said(f"… and {counted(more, 'row')} more in .alignment")] if more > 0 else []
    return _framed(parts or [_said("Nothing was measured: .alignment tells why.")])


def _values(cells: Mapping[tuple[Any, ...], Mapping[Any, Any]], place: tuple[Any, ...], metrics: Sequence[str]) -> str:
    rows = [cells.get((*place, metric)) for metric in metrics]
    return " ".join("–" if row is None else number(float(row["value"])) or "–" for row in rows)


def _table(caption: str, heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{line[0]}</th>{"".join(f"<td>{cell}</td>" for cell in line[1:])}</tr>' for line in lines
    )
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _framed(parts: Iterable[str]) -> str:
    return f'<div class="attribug">{"".join(parts)}</div>'


def _said(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _text(text: Any, most: int) -> str:
    """A name from a file: cut, escaped, and apart from what is written beside it in another direction."""
    return f"<bdi>{escape(_cut(text, most))}</bdi>"


def _cut(text: Any, most: int) -> str:
    """On one line, at most so many letters; what does not print is left out, for it might hide what follows."""
    line = "".join(sign if sign.isprintable() else " " if sign.isspace() else "" for sign in str(text))
    line = line.strip()
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _named(kind: str, suite: Mapping[str, Any], pieces: Mapping[str, Any], beside: str = "") -> str:
    """How many pieces of a kind there are, and the first ones in the suite's order."""
    known = pieces[kind]
    asked = [name for name in suite.get(kind, ()) if name in known]
    names = dict.fromkeys([*asked, *known])
    return f"{counted(len(names), kind.removesuffix('s'))}{beside}: {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    """As many names as a line holds, at least one, and how many there are beside them."""
    cut = [_cut(name, NAME) for name in names]
    for shown in range(len(cut), 0, -1):
        rest = len(cut) - shown
        line = ", ".join(cut[:shown]) + (f" and {rest} more" if rest else "")
        if len(line) <= LINE or shown == 1:
            return line
    return "none"
