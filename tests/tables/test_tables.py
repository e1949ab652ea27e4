"""Rows that are true by construction: what they measure is what the bug's checks are measured on."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from attribug.plans.plan import Plan
from attribug.plans.planning import make
from attribug.suites.suite import Suite
from attribug.tables.results import _mark_constructed

SAID = "true by construction"
BUGS = ("spurious_background", "label_flips", "reinit", "ood")


def plan(*bugs: str, **changes: Any) -> Plan:
    """What is asked of the first level of some bugs, or of all; nothing of it is ever run."""
    chosen = bugs or BUGS
    levels = {"spurious_background": [0.9], "label_flips": [0.1], "reinit": [1], "ood": ["textures"]}
    facts = {
        "name": "mine", "tasks": ["digits"], "bugs": list(chosen), "seeds": 2, "methods": ["gradient", "predictions"],
        "metrics": ["spearman@sum", "total_variation", "background_swap"],
        "levels": {bug: levels[bug] for bug in chosen},
    }  # fmt: skip
    return make(Suite.model_validate(facts | changes))


def rows(verdict: str = "detects", reason: str = "") -> pd.DataFrame:
    """A row of each bug, method and metric that go together."""
    pairs = [("gradient", "spearman"), ("predictions", "total_variation"), ("predictions", "background_swap")]
    frame = pd.DataFrame([(bug, *pair) for bug in BUGS for pair in pairs], columns=["bug", "method", "metric"])
    return frame.assign(verdict=verdict, reason=reason)


def marked(results: pd.DataFrame) -> set[tuple[str, str]]:
    found = results[results["reason"] == SAID]
    return set(zip(found["bug"], found["metric"], strict=True))


EXPECTED = {
    ("spurious_background", "background_swap"),  # took: wrong when backgrounds lie
    ("label_flips", "total_variation"),  # took: the explained images have the flipped label
    ("reinit", "total_variation"),
}


def test_what_the_checks_measure_is_true_by_construction() -> None:
    """total_variation of a spurious background is not: on the explained images both models may be right."""
    assert marked(_mark_constructed(rows(), plan())) == EXPECTED


@pytest.mark.parametrize("verdict", ["blind", "inverted", "inconclusive", "not taken", "failed"])
def test_only_detections_are(verdict: str) -> None:
    before = rows(verdict, "as it was")
    pd.testing.assert_frame_equal(_mark_constructed(before, plan()), before)


def test_a_bug_of_the_run_decides_for_itself_alone() -> None:
    found = marked(_mark_constructed(rows(), plan("spurious_background")))
    assert found == {("spurious_background", "background_swap")}
    assert marked(_mark_constructed(rows(), plan(metrics=["spearman@sum"]))) == set()


def test_other_examples_are_not_what_was_checked() -> None:
    """A swapped background that no check looks at would be evidence, not construction."""
    made = plan("spurious_background")
    (contrast, *_) = [cell.contrast for cell in made.cells]
    assert contrast is not None
    unchecked = [check for check in contrast.checks if check.examples != contrast.extra["swapped_background"]]
    assert 0 < len(unchecked) < len(contrast.checks)
    for cell in made.cells:
        assert cell.contrast is not None
        object.__setattr__(cell.contrast, "checks", tuple(unchecked))
    assert marked(_mark_constructed(rows(), made)) == set()
