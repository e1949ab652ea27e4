"""Pieces that break: each costs its own record and is named, or does no harm."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from attribug.query.query import Query
from attribug.results.schema import read_results
from doubles.served import started
from doubles.tiny import HONEST, METRICS, PLUGINS, run, start, typed

HOSTILE, PIECES = str(PLUGINS / "hostile.py"), str(PLUGINS / "hostile_pieces.py")
TIMEOUT = 8  # seconds of a record; honest ones need a fraction, also on a busy machine


GENTLE = (
    "raises_value_error", "raises_input_error", "raises_system_exit", "raises_unspeakable", "raises_no_space",
    "returns_none", "returns_lazy", "returns_fewer", "returns_double", "returns_meta", "returns_nan",
    "returns_some_nan", "returns_infinity", "returns_subclass", "changes_weights", "changes_inputs", "changes_targets",
    "removes_weights", "leaves_hooks", "hooks_and_asks", "trains", "seeds_globally", "leaves_settings",
)  # fmt: skip
"""Of every kind of hostile methods those that let their process live."""


@pytest.mark.slow
@pytest.mark.parametrize("names", [
    pytest.param(GENTLE, id="gentle"), pytest.param((), id="all", marks=pytest.mark.survival),
])  # fmt: skip
def test_a_zoo_of_methods(tiny_run: Path, tmp_path: Path, names: Sequence[str]) -> None:
    """All in one run with honest ones: every culprit fails alone and is named, or does no harm."""
    expected = runpy.run_path(HOSTILE, run_name="zoo")["EXPECTED"]
    given = ["--plugin", HOSTILE, "--timeout", str(TIMEOUT)]
    if names:
        expected = {name: expected[name] for name in names}
        answer = started(typed(*given, "--methods", ",".join((*HONEST, *names))), tmp_path).ended()
        code, err = answer.returncode, answer.stderr
    else:
        process = start(tmp_path, *given)
        _, err = process.communicate(timeout=900)
        code = process.returncode
    assert code == 3, err
    assert "Traceback" not in err
    rows, honest = (read_results(folder / "results.csv") for folder in (tmp_path / "run", tiny_run))
    same_rows(rows, honest)
    scores, undisturbed = (pd.read_parquet(folder / "scores.parquet") for folder in (tmp_path / "run", tiny_run))
    for method in HONEST:
        mine, theirs = (table[table["method"] == method].astype({"method": str}) for table in (scores, undisturbed))
        pd.testing.assert_frame_equal(
            mine.reset_index(drop=True), theirs.reset_index(drop=True), check_exact=True, check_categorical=False
        )
    named = [failure["method"] for failure in json.loads((tmp_path / "run" / "run.json").read_text())["failures"]]
    gradient = honest[honest["method"] == "gradient"].drop(columns="method").reset_index(drop=True)
    for method, wanted in expected.items():
        mine = rows[rows["method"] == method]
        assert len(mine) == len(gradient), method
        verdicts, reasons = set(mine["verdict"]), set(mine["reason"])
        if wanted.startswith("failed: "):
            assert verdicts == {"failed"}, method
            assert all(reason.startswith(wanted.removeprefix("failed: ")) for reason in reasons), (method, reasons)
            assert all(len(reason) < 600 and reason.isprintable() for reason in reasons), method
            assert named.count(method) == 3, f"{method}: once a seed"
        else:
            assert named.count(method) == 0
            assert not verdicts & {"detects", "inverted", "failed"}, (method, verdicts)
        if wanted == "honest":
            pd.testing.assert_frame_equal(mine.drop(columns="method").reset_index(drop=True), gradient)
        if method in {"returns_nan", "returns_some_nan"}:
            assert (mine["undefined"] > 0).all()
    print(f"faults: {len(expected)} methods × 3 seeds: {dict(Counter(w.split(':')[0] for w in expected.values()))}")
    assert len(expected) * 3 > (60 if names else 150)


@pytest.mark.parametrize("change", ["mode", "threads", "hook"])
def test_nobody_is_given_passes_of_a_changed_model(change: str) -> None:
    """Whoever asks while the model trains, torch is set otherwise, or all modules are hooked, does not answer for
    others."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 2)).eval()
    inputs = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    query, fresh = (Query(model, inputs, torch.zeros(4, dtype=torch.int64)) for _ in range(2))
    if change == "mode":
        model.train()
        changed = query.gradient()
        model.eval()
    elif change == "threads":
        torch.set_num_threads(threads + 1)
        changed = query.gradient() * 2  # at most last bits differ
        torch.set_num_threads(threads)
    else:
        handle = nn.modules.module.register_module_forward_hook(lambda module, given, outputs: outputs * 2)
        changed = query.gradient()
        handle.remove()
    with query.costing() as costing:
        maps = query.gradient()
    assert costing.cost.backward == 4
    assert not torch.equal(maps, changed)
    assert torch.equal(maps, fresh.gradient())
    before = query.passes.total.backward
    assert torch.equal(query.gradient(), maps)
    assert query.passes.total.backward == before, "the same model's are shared"


def same_rows(rows: pd.DataFrame, honest: pd.DataFrame, methods: Sequence[str] = HONEST) -> None:
    """The rows of honest methods and metrics on an honest bug and task are those of an undisturbed run."""
    place = (rows["task"] == "tiny") & (rows["bug"] == "shaken") & rows["metric"].isin(set(honest["metric"]))
    mine = rows[place & rows["method"].isin(methods)].reset_index(drop=True)
    theirs = honest[honest["method"].isin(methods)].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_metrics_that_break(tiny_run: Path, tmp_path: Path) -> None:
    """They cost their own rows."""
    broken = [f"metric_{name}" for name in
              ("raises", "is_full", "refuses", "of_one", "of_none", "complex", "huge", "nan", "spoils",
               "spoils_outputs", "masks")]  # fmt: skip
    done = run(tmp_path / "run", PIECES, metrics=[*broken, *METRICS],
               bugs=["shaken"], tasks=["tiny"])  # fmt: skip
    same_rows(done.results, read_results(tiny_run / "results.csv"))
    assert not done.complete
    reasons = done.results[done.results["verdict"] == "failed"].groupby("metric")["reason"].agg(set).to_dict()
    starts = {
        "raises": "ValueError: no good",
        "is_full": "OSError: [Errno 28]",
        "refuses": "InputError: not yours",
        "of_one": "MetricFault",
        "of_none": "MetricFault",
        "complex": "MetricFault",
        "huge": "RuntimeError",
    }
    assert set(reasons) == {f"metric_{name}" for name in starts}
    for name, beginning in starts.items():
        assert all(reason.startswith(beginning) for reason in reasons[f"metric_{name}"]), reasons
    undefined = done.results[done.results["metric"] == "metric_nan"]
    assert len(undefined)
    assert (undefined["undefined"] == 1).all()
    assert not {"detects", "inverted"} & set(done.results["verdict"])
    told = " ".join(failure["reason"] for failure in done.facts["failures"])
    assert all(f"metric_{name}" in told for name in starts)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "cache")
def test_bugs_that_break(tiny_run: Path, tmp_path: Path) -> None:
    broken = {
        "raises": "ValueError: no good", "gives_nothing": "TypeError: expected a Contrast", "mixes": "ValueError",
        "is_full": "OSError: [Errno 28]", "stops": "SystemExit", "reshapes": "", "checks_text": "AttributeError",
        "is_undefined": "outputs move: nan, expected ≥ 0.1",
    }  # fmt: skip
    done = run(tmp_path / "run", PIECES, bugs=["shaken", *(f"bug_{name}" for name in broken)], tasks=["tiny"],
               metrics=METRICS)  # fmt: skip
    same_rows(done.results, read_results(tiny_run / "results.csv"))
    assert not done.complete
    for name, beginning in broken.items():
        rows = done.results[done.results["bug"] == f"bug_{name}"]
        assert len(rows)
        assert set(rows["verdict"]) <= {"not taken" if name == "is_undefined" else "failed"}, rows
        assert all(reason.startswith(beginning) for reason in rows["reason"]), rows["reason"]
        named = [failure for failure in done.facts["failures"] if f" bug_{name} " in failure["cell"]]
        assert bool(named) == (name != "is_undefined")


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "cache")
def test_tasks_that_break(tiny_run: Path, tmp_path: Path) -> None:
    broken = {
        "is_full": "OSError: [Errno 28]",
        "refuses": "InputError: not yours",
        "raises": "ValueError: no good",
        "of_text": "",
        "of_other_labels": "IndexError",
    }
    undefined = ("of_nan", "diverges")
    done = run(tmp_path / "run", PIECES, tasks=["tiny", *(f"task_{name}" for name in (*broken, *undefined))],
               bugs=["shaken"], metrics=METRICS)  # fmt: skip
    same_rows(done.results, read_results(tiny_run / "results.csv"))
    assert not done.complete
    for name, beginning in broken.items():
        rows = done.results[done.results["task"] == f"task_{name}"]
        assert len(rows)
        assert set(rows["verdict"]) == {"failed"}
        assert all(reason.startswith(f"training: {beginning}") for reason in rows["reason"]), rows["reason"]
        assert any(f"task_{name} /" in failure["cell"] for failure in done.facts["failures"])
    for name in undefined:
        rows = done.results[done.results["task"] == f"task_{name}"]
        rows = rows[rows["method"].isin(["gradient", "predictions"])]  # the others do not ask the model
        assert len(rows)
        assert set(rows["verdict"]) == {"inconclusive"}
        assert (rows["undefined"] == 1).all()


@pytest.mark.survival
def test_pieces_that_end_their_worker(tiny_run: Path, tmp_path: Path) -> None:
    """A metric, a bug in one seed, and a task: each costs what rests on it."""
    process = start(tmp_path, "--plugin", PIECES, "--tasks", "tiny,ends_when_read", "--bugs", "shaken,ends_the_first",
                    "--metrics", ",".join((*METRICS, "ends_beside_outputs")),
                    "--methods", "gradient,predictions")  # fmt: skip
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    rows = read_results(tmp_path / "run" / "results.csv")
    same_rows(rows, read_results(tiny_run / "results.csv"), ["gradient"])
    failed = rows[rows["verdict"] == "failed"]
    assert failed["reason"].str.endswith("its worker ended with code 9").all()
    assert set(failed[failed["task"] == "ends_when_read"]["reason"]) == {"training: its worker ended with code 9"}
    places = {(row.task, row.bug, row.method) for row in failed.itertuples()}
    assert places >= {("tiny", "shaken", "predictions"), ("ends_when_read", "shaken", "gradient")}
    assert ("tiny", "shaken", "gradient") not in places
    failures = json.loads((tmp_path / "run" / "run.json").read_text())["failures"]
    assert sum("ends_the_first" in failure["cell"] and failure["method"] == "gradient" for failure in failures) == 1
    process = start(tmp_path, "--methods", "gradient,predictions")  # without them
    assert process.wait(200) == 0
    same_rows(read_results(tmp_path / "run" / "results.csv"), read_results(tiny_run / "results.csv"),
              ["gradient", "predictions"])  # fmt: skip
