"""Curves of effect against level, and verdicts that hang on the post-processing."""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribug.results.schema import OUTCOMES, RESULT_COLUMNS, VERDICTS, TableError
from attribug.results.severity import POST_COLUMNS, SEVERITY_COLUMNS, by_post, severity

KEY = {"suite": "quick", "task": "digits", "bug": "reinit", "level": "1", "control": "clean", "method": "lime",
       "metric": "spearman", "post": "sum"}  # fmt: skip


def row(verdict: str = "blind", effect: float = 0.5, **keys: str) -> dict[str, Any]:
    numbers = dict.fromkeys(("undefined", "value", "sem", "benign", "floor", "ci_low", "ci_high"), 0.0)
    effect = math.nan if verdict in OUTCOMES else effect
    return {**KEY, **keys, "seeds": 3, "n": 6, **numbers, "effect": effect, "verdict": verdict, "reason": ""}


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS))


def curve(*verdicts: str, levels: tuple[str, ...] = ("1", "2", "3", "all", "top")) -> pd.Series:
    found = severity(table(*(row(verdict, level=level) for verdict, level in zip(verdicts, levels, strict=False))),
                     ["reinit"])  # fmt: skip
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_levels_go_from_weak_to_strong(order: tuple[int, ...]) -> None:
    """Numbers by their value, then names; whatever the order of the rows."""
    rows = [row("detects", 0.9, level="all"), row("blind", 0.52, level="2"), row("failed", level="10"),
            row("detects", 0.7004, level="0.5")]  # fmt: skip
    found = severity(table(*(rows[place] for place in order)), ["reinit"])
    assert tuple(found.columns) == SEVERITY_COLUMNS
    expected = ("digits", "reinit", "clean", "lime", "spearman", "sum", "0.5 2 10 all", "0.700 0.520 - 0.900",
                "yes no - yes", "0.5", False)  # fmt: skip
    assert found.iloc[0].tolist() == list(expected)


def test_the_levels_of_reinit() -> None:
    found = curve("blind", "inconclusive", "detects", "detects", levels=("all", "3", "1", "2"))
    assert found["levels"] == "1 2 3 all"
    assert found["detected"] == "yes yes no no"
    assert (found["smallest_detected"], found["steady"]) == ("1", False)


@given(st.lists(st.sampled_from(VERDICTS), min_size=2, max_size=5))
def test_the_smallest_level_and_whether_all_above_it_are_detected(verdicts: list[str]) -> None:
    found = curve(*verdicts)
    levels = found["levels"].split()
    detected = [level for level, verdict in zip(levels, verdicts, strict=True) if verdict == "detects"]
    assert found["smallest_detected"] == (detected[0] if detected else "")
    above = verdicts[levels.index(detected[0]) :] if detected else []
    assert found["steady"] == (bool(detected) and set(above) - set(OUTCOMES) == {"detects"})
    expected = ["-" if verdict in OUTCOMES else "yes" if verdict == "detects" else "no" for verdict in verdicts]
    assert found["detected"].split() == expected
    assert [text == "-" for text in found["effects"].split()] == [verdict in OUTCOMES for verdict in verdicts]


def test_one_curve_a_bug_control_method_metric_and_post() -> None:
    others = [{"task": "x"}, {"bug": "flips"}, {"control": "other"}, {"method": "rise"}, {"metric": "ssim"},
              {"post": "abs"}]  # fmt: skip
    rows = [row(level=level, **keys) for level, keys in product(("1", "2"), [{}, *others])]
    lonely = [row(method="single"), row(bug="ungraded"), row(bug="ungraded", level="2")]
    found = severity(table(*rows, *lonely), {"reinit", "flips"})
    assert len(found) == 1 + len(others)
    assert set(found["bug"]) == {"reinit", "flips"}
    assert "single" not in set(found["method"])
    assert (found["levels"] == "1 2").all()


def test_nothing_to_draw() -> None:
    for rows, graded in (([], ["reinit"]), ([row()], ["reinit"]), ([row(), row(level="2")], [])):
        found = severity(table(*rows), graded)
        assert tuple(found.columns) == SEVERITY_COLUMNS
        assert found.empty
    with pytest.raises(TableError, match="expected one row a key"):
        severity(table(row(), row()), ["reinit"])
    with pytest.raises(TableError, match="found none named verdict"):
        severity(table(row()).drop(columns="verdict"), ["reinit"])


# ---- posts


@given(st.lists(st.sampled_from(VERDICTS), min_size=2, max_size=4))
def test_only_decided_verdicts_contradict_each_other(verdicts: list[str]) -> None:
    effects = [0.3 + 0.1 * number for number in range(len(verdicts))]
    posts = ["abs", "abs_sum", "sum", "sum_abs"][: len(verdicts)]
    found = by_post(table(*(row(verdict, effect, post=post)
                            for verdict, effect, post in zip(verdicts, effects, posts, strict=True))))  # fmt: skip
    assert tuple(found.columns) == POST_COLUMNS
    [line] = found.itertuples()
    decided = [verdict for verdict in verdicts if verdict in {"detects", "blind", "inverted"}]
    assert line.depends == any(one != other for one, other in product(decided, repeat=2))
    assert line.posts == " ".join(posts)
    assert line.verdicts == "; ".join(verdicts)
    known = [effect for verdict, effect in zip(verdicts, effects, strict=True) if verdict not in OUTCOMES]
    ends = [min(known, default=math.nan), max(known, default=math.nan)]
    assert [line.lowest_effect, line.highest_effect] == pytest.approx(ends, nan_ok=True)


def test_one_line_a_metric_with_several_posts() -> None:
    rows = [row(post=post, **keys) for post in ("sum", "abs") for keys in ({}, {"level": "2"}, {"method": "rise"})]
    found = by_post(table(*rows, row(metric="single"), row(method="other", post="abs")))
    assert found[["level", "method"]].to_numpy().tolist() == [["1", "lime"], ["2", "lime"], ["1", "rise"]]
    assert not found["depends"].any()
    assert by_post(table(row())).empty
    assert tuple(by_post(table()).columns) == POST_COLUMNS
    with pytest.raises(TableError, match="found none named post"):
        by_post(table(row()).drop(columns="post"))
