"""The table of fixes: settings that rules choose, means with intervals, and what became of model and map."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attribug.results import mending, mending_page, plots
from attribug.results.mending import FIXES_COLUMNS, Line, lines, read_fixes, summary, swept, with_selected

SETS = ("biased", "decorrelated", "validation", "balanced")


def rows(fix: str, seed: int, setting: str = "", selection: str = "fixed", **figures: float) -> list[dict[str, object]]:
    """A row a set; figures by `set_statistic`."""
    told = {"task": "t", "bug": "b", "level": "1", "fix": fix, "setting": setting, "selection": selection, "seed": seed}
    return [
        {
            **told, "test_set": name, "seconds": 2.0,
            **{each: figures.get(f"{name}_{each}", math.nan) for each in mending.STATISTICS},
        }
        for name in SETS
    ]  # fmt: skip


def table(*parts: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part], columns=list(FIXES_COLUMNS))


def a_sweep(seed: int, best: tuple[str, str, str]) -> list[list[dict[str, object]]]:
    """Three settings, of which each rule likes another one; best: by oracle, grouped validation, validation."""
    return [
        rows(
            "rrr", seed, f"weight={value}", "sweep",
            decorrelated_accuracy=float(value == best[0]), balanced_accuracy=float(value == best[1]),
            validation_accuracy=float(value == best[2]),
        )
        for value in ("1", "10", "100")
    ]  # fmt: skip


def test_each_rule_chooses_by_what_it_may_look_at_model_by_model() -> None:
    found = with_selected(table(*a_sweep(0, ("1", "10", "100")), *a_sweep(1, ("100", "1", "10"))))
    chosen = found[found["test_set"] == "biased"].set_index(["seed", "selection"])["setting"]
    assert chosen[0, "oracle"] == "weight=1"
    assert chosen[1, "oracle"] == "weight=100"
    assert chosen[0, "grouped validation"] == "weight=10"
    assert chosen[1, "grouped validation"] == "weight=1"
    assert chosen[0, "validation"] == "weight=100"
    assert chosen[1, "validation"] == "weight=10"


def test_of_settings_that_are_alike_the_first_is_chosen_and_no_rule_chooses_blindly() -> None:
    tied = [rows("rrr", 0, f"weight={value}", "sweep", decorrelated_accuracy=0.5) for value in ("10", "1")]
    found = with_selected(table(*tied))
    assert set(found.loc[found["selection"] == "oracle", "setting"]) == {"weight=10"}
    assert not set(found["selection"]) & {"validation", "grouped validation"}  # nothing was measured there


def test_without_a_sweep_nothing_is_chosen() -> None:
    plain = table(rows("none", 0, decorrelated_accuracy=0.5))
    pd.testing.assert_frame_equal(with_selected(plain), plain)


def test_intervals_are_students() -> None:
    values = [0.91, 0.93, 0.96]
    found = summary(table(*(rows("none", seed, biased_accuracy=value) for seed, value in enumerate(values))))
    (row,) = found.to_dict("records")
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((np.mean(values), *expected))
    assert row["models"] == 3
    assert row["statistic"] == "accuracy"
    assert row["test_set"] == "biased"


def test_one_model_has_no_interval_and_shares_stay_shares() -> None:
    assert math.isnan(mending.interval(np.array([0.5]))[1])
    _, low, high = mending.interval(np.array([0.0, 1.0]))
    assert (low, high) == (0.0, 1.0)


WORDS = {
    (0.95, 0.1): "mended",
    (0.95, 0.8): "mended, though its gradient still lies on the shortcut",
    (0.70, 0.8): "mended in part",
    (0.50, 0.8): "not mended",
    (0.50, 0.1): "not mended, THOUGH ITS GRADIENT LOOKS RIGHT",
}


@pytest.mark.parametrize(("accuracy", "share"), WORDS)
def test_words_tell_model_from_map(accuracy: float, share: float) -> None:
    """From none (.4, gradient .8 on the shortcut) to clean data (.95, .05)."""
    told = table(
        rows("none", 0, decorrelated_accuracy=0.4, biased_mask_share=0.8),
        rows("clean_data", 0, decorrelated_accuracy=0.95, biased_mask_share=0.05),
        rows("rrr", 0, decorrelated_accuracy=accuracy, biased_mask_share=share),
    )
    by_fix = {line.fix: line for line in lines(told)["t", "b", "1"]}
    assert by_fix["rrr"].told == WORDS[accuracy, share]
    assert by_fix["rrr"].recovered == pytest.approx((accuracy - 0.4) / 0.55)
    assert by_fix["none"].told == by_fix["clean_data"].told == ""


def test_nothing_is_said_where_there_is_no_way_to_go() -> None:
    """Without clean data, or where these models are no better."""
    alone = table(rows("none", 0, decorrelated_accuracy=0.4), rows("rrr", 0, decorrelated_accuracy=0.9))
    assert [line.told for line in lines(alone)["t", "b", "1"]] == ["", ""]
    level = table(*(rows(fix, 0, decorrelated_accuracy=0.9) for fix in ("none", "rrr", "clean_data")))
    assert [line.told for line in lines(level)["t", "b", "1"]] == ["", "", ""]


def test_what_was_not_measured_of_all_is_compared_of_those_that_have_it() -> None:
    """A fix that changes nothing, known of an easy model alone, has mended nothing."""
    plain = [rows("none", seed, decorrelated_accuracy=value) for seed, value in enumerate((0.9, 0.5, 0.5))]
    best = [rows("clean_data", seed, decorrelated_accuracy=0.95) for seed in range(3)]
    found = lines(table(*plain, *best, rows("rrr", 0, decorrelated_accuracy=0.9)))["t", "b", "1"][-1]
    assert (found.models, found.recovered) == (1, 0.0)
    assert found.told == "not mended"


def test_a_fix_that_beats_clean_data_is_not_called_broken() -> None:
    """Where the shortcut did not take, clean data make no better models."""
    told = table(
        rows("none", 0, decorrelated_accuracy=0.94), rows("clean_data", 0, decorrelated_accuracy=0.88),
        rows("rrr", 0, decorrelated_accuracy=0.93),
    )  # fmt: skip
    assert [line.told for line in lines(told)["t", "b", "1"]] == ["", "", ""]


def test_a_setting_that_occurs_twice_counts_once() -> None:
    again = [rows("rrr", seed, "weight=10", "fixed", decorrelated_accuracy=1.0) for seed in (0, 1)]
    sweep = [rows("rrr", seed, "weight=10", "sweep", decorrelated_accuracy=1.0) for seed in (0, 1)]
    found = summary(with_selected(table(*again, *sweep)))
    assert set(found.loc[found["selection"] == "oracle", "models"]) == {2}


def test_a_sweep_is_in_order_and_out_of_the_lines() -> None:
    told = with_selected(table(rows("none", 0, biased_accuracy=1.0), *a_sweep(0, ("100", "100", "100"))))
    (curve,) = swept(told).values()
    assert list(dict.fromkeys(curve["value"])) == [1.0, 10.0, 100.0]
    assert {(line.fix, line.selection) for line in lines(told)["t", "b", "1"]} == {
        ("none", "fixed"), ("rrr", "oracle"), ("rrr", "grouped validation"), ("rrr", "validation"),
    }  # fmt: skip
    assert "<svg" in plots.sweep(curve, "rrr: weight")


def test_without_a_sweep_there_is_no_curve() -> None:
    assert swept(table(rows("none", 0, biased_accuracy=1.0))) == {}


def test_the_file_reads_back_and_another_is_refused() -> None:
    told = with_selected(table(rows("none", 0, biased_accuracy=1.0), *a_sweep(0, ("1", "1", "1"))))
    again = read_fixes(io.StringIO(told.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, told, check_dtype=False)
    with pytest.raises(ValueError, match="expected the columns"):
        read_fixes(io.StringIO("task,bug\n"))


def test_a_line_has_nothing_where_nothing_was_measured() -> None:
    assert all(map(math.isnan, Line("none", "fixed", "", {}, 0.0).at("clean", "accuracy")))


def test_costs_are_told_where_both_were_run() -> None:
    """By the median record: the first one loads libraries."""
    names = ("gradient", "gradient", "gradient", "lime")
    seconds = (9.0, 0.002, 0.002, 0.4)
    costs = pd.DataFrame({"kind": "record", "method": names, "seconds": seconds, "images": 2})
    told = mending_page.cost_sentence(costs)
    assert "1 ms an image" in told
    assert "LIME 200: 200 times as long" in told
    assert mending_page.cost_sentence(costs[:3]) == mending_page.cost_sentence(None) == ""
