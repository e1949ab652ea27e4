"""Which kept map is which: the index that a run writes beside them, and `Run.maps`, which reads it."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import attribug
from attribug import api
from attribug.models.lab import Lab
from attribug.running.options import RunOptions
from attribug.running.outcome import Outcome
from attribug.running.request import requested
from attribug.storage import locations
from attribug.storage.models import Models
from attribug.storage.records import Records
from attribug.tables.kept_maps import COLUMNS, Maps, _chosen, write_index
from doubles.tiny import HONEST, SUITE, TINY, run

INDEX = Path("maps", "index.parquet")
SEEDS = (0, 1, 2)


def kept_run(out: Path, **options: Any) -> api.Run:
    """Two chunks of four examples, all maps kept."""
    return run(out, changes={"chunk": 4}, **{"keep_maps": True} | options)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """A finished run; read it, leave it as it is."""
    from doubles.engine import used

    with used():
        return kept_run(tmp_path_factory.mktemp("kept") / "run")


def index(run: api.Run) -> pd.DataFrame:
    return pd.read_parquet(run.folder / INDEX)


def files(run: api.Run) -> set[str]:
    return {path.name for path in (run.folder / "maps").glob("*.safetensors")}


def cell_of(run: api.Run, seed: int) -> Any:
    (cell,) = (cell for cell in run.plan.cells if cell.seed == seed)
    return cell.contrast


def explained(run: api.Run, method: str, side: Any, found: Maps) -> torch.Tensor:
    """The same by hand: model and inputs of a side, examples and classes as they were found."""
    lab = Lab(Models(locations.cache().folder, device="cpu"))
    data = lab.data(side.examples)
    place = {int(number): position for position, number in enumerate(data.ids)}
    inputs = data.inputs[[place[int(number)] for number in found.ids]]
    about = {"seed": run.plan.settings.seed, "ids": found.ids}
    return torch.as_tensor(attribug.explain(method, lab.model(side.model), inputs, found.targets, **about))


def test_the_index_is_complete(kept: api.Run) -> None:
    rows = index(kept)
    assert tuple(rows.columns) == COLUMNS
    assert set(rows["file"]) == files(kept)
    assert len(files(kept)) == len(HONEST) * (3 + 3) * 2, "clean and shaken models, two chunks"
    sides = rows.groupby(["method", "contrast", "side"]).size().unstack().to_dict("records")
    assert sides == [{"clean": 3 * 2, "contaminated": 2, "reference": 2 * 2}] * len(HONEST) * len(SEEDS)
    assert set(rows["task"]) | set(rows["bug"]) | set(rows["level"]) == {"tiny", "shaken", "1"}
    assert not rows[["draw"]].any(axis=None)
    assert set(rows["version"]) == {""}
    assert [len(ids) for ids in rows["ids"]] == [4] * len(rows)


@pytest.mark.parametrize("method", ["gradient", "predictions"])
def test_maps_are_those_that_explain_gives(kept: api.Run, method: str) -> None:
    for seed in SEEDS:
        contrast = cell_of(kept, seed)
        found = kept.maps(method, "shaken", 1, seed=seed)
        assert found.ids.tolist() == [1000 + number for number in range(8)]
        assert found.targets.tolist() == [0, 1] * 4
        assert torch.equal(found.maps, explained(kept, method, contrast.contaminated, found))
        (control,) = (side for side in contrast.controls if side.seed == seed)
        found = kept.maps(method, side="clean", seed=seed)
        assert torch.equal(found.maps, explained(kept, method, control, found))
        assert torch.equal(found.maps, kept.maps(method, side="reference", seed=seed).maps)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_the_index_is_the_same_however_the_maps_came(kept: api.Run, tmp_path: Path) -> None:
    """Resumed after records, maps or what is noted of them got lost; found for other metrics; made by an earlier run
    that noted nothing."""
    wanted = (kept.folder / INDEX).read_bytes()
    first = kept_run(tmp_path / "run")
    folder, stored = first.folder, sorted((first.folder / "records").glob("*.maps"))
    assert (folder / INDEX).read_bytes() == wanted
    losses: dict[str, list[Path]] = {
        "some records": [folder / INDEX, *sorted((folder / "records").glob("*.record"))[::2]],
        "some maps": sorted((folder / "maps").glob("*.safetensors"))[::3],
        "some notes": [folder / INDEX, *stored[::2]], "all notes": [folder / INDEX, *stored], "the index": [],
    }  # fmt: skip
    for lost, paths in losses.items():
        for path in paths:
            path.unlink()
        if lost == "the index":
            (folder / INDEX).write_bytes(b"damaged")
            stored[0].write_bytes(b"damaged")
        assert kept_run(folder).outcome is not None, lost
        assert (folder / INDEX).read_bytes() == wanted, lost
        assert kept_run(folder).outcome is None, lost
    other = run(folder, changes={"chunk": 4}, metrics=["cosine", "total_variation"])
    assert (folder / INDEX).read_bytes() == wanted
    assert {"cosine", "total_variation"} < set(other.results["metric"])
    assert torch.equal(other.maps("gradient", seed=0).maps, kept.maps("gradient", seed=0).maps)


@pytest.mark.slow
def test_the_index_is_the_same_with_several_workers(kept: api.Run, tmp_path: Path, attribug: Any) -> None:
    arguments = ["run", SUITE, "--out", "run", "--keep-maps", "--workers", "2", "--set", "chunk=4"]
    answer = attribug(*arguments, "--plugin", TINY, workers=True)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "run" / INDEX).read_bytes() == (kept.folder / INDEX).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_half_precision_comes_back_as_single(kept: api.Run, tmp_path: Path) -> None:
    half = run(tmp_path / "run", changes={"chunk": 4, "maps": "float16"}, keep_maps=True, methods=["gradient"])
    found, exact = half.maps("gradient", seed=1), kept.maps("gradient", seed=1)
    assert found.maps.dtype == torch.float32
    largest = exact.maps.abs().amax((1, 2, 3), keepdim=True)
    assert ((found.maps - exact.maps).abs() <= largest / 2000).all()
    assert not torch.equal(found.maps, exact.maps)
    assert set(index(half)["method"]) == {"gradient"}


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_what_is_not_there_is_told_in_one_line(kept: api.Run, tmp_path: Path) -> None:
    plain = run(tmp_path / "run")
    assert not (plain.folder / "maps").exists()
    with pytest.raises(attribug.InputError, match=r"run: expected kept maps, found none; .*keep_maps=True"):
        plain.maps("gradient")
    again = kept_run(tmp_path / "run")
    for path in (again.folder / "maps").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(attribug.InputError, match="found a damaged file or none; remove it and run again with keep"):
        again.maps("gradient", seed=0)
    assert len(list((again.folder / "maps").glob("*.safetensors"))) == len(files(kept)), "reading moves nothing"
    (again.folder / INDEX).write_bytes(b"PAR1")
    with pytest.raises(attribug.InputError, match="expected an index of kept maps, found a damaged file"):
        again.maps("gradient", seed=0)


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("gradeint",), {}, r"method: expected one with kept maps, found 'gradeint'; did you mean 'gradient'\?"),
    (("gradient", "shakn"), {}, r"bug: .* found 'shakn'; did you mean 'shaken'\?"),
    (("gradient", "shaken", 2), {}, r"level: .* found '2'; expected one of: 1$"),
    (("gradient",), {"task": "digits"}, r"task: .* found 'digits'; expected one of: tiny$"),
    (("gradient",), {"side": "control"}, r"side: .* found 'control'; .*clean, contaminated, reference$"),
    (("gradient",), {}, r"seed: expected one of 0, 1, 2, found none$"),
    (("gradient",), {"seed": 7}, r"seed: expected one with kept maps, found 7; expected one of: 0, 1, 2$"),
    (("gradient",), {"seed": 0, "draw": 1}, r"draw: expected one with kept maps, found 1"),
    (("gradient",), {"seed": 0, "version": "clean_inputs"}, r"version: expected one with kept maps, found 'clean_inp"),
    (("gradient",), {"seed": 0, "contrast": 1}, r"contrast: expected one with kept maps, found 1; expected one of: 0$"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong[2][:12])
def test_wrong_questions_are_one_line(kept: api.Run, wrong: tuple[tuple[Any, ...], dict[str, Any], str]) -> None:
    arguments, options, said = wrong
    with pytest.raises(attribug.InputError, match=said) as told:
        kept.maps(*arguments, **options)
    assert "\n" not in str(told.value)


DRAWN = """
import torch
from attribug import bugs
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived

@bugs.register("drawn", stage="model", levels=(1.0,), primary="spearman@sum")
def drawn(task, level, seed, seeds):
    "Noise on every weight, twice; what the reference predicts is explained, in two versions."
    test, model = task.examples("test"), task.clean(seed)
    first, second = (Side(Derived(model, shake, 10 * seed + draw), test) for draw in (0, 1))
    others = tuple(Side(task.clean(s), test) for s in seeds if s != seed)
    return Contrast(first, others, others, "clean", "reference", truth="object", draws=(second,),
                    secondary={"itself": (Side(model, test),)}, extra={"clean_inputs": Examples.of(dark, base=test)})

def shake(model, stream):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(3 * torch.randn(parameter.shape, generator=stream))

def dark(*, base):
    data = base.load()
    return Data(data.inputs.flip(1) / 2, data.labels, data.ids, data.masks)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_draws_controls_and_versions_are_told_apart(tmp_path: Path) -> None:
    """Every row's file holds what explaining that side's model on that version gives, in every contrast that asks."""
    (tmp_path / "drawn.py").write_text(DRAWN)
    asked: dict[str, Any] = {"bugs": ["drawn"], "methods": ["gradient"], "metrics": ["spearman", "ccm"]}
    done = run(tmp_path / "run", str(tmp_path / "drawn.py"), keep_maps=True, **asked)
    assert done.complete
    assert set(index(done)["file"]) == files(done)
    told = 0
    for cell in done.plan.cells:
        contrast = cell.contrast
        assert contrast is not None
        sides = [("contaminated", draw, side) for draw, side in enumerate(contrast.contaminated_sides)]
        sides += [("itself", 0, contrast.secondary["itself"][0]), *(("clean", 0, side) for side in contrast.controls)]
        sides += [("reference", 0, side) for side in contrast.references]
        for (role, draw, side), version in product(sides, ("", "clean_inputs")):
            place: dict[str, Any] = {"seed": side.seed, "draw": draw, "version": version, "contrast": cell.seed}
            found = done.maps("gradient", "drawn", 1, task="tiny", side=role, **place)
            assert torch.equal(found.maps, explained(done, "gradient", contrast.seen(side, version), found))
            told += 1
    assert told == len(index(done)) == 3 * 7 * 2


def test_a_side_that_contrasts_ask_about_otherwise_is_ambiguous() -> None:
    """Its classes may be those that another contrast's reference predicts."""
    rows = pd.DataFrame({"contrast": [0, 2], "file": ["a", "a"], "ids": [[1], [1]], "targets": [[0], [0]]})
    assert len(_chosen(rows, "contrast", None)) == 1
    other = rows.assign(file=["a", "b"], targets=[[0], [1]])
    with pytest.raises(attribug.InputError, match=r"^contrast: expected one of 0, 2, found none$"):
        _chosen(other, "contrast", None)
    assert _chosen(other, "contrast", 2)["file"].tolist() == ["b"]


def test_nothing_is_indexed_where_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / INDEX).touch()
    write_index(Outcome(api.planned("smoke"), stored=Records(tmp_path)), tmp_path)
    assert not (tmp_path / INDEX).exists(), "an earlier run's"


def lines_of(table: Path) -> set[str]:
    return set((table / "results.csv").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_other_metrics_add_rows_to_a_run_that_keeps_its_maps(kept: api.Run, tmp_path: Path) -> None:
    """Whatever the order: the rows of both, as they were; the first command then finds nothing to do."""
    first = kept_run(tmp_path / "run")
    before = lines_of(first.folder)
    both = run(first.folder, changes={"chunk": 4}, metrics=["cosine"])
    after = lines_of(both.folder)
    assert before < after
    assert {line.split(",")[6] for line in after - before} == {"cosine"}
    again = kept_run(first.folder)
    assert again.outcome is None
    assert lines_of(again.folder) == after
    turned = run(tmp_path / "turned", changes={"chunk": 4}, metrics=["cosine"], keep_maps=True)
    assert lines_of(kept_run(turned.folder).folder) == after
    fresh = run(first.folder, changes={"chunk": 4}, metrics=["cosine"], fresh=True)
    assert set(fresh.results["metric"]) == {"cosine"}


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_rows_that_go_are_told(tmp_path: Path) -> None:
    """Where no maps were kept, or where the run is another one."""

    def notes(**options: Any) -> list[str]:
        asked = {"methods": ["gradient"], "bugs": ["shaken"]} | options
        return list(requested(SUITE, RunOptions.of({"out": str(tmp_path / "run"), "plugins": [TINY]} | asked)).notes)

    assert notes() == []
    run(tmp_path / "run", methods=["gradient"], bugs=["shaken"])
    assert notes() == []
    (gone,) = notes(metrics=["cosine"])
    assert "these rows go, since no maps were kept" in gone
    (other,) = notes(metrics=["cosine"], seeds=2)
    assert "other seeds: its tables are replaced" in other


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_metric_that_is_registered_no_more_stops_nothing(kept: api.Run, tmp_path: Path) -> None:
    """Its rows go, and a line says so; names with a post are what they are without one."""
    first = kept_run(tmp_path / "run")
    told = json.loads((first.folder / "run.json").read_text())
    told["suite"]["metrics"] = [*told["suite"]["metrics"], "of_a_plugin"]
    (first.folder / "run.json").write_text(json.dumps(told))
    asked: dict[str, Any] = {"changes": {"chunk": 4}, "plugins": [TINY], "out": str(first.folder), "device": "cpu"}
    request = requested(SUITE, RunOptions.of(asked))
    assert ["of_a_plugin go" in line for line in request.notes] == [True]
    assert requested(SUITE, RunOptions.of(asked | {"metrics": ["spearman@sum"]})).plan.measured == request.plan.measured
