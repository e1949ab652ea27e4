"""What sees a bug, what is blind, and who is the best, against tables made by hand and the shipped ones."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribug.results import advice
from attribug.results.advice import Advice, advise, caution, first_place, outputs_said
from attribug.results.headline import headline
from attribug.results.schema import RESULT_COLUMNS, VERDICTS
from attribug.results.statistics import verdict as decided

DOCS = Path(__file__).parent.parent.parent / "docs"
NAN = math.nan
PIECES: dict[str, Any] = {
    "bugs": {"reinit": {"control": "clean", "primary": "spearman@sum"}},
    "methods": {
        **{name: {"bare": False, "explains": True, "headline": ""} for name in "abcdefgh"},
        "random": {"bare": False, "explains": False, "headline": ""},
        "edges": {"bare": False, "explains": False, "headline": ""},
        "predictions": {"bare": True, "explains": False, "headline": "total_variation@none"},
    },
    "metrics": {
        "spearman": {"asks_directly": False}, "total_variation": {"asks_directly": False},
        "background_swap": {"asks_directly": True},
    },
}  # fmt: skip
SUITE = {"name": "made", "tasks": ["digits"], "bugs": ["reinit"], "methods": list(PIECES["methods"]), "seeds": 5}


def row(method: str, low: float, high: float, **facts: Any) -> dict[str, Any]:
    """A row with the verdict that its interval gives."""
    effect = (low + high) / 2
    told, reason = decided(effect, low, high, True, no_interval="2 models; an interval needs 3")
    metric = facts.get("metric", "total_variation" if method == "predictions" else "spearman")
    plain = {
        "suite": "made", "task": "digits", "bug": "reinit", "level": "1", "control": "clean", "method": method,
        "metric": metric, "post": "sum" if metric == "spearman" else "none", "seeds": 5, "n": 32, "undefined": 0.0,
        "value": 0.4, "sem": 0.01, "benign": 0.8, "floor": 0.1, "effect": effect, "ci_low": low, "ci_high": high,
        "verdict": told, "reason": reason,
    }  # fmt: skip
    return plain | facts


def told(*rows: dict[str, Any], **more: Any) -> Advice:
    results = pd.DataFrame(rows, columns=list(RESULT_COLUMNS))
    [found] = advise(headline(results, SUITE, PIECES), **more)
    return found


def named(found: tuple[advice.Told, ...]) -> list[str]:
    return [each.label for each in found]


NOTHING = {"effect": NAN, "ci_low": NAN, "ci_high": NAN, "undefined": NAN, "seeds": 0}
MIXED = (
    row("a", 0.7, 0.8), row("b", 0.9, 1.0), row("c", 0.45, 0.55), row("d", 0.1, 0.2), row("e", 0.5, 0.7),
    row("f", 0.0, 0.0, verdict="unsupported", reason="no layer", **NOTHING),
    row("g", 0.0, 0.0, verdict="failed", reason="no layer", **NOTHING),
    row("h", 0.4, 0.7, undefined=0.3, verdict="inconclusive", reason="undefined 30 %"),
    row("random", 0.5, 0.5), row("edges", 0.5, 0.5), row("predictions", 0.8, 0.95),
)  # fmt: skip


def test_every_method_stands_where_its_verdict_says() -> None:
    found = told(*MIXED)
    assert (named(found.sees), named(found.blind), named(found.inverted)) == (["b", "a"], ["c"], ["d"])
    assert found.opened == (
        ("5 models a side are too few to decide between blind and detects", ("e",)),
        ("more than 10 % of the scores are undefined", ("h",)),
    )
    assert [(each.verdict, each.reason, each.labels) for each in found.absent] == [
        ("unsupported", "no layer", ("f",)), ("failed", "no layer", ("g",)),
    ]  # fmt: skip
    assert (found.yardsticks, found.alarms, found.measured) == (("random", "edges"), (), 6)
    assert [output.label for output in found.outputs] == ["predictions"]


@pytest.mark.parametrize(
    ("rows", "winner", "said"),
    [
        ((row("a", 0.7, 0.8), row("b", 0.81, 1.0)), "b", "b sees it best."),
        ((row("a", 0.7, 0.8), row("b", 0.8, 1.0)), "",
         "No winner: 2 of 2 explanations may be the best one (b and a)."),
        ((row("b", 0.9, 1.0), row("a", 0.1, 0.95)), "",
         "No winner: 2 of 2 explanations may be the best one (b and a)."),
        ((row("a", 0.45, 0.55), row("b", 0.1, 0.2)), "", "No explanation sees it for certain."),
        ((row("a", 0.9, 1.0), row("h", 0.4, 0.7, undefined=0.3, verdict="inconclusive")), "",
         "No winner: 2 of 2 explanations may be the best one (a and h)."),  # who knows what is undefined?
        ((row("a", 0.0, 0.0, verdict="failed", reason="no", **NOTHING),), "", "No explanation was measured."),
        ((row("a", 0.7, 0.8), row("random", 0.9, 1.0), row("predictions", 1.0, 1.0)), "a", "a sees it best."),
    ],
)  # fmt: skip
def test_a_winner_only_where_no_interval_reaches_it(rows: Any, winner: str, said: str) -> None:
    found = told(*rows)
    assert (found.winner, first_place(found)) == (winner, said)


def test_noise_that_sees_a_bug_is_a_warning_and_never_the_best() -> None:
    found = told(row("a", 0.7, 0.8), row("random", 0.9, 1.0), row("edges", 0.5, 0.5))
    assert found.alarms == ("random",)
    assert found.first == ("a",)
    assert advice.alarm(found).startswith("Warning: random, which knows nothing of the model, sees it")
    assert advice.alarm(told(*MIXED)) == ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (MIXED, "Predictions alone see it (.88). No method's maps tell more for certain; those of 4 of 6 methods tell "
                "less."),
        ((row("a", 0.1, 0.3), row("predictions", 1.0, 1.0, reason="true by construction")),
         "Predictions alone see it (1.00, true by construction: the bug was confirmed on them). Every method's maps "
         "tell less."),
        ((row("a", 0.9, 1.0), row("b", 0.5, 0.5), row("predictions", 0.5, 0.5)),
         "Predictions alone are blind to it (.50). 1 of 2 methods' maps tell more for certain."),
        ((row("a", 0.9, 1.0), row("predictions", 0.5, 0.7)),
         "Predictions alone leave it open: interval .50–.70: 5 models a side are too few to decide between blind and "
         "detects. 1 of 1 methods' maps tell more for certain."),
        ((row("a", 0.9, 1.0), row("predictions", 0.0, 0.0, verdict="failed", reason="it broke", **NOTHING)),
         "Predictions alone: failed, it broke."),
        ((row("predictions", 0.9, 1.0, metric="background_swap"),),
         "Predictions for another version of the images (background_swap) see it (.95). There is no map beside them."),
    ],
)  # fmt: skip
def test_what_predictions_tell_and_whether_maps_tell_more(rows: Any, said: str) -> None:
    assert outputs_said(told(*rows)) == [said]


def test_intervals_of_differences_decide_where_there_are_any() -> None:
    rows = (row("a", 0.6, 0.9), row("b", 0.6, 0.9), row("predictions", 0.5, 0.7))
    keys = {"task": "digits", "bug": "reinit", "level": "1", "control": "clean", "metric": "spearman", "post": "sum"}
    added = pd.DataFrame([
        {**keys, "method": "a", "yardstick": "total_variation", "adds": "more"},
        {**keys, "method": "b", "yardstick": "total_variation", "adds": "less"},
        {**keys, "method": "b", "yardstick": "another", "adds": "more"},
    ])  # fmt: skip
    [without], [output] = told(*rows).outputs, told(*rows, added=added).outputs
    assert (without.more, without.less) == (0, 0)
    assert (output.more, output.less) == (1, 1)


def test_who_sees_by_signs_alone_is_named_with_both_effects() -> None:
    rows = [row("a", 0.9, 1.0), row("a", 0.5, 0.52, post="abs_sum"), row("b", 0.9, 1.0),
            row("b", 0.9, 1.0, post="abs_sum"), row("c", 0.5, 0.5), row("c", 0.5, 0.5, post="abs_sum")]  # fmt: skip
    results = pd.DataFrame(rows)
    assert "By signs alone: a (.95, absolute .51); its absolute maps are blind" in caution(told(*rows, results=results))
    assert caution(told(*rows)) == ""
    assert caution(told(*rows, results=results[results["method"] != "a"])) == ""
    others = results.assign(control=results["control"].where(results["post"] == "sum", "another"))
    assert caution(told(*rows, results=others)) == ""


def test_what_to_type_next() -> None:
    rows = headline(pd.DataFrame(MIXED), SUITE, PIECES)
    power = pd.DataFrame({"bug": "reinit", "level": "1", "models": [8.0, 30.0, NAN]})
    assert advice.next_step(SUITE, rows, power) == (
        "attribug run made … --seeds 10", "10 models a side would decide 1 of 2 open verdicts with 80 % chance",
    )  # fmt: skip
    assert advice.next_step(SUITE | {"seeds": 10}, rows, power[1:])[0] == "attribug run made … --seeds 50"
    assert advice.next_step(SUITE | {"tasks": ["own"]}, rows, power)[0] == "attribug run made … --seeds 10"
    assert advice.next_step(SUITE, rows, power.assign(models=NAN)) == ("", "")
    assert advice.next_step(SUITE, rows, None) == ("", "")
    assert advice.next_step(SUITE, rows[rows["verdict"] != "inconclusive"], power) == ("", "")
    few = headline(pd.DataFrame([row("a", NAN, NAN, seeds=1)]), SUITE, PIECES)
    assert advice.next_step(SUITE | {"seeds": 1}, few, None)[0] == "attribug run made … --seeds 5"


def test_the_terminal_gets_two_lines_at_most() -> None:
    assert advice.lines([told(*MIXED)]) == [
        "no winner: reinit 1 (2 may be the best)", "no map tells more than predictions for certain: reinit 1",
    ]  # fmt: skip
    assert advice.lines([told(row("a", 0.9, 1.0), row("predictions", 0.5, 0.5))]) == ["best: reinit 1: a"]
    assert advice.lines([told(row("a", 0.5, 0.5))]) == []


METHODS = st.lists(st.tuples(st.sampled_from(VERDICTS), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8)


@given(METHODS)
@settings(max_examples=100, deadline=None)
def test_every_explanation_stands_in_exactly_one_group(drawn: list[tuple[str, float, float]]) -> None:
    """Whatever verdicts a table holds, also those that its numbers do not give."""
    rows = [row(name, min(low, high), max(low, high), verdict=verdict, reason="because")
            for name, (verdict, low, high) in zip("abcdefgh", drawn, strict=False)]  # fmt: skip
    _each_once(told(*rows, row("random", 0.5, 0.5)), [each["method"] for each in rows])


def _each_once(found: Advice, methods: list[str]) -> None:
    groups = [named(found.sees), named(found.blind), named(found.inverted), *(labels for _, labels in found.opened),
              *(each.labels for each in found.absent)]  # fmt: skip
    assert Counter(label for group in groups for label in group) == Counter(methods)
    assert set(found.first) <= set(methods)
    for group in (found.sees, found.blind, found.inverted):
        effects = [each.effect for each in group if not np.isnan(each.effect)]
        assert effects == sorted(effects, reverse=True)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/which_method.py."""
    spec = importlib.util.spec_from_file_location("which_method", DOCS / "which_method.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(script: ModuleType) -> None:
    page = (DOCS / "which-method.md").read_text(encoding="utf-8")
    assert page == script.page(), "stale: run python docs/which_method.py"


@pytest.mark.parametrize("name", ["quick", "paper-offline"])
def test_the_page_follows_the_tables(script: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verdict of an explanation in the matrix is in exactly one group, and another table gives another page."""
    source = script.source(name)
    explained = source.rows[~source.rows["honest"]]
    for found in source.found:
        here = explained[(explained[["task", "bug", "level"]] == [found.task, found.bug, found.level]).all(axis=1)]
        _each_once(found, here["label"].tolist())
    before, load = script.page(), script.load_table

    def turned(place: str, **options: Any) -> Any:
        table = load(place, **options)
        table.results.loc[table.results["verdict"] == "blind", "verdict"] = "detects"
        return table

    monkeypatch.setattr(script, "load_table", turned)
    assert script.page() != before


def test_deep_taylor_sees_wrong_labels_by_signs_alone(script: ModuleType) -> None:
    """The sceptic's caution, from the table: read here without the code that tells it."""
    table = pd.read_csv(Path(advice.__file__).parent / "reference" / "quick.csv", dtype={"level": str})
    mine = table[(table["method"] == "deep_taylor") & (table["bug"] == "label_flips")]
    mine = mine[(mine["control"] == "other_flips") & (mine["metric"] == "spearman")].set_index("post")
    assert mine["verdict"].to_dict() == {"sum": "detects", "abs_sum": "blind"}
    effects = [f"{mine['effect'][post]:.2f}".removeprefix("0") for post in ("sum", "abs_sum")]
    asked = "**Is `deep_taylor` good where labels were wrong?** Only by the sign: "
    assert f"{asked}{effects[0]} by signed maps, {effects[1]} by absolute ones on digits" in script.page()


def test_suspicions_are_bugs_of_the_tables(script: ModuleType) -> None:
    for name in script.TABLES:
        facts = json.loads((Path(advice.__file__).parent / "reference" / f"{name}.json").read_text())
        assert set(facts["pieces"]["bugs"]) == {suspicion.bug for suspicion in script.SUSPICIONS}


def test_models_without_the_bug_are_no_reason_to_give_up() -> None:
    """Five were asked for and two have the bug: more models are just what decides."""
    rows = headline(pd.DataFrame([row("a", NAN, NAN, seeds=2)]), SUITE, PIECES)
    command, decides = advice.next_step(SUITE, rows, None)
    assert command == "attribug run made … --seeds 10"
    assert "have the bug" in decides


def test_what_is_typed_next_can_be_run() -> None:
    """Ten models cannot flip a fifth of the labels each in parts of their own: that bug is left out."""
    rows = headline(pd.DataFrame([*MIXED, *(each | {"bug": "label_flips", "level": "0.2"} for each in MIXED)]),
                    SUITE | {"bugs": ["reinit", "label_flips"]},
                    PIECES | {"bugs": PIECES["bugs"] | {"label_flips": PIECES["bugs"]["reinit"]}})  # fmt: skip
    power = pd.DataFrame({"bug": ["reinit", "label_flips"], "level": ["1", "0.2"], "models": [8.0, 8.0]})
    suite = SUITE | {"bugs": ["reinit", "label_flips"]}
    command, decides = advice.next_step(suite, rows, power)
    assert command == "attribug run made … --bugs reinit --seeds 10"
    assert decides.startswith("10 models a side would decide 1 of 4")
    level = power.assign(level=["1", "0.1"])
    lower = rows.assign(level=rows["level"].replace("0.2", "0.1"))
    assert advice.next_step(suite, lower, level)[0] == "attribug run made … --seeds 10"
