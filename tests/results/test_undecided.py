"""Every open verdict has its reason in plain words, and no other verdict has one."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attribug import results
from attribug.results import undecided
from attribug.results.schema import read_results
from attribug.results.statistics import verdict
from attribug.results.undecided import grouped, lines, why_open

REFERENCES = sorted((Path(results.__file__).parent / "reference").glob("*.csv"))
NAN = math.nan


def row(**facts: Any) -> Any:
    plain = {"verdict": "inconclusive", "reason": "", "control": "clean", "seeds": 5, "undefined": 0.0, "effect": 0.55,
             "ci_low": 0.41, "ci_high": 0.72}  # fmt: skip
    return SimpleNamespace(**plain | facts)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "interval .41–.72: 5 models a side are too few to decide between blind and detects"),
        ({"seeds": 3, "control": "perturbed"},
         "interval .41–.72: 3 draws a side are too few to decide between blind and detects"),
        ({"ci_low": 0.2, "ci_high": 0.5},
         "interval .20–.50: 5 models a side are too few to decide between inverted and blind"),
        ({"ci_low": 0.2, "ci_high": 0.9},
         "interval .20–.90: 5 models a side are too few to decide between inverted, blind and detects"),
        ({"ci_low": 0.6}, "interval .60–.72: 5 models a side are too few to decide between blind and detects"),
        ({"ci_low": 0.45, "ci_high": 0.55, "reason": "no headroom"}, "maps had nothing to lose (no headroom)"),
        ({"undefined": 0.124}, "12 % of the scores are undefined"),
        ({"undefined": 0.124, "ci_low": 0.9, "ci_high": 1.0}, "12 % of the scores are undefined"),
        ({"ci_low": NAN, "ci_high": NAN, "reason": "2 models; an interval needs 3"}, "2 models; an interval needs 3"),
        ({"ci_low": NAN, "ci_high": NAN, "reason": "these models only"}, "too few models; an interval needs 3"),
        ({"ci_low": NAN, "ci_high": NAN}, "no reason was written down"),
    ],
)  # fmt: skip
def test_why_a_verdict_is_open(facts: dict[str, Any], expected: str) -> None:
    assert why_open(row(**facts)) == expected


@pytest.mark.parametrize("decided", ["detects", "blind", "inverted", "not taken", "unsupported", "failed"])
def test_a_verdict_that_is_not_open_has_no_such_reason(decided: str) -> None:
    with pytest.raises(ValueError, match=f"found '{decided}'"):
        why_open(row(verdict=decided))


@pytest.mark.parametrize("low", [step / 20 for step in range(21)])
@pytest.mark.parametrize("headroom", [True, False])
def test_what_the_definition_leaves_open_is_told_as_that(low: float, headroom: bool) -> None:
    """The words follow from the numbers alone, and say what `verdict` says of them."""
    for high in (step / 20 for step in range(round(20 * low), 21)):
        told, kept = verdict((low + high) / 2, low, high, headroom)
        if told != "inconclusive":
            continue
        words = why_open(row(ci_low=low, ci_high=high, reason=kept))
        assert ("no headroom" in words) == (kept == "no headroom")
        assert ("too few" in words) == (kept != "no headroom")


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_every_open_row_of_the_shipped_tables_has_a_reason(path: Path) -> None:
    table = read_results(path)
    opened = table[table["verdict"] == "inconclusive"]
    told = [why_open(each) for each in opened.itertuples()]
    assert all(told)
    assert undecided.NO_REASON not in told
    groups = grouped(table)
    assert sum(len(group.rows) for group in groups) == len(opened)  # each in one group
    assert [len(group.rows) for group in groups] == sorted((len(group.rows) for group in groups), reverse=True)


def test_lines_fill_a_screen_at_most_and_say_what_they_leave_out() -> None:
    table = read_results(next(path for path in REFERENCES if path.stem == "quick"))
    everything = lines(table, most=10_000)
    assert all(line.startswith("? ") and ": " in line for line in everything)
    shown = lines(table, most=5)
    assert shown[:4] == everything[:4]
    assert shown[4] == f"? … and {len(everything) - 4} more: results.csv"
    assert lines(table, most=len(everything)) == everything
    assert lines(table[table["verdict"] != "inconclusive"]) == []


def test_names_are_few() -> None:
    assert undecided.named(["a"]) == "a"
    assert undecided.named("abc") == "a, b and c"
    assert undecided.named("abcdefg") == "a, b, c, d, e and 2 more"
