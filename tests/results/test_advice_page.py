"""The page's advice: every open verdict has its reason beside it, and the section says what the table says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from attribug.results import advice, undecided
from attribug.results.figures import SYMBOLS
from attribug.results.headline import headline
from attribug.results.html_page import PageContents, page

Made = Callable[..., PageContents]
RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
REASON = re.compile(r"too few|an interval needs|undefined|no headroom|no reason")


class Cells(HTMLParser):
    """Cells of the matrix with their titles and texts, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[list[str]] = []  # verdict, title, text
        self.text = ""
        self.notes: list[str] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag == "p":
            self.notes.append("")
        if tag == "td":
            self._inside = "data-verdict" in facts
            if self._inside:
                self.cells.append([facts["data-verdict"] or "", facts["title"] or "", ""])

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.notes:
            self.notes[-1] += data
        if self._inside:
            self.cells[-1][2] += data


def unexplained(html: str) -> list[str]:
    """Open cells of the matrix whose symbol has no footnote, whose footnote says nothing, or whose title does not."""
    found = Cells(html)
    faults = []
    for verdict, title, text in found.cells:
        number = re.match(rf"\s*\{SYMBOLS['inconclusive']}([{RAISED}]*)", text)
        if verdict != "inconclusive":
            faults += [f"a footnote: {text}"] if re.match(rf"\s*.[{RAISED}]", text) else []
        elif not number or not number[1]:
            faults.append(f"no footnote: {text}")
        elif not any(note.startswith(f"?{number[1]} ") and REASON.search(note) for note in found.notes):
            faults.append(f"nothing under the footnote: {text}")
        elif not REASON.search(title):
            faults.append(f"no reason: {title}")
    return faults


@pytest.fixture(scope="module")
def run(made_run: Made) -> PageContents:
    """A run with open verdicts of several kinds."""
    made = made_run(methods=[*(f"m{number}" for number in range(12)), "random", "edges", "predictions"])
    results = made.results.copy()
    opened = results.index[results["verdict"] == "inconclusive"]
    assert len(opened) > 10
    results.loc[opened[:2], "undefined"] = 0.3
    results.loc[opened[2:4], ["ci_low", "ci_high"]] = np.nan
    results.loc[opened[2:4], "reason"] = "only 2 of 3 models have the bug; an interval needs 3"
    results.loc[opened[4:6], ["ci_low", "ci_high"]] = 0.45, 0.55
    return replace(made, results=results)


@pytest.fixture(scope="module")
def html(run: PageContents) -> str:
    return page(run)


def test_every_open_verdict_has_its_reason_beside_it(run: PageContents, html: str) -> None:
    rows = headline(run.results, run.facts["suite"], run.facts["pieces"])
    assert (
        sum(verdict == "inconclusive" for verdict, _, _ in Cells(html).cells)
        == (rows["verdict"] == "inconclusive").sum()
    )
    assert unexplained(html) == []


@pytest.mark.parametrize(
    ("pattern", "instead", "fault"),
    [
        (r"\?[¹²³]", "?", "no footnote"), (r'<p class="note">\?¹.*?</p>', "", "nothing under"),
        (r"too few", "", "no"), (r"● ", "●¹ ", "a footnote"),
    ],
)  # fmt: skip
def test_the_check_rejects_what_has_no_reason(html: str, pattern: str, instead: str, fault: str) -> None:
    assert any(told.startswith(fault) for told in unexplained(re.sub(pattern, instead, html)))


def test_the_details_give_the_numbers_of_each_reason(run: PageContents, html: str) -> None:
    text = Cells(html).text
    for row in run.results[run.results["verdict"] == "inconclusive"].itertuples():
        assert undecided.why_open(row) in text


def test_the_section_says_what_the_table_says(run: PageContents, html: str) -> None:
    rows = headline(run.results, run.facts["suite"], run.facts["pieces"])
    section = html[html.index('<section id="advice"') : html.index('<section id="matrix"')]
    text = " ".join(Cells(section).text.split())
    found = advice.advise(rows, run.analysis["added"], run.results)
    assert len(found) == 4
    for told in found:
        assert advice.first_place(told) in text
        assert all(said in text for said in advice.outputs_said(told))
        assert all(f"({reason}): {', '.join(labels)}" in text for reason, labels in told.opened)
        assert all(each.label in text for each in (*told.sees[:5], *told.blind, *told.inverted))
        assert f"{len(told.sees)}: " in text or not told.sees
        assert f"and {len(told.sees) - 5} more" in text or len(told.sees) <= 5
    command, decides = advice.next_step(run.facts["suite"], rows, run.analysis["power"])
    assert f"Next, with whatever else this run was given: {command}; {decides}." in text


def test_without_bugs_there_is_no_such_section(run: PageContents) -> None:
    rows = headline(run.results.head(0), run.facts["suite"], run.facts["pieces"])
    assert advice.advise(rows) == []


def test_reasons_in_plain_words_stay_what_they_are(run: PageContents) -> None:
    once = undecided.explained(run.results)
    assert undecided.explained(once).equals(once)
    warned = run.results.assign(reason="maps miss the sum they promise by 9%")
    told = undecided.explained(warned)
    assert told["reason"].str.endswith("maps miss the sum they promise by 9%").all()
    assert (told["reason"].str.len() > 40)[warned["verdict"] == "inconclusive"].all()
    assert (told["reason"] == warned["reason"])[warned["verdict"] != "inconclusive"].all()
