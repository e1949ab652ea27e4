"""Comparing two tables: every status, its exit code and its line; intervals against plain loops; formats."""

import json
import math
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from attribug.results.comparison import COLUMNS, ComparedTable, compare
from attribug.results.comparison_formats import FORMATS, MOST_ROWS
from attribug.results.comparison_words import STATUSES, told_status
from attribug.results.schema import KEYS, RESULT_COLUMNS, TableError, typed

NAN = float("nan")
ROW = {
    "suite": "mine", "task": "digits", "bug": "reinit", "level": "1", "control": "retrained", "method": "gradient",
    "metric": "spearman", "post": "sum", "seeds": 3, "n": 32, "undefined": 0.0, "value": 0.3, "sem": 0.01,
    "benign": 0.7, "floor": 0.1, "effect": 0.9, "ci_low": 0.8, "ci_high": 1.0, "verdict": "detects", "reason": "",
}  # fmt: skip
KINDS = {"spearman": "similarity", "iou": "alignment"}
CONTRASTS = {
    "schema": 1,
    "suite": {"seeds": 3, "task_options": {"digits": {"train": 100}}},
    "models": {"m": {"weights": "w"}},
    "contrasts": {f"digits / reinit 1 / seed {seed}": {"key": f"k{seed}", "models": ["m"]} for seed in range(3)},
}
OTHER_WEIGHTS = CONTRASTS | {"models": {"m": {"weights": "v"}}}


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Rows that differ from `ROW`."""
    return typed(pd.DataFrame([ROW | row for row in rows], columns=list(RESULT_COLUMNS)))


def outcome(old: dict[str, Any], new: dict[str, Any], facts: dict[str, Any] | None = None, **options: Any) -> pd.Series:
    """The comparison of two tables of one row each; `same`: of the same models."""
    sides = [ComparedTable(name, table(rows), None, facts or {}) for name, rows in (("old", old), ("new", new))]
    found = compare(*sides, kinds=KINDS, **options)
    row = found.table.iloc[0]
    return pd.concat([row, pd.Series({"code": found.code, "conclusion": found.conclusion, "rows": len(found.table)})])


BLIND = {"effect": 0.5, "ci_low": 0.45, "ci_high": 0.55, "verdict": "blind"}
UNSURE = {"effect": 0.75, "ci_low": 0.5, "ci_high": 1.0, "verdict": "inconclusive"}
NONE = dict.fromkeys(("undefined", "value", "sem", "benign", "floor", "effect", "ci_low", "ci_high"), NAN)
UNSUPPORTED = NONE | {"verdict": "unsupported", "reason": "a residual sum"}

CHANCE = {  # other models: old, new, status, code
    "nothing": ({}, {}, "same", 0),
    "an effect collapses": ({}, BLIND, "verdict changed", 1),
    "an effect that is lost by chance": (
        {"effect": 0.8, "ci_low": 0.62, "ci_high": 0.98}, UNSURE, "verdict changed", 0,
    ),
    "a detection is contradicted": (
        {"effect": 0.7, "ci_low": 0.61, "ci_high": 0.79}, BLIND | {"ci_low": 0.41, "ci_high": 0.59},
        "verdict changed", 1,
    ),
    "the bug is not taken": ({}, NONE | {"verdict": "not taken", "reason": "accuracy"}, "missing", 3),
    "values are gone": ({}, {"value": NAN, "undefined": 1.0, "verdict": "inconclusive"}, "worse", 1),
    "most values were gone before": (
        {"undefined": 0.2, "verdict": "inconclusive"}, {"value": NAN, "undefined": 1.0, "verdict": "inconclusive"},
        "worse", 1,
    ),
    "an effect is gained": (BLIND, {}, "verdict changed", 0),
    "an effect falls, the verdict stays": (
        {"effect": 0.99, "ci_low": 0.98, "ci_high": 1.0}, {"effect": 0.7, "ci_low": 0.65, "ci_high": 0.75}, "worse", 1,
    ),
    "a similarity rises": ({}, {"value": 0.55}, "worse", 1),
    "a similarity falls": ({}, {"value": 0.05}, "better", 0),
    "an alignment falls": ({"metric": "iou"}, {"metric": "iou", "value": 0.05}, "worse", 1),
    "an alignment rises": ({"metric": "iou"}, {"metric": "iou", "value": 0.55}, "better", 0),
    "an unknown metric falls": ({"metric": "own"}, {"metric": "own", "value": 0.05}, "worse", 1),
    "an unknown metric rises": ({"metric": "own"}, {"metric": "own", "value": 0.55}, "worse", 1),
    "a value moves less than can be seen": ({}, {"value": 0.38}, "same", 0),
    "a value moves within its error": ({"sem": 0.2}, {"value": 0.55, "sem": 0.2}, "same", 0),
    "a record failed": ({}, NONE | {"verdict": "failed", "reason": "ValueError: no"}, "missing", 3),
    "a detection is not measured any more": ({}, UNSUPPORTED, "verdict changed", 1),
    "a row is not measured any more": (BLIND, UNSUPPORTED, "verdict changed", 3),
    "a row is measured now": (UNSUPPORTED, {}, "verdict changed", 0),
    "models are too few now": (
        {}, {"seeds": 2, "ci_low": NAN, "ci_high": NAN, "verdict": "inconclusive", "reason": "2 models with the bug"},
        "missing", 3,
    ),
    "models are too few on either side": (
        {"ci_low": NAN, "ci_high": NAN, "verdict": "inconclusive"},
        {"ci_low": NAN, "ci_high": NAN, "verdict": "inconclusive"}, "incompatible", 3,
    ),
    "all maps become constant": ({}, UNSURE | {"undefined": 0.95}, "worse", 1),
    "the maps of a model become constant": (
        {"effect": 0.8, "ci_low": 0.62, "ci_high": 0.98}, UNSURE | {"undefined": 0.4}, "verdict changed", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANCE)
def test_runs_of_other_models(name: str) -> None:
    old, new, status, code = CHANCE[name]
    found = outcome(old, new)
    assert (found["status"], found["code"]) == (status, code), found["conclusion"]
    assert not found["same_models"]
    assert "\n" not in found["conclusion"]


SAME = {
    "last bits": ({}, {"value": 0.300004}, "same", 0),
    "a value moves": ({}, {"value": 0.301}, "worse", 1),
    "a value moves the other way": ({}, {"value": 0.299}, "better", 0),
    "some images cross δ": ({}, {"effect": 0.91, "ci_low": 0.81}, "same", 0),
    "an effect falls": ({}, {"effect": 0.84, "ci_low": 0.74}, "worse", 1),
    "a detection is lost": ({"ci_low": 0.601}, {"ci_low": 0.599, "verdict": "inconclusive"}, "verdict changed", 1),
    "some maps become constant": ({}, {"undefined": 0.15, "verdict": "inconclusive"}, "worse", 1),
    "two models need no interval": (
        {"ci_low": NAN, "ci_high": NAN, "verdict": "inconclusive"},
        {"ci_low": NAN, "ci_high": NAN, "verdict": "inconclusive"}, "same", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_runs_of_the_same_models(name: str) -> None:
    old, new, status, code = SAME[name]
    found = outcome(old, new, CONTRASTS)
    assert found["same_models"]
    assert (found["status"], found["code"]) == (status, code), found["conclusion"]


def test_models_are_the_same_by_their_weights() -> None:
    """The same recipe trained elsewhere, a contrast of other images, one seed fewer: each is something else."""
    fewer = dict(list(CONTRASTS["contrasts"].items())[:2])
    other = {name: fact | {"key": "x"} for name, fact in CONTRASTS["contrasts"].items()}
    for facts in (OTHER_WEIGHTS, CONTRASTS | {"contrasts": fewer}, CONTRASTS | {"contrasts": other}, {}):
        found = compare(ComparedTable("old", table({}), None, CONTRASTS), ComparedTable("new", table({}), None, facts))
        assert not found.table["same_models"].any()
    assert (
        compare(ComparedTable("old", table({}), None, CONTRASTS), ComparedTable("new", table({}), None, CONTRASTS))
        .table["same_models"]
        .all()
    )


def test_rows_of_one_side_only() -> None:
    both, mine = table({}, {"method": "lime"}), table({}, {"method": "mine"})
    found = compare(ComparedTable("old", both), ComparedTable("new", mine), kinds=KINDS)
    assert found.table.set_index("method")["status"].to_dict() == {
        "gradient": "same", "lime": "missing", "mine": "new",
    }  # fmt: skip
    assert found.code == 3
    assert "lime" in found.conclusion
    assert compare(ComparedTable("old", table({})), ComparedTable("new", mine), kinds=KINDS).code == 0


def test_a_regression_outweighs_a_missing_row() -> None:
    found = compare(
        ComparedTable("old", table({}, {"method": "lime"})), ComparedTable("new", table(BLIND)), kinds=KINDS
    )
    assert found.code == 1
    assert "lime" in found.conclusion
    assert "detects → blind" in found.conclusion


@pytest.mark.parametrize(
    ("old", "new"), [({}, {"method": "lime"}), (UNSUPPORTED, UNSUPPORTED)], ids=["nothing in common", "no numbers"]
)
def test_measured_nothing_is_not_nothing_worse(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = outcome(old, new)
    assert found["code"] == 3
    assert "nothing worse in" not in found["conclusion"]


def test_other_settings_make_numbers_incompatible() -> None:
    smaller = CONTRASTS | {"suite": {"seeds": 3, "task_options": {"digits": {"train": 50}}}}
    found = compare(ComparedTable("old", table({}), None, CONTRASTS), ComparedTable("new", table({}), None, smaller))
    assert (found.table["status"].item(), found.code) == ("incompatible", 3)
    seen = [{"pieces": {"metrics": {"spearman": {"visible": visible, "kind": "similarity"}}}} for visible in (0.1, 0)]
    found = compare(*(ComparedTable("side", table({}), None, facts) for facts in seen))
    assert found.table["note"].item() == "visible difference 0.1 → 0"


def test_tolerances() -> None:
    moved = {"value": 0.31}
    assert outcome({}, moved, CONTRASTS)["status"] == "worse"
    assert outcome({}, moved, CONTRASTS, tolerance={"": 0.02})["status"] == "same"
    assert outcome({}, moved, CONTRASTS, tolerance={"spearman": 0.02})["status"] == "same"
    assert outcome({}, moved, CONTRASTS, tolerance={"iou": 0.02})["status"] == "worse"
    assert outcome({}, moved, CONTRASTS, tolerance={"": 0.02, "spearman": 0.001})["status"] == "worse"
    fell = {"effect": 0.84, "ci_low": 0.74}
    assert outcome({}, fell, CONTRASTS, tolerance={"": 0.5})["status"] == "worse"
    assert outcome({}, fell, CONTRASTS, tolerance={"effect": 0.1})["status"] == "same"


def test_only_verdicts() -> None:
    assert outcome({}, {"value": 0.9}, only_verdicts=True)["code"] == 0
    assert outcome({}, BLIND, only_verdicts=True)["code"] == 1
    assert outcome({}, NONE | {"verdict": "failed"}, only_verdicts=True)["code"] == 3
    assert outcome({}, NONE | {"verdict": "not taken"}, only_verdicts=True)["code"] == 3


def test_tables_of_two_suites_or_schemas_are_refused() -> None:
    with pytest.raises(TableError, match="expected results of suite 'mine', as old, found 'yours'"):
        outcome({}, {"suite": "yours"})
    with pytest.raises(TableError, match="expected a table of schema 1, found schema 7"):
        outcome({}, {}, {"schema": 7})
    with pytest.raises(TableError, match="expected rows of one suite, found 'mine', 'yours'"):
        compare(ComparedTable("old", table({}, {"suite": "yours"})), ComparedTable("new", table({})))


def test_intervals_of_tables_come_from_sem_and_ci() -> None:
    row = outcome({"sem": 0.03}, {"value": 0.4, "sem": 0.04, "effect": 0.7, "ci_low": 0.5, "ci_high": 0.9})
    half = student.ppf(0.975, 2) * 0.05
    assert (row["low"], row["high"]) == pytest.approx((0.1 - half, 0.1 + half))
    assert row["effect_high"] - row["effect_difference"] == pytest.approx(math.hypot(0.1, 0.2))  # of .9 and .7


def nested(rows: list[dict[str, Any]], name: str) -> float:
    """Mean over images within a triple, triples within a model, models: plain loops."""
    models = []
    for seed in sorted({row["seed"] for row in rows}):
        triples = sorted({(row["draw"], row["reference"], row["control_seed"]) for row in rows if row["seed"] == seed})
        means = []
        for draw, reference, control in triples:
            of = {"seed": seed, "draw": draw, "reference": reference, "control_seed": control}
            means.append(np.mean([row[name] for row in rows if of.items() <= row.items()]))
        models.append(np.mean(means))
    return float(np.mean(models))


def plain_variance(rows: list[dict[str, Any]], name: str, seeds: int) -> float:
    """Jackknife over units in every role, plus the variance of images' means."""
    roles = ("seed", "reference", "control_seed")
    left = [nested([row for row in rows if all(row[role] % seeds != unit for role in roles)], name)
            for unit in range(seeds)]  # fmt: skip
    over_models = (seeds - 1) / seeds * sum((each - np.mean(left)) ** 2 for each in left)
    images = [np.mean([row[name] for row in rows if row["example"] == example])
              for example in sorted({row["example"] for row in rows})]  # fmt: skip
    return float(over_models + np.var(images, ddof=1) / len(images))


@pytest.mark.parametrize("same", [True, False])
def test_intervals_of_scores_against_plain_loops(plain: SimpleNamespace, same: bool) -> None:
    random = np.random.default_rng(5)
    rows = plain.scores(random, "similarity", 4, 6, keys={k: ROW[k] for k in KEYS})
    others = [row | {"value": row["value"] + random.normal(0.05, 0.02)} for row in rows]
    facts = CONTRASTS | {"suite": {"seeds": 4, "task_options": {}}}
    sides = [
        ComparedTable(name, table({"value": nested(scores, "value"), "seeds": 4}), pd.DataFrame(scores),
                 facts if same else facts | {"models": {"m": {"weights": name}}})
        for name, scores in (("old", rows), ("new", others))
    ]  # fmt: skip
    row = compare(sides[0], sides[1], kinds=KINDS).table.iloc[0]
    moved = [new | {"moved": new["value"] - old["value"]} for old, new in zip(rows, others, strict=True)]
    variance = plain_variance(moved, "moved", 4) if same else sum(plain_variance(s, "value", 4) for s in (rows, others))
    assert row["difference"] == pytest.approx(nested(others, "value") - nested(rows, "value"))
    assert row["high"] - row["difference"] == pytest.approx(student.ppf(0.975, 3) * math.sqrt(variance))


shares = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(shares, shares, shares, shares), min_size=1, max_size=6), st.booleans())
def test_a_table_is_never_worse_than_itself(rows: list[tuple[float, ...]], same: bool) -> None:
    drawn = [
        {"method": f"m{number}", "value": value, "sem": sem, "effect": effect, "ci_low": effect * low,
         "ci_high": effect + (1 - effect) * low}
        for number, (value, sem, effect, low) in enumerate(rows)
    ]  # fmt: skip
    side = ComparedTable("side", table(*drawn), None, CONTRASTS if same else {})
    found = compare(side, side, kinds=KINDS)
    assert set(found.table["status"]) == {"same"}
    assert found.ok
    assert list(found.table.columns) == list(COLUMNS)


@settings(max_examples=60, deadline=None)
@given(shares, shares, st.sampled_from(["spearman", "iou"]))
def test_better_one_way_is_worse_the_other_way(one: float, two: float, metric: str) -> None:
    old, new = ({"metric": metric, "value": value} for value in (one, two))
    there, back = outcome(old, new)["status"], outcome(new, old)["status"]
    assert {"worse": "better", "better": "worse", "same": "same"}[there] == back


HOSTILE = "<script>alert(1)</script>|`*_[x](y)\x07"


def hostile() -> Any:
    rows = [{"method": HOSTILE}, {"method": "lime"}, {"method": "gone"}]
    new = table(rows[0] | BLIND, rows[1], {"method": "mine"})
    return compare(ComparedTable("old", table(*rows)), ComparedTable("<new>", new), kinds=KINDS)


def test_json_has_every_row() -> None:
    facts = json.loads(FORMATS["json"](hostile()), parse_constant=pytest.fail)
    assert (facts["ok"], facts["exit_code"], len(facts["rows"])) == (False, 1, 4)
    assert facts["counts"] == {"verdict changed": 1, "missing": 1, "new": 1, "same": 1}
    assert {row["status"] for row in facts["rows"]} <= set(STATUSES)


def test_junit_counts_failures_and_errors() -> None:
    suite = ElementTree.fromstring(FORMATS["junit"](hostile()))[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "4", "failures": "1", "errors": "1",
    }  # fmt: skip
    failed = [case for case in suite if case.find("failure") is not None]
    assert "detects → blind" in failed[0][0].get("message", "")
    nothing = compare(ComparedTable("old", table(UNSUPPORTED)), ComparedTable("new", table(UNSUPPORTED)))
    suite = ElementTree.fromstring(FORMATS["junit"](nothing))[0]
    assert (suite.get("errors"), len(suite)) == ("1", int(suite.get("tests", "")))


def test_markdown_shows_text_as_text() -> None:
    shown = FORMATS["markdown"](hostile())
    assert "<script>" not in shown
    assert "&lt;new&gt;" in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {rows[0].count("|")}


def test_text_shows_what_changed_first_and_not_everything() -> None:
    shown = FORMATS["text"](hostile())
    assert "detects → blind" in shown
    assert "lime" not in shown
    many = [{"method": f"m{number}"} for number in range(MOST_ROWS + 5)]
    rows = [row | BLIND for row in many]
    found = compare(ComparedTable("old", table(*many)), ComparedTable("new", table(*rows)), kinds=KINDS)
    assert "… and 5 more rows" in FORMATS["text"](found)
    assert "nothing worse in 1 rows" in FORMATS["text"](
        compare(ComparedTable("a", table({})), ComparedTable("b", table({})))
    )


def test_a_value_that_moves_with_its_control_tells_the_bug_no_better() -> None:
    """A metric whose sign is flipped, maps that are noisier everywhere; and maps that are less noisy everywhere."""
    flipped = {"value": -0.3, "benign": -0.7}
    assert outcome({}, flipped, CONTRASTS)["status"] == "worse"
    assert "control 0.7 → -0.7" in outcome({}, flipped, CONTRASTS)["conclusion"]
    noisier = {"value": 0.2, "benign": 0.6}
    assert outcome({}, noisier, CONTRASTS)["code"] == 1
    assert outcome({}, noisier)["status"] == "same"
    assert outcome({}, {"value": 0.35, "benign": 0.9}, CONTRASTS)["status"] == "better"
    assert outcome({}, {"benign": 0.65}, CONTRASTS)["status"] == "worse"


def test_the_same_models_must_say_everything_again() -> None:
    """The floor, the share of undefined scores, and how much was measured."""
    for change, status, code in (
        ({"floor": 0.4}, "worse", 1), ({"undefined": 0.05}, "worse", 1), ({"n": 1}, "missing", 3),
        ({"seeds": 2}, "missing", 3), ({"sem": 0.4}, "same", 0),
    ):  # fmt: skip
        found = outcome({}, change, CONTRASTS)
        assert (found["status"], found["code"]) == (status, code), found["conclusion"]
    assert outcome({}, {"floor": 0.4})["status"] == "same"


def test_the_same_models_on_other_images_are_something_else() -> None:
    for change in ({"examples": 8}, {"seed": 1}):
        facts = CONTRASTS | {"suite": CONTRASTS["suite"] | change}
        found = compare(ComparedTable("old", table({}), None, CONTRASTS), ComparedTable("new", table({}), None, facts))
        assert not found.table["same_models"].any()
    unknown = CONTRASTS | {"models": {}}
    found = compare(ComparedTable("old", table({}), None, unknown), ComparedTable("new", table({}), None, unknown))
    assert not found.table["same_models"].any()


def test_no_visible_difference_is_no_tolerance() -> None:
    pieces = {"pieces": {"metrics": {"spearman": {"visible": 0.0, "kind": "similarity"}}}}
    assert outcome({}, {"value": 0.38}, pieces)["status"] == "worse"


@pytest.mark.parametrize(("lost", "code"), [(18, 0), (19, 1), (24, 1)])
def test_most_detections_are_not_lost_by_chance(lost: int, code: int) -> None:
    """Each with an interval so wide that it tells nothing."""
    wide = {"effect": 0.7, "ci_low": 0.4, "ci_high": 1.0, "verdict": "inconclusive"}
    old = table(*({"method": f"m{number}"} for number in range(24)))
    new = table(*({"method": f"m{number}"} | (wide if number < lost else {}) for number in range(24)))
    for only_verdicts in (False, True):
        found = compare(ComparedTable("old", old), ComparedTable("new", new), kinds=KINDS, only_verdicts=only_verdicts)
        assert found.code == code, found.conclusion


def test_rows_that_only_one_side_has_are_counted_and_left_out_when_asked() -> None:
    old = ComparedTable("old", table({"method": "a"}, {"method": "b"}, {"method": "gone"}))
    new = ComparedTable("new", table({"method": "a"}, {"method": "b"} | BLIND, {"method": "mine"}))
    whole = compare(old, new, kinds=KINDS)
    assert (whole.code, whole.alone, whole.notes) == (1, (1, 1), [])
    found = compare(old, new, kinds=KINDS, common=True)
    assert found.table["method"].tolist() == ["a", "b"]
    assert found.notes == ["left out: 1 row that only old has", "left out: 1 row that only new has"]
    assert all(note in FORMATS["text"](found) for note in found.notes)
    facts = json.loads(FORMATS["json"](found))
    assert (facts["only_baseline"], facts["only_candidate"], facts["notes"]) == (1, 1, found.notes)
    with pytest.raises(TableError, match="expected rows that old has as well, found none"):
        compare(old, ComparedTable("new", table({"method": "other"})), kinds=KINDS, common=True)


def test_a_part_of_the_other_is_told() -> None:
    whole = ComparedTable("whole", table({"method": "a"}, {"method": "b"}, {"method": "c"}))
    part = ComparedTable("part", table({"method": "a"}))
    for old, new in ((whole, part), (part, whole)):
        (note,) = compare(old, new, kinds=KINDS).notes
        assert note == "part is a part of whole, which has 2 rows more; --common compares the 1 that both have"
    assert compare(whole, whole, kinds=KINDS).notes == []
    assert compare(whole, part, kinds=KINDS, common=True).ok


def test_rows_that_fail_the_gate_are_marked_and_others_called_harmless() -> None:
    unsure = {"effect": 0.8, "ci_low": 0.62, "ci_high": 0.98}
    old = ComparedTable("old", table({"method": "lost"}, {"method": "gained"} | BLIND, {"method": "gone"} | unsure))
    new = ComparedTable("new", table({"method": "lost"} | BLIND, {"method": "gained"}))
    found = compare(old, new, kinds=KINDS)
    said = found.table.set_index("method").apply(told_status, axis=1).to_dict()
    assert said == {
        "lost": "✗ verdict changed", "gained": "verdict changed, harmless", "gone": "✗ missing, not measured",
    }  # fmt: skip
    shown = FORMATS["text"](found)
    assert "✗ fails the gate" in shown
    assert shown.index("✗ verdict changed") < shown.index("verdict changed, harmless")
    better = compare(ComparedTable("old", table(BLIND)), ComparedTable("new", table({})), kinds=KINDS)
    assert better.ok
    assert "1 verdict changed, harmless" in better.conclusion
    assert "✗" not in FORMATS["text"](better)
