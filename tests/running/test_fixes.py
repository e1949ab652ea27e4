"""Models are mended within a run: what fixes reached stands in its tables, in the terminal and on the page."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import attribug
from attribug.api import dry_run
from attribug.models.lab import Lab
from attribug.reports.pages import write_report
from attribug.results.mending import FIXES_COLUMNS
from attribug.storage import locations
from attribug.storage.models import Models

PLUGINS = Path(__file__).parent.parent / "plugins"
SMALL: dict[str, Any] = {
    "tasks": ["ten_numbers"], "plugins": [str(PLUGINS / "ten_numbers.py")],
    "methods": ["gradient", "predictions"], "metrics": ["mass_accuracy", "total_variation"],
    "fixes": ["clean_data", "rrr", "dfr"], "bugs": ["shortcut"], "seeds": 3, "examples": 4,
    "workers": 1,
}  # fmt: skip
FEWER: dict[str, Any] = {
    "task_options": {}, "task_levels": {}, "swept_tasks": [], "method_options": {}, "levels": {"shortcut": [1.0]},
    "fix_options": {"rrr": {"weight": 100.0}}, "sweeps": {"rrr": [0.1, 1000]},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mended")


@pytest.fixture(scope="module")
def mended(place: Path) -> attribug.Run:
    """Three models that look at a swatch, and what fixes make of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTRIBUG_CACHE", str(place / "cache"))
        return attribug.run("right-reasons", out=place / "run", changes=FEWER, **SMALL)


def test_the_table_has_a_row_a_model_and_set(mended: attribug.Run) -> None:
    table = mended.fixes
    assert table is not None
    assert list(table.columns) == list(FIXES_COLUMNS)
    fixed = table[table["selection"] == "fixed"]
    sets = ["biased", "decorrelated", "swapped", "clean", "validation", "balanced"]
    expected = itertools.product(["none", "clean_data", "rrr", "dfr"], [0, 1, 2], sets)
    assert sorted(fixed[["fix", "seed", "test_set"]].itertuples(index=False, name=None)) == sorted(expected)
    assert set(table.loc[table["fix"] == "rrr", "selection"]) >= {
        "fixed",
        "sweep",
        "oracle",
        "validation",
        "grouped validation",
    }
    assert table["accuracy"].between(0, 1).all()
    assert (table["seconds"] >= 0).all()


def test_figures_are_those_of_the_stored_models(mended: attribug.Run, place: Path, monkeypatch: Any) -> None:
    """Accuracies anew, by a loop over the models in the cache."""
    monkeypatch.setenv("ATTRIBUG_CACHE", str(place / "cache"))
    lab, table = Lab(Models(locations.cache().folder, device="cpu")), mended.fixes
    assert table is not None
    for cell in mended.plan.cells[:4]:
        for trial in cell.trials[:1]:
            for name, examples in trial.sets.items():
                data = examples.load()
                right = (lab.model(trial.model)(data.inputs).argmax(1) == data.labels).double().mean()
                row = table[(table["fix"] == trial.fix) & (table["seed"] == cell.seed) & (table["test_set"] == name)]
                assert row[row["selection"] == "fixed"]["accuracy"].item() == pytest.approx(float(right), abs=1e-6)


def test_a_shortcut_is_learnt_and_mended(mended: attribug.Run) -> None:
    """The system's claim in small: with penalised gradients a model is as good as one of data without the shortcut."""
    table = mended.fixes
    assert table is not None
    here = table[(table["selection"] == "fixed") & (table["test_set"] == "decorrelated")]
    accuracy = here.groupby("fix")["accuracy"].mean()
    assert accuracy["none"] < accuracy["clean_data"] - 0.1
    assert abs(accuracy["rrr"] - accuracy["clean_data"]) < 0.05
    share = here.groupby("fix")["mask_share"].mean()
    assert share["rrr"] < 0.1 * share["none"]


def test_what_is_left_of_the_bug_is_explained(mended: attribug.Run) -> None:
    assert set(mended.results["bug"]) == {"shortcut", *(f"shortcut+{fix}" for fix in SMALL["fixes"])}
    effects = mended.headline.set_index(["method", "bug"])["effect"]
    assert effects["gradient", "shortcut"] > effects["gradient", "shortcut+rrr"]
    assert not mended.analysis["ranking"].empty
    assert set(mended.facts["pieces"]["bugs"]) == set(mended.results["bug"])


def test_the_same_run_has_nothing_to_do_and_another_fix_does_only_its_own(
    mended: attribug.Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIBUG_CACHE", str(place / "cache"))
    again = attribug.run("right-reasons", out=place / "run", changes=FEWER, **SMALL)
    assert again.outcome is None
    pd.testing.assert_frame_equal(again.fixes, mended.fixes)  # type: ignore[arg-type]
    more = SMALL | {"fixes": [*SMALL["fixes"], "counterexamples"]}
    dry = dry_run("right-reasons", out=place / "run", changes=FEWER, **more)
    assert (dry.trainings, dry.records) == (3, 6)


def test_without_fixes_there_is_no_table(mended: attribug.Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_CACHE", str(place / "cache"))
    plain = attribug.run(
        "right-reasons",
        out=place / "plain",
        changes={**FEWER, "fix_options": {}, "sweeps": {}},
        **SMALL | {"fixes": []},
    )
    assert plain.fixes is None
    assert not (place / "plain" / "fixes.csv").exists()
    rows = mended.results[mended.results["bug"] == "shortcut"].reset_index(drop=True)
    pd.testing.assert_frame_equal(plain.results, rows)  # mending changes nothing of the bug's own rows


def test_the_page_tells_of_fixes(mended: attribug.Run, place: Path) -> None:
    page = Path(write_report(place / "run")).read_text()
    section = page[page.index('<section id="mended"') :]
    section = re.sub(r"<[^>]+>", " ", section[: section.index("</section>")])
    for told in ("none", "rrr", "clean_data", "dfr", "grouped validation", "rrr at other settings", "still"):
        assert told in section
    assert np.char.count(page, "shortcut+rrr") > 0


def test_a_damaged_table_costs_the_section_only(mended: attribug.Run, place: Path, tmp_path: Path) -> None:
    path = place / "run" / "fixes.csv"
    kept = path.read_text()
    try:
        path.write_text("task,bug\n")
        write_report(place / "run", output=tmp_path / "page.html")
        assert 'id="mended"' not in (tmp_path / "page.html").read_text()
    finally:
        path.write_text(kept)


def test_the_terminal_tells_of_fixes(mended: attribug.Run, capsys: pytest.CaptureFixture[str]) -> None:
    from attribug.terminal.matrix import print_run

    print_run(mended)
    told = capsys.readouterr().out
    assert "mended: ten_numbers, shortcut 1" in told
    assert re.search(r"rrr +│ fixed", told)
    assert "mended" in told
