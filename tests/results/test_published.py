"""Published values as they were printed, and findings that tables support, contradict or leave open."""

import math
from typing import Any

import pandas as pd
import pytest

from attribug.results.published import (
    ABSENT,
    BESIDE_COLUMNS,
    FINDING_COLUMNS,
    FINDINGS,
    LIKEST,
    MODIFIED_BACKPROP,
    NO,
    UNDECIDED,
    YES,
    beside,
    findings,
    published,
)
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
METHODS = 15  # of the paper's tables


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return typed(pd.DataFrame([ROW | row for row in rows], columns=list(RESULT_COLUMNS)))


def printed(source: str, quantity: str, setting: str = "") -> dict[str, tuple[float, float]]:
    """Value and standard error by method."""
    values = published()
    rows = values[(values["source"] == source) & (values["quantity"] == quantity)]
    rows = rows[rows["setting"].str.contains(setting, regex=False)]
    return {row.method: (row.value, row.sem) for row in rows.itertuples()}


def test_values_as_printed() -> None:
    """Some of each row: the first, the last, the odd ones."""
    gt1, gt2 = printed("Table 2", "gt1_ssim"), printed("Table 2", "gt2_ssim")
    assert len(gt1) == len(gt2) == METHODS
    assert (gt1["gradient"], gt1["vargrad"], gt1["lrp_spaf"]) == ((0.62, 0.012), (0.075, 0.0089), (0.69, 0.028))
    assert (min(gt2.values())[0], max(gt2.values())[0]) == (0.78, 0.98)  # as the text says
    for setting, ssim, rank in (
        ("MNIST model", {"vargrad": 0.92, "kernel_shap": 0.41}, {"guided_backprop": 0.51, "pattern_net": -0.14}),
        ("BVD-CNN", {"kernel_shap": 0.82, "pattern_attribution": 0.36}, {"smoothgrad_squared": 0.43, "lime": 0.18}),
        ("VGG-16", {"pattern_attribution": 0.12, "deconvnet": 0.36}, {"pattern_net": 0.32, "kernel_shap": -0.045}),
    ):
        for quantity, some in (("ssim", ssim), ("spearman", rank)):
            found = printed("Table 3", quantity, setting)
            assert len(found) == METHODS
            assert {method: found[method][0] for method in some} == some
    assert math.isnan(printed("Table 3", "ssim", "MNIST model")["deconvnet"][1])  # printed with a minus: unknown


def test_values_stand_beside_the_likest_of_ours() -> None:
    rows = table(
        {"post": "abs_sum", "value": 0.5}, {"value": 0.02}, {"method": "lime", "value": math.nan, "verdict": "failed"},
        {"metric": "ssim", "post": "sum_minmax", "value": 0.1},
        {"metric": "ssim_range2", "post": "minmax", "value": 0.6},
        {"method": "edges"}, {"control": "other", "value": 0.9},
    )  # fmt: skip
    found = beside(rows, CONTROLS)
    assert list(found.columns) == list(BESIDE_COLUMNS)
    assert len(found) == 8 * METHODS
    ours = found[found["ours"].notna()]
    assert {(row.method, row.quantity, row.measured_as, row.ours) for row in ours.itertuples()} == {
        ("gradient", "spearman", "spearman@sum", 0.02), ("gradient", "ssim", "ssim_range2@minmax", 0.6),
    }  # fmt: skip
    assert len(ours) == 2 * 3  # settings
    assert set(published()["quantity"][published()["method"] != ""]) - set(LIKEST) == {"median_recommendation"}


def test_the_strongest_level_of_every_task_is_shown() -> None:
    gt1 = {"bug": "spurious_background", "metric": "gt1_ssim", "post": "minmax"}
    cells = (("a", "0.5", 0.1), ("a", "1", 0.2), ("b", "1", 0.3))
    rows = [gt1 | {"task": task, "level": level, "value": value} for task, level, value in cells]
    found = beside(table(*rows), CONTROLS).query("method == 'gradient' and quantity == 'gt1_ssim'")
    assert list(zip(found["task"], found["level"], found["ours"], strict=True)) == [("a", "1", 0.2), ("b", "1", 0.3)]


BLIND = {"effect": 0.5, "ci_low": 0.45, "ci_high": 0.55, "verdict": "blind"}
OPEN = {"verdict": "inconclusive"}
SPURIOUS = {"bug": "spurious_background", "metric": "mass_accuracy", "post": "abs_sum"}
FLIPS = {"bug": "label_flips", "control": "other_flips"}
TOP = {"bug": "reinit", "level": "1", "control": "retrained", "method": "guided_backprop"}
SSIM = {"metric": "ssim", "post": "sum_minmax"}
CASES = [
    (0, [SPURIOUS, SPURIOUS | {"method": "vargrad"}, SPURIOUS | OPEN | {"method": "lime"}], YES),
    (0, [SPURIOUS | BLIND, SPURIOUS | BLIND | {"method": "lime"}, SPURIOUS | {"method": "vargrad"}], NO),
    (0, [SPURIOUS, SPURIOUS | OPEN | {"method": "lime"}], UNDECIDED),
    (0, [SPURIOUS, SPURIOUS | BLIND | {"method": "lime"}], UNDECIDED),
    (0, [SPURIOUS | {"method": "grad_cam"}], ABSENT),  # not one of the paper's
    (0, [SPURIOUS | {"control": "perturbed"}], ABSENT),
    (1, [FLIPS | BLIND], YES),
    (1, [FLIPS], NO),
    (1, [FLIPS | OPEN], UNDECIDED),
    (2, [TOP | BLIND], YES),
    (2, [TOP], NO),
    (2, [TOP | {"level": "all"}], ABSENT),
    (2, [TOP | {"method": "gradient"}], ABSENT),
    (3, [SSIM | BLIND], YES),
    (3, [SSIM], NO),
    (4, [{}], YES),
    (4, [{"value": 0.5}], NO),
    (4, [{"value": -0.5}], NO),
    (4, [{"value": 0.09}], UNDECIDED),
    (4, [{"sem": 0.1}], UNDECIDED),
    (4, [{"method": "guided_backprop"}], ABSENT),
    (4, [{"value": math.nan, "verdict": "unsupported"}], ABSENT),
]


@pytest.mark.parametrize(("number", "rows", "expected"), CASES)
def test_findings(number: int, rows: list[dict[str, Any]], expected: str) -> None:
    found = findings(table(*rows), PRIMARY, CONTROLS)
    assert list(found.columns) == list(FINDING_COLUMNS)
    assert list(found["finding"]) == [finding.name for finding in FINDINGS]
    row = found.iloc[number]
    assert row["agrees"] == expected, row["evidence"]
    assert bool(row["evidence"]) == (expected != ABSENT)


def test_evidence_names_methods_and_levels() -> None:
    rows = [TOP | {"level": level, "method": method} | (BLIND if level == "1" else {})
            for level in ("1", "3") for method in MODIFIED_BACKPROP]  # fmt: skip
    row = findings(table(*rows), PRIMARY, CONTROLS).iloc[2]
    assert (row["agrees"], row["ours"]) == (UNDECIDED, "6 support it, 6 contradict it, 0 leave it open")
    assert row["evidence"].startswith("yes: guided_backprop 1, deconvnet 1")
