"""Panels in whole runs: every value again by hand, and what breaks costs its own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import attribug
from attribug import api, metrics, panels, tasks
from attribug.contracts.contrasts import Side
from attribug.contracts.subjects import Lacking, Regions, Subject
from attribug.errors import InputError
from attribug.metrics.grain import grain
from attribug.metrics.shared_interest import cases
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.plans import planning
from attribug.plugins import load_plugin
from attribug.reports import accepting, comparing
from attribug.results import alignment
from attribug.streams import generator
from doubles.tiny import PLUGINS, TINY

PANELLED, SUITE = str(PLUGINS / "panelled.py"), str(PLUGINS / "panelled.yaml")
TABLES = ("alignment.csv", "alignment_cases.csv", "alignment.parquet", "results.csv")
PLACE = ["panel", "model", "data", "unit"]


@pytest.fixture(scope="module", autouse=True)
def pieces() -> None:
    for plugin in (TINY, PANELLED):
        load_plugin(plugin)


def run(out: Path, **options: Any) -> api.Run:
    known: dict[str, Any] = {"workers": 1, "panels": ["halved"], "tasks": [], "bugs": [], "plugins": [TINY, PANELLED]}
    return api.run(SUITE, out=out, device="cpu", **known | options)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """A finished run, with its maps."""
    return run(tmp_path_factory.mktemp("panelled") / "run", keep_maps=True)


@pytest.fixture(scope="module")
def scores(done: api.Run) -> pd.DataFrame:
    return pd.read_parquet(done.folder / "alignment.parquet")


def subjects(done: api.Run) -> list[Subject]:
    return [cell.subject for _, cell in done.plan.panelled if cell.subject is not None]


def test_subjects_are_cells_without_controls(done: api.Run) -> None:
    assert [cell.subject is None for _, cell in done.plan.panelled] == [False] * 5 + [True]
    assert not done.plan.contrasted
    assert not len(done.results)
    assert {m.name for m, _ in done.plan.methods_of(done.plan.cells[0])} == {
        "gradient", "integrated_gradients", "random", "edges",
    }  # fmt: skip


def test_a_run_of_panels_alone_is_found_again_and_shows_its_table(done: api.Run) -> None:
    found = attribug.load(done.folder)
    assert found.alignment is not None
    assert done.alignment is not None
    pd.testing.assert_frame_equal(found.alignment, done.alignment)
    assert (len(found.headline), found.complete) == (0, done.complete)
    assert repr(found) == repr(done)
    assert len(repr(found)) < 1000
    assert f"1 panel, {len(found.alignment)} rows: halved" in repr(found)
    html = found._repr_html_()
    assert html is not None
    measured = found.alignment[found.alignment["metric"] != ""]
    assert html.count("<tr>") == 1 + len(measured[["model", "data", "mask"]].drop_duplicates())


@pytest.mark.parametrize("metric", ["iou", "pointing_game", "mass_accuracy"])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "edges"])
def test_values_are_those_of_kept_maps_and_masks(
    done: api.Run, scores: pd.DataFrame, method: str, metric: str
) -> None:  # fmt: skip
    for subject in subjects(done):
        kept = done.maps(method, subject.model, subject.data, task="halved", seed=subject.side.seed)
        masks = subject.regions.load()
        for name in subject.regions.names:
            rows = scores[
                (scores["model"] == subject.model) & (scores["unit"] == subject.unit) & (scores["mask"] == name)
                & (scores["method"] == method) & (scores["metric"] == metric)
            ]  # fmt: skip
            wanted = attribug.measure(metric, torch.as_tensor(kept.maps), masks[name][: len(kept.maps)])
            np.testing.assert_allclose(rows["value"], np.asarray(wanted), atol=1e-12)
            assert rows["example"].tolist() == [int(each) for each in kept.ids]
            assert rows["pixels"].tolist() == masks[name][: len(rows)].flatten(1).sum(1).tolist()
            if metric == "iou":
                np.testing.assert_allclose(rows["grain"], grain(torch.as_tensor(kept.maps).double().abs().sum(1)))


def test_random_is_the_metric_of_gaussian_maps(done: api.Run, scores: pd.DataFrame) -> None:
    subject = subjects(done)[0]
    data = subject.side.examples.load()
    maps = torch.stack([
        torch.randn(data.inputs.shape[1:], generator=generator("floor", 0, int(each))) for each in data.ids[:8]
    ])  # fmt: skip
    wanted = attribug.measure("mass_accuracy", maps, subject.regions.load()["bright"][:8])
    rows = scores[(scores["metric"] == "mass_accuracy") & (scores["mask"] == "bright") & (scores["model"] == "trained")]
    for _, part in rows.groupby(["unit", "method"]):
        np.testing.assert_allclose(part["random"], np.asarray(wanted), atol=1e-12)


def test_random_is_the_expected_share_where_it_is_known(done: api.Run, scores: pd.DataFrame) -> None:
    masks = subjects(done)[0].regions.load()
    for name, mask in masks.items():
        rows = scores[(scores["metric"] == "pointing_game") & (scores["mask"] == name) & (scores["model"] == "turned")]
        share = mask[:8].flatten(1).double().mean(1).numpy()
        for _, part in rows.groupby("method"):
            np.testing.assert_allclose(part["random"], np.where(share > 0, share, np.nan))


@pytest.mark.parametrize("name", ["pointing_game", "pointing_game_tolerant"])
def test_what_is_expected_of_noise_is_what_noise_reaches(name: str) -> None:
    stream = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, 3:15, 20:30] = True
    maps = torch.randn(4000, 3, 32, 32, generator=stream)
    reached = float(np.asarray(attribug.measure(name, maps, mask.expand(4000, -1, -1))).mean())
    metric = metrics.get(name)
    assert metric.chance is not None
    assert reached == pytest.approx(float(metric.chance(mask)), abs=4 * (0.25 / 4000) ** 0.5)
    assert np.isnan(float(metric.chance(torch.zeros_like(mask))))


def test_predictions_and_cases(done: api.Run, scores: pd.DataFrame) -> None:
    lab = Lab(Memory())
    for subject in subjects(done):
        data = subject.side.examples.load()
        rows = scores[(scores["model"] == subject.model) & (scores["unit"] == subject.unit)]
        rows = rows[(rows["method"] == "gradient") & (rows["mask"] == "bright") & (rows["metric"] == "iou")]
        said = lab.outputs(subject.side.model, subject.side.examples)[:8].argmax(1)
        assert rows["predicted"].tolist() == said.tolist()
        if subject.tested is None:
            assert (rows["label"] == -1).all()
            assert rows["correct"].isna().all()
            assert (rows["case"] == "").all()
            continue
        right = said == data.labels[:8]
        assert rows["correct"].tolist() == right.double().tolist()
        kept = done.maps("gradient", subject.model, subject.data, task="halved", seed=subject.side.seed)
        planes = torch.as_tensor(kept.maps).double().abs().sum(1)
        wanted = cases(planes, subject.regions.load()["bright"][:8], right)
        assert rows["case"].tolist() == [each or "" for each in wanted]
    rows = scores[(scores["metric"] == "iou") & (scores["method"] == "gradient") & (scores["mask"] == "bright")]
    straight = rows[(rows["model"] == "trained") & (rows["unit"] == 0)]["correct"].to_numpy()
    turned = rows[rows["model"] == "turned"]["correct"].to_numpy()
    assert (straight + turned == 1).all(), "so that cases of right and of wrong predictions are met"


def test_accuracy_is_told_and_judged_nowhere(done: api.Run) -> None:
    table = done.alignment
    assert table is not None
    right = table.drop_duplicates("model").set_index("model")["accuracy"]
    lab, wanted = Lab(Memory()), []
    for subject in subjects(done)[:3]:
        data = subject.side.examples.load()
        said = lab.outputs(subject.side.model, subject.side.examples).argmax(1)
        wanted.append(float((said == data.labels).double().mean()))
    assert right["trained"] == pytest.approx(np.mean(wanted), abs=1e-6)
    assert right["turned"] == pytest.approx(1 - wanted[0], abs=1e-6)
    assert np.isnan(right["unlabelled"])
    assert not done.facts["checks"]


def test_the_table_says_what_is_lacking_and_empty(done: api.Run) -> None:
    table = done.alignment
    assert table is not None
    lacking = table[table["model"] == "elsewhere"]
    assert lacking["reason"].tolist() == ["nobody has brought it"]
    assert (lacking["n"] == 0).all()
    strip = table[(table["mask"] == "strip") & (table["metric"] == "iou")]
    assert (strip["n"] == 6).all()
    assert strip["reason"].str.contains("2 of 8 masks are empty").all()
    assert (strip["undefined"] == 0.25).all()


def test_columns_come_in_the_promised_order(done: api.Run) -> None:
    assert alignment.COLUMNS[:11] == (
        "model", "data", "mask", "method", "metric", "value", "ci_low", "ci_high", "random", "n", "undefined",
    )  # fmt: skip
    header = (done.folder / "alignment.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.split(",") == list(alignment.COLUMNS)


def test_galleries_are_drawn_one_a_model(done: api.Run) -> None:
    assert done.facts["undrawn"] == {}
    drawn = sorted(path.name for path in (done.folder / "figures").glob("cases_*.png"))
    assert drawn == [f"cases_halved_{name}_test.png" for name in ("trained", "turned", "unlabelled")]


def test_running_again_does_nothing_and_chunks_and_workers_change_nothing(done: api.Run, tmp_path: Path) -> None:
    assert run(done.folder, keep_maps=True).outcome is None
    again = run(tmp_path / "again", workers=2, changes={"chunk": 5})
    for name in TABLES[:2]:
        assert (again.folder / name).read_bytes() == (done.folder / name).read_bytes(), name
    other = pd.read_parquet(again.folder / "alignment.parquet")
    pd.testing.assert_frame_equal(other, pd.read_parquet(done.folder / "alignment.parquet"))


@pytest.mark.parametrize(
    ("panel", "verdict", "reason"),
    [
        ("raising", "failed", "RuntimeError: no panel"),
        ("absent", "unsupported", "data are missing: nobody has any"),
        ("doubled", "failed", "expected each model, data and seed once, found one on test, seed 0 twice"),
    ],
)
def test_a_panel_that_breaks_costs_its_own_rows(panel: str, verdict: str, reason: str) -> None:
    chosen = planning.load_suite(SUITE, {"panels": [panel, "halved"]})
    cells = planning.make(chosen).cells
    assert [(cell.verdict, cell.reason) for cell in cells if cell.task == panel] == [(verdict, reason)] or (
        verdict == "failed" and reason in next(cell.reason for cell in cells if cell.task == panel)
    )
    assert sum(cell.subject is not None for cell in cells if cell.task == "halved") == 5


def test_masks_of_another_size_are_told_in_a_line(tmp_path: Path) -> None:
    asked = {"panel_options": {"halved": {"flawed": True}}}
    table = run(tmp_path / "run", methods=["gradient"], changes=asked).alignment
    assert table is not None
    rows = table[table["model"] == "trained"]
    assert rows["reason"].tolist() == [
        "mask strip: expected (32, 16, 16) of torch.bool, found (32, 15, 16) of torch.bool"
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"panels": ["halfed"]}, "unknown panel 'halfed'; did you mean 'halved'?"),
        ({"panel_options": {"halved": {"flaw": 1}}}, "panel_options.halved: unknown option 'flaw'"),
        ({"panel_options": {"models": {}}}, "panel_options: unknown name 'models'"),
        ({"panel_methods": {"halved": ["lime"]}}, "panel_methods.halved: unknown name 'lime'"),
        ({"metrics": ["spearman"]}, "metrics: expected one of alignment for panels"),
        ({"methods": ["predictions"]}, "metrics: expected one of alignment for panels"),
        ({"bugs": ["reinit"]}, "tasks: expected some for the bugs reinit, found none; name them with --tasks"),
        ({"tasks": ["tiny"]}, "bugs: expected some for the tasks tiny, found none; name them with --bugs"),
        ({"fixes": ["jtt"]}, "fixes: expected bugs that can be mended with jtt, found none"),
    ],
)
def test_wrong_input_is_told_in_a_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        planning.make(planning.load_suite(SUITE, changes))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_panels_and_bugs_run_side_by_side(tmp_path: Path) -> None:
    both = {"tasks": ["tiny"], "bugs": ["shaken"], "methods": ["gradient", "random"]}
    made = run(tmp_path / "run", changes=both)
    assert set(made.results["bug"]) == {"shaken"}
    assert made.alignment is not None
    assert set(made.alignment["panel"]) == {"halved"}
    alone = run(tmp_path / "run", changes={**both, "panels": []})
    assert alone.alignment is None, "tables of an earlier plan are taken away"
    assert not (tmp_path / "run" / "alignment.parquet").exists()


def test_what_plugins_register_joins_panels_whole_or_not() -> None:
    kinds = {"task": ["tiny"], "method": ["edges"]}
    joined = planning.load_suite(SUITE, {"panels": ["halved"]}, kinds)
    assert (joined.tasks, joined.bugs) == ([], []), "a task alone is one that panels ask for"
    both = planning.load_suite(SUITE, {"panels": ["halved"]}, {**kinds, "bug": ["shaken"]})
    assert (both.tasks, both.bugs) == (["tiny"], ["shaken"])


def test_runs_of_panels_alone_have_no_verdicts_to_compare(done: api.Run, tmp_path: Path) -> None:
    said = "expected verdicts on bugs, found a run of panels alone; see its alignment.csv"
    with pytest.raises(InputError, match=said):
        attribug.compare(done.folder, done.folder)
    with pytest.raises(InputError, match=said):
        comparing.compare_published(done.folder)
    with pytest.raises(InputError, match=said):
        accepting.accept(tmp_path / "reference.csv", done.folder)
    chosen: dict[str, Any] = {"panels": ["halved"], "tasks": [], "bugs": [], "plugins": [TINY, PANELLED]}
    with pytest.raises(InputError, match="suite panelled: expected bugs, whose verdicts can be replicated, found"):
        attribug.replicate(SUITE, times=2, out=tmp_path / "many", **chosen)
    assert not (tmp_path / "many").exists()


DRAWN = """
import torch

from attribug import panels
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Examples
from attribug.contracts.subjects import Regions, Subject


def part(*, base, draw):
    return base.load().select(torch.arange(8 * draw, 8 * draw + 8))


@panels.register("drawn")
def drawn(ask, *, seed, seeds):
    \"\"\"One model, tested three times.\"\"\"
    task = ask("tiny")
    test = task.examples("test")
    side, masks = Side(task.clean(seeds[0]), test), Regions.told(test, bright="object")
    for draw in range(3):
        tested = Side(task.clean(seeds[0]), Examples.of(part, base=test, draw=draw))
        yield Subject("one", "test", side, masks, tested=tested, draw=draw)
"""


def test_alike_subjects_that_share_the_explained_model_are_one_model(tmp_path: Path) -> None:
    """However often it is tested: repeated values would pass for several models'."""
    file = tmp_path / "drawn.py"
    file.write_text(DRAWN)
    table = run(tmp_path / "run", panels=["drawn"], methods=["gradient"], plugins=[TINY, PANELLED, str(file)]).alignment
    assert table is not None
    assert set(table["units"]) == {1}
    assert table["reason"].str.contains("this model only").all()
    alone = run(tmp_path / "alone", methods=["gradient"], seeds=1).alignment
    assert alone is not None
    expected = alone[(alone["model"] == "trained") & (alone["mask"] == "bright")]
    for name in ("value", "ci_low", "ci_high", "random"):
        assert table[name].tolist() == expected[name].tolist(), name
    task = tasks.get("tiny").function(seed=0, other=None)
    side = Side(task.clean(0), task.examples("test"))
    right = Lab(Memory()).outputs(side.model, side.examples).argmax(1) == side.examples.load().labels
    draws = right[:24].double().reshape(3, 8).mean(1)
    assert table["accuracy"].unique() == pytest.approx([float(draws.mean())], abs=1e-6)


def test_methods_of_a_panel_can_be_fewer() -> None:
    plan = planning.make(planning.load_suite(SUITE, {"panel_methods": {"halved": ["random"]}}))
    assert [method.name for method, _ in plan.methods_of(plan.cells[0])] == ["random"]
    assert plan.counts()["records"] == 5


def test_regions_are_told_apart_by_content() -> None:
    task = panels.get("halved").function
    assert task is not None
    from attribug.conformance.tasks import small

    examples = small("tiny").examples("test")
    one, other = Regions.told(examples, bright="object"), Regions.told(examples, bright="background")
    assert one.key != other.key
    assert one == Regions.told(examples, bright="object")
    with pytest.raises(ValueError, match="expected examples that tell annotated"):
        Regions.told(examples, block="annotated").load()


def test_units_tell_alike_subjects_apart() -> None:
    from attribug.conformance.tasks import small

    task = small("tiny")
    side = Side(task.clean(3), task.examples("test"))
    regions = Regions.told(side.examples, bright="object")
    assert Subject("a", "b", side, regions, None).unit == 3
    assert Subject("a", "b", side, regions, None, draw=1).unit == 1
    assert Lacking("a", "b", "why").reason == "why"
