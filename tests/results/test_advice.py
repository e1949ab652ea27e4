"""Advice: every method stands in one group, nobody wins whom another may equal, every `?` has its reason."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribug.results.advice import advice, outputs_tell, ranked, why_open
from attribug.results.headline import BARE, EXPLANATION, NULL
from attribug.results.schema import PERTURBED
from attribug.results.statistics import NEEDED, verdict

VERDICTS = ("detects", "blind", "inverted", "inconclusive", "not taken", "unsupported", "failed")
REASONS = {"inconclusive": "effect .549, interval [.410, .690] undecided", "unsupported": "GELU", "failed": "broke"}


def row(
    method: str, told: str, effect: float = 0.5, low: float = 0.4, high: float = 0.6, **more: Any
) -> dict[str, Any]:
    facts = {
        "task": "digits", "bug": "reinit", "level": "3", "control": "retrained", "method": method, "label": method,
        "role": EXPLANATION, "verdict": told, "reason": REASONS.get(told, ""), "effect": effect, "ci_low": low,
        "ci_high": high, "seeds": 5, "constructed": False, "metric": "spearman", "post": "sum",
    }  # fmt: skip
    return facts | more


def told(*rows: dict[str, Any]) -> Any:
    (found,) = advice(pd.DataFrame(rows), pd.DataFrame(rows))
    return found


@given(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=12))
def test_every_method_stands_in_one_group(verdicts: list[str]) -> None:
    found = told(*(row(f"method_{number}", each) for number, each in enumerate(verdicts)))
    names = [name for group in found.groups.values() for name in group]
    assert sorted(names) == sorted(f"method_{number}" for number in range(len(verdicts)))
    assert set(found.first) <= {name for name, _ in found.sees}
    assert bool(found.sees) == bool(found.first)


def test_a_winner_is_one_whom_nobody_reaches() -> None:
    alone = told(row("a", "detects", 0.95, 0.90, 1.0), row("b", "detects", 0.8, 0.7, 0.89))
    assert (alone.winner, alone.first) == ("a", ("a",))
    assert "`a` sees it best" in ranked(alone)
    beside = told(row("a", "detects", 0.95, 0.90, 1.0), row("b", "detects", 0.8, 0.7, 0.90))
    assert (beside.winner, beside.first) == ("", ("a", "b"))
    assert ranked(beside) == "No winner: 2 of the 2 methods that see it may be the best one."
    assert ranked(told(row("a", "blind"))) == "No explanation sees it for certain."


def test_yardsticks_win_nothing() -> None:
    found = told(
        row("a", "detects", 0.8, 0.7, 0.9),
        row("edges", "detects", 1.0, 1.0, 1.0, role=NULL),
        row("predictions", "detects", 1.0, 1.0, 1.0, role=BARE, constructed=True),
    )
    assert (found.winner, found.false_alarms) == ("a", ("edges",))
    assert found.outputs == (("predictions", "detects", 1.0, True),)
    (sentence,) = outputs_tell(found)
    assert "better than any map does" in sentence
    assert "by construction" in sentence


@pytest.mark.parametrize(
    ("effect", "told_as", "said"),
    [(0.8, "detects", "as well as the best map"), (0.7, "detects", "where the best map has .80"),
     (0.5, "blind", "do not tell it (.50)"), (0.6, "inconclusive", "is open (.60)")],
)  # fmt: skip
def test_what_outputs_tell_is_beside_what_maps_tell(effect: float, told_as: str, said: str) -> None:
    found = told(row("a", "detects", 0.8, 0.7, 0.9), row("predictions", told_as, effect, role=BARE))
    (sentence,) = outputs_tell(found)
    assert said in sentence


def test_reasons_of_the_statistics_are_words() -> None:
    wide = verdict(0.55, 0.41, 0.69, True)[1]
    assert why_open(wide) == "the interval is too wide"
    assert why_open(f"{wide}; maps miss the sum they promise by 59%") == "the interval is too wide"
    assert why_open(verdict(0.5, 0.45, 0.55, False)[1]) == "the maps had nothing to lose"
    assert why_open(verdict(0.5, 0.45, 0.55, True, undefined=0.2)[1]) == "more than 10 % of the scores are undefined"
    assert why_open(f"only 2 of 3 models have the bug; {NEEDED}").startswith("only 2 of 3 models")


def test_draws_are_no_models_and_mended_rows_are_left_out() -> None:
    rows = pd.DataFrame([row("a", "blind", control=PERTURBED), row("a", "blind", bug="shortcut+rrr")])
    (found,) = advice(rows, rows)
    assert (found.bug, found.units) == ("reinit", "5 draws a side")


def test_what_only_signs_tell_is_said() -> None:
    rows = pd.DataFrame([row("a", "detects", 1.0, 0.95, 1.0), row("b", "detects", 0.8, 0.7, 0.9)])
    absolute = pd.DataFrame([row("a", "blind", post="abs_sum"), row("b", "detects", post="abs_sum")])
    (found,) = advice(rows, pd.concat([rows, absolute]))
    assert found.by_sign == ("a",)
    assert "by the signs of its maps alone" in ranked(found)
    (unknown,) = advice(rows, rows)
    assert unknown.by_sign == ()
    assert "signs" not in ranked(unknown)
