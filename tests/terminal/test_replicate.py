"""`attribug replicate`: runs under further suite seeds, what is counted, and what of it the page tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import attribug as package
from attribug.reports.pages import write_report
from attribug.results.replication import COUNT_COLUMNS, summed
from attribug.results.schema import read_results
from attribug.tables import replication
from doubles.tiny import SUITE, TINY

Command = Callable[..., Any]
TIMES = ("replicate", SUITE, "--times", "2", "--out", "run")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--times", "1"), "--times: expected at least 2 suite seeds, found 1"),
        (("--times", "two"), "expected an integer, found 'two'"),
        ((), "Missing option '--times'"),
        (("--times", "2", "--models", "m"), "--models m: expected none to replicate a suite"),
        (("--times", "2", "--out", "memory://run"), "--out memory://run: expected a folder to replicate"),
        (("--times", "3", "--seed", "999998"), "key 'seed': expected less than 1000000"),
        (("--times", "2", "--methods", "none"), "none"),
    ],
)
def test_wrong_input_is_one_line(inside: Command, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = inside("replicate", SUITE, "--plugin", TINY, *arguments)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def replicated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny suite's finished run, replicated once: the run's folder."""
    from doubles.engine import used

    folder = tmp_path_factory.mktemp("replicated") / "run"
    shutil.copytree(tiny_run, folder)
    with used():
        found = package.replicate(SUITE, times=2, plugins=[TINY], out=folder, workers=1)
    assert found.complete
    assert [run.outcome is None for run in found.runs] == [True, False], "the finished run is the first"
    pd.testing.assert_frame_equal(pd.read_csv(folder / "replication.csv", dtype={"level": str}), found.table)
    return folder


@pytest.fixture
def folder(replicated: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(replicated, tmp_path / "run"))


def planted(folder: Path, verdict: str = "detects") -> None:
    """Gives the replicate another verdict, and counts anew from the tables that lie there."""
    path = replication.replicate_folder(folder, 1) / "results.csv"
    path.write_text(path.read_text().replace(",blind,", f",{verdict},"))


@pytest.mark.slow
class TestReplicated:
    def test_each_is_an_ordinary_run_of_other_models(self, replicated: Path) -> None:
        runs = [replicated, replication.replicate_folder(replicated, 1)]
        facts = [json.loads((run / "run.json").read_text()) for run in runs]
        assert [each["suite"]["seed"] for each in facts] == [0, 1]
        keys = [set(pd.read_csv(run / "costs.csv").query("kind == 'training'")["key"]) for run in runs]
        assert keys[0]
        assert not keys[0] & keys[1]
        seeds = [set(pd.read_parquet(run / "scores.parquet")["seed"]) for run in runs]
        assert not seeds[0] & seeds[1]
        found = replication.read(replicated)
        assert found is not None
        assert found.stale == ""
        assert found.seeds == (0, 1)
        assert tuple(found.counts.columns) == COUNT_COLUMNS
        decided = sum(
            read_results(run / "results.csv")["verdict"].isin(["detects", "blind", "inverted"]).sum() for run in runs
        )
        assert summed(found.counts, (), "all")["decided"].item() == decided > 0

    def test_again_does_nothing_and_a_run_leaves_it_alone(self, folder: Path, attribug: Command) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        again = attribug(*TIMES, tiny=True)
        assert again.returncode == 0, again.stderr
        assert "nothing to do: run holds all 2 runs already" in again.stdout
        assert "comparisons of a decided verdict of the matrix" in again.stdout
        alone = attribug("run", SUITE, "--out", "run", "--keep-maps", tiny=True)
        assert alone.returncode == 0, alone.stderr
        for path, content in before.items():
            if path.relative_to(folder).parts[0].startswith("repli") or path.name == "results.csv":
                assert path.read_bytes() == content, path
        assert "Under further suite seeds" in write_report(folder).read_text()

    def test_the_page_tells_the_counts_and_a_contradiction(self, folder: Path) -> None:
        planted(folder)
        tables = {0: folder, 1: replication.replicate_folder(folder, 1)}
        results = {seed: read_results(place / "results.csv") for seed, place in tables.items()}
        plan = package.api.planned(SUITE, plugins=[TINY])
        replication.write(replication.replicated(results, plan), folder)
        found = replication.read(folder)
        assert found is not None
        assert set(found.contradictions.query("rows == 'matrix'")["method"]) == {"random", "edges"}
        text = write_report(folder).read_text()
        assert "Contradicted verdicts of the matrix: 2" in text
        assert "contradict it" in text

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (planted, "made from other results than those that lie there now (seed 1)"),
            (lambda folder: (folder / "replication.json").unlink(), "replication.csv is not what attribug wrote"),
            (lambda folder: (folder / "replication.json").write_text("[]"), "is not what attribug wrote"),
            (
                lambda folder: (folder / "replication.json").write_text('{"seeds": [0, 1]}'),
                "is not what attribug wrote",
            ),
            (lambda folder: (folder / "replication.csv").write_text("rows\n"), "is not what attribug wrote"),
        ],
    )
    def test_counts_of_other_results_are_not_shown(self, folder: Path, change: Command, said: str) -> None:
        assert "comparisons of a decided verdict" in write_report(folder).read_text()
        change(folder)
        text = write_report(folder).read_text()
        assert said in text
        assert "comparisons of a decided verdict" not in text

    def test_counts_outlive_replicates_that_were_removed(self, folder: Path) -> None:
        shutil.rmtree(folder / "replicates")
        assert "comparisons of a decided verdict" in write_report(folder).read_text()
        (folder / "replication.csv").unlink()
        assert "Under further suite seeds" not in write_report(folder).read_text()
