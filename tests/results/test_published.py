"""Published values as they were printed, and beside them only rows of ours that measured their setting."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attribug.results.published import (
    BESIDE_COLUMNS,
    COLUMNS,
    EXACT,
    LIKEST,
    PAPER_METHODS,
    SETTINGS,
    STAND_INS,
    Setting,
    beside,
    measured,
    published,
)
from attribug.results.schema import RESULT_COLUMNS, read_results, typed

ROW = {
    "suite": "mine", "task": "fashion", "bug": "ood", "level": "mnist", "control": "clean", "method": "gradient",
    "metric": "spearman", "post": "sum", "seeds": 3, "n": 32, "undefined": 0.0, "value": 0.02, "sem": 0.005,
    "benign": 0.7, "floor": 0.1, "effect": 0.9, "ci_low": 0.8, "ci_high": 1.0, "verdict": "detects", "reason": "",
}  # fmt: skip
CONTROLS = {"ood": "clean", "reinit": "retrained", "label_flips": "other_flips", "spurious_background": "clean"}
METHODS = 15  # of the paper's tables
BLOCKS = ("mnist", "birds_dogs", "imagenet")


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return typed(pd.DataFrame([ROW | row for row in rows], columns=list(RESULT_COLUMNS)))


def printed(source: str, quantity: str, level: str) -> dict[str, tuple[float, float]]:
    """Value and standard error by method."""
    values = published()
    rows = values[(values["source"] == source) & (values["quantity"] == quantity) & (values["level"] == level)]
    return {row.method: (row.value, row.sem) for row in rows.itertuples()}


def test_values_as_printed() -> None:
    """Some of each row: the first, the last, the odd ones."""
    assert tuple(published().columns) == COLUMNS
    gt1, gt2 = printed("Table 2", "gt1_ssim", "1"), printed("Table 2", "gt2_ssim", "1")
    assert list(gt1) == list(gt2) == list(PAPER_METHODS)[:METHODS]
    assert (gt1["gradient"], gt1["vargrad"], gt1["lrp_spaf"]) == ((0.62, 0.012), (0.075, 0.0089), (0.69, 0.028))
    assert (min(gt2.values())[0], max(gt2.values())[0]) == (0.78, 0.98)  # as the text says
    for level, ssim, rank in (
        ("mnist", {"vargrad": 0.92, "kernel_shap": 0.41}, {"guided_backprop": 0.51, "pattern_net": -0.14}),
        ("birds_dogs", {"kernel_shap": 0.82, "pattern_attribution": 0.36}, {"smoothgrad_squared": 0.43, "lime": 0.18}),
        ("imagenet", {"pattern_attribution": 0.12, "deconvnet": 0.36}, {"pattern_net": 0.32, "kernel_shap": -0.045}),
    ):
        for quantity, some in (("ssim", ssim), ("spearman", rank)):
            found = printed("Table 3", quantity, level)
            assert list(found) == list(PAPER_METHODS)[:METHODS]
            assert {method: found[method][0] for method in some} == some
    assert math.isnan(printed("Table 3", "ssim", "mnist")["deconvnet"][1])  # printed with a minus: unknown


def test_every_value_of_a_table_belongs_to_a_setting() -> None:
    values = published()
    tables = values[values["quantity"].isin(LIKEST) & (values["method"] != "")]
    known = {(setting.source, setting.task, setting.bug, setting.level) for setting in SETTINGS}
    assert set(tables[["source", "task", "bug", "level"]].itertuples(index=False, name=None)) <= known
    assert set(values["task"]) == {"birds_dogs", "fashion"}
    assert set(values["quantity"][values["method"] != ""]) - set(LIKEST) == {"median_recommendation"}


MATCHES = [
    (0, ("birds_dogs", "spurious_background", "1"), EXACT),
    (0, ("animals", "spurious_background", "1"), "stand-in: animals for birds_dogs"),
    (0, ("digits", "spurious_background", "1"), ""),
    (0, ("animals", "spurious_background", "0.5"), ""),
    (0, ("animals", "label_flips", "1"), ""),
    (1, ("animals", "label_flips", "0.1"), "stand-in: animals for birds_dogs"),
    (1, ("animals", "label_flips", "0.2"), ""),
    (2, ("imagenet", "reinit", "3"), EXACT),
    (2, ("imagenet_squeezenet", "reinit", "all"), "stand-in: imagenet_squeezenet for imagenet"),
    (2, ("digits", "reinit", "3"), ""),
    (3, ("fashion", "ood", "mnist"), EXACT),
    (3, ("mnist", "ood", "fashion"), ""),
    (3, ("fashion", "ood", "digits"), ""),
    (4, ("fashion", "ood", "animals"), "stand-in: animals for birds_dogs"),
    (4, ("fashion", "ood", "mnist"), ""),
    (5, ("fashion", "ood", "imagenet_lite0"), "stand-in: imagenet_lite0 for imagenet"),
    (5, ("silhouettes", "ood", "imagenet"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("number", "cell", "expected"), MATCHES)
def test_a_setting_matches_itself_and_named_stand_ins_only(
    number: int, cell: tuple[str, str, str], expected: str
) -> None:
    assert SETTINGS[number].match(*cell) == expected


def test_both_stand_ins_are_named() -> None:
    setting = Setting("none", "birds_dogs", "ood", "imagenet")
    said = setting.match("animals", "ood", "imagenet_lite0")
    assert said == "stand-in: animals for birds_dogs, imagenet_lite0 for imagenet"


def test_no_row_of_digits_stands_beside_a_published_value() -> None:
    """Whatever it measures: the shipped reference, and rows that differ from a measured setting in the task alone."""
    quick = read_results(Path(__file__).parents[2] / "results" / "reference" / "quick.csv")
    assert measured(quick) == []
    ours = beside(quick, CONTROLS)["ours"]
    assert ours.isna().all()
    rows = [
        {"bug": "spurious_background", "level": "1", "metric": "gt1_ssim", "post": "minmax"},
        {"level": "textures"}, {"level": "mnist"},
    ]  # fmt: skip
    assert beside(table(*[row | {"task": "digits"} for row in rows]), CONTROLS)["ours"].isna().all()
    assert beside(table({**rows[0], "task": "animals"}), CONTROLS)["ours"].notna().sum() == 1  # the task is what counts


def test_values_stand_beside_the_likest_of_ours() -> None:
    rows = table(
        {"post": "abs_sum", "value": 0.5}, {"value": 0.02}, {"method": "lime", "value": math.nan, "verdict": "failed"},
        {"metric": "ssim", "post": "sum_minmax", "value": 0.1},
        {"metric": "ssim_range2", "post": "minmax", "value": 0.6, "verdict": "blind"},
        {"method": "edges"}, {"control": "other", "value": 0.9},
    )  # fmt: skip
    found = beside(rows, CONTROLS)
    assert list(found.columns) == list(BESIDE_COLUMNS)
    assert len(found) == 8 * METHODS
    ours = found[found["ours"].notna()]
    assert {(row.method, row.quantity, row.measured_as, row.ours) for row in ours.itertuples()} == {
        ("gradient", "spearman", "spearman@sum", 0.02), ("gradient", "ssim", "ssim_range2@minmax", 0.6),
    }  # fmt: skip
    assert len(ours) == 2
    ssim = ours.set_index("quantity").loc["ssim"]
    assert (ssim["match"], ssim["task"], ssim["level"], ssim["paper"]) == (EXACT, "fashion", "mnist", 0.7)
    assert (ssim["control"], ssim["floor"], ssim["models"], ssim["n"], ssim["verdict"]) == (0.7, 0.1, 3, 32, "blind")


def test_the_real_task_and_every_stand_in_have_a_row_each() -> None:
    rows = [{"level": level, "value": value} for level, value in (("imagenet", 0.1), ("imagenet_lite0", 0.2))]
    found = beside(table(*rows, {"level": "imagenet_other"}), CONTROLS).query("ours == ours")
    said = list(zip(found["match"], found["paper"], found["ours"], strict=True))
    assert said == [(EXACT, -0.0023, 0.1), ("stand-in: imagenet_lite0 for imagenet", -0.0023, 0.2)]


def test_settings_that_a_run_measures() -> None:
    rows = table(
        {"task": "animals", "bug": "label_flips", "level": "0.1"}, {"level": "animals"}, {"level": "digits"},
        {"task": "imagenet_lite0", "bug": "reinit", "level": "1"}, {"task": "digits", "bug": "reinit", "level": "1"},
    )  # fmt: skip
    assert [(setting.source, task, level) for setting, task, level, _ in measured(rows)] == [
        ("Figure 6", "animals", "0.1"), ("Figure 7", "imagenet_lite0", "1"), ("Table 3", "fashion", "animals"),
    ]  # fmt: skip
    assert set(STAND_INS) == {"birds_dogs", "imagenet"}
