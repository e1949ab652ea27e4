"""Kept maps: what a folder holds is not explained again, and scores as if it were."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from attribug import methods
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe, Trained
from attribug.maps.kept import Explained, KeptMaps
from attribug.query.passes import Cost
from attribug.query.query import Query
from attribug.storage.tensors import Tensors

GRADIENT = methods.get("gradient")
COUNTED = """
from pathlib import Path
from attribug import methods

@methods.register("counted")
def counted(query, *, scale: float = 1.0):
    "The gradient; every call leaves a mark."
    with Path({marks!r}).open("a") as file:
        file.write("x")
    return query.gradient() * scale
"""
METRIC = """
from attribug import metrics

@metrics.register("distance", kind="similarity", bounds=(-1e9, 0.0), visible=0.1)
def distance(a, b):
    "Minus the mean absolute difference."
    return -(a.double() - b.double()).abs().flatten(1).mean(1)
"""


def nothing() -> Data:
    raise AssertionError("keys are told without data")


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


SIDE = Side(Trained(Examples("train", nothing), Recipe(network, 1), 0), Examples("test", nothing))


def query(inputs: Tensor, **changes: Any) -> Query:
    asked: dict[str, Any] = {"targets": torch.zeros(len(inputs), dtype=torch.int64), "seed": 1, "rows": 8}
    return Query(network(), inputs, **(asked | changes))


def never() -> Explained:
    raise AssertionError("explained again")


def explained(maps: Tensor) -> Explained:
    promised = torch.arange(float(len(maps)))
    return Explained(maps, promised, Cost(1.5, 40, 20), rows=4)


VALUES = st.floats(width=32) | st.sampled_from([0.0, -0.0, 65504.0, 1e30, -1e-30, float("nan"), float("inf")])
MAPS = arrays(np.float32, (3, 1, 2, 2), elements=VALUES)


@settings(deadline=None, max_examples=60)
@given(MAPS)
def test_maps_come_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    store = Tensors(tmp_path_factory.mktemp("maps"))
    maps, asked = torch.from_numpy(values), query(torch.rand(3, 1, 4, 3))
    first = KeptMaps(store, place="", keep=True).explained(GRADIENT, {}, SIDE, asked, lambda: explained(maps))
    again = KeptMaps(store, place="").explained(GRADIENT, {}, SIDE, asked, never)
    for found in (first, again):
        np.testing.assert_array_equal(found.maps.numpy(), values)
        assert found.promised is not None
        assert found.promised.tolist() == [0, 1, 2]
        assert (found.cost, found.rows) == (Cost(1.5, 40, 20), 4)


@settings(deadline=None, max_examples=60)
@given(MAPS)
def test_half_precision_is_relative_to_each_map(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    """Kept or not, the maps are the same; they differ from the given ones by a part in 2,000 of the largest value."""
    store = Tensors(tmp_path_factory.mktemp("maps"))
    maps, asked = torch.from_numpy(values), query(torch.rand(3, 1, 4, 3))
    rounding = KeptMaps(store, place="", precision="float16")
    unkept = rounding.explained(GRADIENT, {}, SIDE, asked, lambda: explained(maps))
    assert not list(store.folder.glob("*"))
    kept = KeptMaps(store, place="", precision="float16", keep=True)
    stored = kept.explained(GRADIENT, {}, SIDE, asked, lambda: explained(maps))
    again = kept.explained(GRADIENT, {}, SIDE, asked, never)
    for found in (stored, again):
        np.testing.assert_array_equal(found.maps.numpy(), unkept.maps.numpy())
    for one, other in zip(values, unkept.maps.numpy(), strict=True):
        finite = np.isfinite(one)
        np.testing.assert_array_equal(one[~finite], other[~finite])
        largest = np.abs(one[finite]).max(initial=0)
        error = np.abs(one[finite].astype(float) - other[finite].astype(float))
        assert (error <= largest / 2000 + 1e-44).all()


def test_probabilities_are_never_rounded(tmp_path: Path) -> None:
    predictions, values = methods.get("predictions"), torch.tensor([[1 / 3, 2 / 3]])
    kept = KeptMaps(Tensors(tmp_path), place="", precision="float16")
    found = kept.explained(predictions, {}, SIDE, query(torch.rand(1, 1, 4, 3)), lambda: explained(values))
    assert torch.equal(found.maps, values)


OTHER_EXAMPLES = replace(SIDE, examples=Examples("other", nothing))
OTHER_MODEL = replace(SIDE, model=Trained(Examples("train", nothing), Recipe(network, 1), 1))
ZEROS, INPUTS = torch.zeros(2, dtype=torch.int64), torch.ones(2, 1, 4, 3)
DIFFERENT: list[dict[str, Any]] = [
    {"method": methods.get("input_x_gradient")},
    {"method": replace(methods.get("gradient"), name="the_same_function")},
    {"parameters": {"samples": 3}},
    {"side": OTHER_EXAMPLES},
    {"side": OTHER_MODEL},
    {"query": query(INPUTS, targets=ZEROS + 1)},
    {"query": query(INPUTS, ids=torch.tensor([0, 2]))},
    {"query": query(INPUTS, seed=2)},
    {"query": query(INPUTS, rows=4)},
    {"place": "another machine"},
    {"precision": "float16"},
]


@pytest.mark.parametrize("change", DIFFERENT, ids=lambda change: str(next(iter(change.items()))[:1]))
def test_whatever_determines_maps_tells_them_apart(tmp_path: Path, change: dict[str, Any]) -> None:
    """Found under what they were stored under; explained under anything else."""
    store, maps = Tensors(tmp_path), torch.rand(2, 1, 4, 3)

    def ask(explain: Callable[[], Explained], **changed: Any) -> Explained:
        told = {"method": GRADIENT, "parameters": {}, "side": SIDE, "query": query(INPUTS)}
        told |= {"place": "", "precision": "float32"} | changed
        place, precision = told.pop("place"), told.pop("precision")
        kept = KeptMaps(store, place=place, precision=precision, keep=True)
        return kept.explained(**told, explain=explain)

    ask(lambda: explained(maps))
    ask(never)
    asked = []
    ask(lambda: asked.append(1) or explained(maps), **change)
    assert asked == [1]


@pytest.fixture
def plugins(tmp_path: Path) -> list[str]:
    """A method that counts its calls, and a metric."""
    (tmp_path / "counted.py").write_text(COUNTED.format(marks=str(tmp_path / "marks")))
    (tmp_path / "distance.py").write_text(METRIC)
    return [str(tmp_path / "counted.py"), str(tmp_path / "distance.py")]


@pytest.mark.slow
def test_a_new_metric_explains_nothing(attribug: Any, tmp_path: Path, plugins: list[str]) -> None:
    """Its rows, and all others, are those of a run that explains; --fresh explains again; a damaged file is told."""
    suite = str(Path(__file__).parents[1] / "plugins" / "tiny.yaml")

    def run(out: str, *more: str) -> dict[str, Any]:
        answer = attribug("run", suite, "--out", out, "--plugin", plugins[0], *more, tiny=True)
        assert answer.returncode == 0, answer.stderr
        told: dict[str, Any] = json.loads((tmp_path / out / "run.json").read_text())
        return told

    def calls() -> int:
        return (tmp_path / "marks").stat().st_size

    assert run("plain")["maps_kept"] is False
    plain = calls()
    assert plain == 3 + 3, "clean and shaken models: what several cells ask is explained once, whoever asks"
    assert run("kept", "--keep-maps", "--workers", "1")["maps_kept"] is True
    kept = calls() - plain
    assert kept == plain
    assert (tmp_path / "kept" / "results.csv").read_bytes() == (tmp_path / "plain" / "results.csv").read_bytes()
    before = calls()
    run("kept", "--plugin", plugins[1])
    assert calls() == before
    run("other", "--plugin", plugins[1])
    assert "distance" in (tmp_path / "kept" / "results.csv").read_text()
    for table in ("results.csv", "scores.parquet"):
        assert (tmp_path / "kept" / table).read_bytes() == (tmp_path / "other" / table).read_bytes()
    files = sorted((tmp_path / "kept" / "maps").glob("*.safetensors"))
    for path in files:
        path.write_bytes(path.read_bytes()[:-4])
    before = calls()
    told = run("kept", "--set", "metrics=[spearman,pearson,mass_accuracy,total_variation]")
    assert set(told["damaged"]) <= {f"maps/{path.name}" for path in files}
    assert len(told["damaged"]) > len(files) / 2, "all that had to be scored again"
    assert calls() > before
    before = calls()
    run("kept", "--fresh", "--keep-maps")
    assert calls() > before


@pytest.mark.slow
def test_maps_of_a_finished_run_are_made_when_asked_for(attribug: Any, tmp_path: Path, plugins: list[str]) -> None:
    suite = str(Path(__file__).parents[1] / "plugins" / "tiny.yaml")
    keep, half, tables = ["--keep-maps"], ["--set", "maps=float16"], []
    for more in ([], keep, keep, half, [*half, *keep]):
        answer = attribug("run", suite, "--out", "run", *more, tiny=True)
        assert answer.returncode == 0, answer.stderr
        tables.append((answer.stdout.count("nothing to do"), (tmp_path / "run" / "results.csv").read_bytes()))
    assert [done for done, _ in tables] == [0, 0, 1, 0, 0]
    exact, half = {table for _, table in tables[:3]}, {table for _, table in tables[3:]}
    assert (len(exact), len(half)) == (1, 1)
    assert exact != half
