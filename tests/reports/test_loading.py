"""A finished run from its place: the same as the run at hand, whoever made it; one line for everything else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

import attribug
from attribug.api import Run
from attribug.errors import InputError
from attribug.results.summary import matrix
from attribug.tables import analysis
from attribug.tables.finished import StoredRun

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that may be broken."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_it_needs_no_plan_and_no_plugin(tiny_run: Path) -> None:
    """In a process that does not know the task."""
    code = f"import attribug; run = attribug.load({str(tiny_run)!r}); print(len(run.headline), run.complete, run)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[0] == f"4 True attribug run of tiny, complete: {tiny_run}"


def test_it_tells_what_the_run_at_hand_tells(folder: Path, tiny_run: Path) -> None:
    plugins = Path(__file__).parents[1] / "plugins"
    found = attribug.load(str(folder))
    run = attribug.run(str(plugins / "tiny.yaml"), out=folder, plugins=[str(plugins / "tiny.py")], workers=1)
    assert isinstance(run, StoredRun)
    assert run.outcome is None, "it is done"
    old = matrix(
        run.results, analysis.primary_metrics(run.plan), main_control=analysis.main_controls(run.plan),
        headlines=analysis.headlines(run.plan),
    )  # fmt: skip
    assert old["method"].tolist() == ["edges", "gradient", "predictions", "random"]
    assert not old["effect"].equals(run.results["effect"].head(len(old)))
    for each in (run, found):
        pd.testing.assert_frame_equal(each.headline, old, check_exact=True)
        pd.testing.assert_frame_equal(each.results, run.results)
        pd.testing.assert_frame_equal(each.scores, pd.read_parquet(tiny_run / "scores.parquet"))
        assert list(each.analysis) == ["added", "headline", "posts", "power", "ranking", "severity"]
        assert (each.fixes, each.alignment, each.cases, each.complete) == (None, None, None, True)
        assert each.facts["suite"]["name"] == "tiny"
    assert repr(found) == repr(run)
    assert found._repr_html_() == run._repr_html_()
    assert attribug.compare(found, run).ok


def test_it_shows_itself_briefly(tiny_run: Path) -> None:
    text = repr(attribug.load(tiny_run))
    assert len(text) < 1000
    assert len(text.splitlines()) <= 8
    assert "1 bug: shaken" in text
    html = attribug.load(tiny_run)._repr_html_()
    assert html is not None
    assert html.count("<tr>") == 5
    assert len(html) < 2000


def test_a_url_is_a_place_as_well(folder: Path) -> None:
    url = f"file://{folder}"
    found = attribug.load(url)
    assert (found.name, found.url) == (url, url)
    assert url in repr(found)
    pd.testing.assert_frame_equal(found.headline, attribug.load(folder).headline)
    assert attribug.report(found) == f"{url}/report.html"
    assert (folder / "report.html").exists()


def test_the_page_of_a_run(folder: Path, tmp_path: Path) -> None:
    run = attribug.load(folder)
    assert attribug.report(run) == attribug.report(folder) == folder / "report.html"
    a, b = tmp_path / "a.html", tmp_path / "b.html"
    assert attribug.report(str(folder), a) == a
    assert attribug.report(run, str(b)) == b
    assert a.read_bytes() == b.read_bytes()
    with pytest.raises(InputError, match="run: expected a run, its folder or its URL, found int"):
        attribug.report(3)  # type: ignore[arg-type]


def test_what_is_no_finished_run_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "run.json").write_text(json.dumps({"schema": 1, "suite": {"name": "tiny"}}))
    cases = {
        tmp_path / "absent": "expected the folder of a run, found nothing",
        tmp_path / "file": "expected the folder of a run, found a file",
        tmp_path / "empty": "expected what a run writes, found no file",
        unfinished: "expected a finished run, found one that is not",
        f"file://{tmp_path}/absent": "expected the URL of a run's folder, found no run.json there",
        3: "expected a run's folder or its URL, found int",
    }
    for place, said in cases.items():
        with pytest.raises(InputError, match=said) as told:
            attribug.load(place)  # type: ignore[arg-type]
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="expected the folder of a run"):
        attribug.load("quick")  # a reference's name


@pytest.mark.parametrize("name", ["results.csv", "scores.parquet"])
def test_tables_that_were_edited_are_refused(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=f"{name}: expected the file that its run wrote|{name}"):
        attribug.load(folder)


def test_facts_that_do_not_belong_are_refused(folder: Path) -> None:
    facts = json.loads((folder / "run.json").read_text())
    del facts["pieces"]["methods"]["gradient"]
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="expected facts of all methods, found none of gradient"):
        attribug.load(folder)


def test_a_folder_that_is_gone_is_said(folder: Path) -> None:
    run = attribug.load(folder)
    shutil.rmtree(folder)
    assert "expected what a run writes, found no such file" in repr(run)
    assert run._repr_html_() is None
    with pytest.raises(InputError, match="found no such file"):
        run.complete  # noqa: B018


def test_a_run_adds_its_plan_alone() -> None:
    assert {each.name for each in fields(Run)} - {each.name for each in fields(StoredRun)} == {"plan", "outcome"}
