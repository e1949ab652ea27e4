"""The journey of somebody's own model, typed in a folder: run, again, report, explain beside its verdicts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import attribug
from doubles import mine

QUICK = (
    "--methods", "gradient,random,edges,predictions", "--bugs", "reinit,decoy_patch", "--examples", "6",
    "--set", "levels.reinit=[all]", "--set", "levels.decoy_patch=[1.0]", "--set", "task_options.own.epochs=2",
)  # fmt: skip
MODEL = mine.TYPED


def typed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "attribug", *arguments]
    environment = os.environ | {"ATTRIBUG_CACHE": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_journey_as_typed(tmp_path: Path) -> None:
    folder = mine.written(tmp_path)
    first = typed(folder, "run", *MODEL, *QUICK)
    assert first.returncode == 0, first.stderr
    for told in ("the model is right on", "control: copies whose weights", "explained by: gradient", "own: own, "):
        assert told in first.stdout
    results = pd.read_csv(folder / "runs" / "own" / "results.csv", dtype={"level": str})
    whole = results[(results["bug"] == "reinit") & (results["metric"] == "spearman") & (results["post"] == "sum")]
    verdicts = whole.set_index("method")
    assert verdicts.loc["gradient", "verdict"] == "detects"
    assert (verdicts.loc[["random", "edges"], "effect"] == 0.5).all()
    assert set(verdicts["control"]) == {"perturbed"}
    written = (folder / "runs" / "own" / "results.csv").read_bytes()
    again = typed(folder, "run", *MODEL, *QUICK)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert (folder / "runs" / "own" / "results.csv").read_bytes() == written
    page = typed(folder, "report", "runs/own")
    assert page.returncode == 0, page.stderr
    assert "this model" in (folder / "runs" / "own" / "report.html").read_text()
    explained = typed(folder, "explain", *MODEL, "--methods", "gradient", "--most", "6", "--run", "runs/own")
    assert explained.returncode == 0, explained.stderr
    assert "● reinit all" in (folder / "explained" / "explained.html").read_text()
    weights = torch.load(folder / "net.pt")
    torch.save({name: value + 1 for name, value in weights.items()}, folder / "other.pt")
    other = [{"net.pt": "other.pt"}.get(part, part) for part in MODEL]
    for model, run, expected in (
        (other, "runs/own", "of other weights, code or output"),
        (MODEL, "nowhere", "no file"),
    ):
        refused = typed(folder, "explain", *model, "--methods", "gradient", "--run", run)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert expected in refused.stderr


LEARNT = {
    "methods": ["gradient", "predictions"], "metrics": ["spearman", "total_variation"], "bugs": ["label_flips"],
    "seeds": 2, "examples": 6, "changes": {"levels.label_flips": [0.2]},
}  # fmt: skip


@pytest.mark.slow
def test_two_workers_train_by_the_users_function_as_one_process_does(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mine.written(tmp_path)
    lists = [part for name in ("methods", "metrics", "bugs") for part in (f"--{name}", ",".join(LEARNT[name]))]  # type: ignore[arg-type]
    options = ("--seeds", "2", "--examples", "6", "--set", "levels.label_flips=[0.2]", "--workers", "2")
    away = typed(folder, "run", *MODEL, *lists, *options, "--fit", "fit.py:train", "--out", "away")
    assert away.returncode == 0, away.stderr
    assert "copies are trained by your function fit.py:train" in away.stdout
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ATTRIBUG_CACHE", str(folder / "here_too"))
    given = dict(zip(("model", "weights", "data", "pixels"), ("net.py:load", "net.pt", "photos", 12), strict=True))
    here = attribug.run("own", **given, **LEARNT, fit="fit.py:train", out="here")
    assert (folder / "away" / "results.csv").read_bytes() == (folder / "here" / "results.csv").read_bytes()
    assert (here.results["verdict"] != "not taken").all(), "numbers of models that it trained"
    there, trained = (sorted((folder / cache / "models").glob("*.safetensors")) for cache in ("cache", "here_too"))
    assert len(there) == len(trained) > 0
    for one, other in zip(there, trained, strict=True):
        assert one.name == other.name, "their keys"
        weights, same = load_file(one), load_file(other)
        assert all(torch.equal(value, same[name]) for name, value in weights.items())
    raised = attribug.run("own", **given, **LEARNT, fit="fit.py:raises", out="raised")
    (reason,) = {fault["reason"] for fault in raised.facts["failures"]}
    assert reason == "training: RuntimeError: your function fit.py:raises raises ArithmeticError: no luck"
