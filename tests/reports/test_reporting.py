"""From a run's folder to its page: what it cannot do without, and what may be missing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attribug.errors import InputError
from attribug.reports.pages import page_contents, write_report

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that may be broken."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what run.json tells."""
    facts = json.loads((folder / "run.json").read_text())
    change(facts)
    (folder / "run.json").write_text(json.dumps(facts))


def cut(path: Path, end: int) -> None:
    """Leaves the first bytes of a file."""
    path.write_bytes(path.read_bytes()[:end])


def shorter(folder: Path) -> None:
    """Takes the last two rows from the results."""
    lines = (folder / "results.csv").read_text().splitlines(keepends=True)
    (folder / "results.csv").write_text("".join(lines[:-2]))


def sealed(folder: Path) -> None:
    """Makes run.json vouch for the results as they are now."""
    checksum = hashlib.sha256((folder / "results.csv").read_bytes()).hexdigest()
    changed(folder, lambda facts: facts["files"].update({"results.csv": checksum}))


def test_the_page_lies_in_the_folder_or_where_one_says(folder: Path, tmp_path: Path) -> None:
    assert write_report(folder) == folder / "report.html"
    elsewhere = tmp_path / "new" / "page.html"
    assert write_report(folder, elsewhere) == elsewhere
    assert elsewhere.read_bytes() == (folder / "report.html").read_bytes()
    assert not list(folder.glob(".report*"))
    assert str(folder) not in elsewhere.read_text()


def test_the_run_is_all_there(folder: Path) -> None:
    run = page_contents(folder)
    assert set(run.analysis) == {"headline", "added", "ranking", "severity", "posts", "power"}
    assert set(run.galleries) == {("tiny", "shaken", "1")}
    assert set(run.galleries["tiny", "shaken", "1"]) == {"gradient", "random", "edges"}
    assert run.costs is not None
    assert run.facts["pieces"]["bugs"]["shaken"]["target"] == "label"
    assert run.facts["pieces"]["bugs"]["shaken"]["truth"] == "object"


def test_images_are_what_the_passes_saw(folder: Path) -> None:
    """A gradient needs one pass an explained image."""
    costs = page_contents(folder).costs
    assert costs is not None
    records = costs[(costs["kind"] == "record") & (costs["method"] == "gradient")]
    assert len(records) == 3
    assert (records["images"] == records["forward"]).all()
    assert costs.loc[costs["kind"] == "training", "images"].isna().all()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "expected the folder of a run, found nothing"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("")), "found a file"),
        (lambda folder: (folder / "results.csv").unlink(), "expected a results table"),
        (lambda folder: cut(folder / "results.csv", -9), "truncated line"),
        (shorter, "expected the file that its run wrote, found another"),
        (lambda folder: (folder / "run.json").unlink(), "found no file; run the suite again to renew it"),
        (lambda folder: (folder / "run.json").write_text("{"), "found something else; run the suite again"),
        (lambda folder: (folder / "run.json").write_text("[]"), "found something else; run the suite again"),
        (lambda folder: changed(folder, lambda facts: facts.pop("pieces")), "run.json: pieces: expected what a run"),
        (lambda folder: changed(folder, lambda facts: facts.update(checks={})), "run.json: checks: expected what a"),
        (lambda folder: changed(folder, lambda facts: facts["pieces"].pop("tasks")), "run.json: pieces.tasks: expect"),
        (lambda folder: changed(folder, lambda facts: facts["pieces"]["bugs"].clear()), "bugs, found none of shaken"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_in_one_line(folder: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=said) as refused:
        write_report(folder)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    assert not (folder.is_dir() and (folder / "report.html").exists())


@pytest.mark.parametrize(
    ("damage", "gone"),
    [
        (lambda folder: shutil.rmtree(folder / "galleries"), "the explained input"),
        (lambda folder: [cut(path, 200) for path in (folder / "galleries").iterdir()], "the explained input"),
        (lambda folder: shutil.rmtree(folder / "analysis"), "Ranking</h2>"),
        (lambda folder: (folder / "analysis" / "ranking.csv").write_text('"'), "Ranking</h2>"),
        (lambda folder: (folder / "analysis" / "ranking.csv").write_text("a\n1\n"), "Ranking</h2>"),
        (lambda folder: (folder / "analysis" / "added.csv").write_text("a\n1\n"), "add to predictions</h2>"),
        (lambda folder: (folder / "costs.csv").unlink(), "What each method costs"),
        (lambda folder: (folder / "costs.csv").write_text("kind,seconds\nrecord,soon\n"), "What each method costs"),
        (lambda folder: (folder / "scores.parquet").unlink(), "nothing of it"),
        (lambda folder: shutil.rmtree(folder / "figures"), "nothing of it"),
    ],
)  # fmt: skip
def test_what_may_be_missing_is_left_out(folder: Path, damage: Callable[[Path], object], gone: str) -> None:
    assert gone in write_report(folder).read_text() or gone == "nothing of it"
    damage(folder)
    assert gone not in write_report(folder).read_text()


def test_a_table_that_run_json_vouches_for_is_read(folder: Path) -> None:
    """Only a comparison with run.json shows a table that was cut at the end of a line."""
    rows = len(page_contents(folder).results)
    shorter(folder)
    sealed(folder)
    assert len(page_contents(folder).results) == rows - 2


def test_the_gallery_is_of_the_first_model_that_has_the_bug(folder: Path) -> None:
    first = page_contents(folder).galleries["tiny", "shaken", "1"]["gradient"]["contaminated"]
    check = {"task": "tiny", "bug": "shaken", "level": "1", "check": "shakes", "figure": 0.0, "expected": "≥ 1"}
    changed(folder, lambda facts: facts.update(checks=[check | {"seed": s, "holds": s > 0} for s in range(3)]))
    second = page_contents(folder).galleries["tiny", "shaken", "1"]["gradient"]["contaminated"]
    assert (first != second).any()
    changed(folder, lambda facts: facts.update(checks=[check | {"seed": s, "holds": False} for s in range(3)]))
    assert page_contents(folder).galleries == {}
