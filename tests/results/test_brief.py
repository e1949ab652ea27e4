"""Runs and comparisons at a glance: what is told is in the tables, it stays short, and no name breaks the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from attribug.results import alignment, brief, undecided
from attribug.results.comparison import ComparedTable, compare
from attribug.results.figures import SYMBOLS
from attribug.results.headline import headline
from attribug.results.html_page import PageContents
from attribug.results.narrative import number
from attribug.results.schema import RESULT_COLUMNS, typed
from doubles.aligned import study

Made = Callable[..., PageContents]
TAGS = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "br", "bdi"}
MOST_LETTERS, MOST_LINES = 1000, 8


class Seen(HTMLParser):
    """What a browser would make of a text: tags, and the rows of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Any]] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell &= tag not in {"th", "td"}

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data


def safe(text: str) -> Seen:
    """Raises where there is anything but a plain table."""
    seen = Seen(text)
    assert {tag for tag, _ in seen.tags} <= TAGS
    assert all(set(attributes) <= {"class", "scope"} for _, attributes in seen.tags)
    assert not any(0x202A <= ord(sign) <= 0x202E for sign in text), "directions that reach beyond a name"
    return seen


def of_run(contents: PageContents, aligned: pd.DataFrame | None = None, name: str = "runs/made") -> str:
    return brief.run_text(name, contents.facts, contents.results, aligned)


def test_a_run_in_words(made_run: Made) -> None:
    made = made_run()
    lines = of_run(made).splitlines()
    assert lines[0] == "attribug run of made, complete: runs/made"
    assert lines[1:4] == [
        "1 task: digits",
        "2 bugs: reinit, ood",
        "5 methods, 3 models a side: gradient, lime, random, edges, predictions",
    ]
    shown = made.results[made.results["metric"].isin(["spearman", "total_variation"])]
    shown = shown[~((shown["method"] != "predictions") & (shown["metric"] == "total_variation"))]
    shown = pd.concat([shown, made.results[made.results["metric"] == "background_swap"]])
    counts = {verdict: int((shown["verdict"] == verdict).sum()) for verdict in SYMBOLS}
    assert lines[4] == "headline: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    failed = replace(made, facts={**made.facts, "failures": [{}, {}]})
    assert "2 records failed" in of_run(failed)


def test_it_stays_short_whatever_the_names(made_run: Made, hostile: tuple[str, ...]) -> None:
    many = [f"{name}{'x' * 300}{count}" for count in range(3) for name in hostile]
    made = made_run(methods=("predictions", *many), bugs=dict.fromkeys(many, ("1",)), tasks=many[:3])
    text = of_run(made, name="/a" * 900 + "/the end")
    assert len(text) < MOST_LETTERS
    assert len(text.splitlines()) <= MOST_LINES
    assert "/the end\n" in text
    assert text.replace("\n", "").isprintable()


def test_the_matrix_has_every_cell(made_run: Made) -> None:
    made = made_run()
    seen = safe(brief.run_html(made.facts, made.results, None))
    (head, *rows), places = seen.rows, ["reinit1", "reinit3", "reinitall", "oodtextures"]
    assert head == ["method", *places]
    found = {(row[0], place): cell for row in rows for place, cell in zip(places, row[1:], strict=True)}
    wanted = {"predictions": "total_variation"}
    checked = 0
    for row in made.results.itertuples():
        place = f"{row.bug}{row.level}"
        if row.metric == wanted.get(str(row.method), "spearman"):
            assert found[str(row.method), place] == f"{SYMBOLS[str(row.verdict)]} {number(float(row.effect))}"
            checked += 1
    assert checked == 5 * len(places)
    assert [row[0] for row in rows][-1] == "predictions: background_swap"


def test_open_verdicts_have_their_reasons_below(made_run: Made) -> None:
    made = made_run()
    told = brief.run_html(made.facts, made.results, None)
    rows = headline(made.results, made.facts["suite"], made.facts["pieces"])
    assert (rows["verdict"] == "inconclusive").any()
    for reason in undecided.lines(rows, brief.MOST_REASONS):
        assert reason.partition(":")[0].removeprefix("? ") in told
    decided = brief.run_html(made.facts, made.results.assign(verdict="blind"), None)
    assert decided.count("<p>") == told.count("<p>") - 1


def test_hostile_names_stay_names(made_run: Made, hostile: tuple[str, ...]) -> None:
    made = made_run(methods=(*hostile, "predictions"), bugs=dict.fromkeys(hostile, ("1",)), tasks=hostile[:2])
    text = brief.run_html(made.facts, made.results, None)
    seen = safe(text)
    assert "<script>document.title='owned'</script>" in {row[0] for row in seen.rows}
    with pytest.raises(AssertionError):
        safe(text.replace("&lt;", "<").replace("&gt;", ">"))


def test_a_large_matrix_is_cut_and_says_so(made_run: Made) -> None:
    columns, lines = brief.MOST_COLUMNS + 3, brief.MOST_LINES + 2
    made = made_run(methods=[f"m{n}" for n in range(lines)], bugs={"reinit": [str(n) for n in range(columns)]})
    seen = safe(text := brief.run_html(made.facts, made.results, None))
    assert len(seen.rows) == 1 + brief.MOST_LINES
    assert {len(row) for row in seen.rows} == {1 + brief.MOST_COLUMNS}
    assert "… and 3 columns and 2 methods more in .headline" in text
    assert len(text) < 100_000


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """What panels told."""
    return alignment.table(*study())


def of_panels(made: PageContents, table: pd.DataFrame) -> PageContents:
    """A run of panels alone."""
    panels = {name: {"notes": []} for name in table["panel"].unique()}
    pieces = {**made.facts["pieces"], "bugs": {}, "tasks": {}, "panels": panels}
    return replace(made, facts={**made.facts, "pieces": pieces}, results=made.results.head(0))


def test_panels_alone_show_their_short_table(made_run: Made, table: pd.DataFrame) -> None:
    made = of_panels(made_run(), table)
    text = of_run(made, table)
    assert f"{table['panel'].nunique()} panels, {len(table)} rows: " in text
    assert ".alignment" in text
    assert "headline" not in text
    seen = safe(brief.run_html(made.facts, made.results, table))
    heads = [row for row in seen.rows if row[0] == "model"]
    assert len(heads) == table.loc[table["metric"] != "", "panel"].nunique()
    values = table[table["metric"].isin(alignment.MAIN) & (table["panel"] == table["panel"].iloc[0])]
    for row in values.itertuples():
        if row.method in heads[0]:
            (line,) = (line for line in seen.rows if line[:3] == [row.model, row.data, row.mask])
            assert (number(float(row.value)) or "–") in line[heads[0].index(str(row.method))].split()


def test_hostile_panels(made_run: Made, table: pd.DataFrame, hostile: tuple[str, ...]) -> None:
    for name in hostile:
        renamed = table.assign(**{
            key: table[key].replace(dict.fromkeys(table[key].unique(), name)) for key in ("panel", "mask", "method")
        })
        renamed = renamed.drop_duplicates(list(alignment.KEYS))
        safe(brief.run_html(of_panels(made_run(), renamed).facts, made_run().results.head(0), renamed))


def test_nothing_measured_is_said(made_run: Made) -> None:
    assert "Nothing was measured" in brief.run_html(made_run().facts, made_run().results.head(0), None)


ROW = {
    "suite": "mine", "task": "digits", "bug": "reinit", "level": "1", "control": "retrained", "method": "gradient",
    "metric": "spearman", "post": "sum", "seeds": 3, "n": 32, "undefined": 0.0, "value": 0.3, "sem": 0.01,
    "benign": 0.7, "floor": 0.1, "effect": 0.9, "ci_low": 0.8, "ci_high": 1.0, "verdict": "detects", "reason": "",
}  # fmt: skip
BLIND = {"effect": 0.5, "ci_low": 0.45, "ci_high": 0.55, "verdict": "blind"}


def compared(methods: list[str], lost: int, gone: int = 0, side: str = "runs/old") -> Any:
    """Two tables: the first methods became blind, the last ones are missing."""
    old = [ROW | {"method": name} for name in methods]
    new = [row | (BLIND if place < lost else {}) for place, row in enumerate(old[: len(old) - gone])]
    sides = [typed(pd.DataFrame(rows, columns=list(RESULT_COLUMNS))) for rows in (old, new)]
    both = [ComparedTable(name, rows, None, {}) for name, rows in zip((side, "runs/new"), sides, strict=True)]
    return compare(*both, kinds={"spearman": "similarity"})


def test_a_comparison_in_words() -> None:
    found = compared([f"m{n}" for n in range(8)], lost=2, gone=3)
    lines = repr(found).splitlines()
    assert lines[0] == "Comparison: 2 verdict changed, 3 missing, 3 same"
    assert lines[1].startswith("runs/old → runs/new: 2 of 8 rows worse, first digits / reinit 1 / m0 /")
    assert [line.split(" / ")[2] for line in lines[2:5]] == ["m0", "m1", "m5"], "what got worse comes first"
    assert lines[5:] == ["… and 2 further rows: .table has all"]
    fine = compared(["a", "b"], lost=0)
    assert repr(fine) == f"Comparison: 2 same\n{fine.conclusion}"


def test_a_comparison_as_html_has_its_alarms_alone() -> None:
    many = brief.MOST_ROWS + 5
    seen = safe(text := compared([f"m{n:02}" for n in range(many + 9)], lost=many)._repr_html_())
    assert len(seen.rows) == 1 + brief.MOST_ROWS
    assert all("/ m" in row[0] and row[1] == "verdict changed" and "detects → blind" in row[2] for row in seen.rows[1:])
    assert "… and 5 more" in text
    assert not safe(compared(["a", "b"], lost=0)._repr_html_()).rows


def test_a_comparison_of_hostile_names(hostile: tuple[str, ...]) -> None:
    found = compared([*hostile, "w" * 5000], lost=len(hostile) + 1, side="s" * 5000)
    assert len(repr(found)) < MOST_LETTERS
    assert len(repr(found).splitlines()) <= MOST_LINES
    safe(found._repr_html_())
