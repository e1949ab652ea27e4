"""Findings on each task: what supports one, what contradicts it, what leaves it open, and how wide intervals are."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attribug.results.findings import (
    ABSENT,
    FINDING_COLUMNS,
    FINDINGS,
    MODIFIED_BACKPROP,
    NO,
    UNDECIDED,
    YES,
    findings,
)
from attribug.results.published import PAPER_METHODS
from attribug.results.schema import RESULT_COLUMNS, typed

ROW = {
    "suite": "mine", "task": "digits", "bug": "ood", "level": "textures", "control": "clean", "method": "gradient",
    "metric": "spearman", "post": "sum", "seeds": 3, "n": 32, "undefined": 0.0, "value": 0.02, "sem": 0.005,
    "benign": 0.7, "floor": 0.1, "effect": 0.9, "ci_low": 0.8, "ci_high": 1.0, "verdict": "detects", "reason": "",
}  # fmt: skip
PRIMARY = {
    "ood": "spearman@sum", "reinit": "spearman@sum", "label_flips": "spearman@sum",
    "spurious_background": "mass_accuracy@abs_sum",
}  # fmt: skip
CONTROLS = {"ood": "clean", "reinit": "retrained", "label_flips": "other_flips", "spurious_background": "clean"}
BLIND = {"effect": 0.5, "ci_low": 0.45, "ci_high": 0.55, "verdict": "blind"}
OPEN = {"ci_low": 0.5, "verdict": "inconclusive"}
INVERTED = {"effect": 0.1, "ci_low": 0.0, "ci_high": 0.2, "verdict": "inverted"}
SPURIOUS = {"bug": "spurious_background", "level": "1", "metric": "mass_accuracy", "post": "abs_sum"}
GT1 = SPURIOUS | {"metric": "gt1_ssim", "post": "minmax", "value": 0.6}
GT2 = GT1 | {"metric": "gt2_ssim", "value": 0.85}
FLIPS = {"bug": "label_flips", "level": "0.1", "control": "other_flips"}
RANGE2 = {"metric": "ssim_range2", "post": "minmax", "value": 0.8}
TOP = {"bug": "reinit", "level": "1", "control": "retrained", "method": "guided_backprop"}
SSIM = {"metric": "ssim", "post": "sum_minmax"}
LIME = {"method": "lime"}
LACKING = dict.fromkeys(("undefined", "value", "sem", "benign", "floor", "effect", "ci_low", "ci_high"), math.nan)
DECLINED, NOT_TAKEN = (LACKING | {"verdict": verdict} for verdict in ("unsupported", "not taken"))
VARGRAD = SPURIOUS | {"method": "vargrad"}

CASES: list[tuple[str, list[dict[str, Any]], str]] = [
    ("spurious background detected", [SPURIOUS, SPURIOUS | {"method": "vargrad"}], YES),
    ("spurious background detected", [SPURIOUS | BLIND, SPURIOUS | BLIND | LIME], NO),
    ("spurious background detected", [SPURIOUS | INVERTED], NO),
    ("spurious background detected", [SPURIOUS, SPURIOUS | BLIND | LIME, VARGRAD | BLIND], UNDECIDED),
    ("spurious background detected", [SPURIOUS | OPEN], UNDECIDED),
    ("spurious background detected", [SPURIOUS, SPURIOUS | BLIND | {"level": "0.5"}], YES),  # the strongest level
    ("spurious background detected", [SPURIOUS | {"method": "grad_cam"}], ABSENT),  # not one of the paper's
    ("spurious background detected", [SPURIOUS | {"control": "perturbed"}], ABSENT),
    ("spurious background detected", [SPURIOUS | {"bug": "spurious_background+rrr"}], ABSENT),
    ("spurious background detected", [SPURIOUS | {"ci_low": math.nan, "ci_high": math.nan}], UNDECIDED),
    ("GT-2 high", [GT2], YES),
    ("GT-2 high", [GT2 | {"value": 0.5}], NO),
    ("GT-2 high", [GT2 | {"value": 0.79}], UNDECIDED),
    ("GT-2 high", [GT2 | {"undefined": 0.5}], UNDECIDED),
    ("GT-2 high", [GT2 | {"seeds": 2}], UNDECIDED),
    ("GT-2 high", [GT2 | {"reason": "no headroom", "verdict": "inconclusive"}], YES),  # a value needs none
    ("GT-2 above GT-1", [GT1, GT2], YES),
    ("GT-2 above GT-1", [GT1, GT2 | {"value": 0.5}], NO),
    ("GT-2 above GT-1", [GT1, GT2 | {"value": 0.61}], UNDECIDED),
    ("GT-2 above GT-1", [GT1, GT2 | LIME], ABSENT),
    ("squared gradients low on GT-1", [GT1 | {"method": "vargrad", "value": 0.07}], YES),
    ("squared gradients low on GT-1", [GT1 | {"method": "vargrad"}], NO),
    ("squared gradients low on GT-1", [GT1 | {"value": 0.07}], ABSENT),
    ("squared gradients high on GT-2", [GT2 | {"method": "vargrad", "value": 0.95}], YES),
    ("squared gradients high on GT-2", [GT2 | {"method": "vargrad"}], NO),
    ("wrong labels not detected", [FLIPS | BLIND], YES),
    ("wrong labels not detected", [FLIPS | INVERTED], YES),
    ("wrong labels not detected", [FLIPS], NO),
    ("wrong labels not detected", [FLIPS | LIME, FLIPS | INVERTED], NO),  # what inverts makes up for no detection
    ("wrong labels not detected", [FLIPS | OPEN], UNDECIDED),
    ("wrong labels not detected", [FLIPS | BLIND | {"reason": "no headroom"}], UNDECIDED),
    ("mislabelled examples look alike", [FLIPS | RANGE2], YES),
    ("mislabelled examples look alike", [FLIPS | RANGE2 | {"value": 0.4}], NO),
    ("mislabelled examples look alike", [FLIPS | SSIM | {"value": 0.8}], ABSENT),  # another pipeline
    ("modified back-propagation invariant to top layers", [TOP | BLIND], YES),
    ("modified back-propagation invariant to top layers", [TOP], NO),
    ("modified back-propagation invariant to top layers", [TOP | INVERTED, TOP | {"method": "deconvnet"}], NO),
    ("modified back-propagation invariant to top layers", [TOP | {"level": "all"}], ABSENT),
    ("modified back-propagation invariant to top layers", [TOP | {"method": "gradient"}], ABSENT),
    ("gradients sensitive to top layers", [TOP | {"method": "gradient"}], YES),
    ("gradients sensitive to top layers", [TOP | BLIND | {"method": "gradient"}], NO),
    ("gradients sensitive to top layers", [TOP], ABSENT),
    ("out-of-domain maps look alike", [SSIM | BLIND], YES),
    ("out-of-domain maps look alike", [SSIM], NO),
    ("out-of-domain maps above unrelated ones", [RANGE2], YES),
    ("out-of-domain maps above unrelated ones", [RANGE2 | {"floor": 0.78}], NO),
    ("out-of-domain maps above unrelated ones", [RANGE2 | {"floor": 0.7}], UNDECIDED),
    ("out-of-domain ranks unrelated", [{}], YES),
    ("out-of-domain ranks unrelated", [{"value": 0.5}], NO),
    ("out-of-domain ranks unrelated", [{"value": -0.5}], NO),
    ("out-of-domain ranks unrelated", [{"value": -0.5}, {"value": 0.5, "method": "smoothgrad"}], NO),  # no cancelling
    ("out-of-domain ranks unrelated", [{"value": 0.09}], UNDECIDED),
    ("out-of-domain ranks unrelated", [{"sem": 0.1}], UNDECIDED),
    ("out-of-domain ranks unrelated", [{"method": "guided_backprop"}], ABSENT),
    ("out-of-domain ranks unrelated", [DECLINED], "unsupported"),
    ("out-of-domain ranks unrelated", [DECLINED | {"method": "lime"}], ABSENT),  # not one of the finding's
    ("out-of-domain ranks unrelated", [DECLINED | {"control": "perturbed"}], ABSENT),
    ("out-of-domain ranks unrelated", [DECLINED, {"method": "smoothgrad"}], YES),
    ("wrong labels not detected", [FLIPS | NOT_TAKEN, FLIPS | LIME | DECLINED], "not taken"),
    ("wrong labels not detected", [FLIPS | LACKING | {"verdict": "failed", "control": "-"}], "failed"),
    ("GT-2 above GT-1", [GT1 | DECLINED, GT2], "unsupported"),
    ("out-of-domain ranks related", [{"method": "vargrad", "value": 0.4}], YES),
    ("out-of-domain ranks related", [{"method": "vargrad"}], NO),
    ("out-of-domain ranks related", [{"value": 0.4}], ABSENT),
]  # fmt: skip


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return typed(pd.DataFrame([ROW | row for row in rows], columns=list(RESULT_COLUMNS)))


def found(*rows: dict[str, Any]) -> pd.DataFrame:
    return findings(table(*rows), PRIMARY, CONTROLS).set_index("finding")


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    """All cases in one table, each a task of its own."""
    rows = [row | {"task": str(number)} for number, (_, rows, _) in enumerate(CASES) for row in rows]
    return findings(table(*rows), PRIMARY, CONTROLS).set_index(["finding", "task"])


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{name}: {answer}" for name, _, answer in CASES])
def test_findings(number: int, judged: pd.DataFrame) -> None:
    name, _, expected = CASES[number]
    row = judged.loc[(name, str(number))]
    assert row["agrees"] == expected, row["evidence"]
    assert bool(row["evidence"]) == (expected != ABSENT)
    assert (row["methods"] == 0) == (row["estimate"] != row["estimate"])


def test_every_finding_has_cases_that_support_and_contradict_it() -> None:
    assert {(name, answer) for name, _, answer in CASES} >= {
        (finding.name, answer) for finding in FINDINGS for answer in (YES, NO)
    }
    assert all(set(finding.methods) <= set(PAPER_METHODS) for finding in FINDINGS)


def test_a_row_a_finding_and_task() -> None:
    rows = [SPURIOUS | {"task": "a"}, SPURIOUS | BLIND | {"task": "b"}, {"task": "c"}]
    answers = findings(table(*rows), PRIMARY, CONTROLS)
    assert tuple(answers.columns) == FINDING_COLUMNS
    assert list(answers["task"]) == ["a", "b", "c"] * len(FINDINGS)
    first = answers[answers["finding"] == "spurious background detected"]
    assert list(first["agrees"]) == [YES, NO, ABSENT]


def test_the_interval_is_that_of_perfectly_correlated_rows() -> None:
    """Mean estimate ± mean half-width, the longer side where an interval was cut off."""
    rows = [
        SPURIOUS | {"effect": 0.95, "ci_low": 0.8},
        SPURIOUS | LIME | {"effect": 0.7, "ci_low": 0.65, "ci_high": 0.75},
    ]
    row = found(*rows).loc["spurious background detected"]
    assert (row["methods"], row["estimate"]) == (2, pytest.approx(0.825))
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(0.725), pytest.approx(0.925))
    half = stats.t.ppf(0.975, 2) * 0.005
    row = found(GT2, GT2 | LIME | {"value": 0.95}).loc["GT-2 high"]
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(0.9 - half), pytest.approx(0.9 + half))
    both = found(GT1, GT2).loc["GT-2 above GT-1"]
    assert (both["ci_low"], both["ci_high"]) == (pytest.approx(0.25 - 2 * half), pytest.approx(0.25 + 2 * half))


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_holds_the_mean_whatever_the_correlation(correlation: float) -> None:
    """At least 95 of 100 times, of five methods and three models; without the conservative width it would not."""
    random, methods, models, times = np.random.default_rng(5), 5, 3, 400
    covered = narrow = 0
    for _ in range(times):
        shared = random.normal(size=(1, models))
        own = random.normal(size=(methods, models))
        scores = 0.1 * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
        half = stats.t.ppf(0.975, models - 1) * scores.std(axis=1, ddof=1) / math.sqrt(models)
        estimate = scores.mean()
        covered += abs(estimate) <= half.mean()
        narrow += abs(estimate) <= half.mean() / math.sqrt(methods)
    assert covered / times >= 0.95
    assert narrow / times < 0.95 or correlation == 0


def test_evidence_names_rows_without_scores_by_their_outcome() -> None:
    row = found(DECLINED, {"method": "smoothgrad"}).loc["out-of-domain ranks unrelated"]
    assert (row["methods"], row["evidence"]) == (1, "yes: smoothgrad; unsupported: gradient")
    row = found(SPURIOUS | NOT_TAKEN, SPURIOUS | {"level": "0.5"}).loc["spurious background detected"]
    assert (row["agrees"], row["evidence"]) == (YES, "yes: gradient 0.5; not taken: gradient 1")


def test_evidence_names_methods_and_levels() -> None:
    rows = [TOP | {"level": level, "method": method} | (BLIND if level == "1" else {})
            for level in ("1", "3") for method in MODIFIED_BACKPROP]  # fmt: skip
    row = found(*rows).loc["modified back-propagation invariant to top layers"]
    assert (row["agrees"], row["methods"]) == (NO, 6)
    assert row["evidence"].startswith("yes: guided_backprop 1, deconvnet 1")
    assert "no: guided_backprop 3" in row["evidence"]
