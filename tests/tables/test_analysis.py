"""The tables beside results.csv: there, as stated, in agreement with the results, and made of nothing else."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from attribug import methods, metrics
from attribug.api import Run
from attribug.errors import InputError
from attribug.plans import planning
from attribug.plans.plan import Plan
from attribug.results import added, decisions, power, ranking, severity, summary
from attribug.results.schema import KEYS, RESULT_COLUMNS, read_results
from attribug.results.summary import summarise
from attribug.storage import folders, locations
from attribug.suites.suite import Suite
from attribug.tables import analysis, run_folder, writing
from attribug.tables.analysis import HEADLINE_NUMBERS, analyses, distilled
from attribug.tables.analysis import joined as joined_parts
from attribug.terminal import matrix

TINY = str(Path(__file__).parents[1] / "plugins" / "tiny.yaml")
MEASURED = ("spearman@sum", "spearman@abs_sum", "mass_accuracy@abs_sum", "total_variation@none")
METHODS = ("gradient", "random", "edges", "predictions")
MORE = ("predictions", "added", "added_low", "added_high", "adds")
COLUMNS = {
    "headline": (*KEYS, *HEADLINE_NUMBERS, "q", *decisions.COLUMNS[len(KEYS) :], *MORE),
    "added": added.COLUMNS,
    "ranking": ranking.COLUMNS,
    "severity": severity.SEVERITY_COLUMNS,
    "posts": severity.POST_COLUMNS,
    "power": power.COLUMNS,
}


def planned(*, bugs: dict[str, bool] | None = None, measured: tuple[str, ...] = MEASURED, **suite: Any) -> Plan:
    """What a plan of the tiny suite says of its tables; bugs by name, and whether they are graded."""
    bugs = bugs or {"shaken": True}
    facts = {"name": "tiny", "seeds": 3, "visible": None, **suite}
    return cast(Plan, SimpleNamespace(
        suite=SimpleNamespace(**facts),
        bugs={name: SimpleNamespace(primary="spearman@sum", graded=graded, seen_in_predictions=False)
              for name, graded in bugs.items()},
        methods=[(methods.get(name), {}) for name in METHODS],
        measured=[(metrics.get(name.partition("@")[0]), name.partition("@")[2]) for name in measured],
        contrasted=[(number, SimpleNamespace(task="tiny", bug=bug, level="1",
                                             contrast=SimpleNamespace(control="clean")))
                    for number, bug in enumerate(bugs)],
        refusals=[],
    ))  # fmt: skip


def analysed(scores: pd.DataFrame, results: pd.DataFrame, made: Plan) -> dict[str, pd.DataFrame]:
    return analyses(distilled(scores, made), results, made)


def texts(path: Path) -> pd.DataFrame:
    """A table as it stands in the file."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def results_of(scores: pd.DataFrame, made: Plan, **outcomes: Any) -> pd.DataFrame:
    chosen = {metric.name: metric for metric, _ in made.measured}
    default = made.suite.visible
    visible = {name: metric.visible if default is None else default for name, metric in chosen.items()}
    kinds = {name: metric.kind for name, metric in chosen.items()}
    return summarise(scores, suite="tiny", seeds_total=3, kinds=kinds, visible=visible, **outcomes)


@pytest.fixture
def scores(tiny_run: Path) -> pd.DataFrame:
    return pd.read_parquet(tiny_run / folders.SCORES)


# ---- a real run


@pytest.mark.slow
class TestRun:
    def test_every_table_is_there_with_its_columns(self, tiny_run):
        folder = tiny_run / folders.ANALYSIS
        assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.csv" for name in COLUMNS)
        for name, columns in COLUMNS.items():
            assert tuple(texts(folder / f"{name}.csv").columns) == columns
            assert b"\r" not in (folder / f"{name}.csv").read_bytes()
        assert len(texts(folder / "headline.csv")) == len(METHODS)
        assert len(texts(folder / "added.csv")) == 3 * 3
        assert texts(folder / "severity.csv").empty
        assert texts(folder / "posts.csv")["posts"].tolist() == ["abs_sum sum"] * 3

    def test_numbers_agree_with_the_results_to_the_last_digit(self, tiny_run):
        folder = tiny_run / folders.ANALYSIS
        results = texts(tiny_run / folders.RESULTS).set_index(list(KEYS))
        headline = texts(folder / "headline.csv").set_index(list(KEYS))
        same = list(HEADLINE_NUMBERS)
        pd.testing.assert_frame_equal(headline[same], results.loc[headline.index, same], check_exact=True)
        assert set(headline.index.get_level_values("metric")) == {"spearman", "total_variation"}
        more = texts(folder / "added.csv").set_index(list(KEYS))
        assert more["effect"].tolist() == results.loc[more.index, "effect"].tolist()
        [bare] = results.xs("predictions", level="method")["effect"]
        assert (
            set(more["yardstick_effect"]) == set(headline.drop("predictions", level="method")["predictions"]) == {bare}
        )
        differences = more["effect"].astype(float) - more["yardstick_effect"].astype(float)
        assert more["added"].astype(float).to_numpy() == pytest.approx(differences.to_numpy(), abs=1e-5)
        places = texts(folder / "ranking.csv").set_index("method")
        by_method = headline.reset_index().set_index("method")
        for column, name in (("mean_effect", "effect"), ("ci_low", "ci_low"), ("ci_high", "ci_high")):
            assert places[column].to_dict() == by_method[name].to_dict()

    def test_methods_that_see_nothing_decide_at_chance(self, tiny_run):
        headline = Run(tiny_run, *[cast(Any, None)] * 3).analysis["headline"].set_index("method")
        null = headline.loc[["random", "edges"]]
        assert null[["detection_rate", "detection_low", "detection_high"]].to_numpy() == pytest.approx(0.05)
        assert null[["pick_one_image", "pick_all_images"]].to_numpy() == pytest.approx(1 / 3, abs=1e-6)
        assert null["q"].isna().all(), "scores that all agree leave no spread to judge by"
        assert abs(headline.loc["predictions", "pick_one_image"] - 1 / 3) > 0.1

    def test_the_run_reads_them_as_it_reads_the_results(self, tiny_run):
        """Levels are names, empty reasons are texts: tables can be joined."""
        results = read_results(tiny_run / folders.RESULTS)
        found = Run(tiny_run, results, cast(Any, None), None).analysis
        assert sorted(found) == sorted(COLUMNS)
        joined = found["headline"].merge(results, on=[*KEYS, *HEADLINE_NUMBERS], validate="one_to_one")
        assert len(joined) == len(METHODS)
        assert found["added"].merge(results, on=list(KEYS)).shape[0] == len(found["added"])
        assert (found["ranking"]["reason"] == "").all()
        assert math.isnan(found["headline"].set_index("method").loc["predictions", "added"])
        assert found["headline"].set_index("method").loc["predictions", "adds"] == ""

    def test_the_same_scores_give_the_same_bytes(self, tiny_run, scores, tmp_path):
        """Whatever their order, and by whatever way they came: at once, or in parts."""
        results = read_results(tiny_run / folders.RESULTS)
        shuffled = scores.sample(frac=1, random_state=0)
        methods = [scores[scores["method"] == name] for name in ("random", "predictions", "gradient", "edges")]
        parts = {"again": [scores], "shuffled": [shuffled], "in parts": methods}
        for name, given in parts.items():
            found = joined_parts([distilled(part.reset_index(drop=True), planned()) for part in given])
            assert writing._analyse(found, results, planned(), tmp_path / name) == ""
            for table in COLUMNS:
                expected = (tiny_run / folders.ANALYSIS / f"{table}.csv").read_bytes()
                assert (tmp_path / name / f"{table}.csv").read_bytes() == expected
        half = scores[scores["example"] % 2 == 0]
        assert not analysed(half, results, planned())["headline"].equals(
            analysed(scores, results, planned())["headline"]
        )

    def test_a_damaged_table_leaves_the_run_unfinished(self, tiny_run, tmp_path):
        shutil.copytree(tiny_run, tmp_path / "run")
        stated = json.loads((tmp_path / "run" / folders.RUN).read_text())["files"]
        assert {f"{name}.csv" for name in COLUMNS} < set(stated)
        made = cast(Plan, SimpleNamespace(key=json.loads((tiny_run / folders.RUN).read_text())["plan"]))
        assert run_folder.finished(locations.at(tmp_path / "run"), made)
        damaged = tmp_path / "run" / folders.ANALYSIS / "ranking.csv"
        damaged.write_bytes(damaged.read_bytes()[:-9])
        assert not run_folder.finished(locations.at(tmp_path / "run"), made)


@pytest.mark.slow
def test_a_sweep_of_posts_is_compared_and_says_what_it_leaves_out(attribug, tmp_path):
    answer = attribug("run", TINY, "--set", "posts=[sum,abs,minmax]", "--out", "run", "--workers", "1", tiny=True)
    assert answer.returncode == 0, answer.stderr
    told = [line for line in answer.stdout.splitlines() if line.startswith("not measured: ")]
    assert [line.split("'")[1:4:2] for line in told] == [["mass_accuracy", post] for post in ("sum", "abs", "minmax")]
    found = texts(tmp_path / "run" / folders.ANALYSIS / "posts.csv")
    assert found[["method", "metric", "posts"]].to_numpy().tolist() == [
        [method, "spearman", "abs minmax sum"] for method in ("edges", "gradient", "random")
    ]
    results = texts(tmp_path / "run" / folders.RESULTS)
    assert set(results["metric"]) == {"spearman", "total_variation"}
    for row in found.itertuples():
        measured = results[results["method"] == row.method]
        assert measured["post"].tolist() == row.posts.split()
        effects = sorted(measured["effect"], key=float)
        assert [row.lowest_effect, row.highest_effect] == [effects[0], effects[-1]]
        assert row.verdicts == "; ".join(measured["verdict"])


# ---- tables of other runs, from the scores of the real one


def test_an_analysis_that_fails_costs_no_results(tiny_run, scores, tmp_path, monkeypatch):
    def broken(*_: object) -> dict[str, pd.DataFrame]:
        raise RuntimeError("nobody thought of this")

    results = read_results(tiny_run / folders.RESULTS)
    monkeypatch.setattr(writing, "analyses", broken)
    found = distilled(scores, planned())
    assert writing._analyse(found, results, planned(), tmp_path) == "RuntimeError: nobody thought of this"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
class TestOtherRuns:
    def test_without_scores_only_what_follows_from_results(self, scores):
        results = results_of(scores, planned())
        found = analysed(scores.head(0), results, planned())
        assert {name for name, table in found.items() if len(table)} == {"posts", "headline"}
        shown = results[results["post"].isin(["sum", "none"])]
        assert found["headline"]["verdict"].tolist() == shown["verdict"].tolist()
        assert {name: tuple(table.columns) for name, table in found.items()} == COLUMNS

    def test_without_predictions_nothing_is_added(self, scores):
        explained = scores[scores["method"] != "predictions"]
        found = analysed(explained, results_of(explained, planned()), planned())
        assert found["added"].empty
        assert tuple(found["added"].columns) == COLUMNS["added"]
        assert tuple(found["headline"].columns) == COLUMNS["headline"]
        assert found["headline"][["predictions", "added", "added_low"]].isna().all(axis=None)
        assert found["headline"]["detection_rate"].notna().all()

    def test_the_primary_metric_unmeasured(self, scores):
        """Predictions alone have a place in the matrix: everything else is told of the other metrics."""
        aligned = scores[scores["metric"] != "spearman"]
        found = analysed(aligned, results_of(aligned, planned()), planned())
        assert found["headline"]["method"].tolist() == ["predictions"]
        assert found["ranking"]["mean_effect"].notna().sum() == 1
        assert found["added"]["metric"].tolist() == ["mass_accuracy"] * 3
        bare = scores[(scores["metric"] == "mass_accuracy")]
        found = analysed(bare, results_of(bare, planned()), planned())
        assert found["headline"].empty, "no row of the table is one of the matrix"
        assert found["ranking"].empty

    def test_a_row_without_numbers_gets_none(self, scores):
        """A method that failed for one model has scores of the others, which no table may show."""
        kept = scores[(scores["method"] != "gradient") | (scores["seed"] != 2)]
        lost = {"verdict": "failed", "reason": "broken", "seeds": 2, "n": 0}
        failed = result("gradient", "spearman", "", 0.0) | lost
        results = results_of(kept, planned(), outcomes=pd.DataFrame([failed])[[*KEYS, *lost]])
        found = analysed(kept, results, planned())
        row = found["headline"].set_index("method").loc["gradient"]
        assert (row["verdict"], row["reason"]) == ("failed", "broken")
        assert row.drop(["task", "bug", "level", "control", "metric", "post", "verdict", "reason"]).isna().all()
        place = found["ranking"].set_index("method").loc["gradient"]
        assert (place["missing"], place["reason"]) == (1, "no effect in 1 of 1 cells")
        rest = found["added"][found["added"]["method"] == "gradient"]
        assert rest[["metric", "post"]].to_numpy().tolist() == [["mass_accuracy", "abs_sum"], ["spearman", "abs_sum"]]

    @pytest.mark.parametrize("visible", [None, 0.0, 0.5])
    def test_the_visible_difference_is_the_suites(self, scores, visible):
        made = planned(visible=visible)
        results = results_of(scores, made)
        found = analysed(scores, results, made)
        for table in ("headline", "added"):
            joined = found[table].merge(results, on=list(KEYS), suffixes=("", "_of_results"))
            assert joined["effect"].tolist() == joined["effect_of_results"].tolist()
        ends = found["headline"].set_index("method").loc["gradient", "effect"]
        assert ends == pytest.approx({None: ends, 0.0: ends, 0.5: 0.5}[visible], abs=0.1)

    def test_only_graded_bugs_have_curves(self, scores):
        """Of a bug whose levels are no strengths there is nothing to draw."""
        two = {"graded": True, "ungraded": False}
        copies = [scores.assign(bug=bug, level=level) for bug in two for level in ("2", "10")]
        several = pd.concat(copies, ignore_index=True)
        found = analysed(several, results_of(several, planned(bugs=two)), planned(bugs=two))
        assert set(found["severity"]["bug"]) == {"graded"}
        assert len(found["severity"]) == 3 * 3 + 1
        assert (found["severity"]["levels"] == "2 10").all()
        assert (found["ranking"]["cells"] == 4).all()
        everything = analysed(several, results_of(several, planned(bugs=two)), planned(bugs=dict.fromkeys(two, True)))
        assert set(everything["severity"]["bug"]) == set(two)

    def test_q_values_are_those_of_the_matrix_alone(self, scores):
        """Rows that the matrix does not show are no hypotheses of it."""
        whole = analysed(scores, results_of(scores, planned()), planned())["headline"]
        shown = scores[scores["metric"] != "mass_accuracy"]
        alone = analysed(shown, results_of(shown, planned()), planned())["headline"]
        pd.testing.assert_series_equal(whole["q"], alone["q"])
        bare = whole["method"] == "predictions"
        assert whole.loc[bare, "q"].isna().all(), "true by construction as often as not: no hypothesis"
        assert whole.loc[~bare, "q"].dropna().between(0, 1, inclusive="right").all()
        assert whole.loc[whole["method"] == "gradient", "q"].notna().all()


# ---- what is not measured


def suite(**changes: Any) -> Suite:
    names = {"name": "mine", "tasks": ["digits"], "bugs": ["spurious_background"], "methods": ["gradient"], "seeds": 2}
    return Suite.model_validate({**names, "metrics": ["spearman", "mass_accuracy", "total_variation"], **changes})


def test_refusals_name_metric_and_post_once() -> None:
    assert planning.make(suite()).refusals == []
    assert planning.make(suite(posts=["abs_sum"])).refusals == []
    made = planning.make(
        suite(posts=["sum", "abs_sum", "abs"], metrics=["mass_accuracy", "spearman", "total_variation"])
    )
    assert [(metric.name, post) for metric, post in made.measured] == [
        ("mass_accuracy", "abs_sum"), ("spearman", "sum"), ("spearman", "abs_sum"), ("spearman", "abs"),
        ("total_variation", "none"),
    ]  # fmt: skip
    assert made.refusals == [metrics.refusal(metrics.get("mass_accuracy"), post) for post in ("sum", "abs")]
    with pytest.raises(InputError, match="unknown step 'summ'"):
        planning.make(suite(posts=["summ"]))


@pytest.mark.usefixtures("uncalibrated")
def test_a_dry_run_says_what_would_not_be_measured(inside: Callable[..., Any]) -> None:
    changes = ("--set", "posts=[sum,abs,abs_sum]", "--set", "metrics=[mass_accuracy,iou,spearman]")
    answer = inside("run", "smoke", *changes, "--dry-run")
    assert answer.returncode == 0, answer.stderr
    told = [line.split("'") for line in answer.stdout.splitlines() if line.startswith("not measured: ")]
    assert [[line[1], line[3]] for line in told] == [["mass_accuracy", "sum"], ["mass_accuracy", "abs"], ["iou", "abs"]]
    assert "not measured" not in inside("run", "smoke", "--dry-run").stdout


# ---- the console


def fake_run(results: pd.DataFrame, made: Plan) -> Run:
    facts = {"checks": [], "failures": []}
    primary, controls = analysis.primary_metrics(made), analysis.main_controls(made)
    headline = summary.matrix(results, primary, main_control=controls, headlines=analysis.headlines(made))
    return cast(Run, SimpleNamespace(results=results, plan=made, facts=facts, headline=headline))


def printed(run: Run) -> list[list[str]]:
    """The cells of the matrix's lines."""
    shown = io.StringIO()
    Console(file=shown, width=200).print(matrix.matrix("tiny", run))
    lines = [line for line in shown.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def result(method: str, metric: str, verdict: str, effect: float, **more: str) -> dict[str, Any]:
    keys = {"suite": "tiny", "task": "tiny", "bug": "shaken", "level": "1", "control": "clean"}
    post = "none" if method == "predictions" else "sum"
    numbers = dict.fromkeys(("undefined", "value", "sem", "benign", "floor", "ci_low", "ci_high"), 0.0)
    return {**keys, "method": method, "metric": metric, "post": post, "seeds": 3, "n": 8, **numbers, "effect": effect,
            "verdict": verdict, "reason": "", **more}  # fmt: skip


def test_the_direct_query_is_a_line_of_the_matrix() -> None:
    """What outputs say when the background is swapped, beside the methods; empty where there is no other version."""
    made = planned(bugs={"shaken": True, "plain": True}, measured=(*MEASURED, "background_swap@none"))
    rows = [
        result("gradient", "spearman", "blind", 0.5),
        result("gradient", "spearman", "detects", 0.9, bug="plain"),
        result("predictions", "total_variation", "inconclusive", 0.62),
        result("predictions", "total_variation", "blind", 0.51, bug="plain"),
        result("predictions", "background_swap", "detects", 0.987, reason="true by construction"),
    ]
    lines = printed(fake_run(pd.DataFrame(rows, columns=list(RESULT_COLUMNS)), made))
    assert lines[-5:] == [
        ["gradient", "○ 0.50", "● 0.90"],
        ["random", "", ""],
        ["edges", "", ""],
        ["predictions", "? 0.62", "○ 0.51"],
        ["predictions, background_swap", "● 0.99*", ""],
    ]
    without = printed(fake_run(pd.DataFrame(rows[:-1], columns=list(RESULT_COLUMNS)), made))
    assert [line[0] for line in without[-4:]] == list(METHODS)
    silent = [*rows[:-1], result("predictions", "background_swap", "not taken", math.nan)]
    assert printed(fake_run(pd.DataFrame(silent, columns=list(RESULT_COLUMNS)), made))[-1][1:] == ["–", ""]


def test_the_console_names_what_was_not_measured() -> None:
    made = planned(measured=("mass_accuracy@abs_sum", "total_variation@none"))
    cast(Any, made).refusals = ["metric 'iou' needs something"]
    results = pd.DataFrame([result("gradient", "mass_accuracy", "blind", 0.5)], columns=list(RESULT_COLUMNS))
    assert matrix._faults(fake_run(results, made)) == [
        "not measured: metric 'iou' needs something",
        "not in the matrix: shaken: its primary metric spearman@sum was not measured",
    ]
    assert matrix._faults(fake_run(results, planned())) == []
    assert np.isnan(results["effect"]).sum() == 0


def check_of(seed: int, figure: float | None, *, holds: bool = False, **more: Any) -> dict[str, Any]:
    named = {"task": "tiny", "bug": "shaken", "level": "1", "check": "accuracy falls", "expected": "≥ 0.2"}
    return {**named, "seed": seed, "figure": figure, "holds": holds, **more}


def test_a_check_that_fails_for_several_seeds_is_told_once() -> None:
    once = "not taken: tiny / shaken 1 / seed 4: accuracy falls: 0.1, expected ≥ 0.2"
    assert matrix._not_taken([check_of(4, 0.1), check_of(5, 0.3, holds=True)]) == [once]
    several = [check_of(4, 0.1), check_of(5, 0.3, holds=True), check_of(6, -0.05), check_of(7, 0.0)]
    assert matrix._not_taken(several) == [
        "not taken: tiny / shaken 1 / 3 of 4 seeds: accuracy falls: -0.05 to 0.1, expected ≥ 0.2"
    ]
    alike = [check_of(seed, 0.1) for seed in range(3)]
    (told,) = matrix._not_taken(alike)
    assert told == "not taken: tiny / shaken 1 / 3 of 3 seeds: accuracy falls: 0.1, expected ≥ 0.2"
    apart = [check_of(0, 0.1), check_of(0, 0.1, level="2"), check_of(0, 0.1, check="outputs move"), check_of(1, None)]
    assert len(matrix._not_taken(apart)) == 3
    assert matrix._not_taken([check_of(0, None), check_of(1, 0.5, holds=True)]) == []


@pytest.mark.slow
def test_the_paper_s_tables_are_there_where_one_of_its_settings_was_measured(scores):
    made = planned(bugs={"ood": False})
    foreign = scores.assign(task="fashion", bug="ood", level="mnist")
    results = results_of(foreign, made)
    printed = analysed(foreign, results, made)["paper_tables"].set_index(["row", "series"])
    ours = results.query("method == 'gradient' and metric == 'spearman' and post == 'sum'").iloc[0]
    assert printed.loc[("RK", "published"), "Grad"] == 0.0013
    told = [printed.loc[("RK", series), "Grad"] for series in ("ours", "control", "floor")]
    assert told == [ours["value"], ours["benign"], ours["floor"]]
    elsewhere = foreign.assign(level="digits")
    assert "paper_tables" not in analysed(elsewhere, results_of(elsewhere, made), made)
