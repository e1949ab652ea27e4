"""Kinds of output and roles of methods are facts: pieces of a plugin find their place by them alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from attribug import methods, metrics
from attribug.contracts import outputs
from attribug.contracts.outputs import Output
from attribug.contracts.pieces import Method, Metric
from attribug.errors import InputError
from attribug.keys import digest
from attribug.plans import planning
from attribug.reports.pages import page_contents
from attribug.results import html_page, narrative
from attribug.results.headline import headline
from attribug.results.schema import read_results

PLUGINS = Path(__file__).parent / "plugins"
EXPLANATIONS, NULL, BARE = ["gradient", "alike_outputs"], ["random", "edges", "columns"], ["predictions", "sharpened"]


def unheard(result: torch.Tensor, inputs: torch.Tensor, classes: int | None) -> str:
    return ""


@pytest.fixture
def kind() -> Iterator[Output]:
    """A kind that is gone afterwards."""
    yield outputs.register(Output("unheard", unheard))
    outputs.forget("unheard")


def test_unknown_kinds_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"output: expected one of attributions, probabilities, found 'unheard'"):
        outputs.get("unheard")
    with pytest.raises(ValueError, match=r"output: expected one of attributions, probabilities, found 'unheard'"):
        Method("odd", print, output="unheard")
    with pytest.raises(ValueError, match=r"reads: expected one of attributions, probabilities, found 'unheard'"):
        Metric("odd", print, reads="unheard")
    with pytest.raises(ValueError, match=r"headline: expected metric@post, found 'spearman'"):
        Method("odd", print, headline="spearman")


def test_a_kind_can_be_entered_again_by_its_module_alone(kind: Output) -> None:
    assert outputs.register(replace(kind, halved=True)).halved
    with pytest.raises(InputError, match=r"output 'attributions' is taken by attribug.contracts.outputs; choose"):
        outputs.register(Output("attributions", unheard))
    assert outputs.get("attributions").maps


def test_keys_tell_kinds_apart_by_what_decides_numbers(kind: Output) -> None:
    told = [digest(each.content) for each in (kind, outputs.get("attributions"), outputs.get("probabilities"))]
    assert len(set(told)) == 3
    assert digest(replace(kind, explains=False).content) != told[0]
    assert digest(replace(kind, free=torch.rand_like).content) == told[0]


def test_what_is_no_map_is_read_as_it_is(kind: Output) -> None:
    metric = Metric("odd", print, reads=kind.name, posts=("none",))
    assert metrics.refusal(metric, "none") == ""
    assert metrics.refusal(metric, "abs") == "metric 'odd' reads unheard: the only post is 'none', found 'abs'"


@pytest.mark.parametrize(
    ("facts", "bare", "yardstick"),
    [
        ({}, False, False), ({"explains": False}, False, True), ({"output": "probabilities"}, True, True),
        ({"output": "probabilities", "explains": False}, True, True),
    ],
)  # fmt: skip
def test_roles_follow_from_facts(facts: dict[str, str], bare: bool, yardstick: bool) -> None:
    method = Method("odd", print, **facts)  # type: ignore[arg-type]
    assert (method.is_bare, method.is_yardstick) == (bare, yardstick)


def test_a_headline_that_the_method_cannot_have_is_refused() -> None:
    methods.register("misread", headline="total_variation@none")(unheard)
    try:
        with pytest.raises(InputError, match=r"method 'misread': headline: expected a metric of attributions, found"):
            planning.make(planning.load_suite("smoke", {"methods": ["misread"]}))
    finally:
        methods._registry.forget("misread")


def test_shipped_yardsticks() -> None:
    shipped = [methods.get(name) for name in methods.names()]
    assert {method.name for method in shipped if method.is_yardstick} == {"random", "edges", "predictions"}
    assert {method.name: method.headline for method in shipped if method.headline} == {
        "predictions": "total_variation@none"
    }


# ---- a run with pieces of a plugin


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the tiny suite, with what it printed."""
    folder = tmp_path_factory.mktemp("further")
    plugins = [f"--plugin={PLUGINS / name}" for name in ("tiny.py", "further_outputs.py")]
    command = [sys.executable, "-m", "attribug", "run", str(PLUGINS / "tiny.yaml"), "--workers", "1", "--out", "run"]
    answer = subprocess.run([*command, *plugins], cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    (folder / "stdout.txt").write_text(answer.stdout)
    return folder / "run"


def lines(run: Path) -> dict[str, str]:
    """The printed matrix: cell by method."""
    rows = [line.strip("│").split("│") for line in (run.parent / "stdout.txt").read_text().splitlines() if "│" in line]
    return {row[0].strip(): row[1].strip() for row in rows}


@pytest.mark.slow
class TestRun:
    def test_a_further_kind_of_output_has_rows(self, run: Path) -> None:
        results = read_results(run / "results.csv")
        [row] = results[results["method"] == "alike_outputs"].to_dict("records")
        assert (row["metric"], row["post"], row["seeds"], row["n"]) == ("same_points", "none", 3, 8)
        assert 0 <= row["effect"] <= 1
        assert -1 <= row["value"] <= row["benign"] <= 1
        assert set(results.loc[results["metric"] == "same_points", "method"]) == {"alike_outputs"}

    def test_what_explains_nothing_comes_last_in_the_matrix(self, run: Path) -> None:
        shown = lines(run)
        order = [name for name in shown if name in {*EXPLANATIONS, *NULL, *BARE}]
        assert order == [*EXPLANATIONS, "random", "edges", "predictions", "columns", "sharpened"]
        assert all(shown[name] for name in order)
        told = page_contents(run)
        rows = headline(told.results, told.facts["suite"], told.facts["pieces"])
        assert {role: part["method"].tolist() for role, part in rows.groupby("role")} == {
            "explanation": EXPLANATIONS, "null": NULL, "bare": BARE,
        }  # fmt: skip
        measured = dict(zip(rows["method"], rows["metric"], strict=True))
        assert (measured["alike_outputs"], measured["sharpened"]) == ("same_points", "total_variation")
        assert rows["honest"].tolist() == [False] * 2 + [True] * 5

    def test_the_page_and_its_summary_know_the_yardsticks(self, run: Path) -> None:
        told = page_contents(run)
        rows = headline(told.results, told.facts["suite"], told.facts["pieces"])
        silent = rows.assign(verdict=rows["verdict"].mask(rows["role"] == "null", "blind"))
        summary = " ".join(narrative.summary(silent, told.facts, [("tiny", "shaken", "1")]))
        assert "2 explanation methods met" in summary
        assert "What knows nothing of the model (random and edges and columns) detects nothing" in summary
        assert "Bare predictions, without" in summary
        assert "Bare sharpened, without" in summary
        loud = rows.assign(verdict=rows["verdict"].mask(rows["method"] == "columns", "detects"))
        assert "columns, which knows no model, detects shaken 1" in " ".join(narrative.warnings(loud, told.facts))
        own_first = headline(told.results, {"methods": ["alike_outputs", "gradient"]}, told.facts["pieces"])
        assert html_page._matrices(own_first)[0]["columns"][0]["metric"] == "spearman@sum"
        html = html_page.page(told)
        assert html.index(">alike_<wbr>outputs<") < html.index(">random<") < html.index(">columns<")

    def test_the_analysis_ranks_explanations_and_null_methods_only(self, run: Path) -> None:
        ranked = pd.read_csv(run / "analysis" / "ranking.csv").set_index("method")["rank_low"]
        assert ranked.isna().groupby(level=0).all().to_dict() == {
            **dict.fromkeys([*EXPLANATIONS, *NULL], False), **dict.fromkeys(BARE, True),
        }  # fmt: skip
        added = pd.read_csv(run / "analysis" / "added.csv")
        assert set(added["method"]) == {*EXPLANATIONS, *NULL}
        assert set(added["yardstick"]) == {"total_variation", "sharpened: total_variation"}
        shown = pd.read_csv(run / "analysis" / "headline.csv").set_index("method")
        bare = read_results(run / "results.csv").set_index("method")["effect"]["predictions"]
        assert shown.loc[[*EXPLANATIONS, *NULL], "predictions"].tolist() == pytest.approx([bare] * 5, abs=1e-5)

    def test_a_run_of_an_earlier_version_is_refused_by_the_report(self, run: Path, tmp_path: Path) -> None:
        for file in run.iterdir():
            if file.is_file():
                (tmp_path / file.name).write_bytes(file.read_bytes())
        facts = json.loads((run / "run.json").read_text())
        for method in facts["pieces"]["methods"].values():
            del method["explains"]
        (tmp_path / "run.json").write_text(json.dumps(facts))
        with pytest.raises(InputError, match=r"explains: expected what a run writes.*; run the suite again"):
            page_contents(tmp_path)

    def test_the_contract_holds_for_a_further_kind_of_output(self) -> None:
        command = [sys.executable, "-m", "attribug", "check", str(PLUGINS / "further_outputs.py")]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr
