"""Whole runs whose folders, caches and models lie in S3: on several machines as on one."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
import safetensors.torch

from attribug import api
from attribug.running.progress import Silent
from attribug.storage import locations
from attribug.storage.models import Models
from attribug.storage.records import Records
from attribug.storage.tensors import Tensors
from doubles.places import put, there, with_s3
from doubles.served import Served, started
from doubles.tiny import SUITE, TINY, promised, tables, typed

SECONDS = 60.0  # that a test waits for a run to get somewhere


class Typed:
    """A command line in a process that a user would have started; `Served` is another one."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "attribug", *arguments], cwd=folder, env=os.environ | dict(environment), text=True,
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """With its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def ended(self) -> "subprocess.CompletedProcess[str]":
        out, err = self.process.communicate(timeout=240)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)


Machine = Callable[..., Typed | Served]


@pytest.fixture(params=["served", pytest.param("typed", marks=pytest.mark.survival)])
def machine(
    request: pytest.FixtureRequest, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    """Starts the command line on a machine of that name, which shares nothing but S3 with the others."""
    with_s3(monkeypatch, s3, tmp_path)
    cache = f"s3://bucket/{uuid.uuid4().hex}"

    def start(name: str, *arguments: str) -> Typed | Served:
        own = {"XDG_CACHE_HOME": str(tmp_path / name), "ATTRIBUG_CACHE": cache}
        return {"typed": Typed, "served": started}[request.param](arguments, tmp_path, environment=own)

    start.cache = cache  # type: ignore[attr-defined]
    return start


def ended(command: Typed | Served, code: int = 0) -> tuple[str, str]:
    answer = command.ended()
    assert answer.returncode == code, answer.stderr
    return answer.stdout, answer.stderr


def at(out: str, *more: str) -> list[str]:
    """The arguments of a run with one worker."""
    return typed("--workers", "1", *more, out=out)


@pytest.mark.slow
def test_a_run_in_s3_goes_on_anywhere(machine, tiny_run, tmp_path):
    url = f"s3://bucket/{uuid.uuid4().hex}/run"
    out, err = ended(machine("first", *at(url)))
    assert promised(there(url)) == tables(tiny_run)
    assert len([name for name in there(machine.cache) if name.endswith(".safetensors")]) == 3
    assert "training" in err
    assert f"10 rows in {url}/results.csv" in out
    assert str(tmp_path) not in out + err

    before = there(url)
    out, _ = ended(machine("second", *at(url)))
    assert f"nothing to do: {url} holds this run already" in out
    assert there(url) == before

    files, root = fsspec.core.url_to_fs(url)
    record = next(name for name in sorted(before) if name.endswith(".record"))
    damaged = bytearray(before[record])
    damaged[40] ^= 1
    files.pipe_file(f"{root}/{record}", bytes(damaged))
    files.rm_file(f"{root}/results.csv")  # or there is nothing to do
    _, err = ended(machine("third", *at(url)))
    assert "training" not in err
    now = there(url)
    assert promised(now) == promised(before)
    assert json.loads(now["run.json"])["damaged"] == [record]
    with locations.reading(url, "records", "galleries") as place:
        assert Records(place.folder).load(Path(record).stem) is not None
    assert {name: now[name] for name in before if name.endswith(".record") and name != record} == {
        name: before[name] for name in before if name.endswith(".record") and name != record
    }, "what was not damaged was not done again"

    out, _ = ended(machine("fourth", "compare", url, str(tiny_run)))
    assert "nothing worse in 10 rows" in out
    out, _ = ended(machine("fourth", "report", url))
    assert out == f"written: {url}/report.html\n"
    assert b"<html" in there(url)["report.html"]
    out, _ = ended(machine("fourth", "report", url, "--output", "page.html"))
    assert (tmp_path / "page.html").read_bytes() == there(url)["report.html"]


@pytest.mark.slow
def test_a_damaged_model_in_s3_is_trained_again_and_replaced(machine, tmp_path):
    ended(machine("first", *at("one")))
    before = there(machine.cache)
    damaged = next(name for name in sorted(before) if name.endswith(".safetensors"))
    put(f"{machine.cache}/{damaged}", before[damaged][:-1])
    _, err = ended(machine("second", *at("two")))
    assert "training" in err
    assert json.loads((tmp_path / "two" / "run.json").read_text())["damaged"] == [damaged]
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    assert models_of(there(machine.cache)) == models_of(before)
    (tmp_path / "three").mkdir()
    given = f"{machine.cache}/models"
    _, err = ended(machine("third", *at("three", "--models", given)))
    assert "training" not in err
    assert tables(tmp_path / "one") == tables(tmp_path / "three")


def models_of(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """What model files hold; their bytes may differ in the order of the facts in their headers."""
    models = {name: safetensors.torch.load(content) for name, content in files.items() if name.endswith(".safetensors")}
    return {name: {key: value.tolist() for key, value in tensors.items()} for name, tensors in models.items()}


@pytest.mark.slow
def test_killed_here_and_resumed_elsewhere(machine, tiny_run):
    url = f"s3://bucket/{uuid.uuid4().hex}/run"
    process = machine("first", *at(url))
    deadline = time.monotonic() + SECONDS
    while not any(name.endswith(".record") for name in there(url)):
        assert process.alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.ended()
    before = there(url)
    assert "results.csv" not in before
    _, err = ended(machine("second", *at(url)))
    now = there(url)
    assert "training" not in err
    assert promised(now) == tables(tiny_run)
    kept = [name for name in before if name.startswith("records/")]
    assert {name: now[name] for name in kept} == {name: before[name] for name in kept}


@pytest.mark.slow
def test_two_runs_at_once_share_a_remote_cache(machine, tiny_run, tmp_path):
    runs = [machine(name, *at(name + "-run")) for name in ("first", "second")]
    for run in runs:
        ended(run)
    facts = [json.loads((tmp_path / f"{name}-run" / "run.json").read_text()) for name in ("first", "second")]
    assert facts[0]["models"] == facts[1]["models"]
    for name in ("first", "second"):
        assert tables(tmp_path / f"{name}-run") == tables(tiny_run)
    found = there(machine.cache)
    (tmp_path / "all").mkdir()
    for name in (name for name in found if name.endswith(".safetensors")):
        (tmp_path / "all" / Path(name).name).write_bytes(found[name])
        assert Tensors(tmp_path / "all").load(Path(name).stem) is not None


class Planting(Silent):
    """Does something once a run knows what it has to do."""

    def __init__(self, plant: Callable[[], None]) -> None:
        self.plant = plant

    def begin(self, totals: Any) -> None:
        """Before the first job starts."""
        assert totals["training"] > 0
        self.plant()


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_model_that_another_sent_first_is_taken(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("ATTRIBUG_CACHE", f"memory://{uuid.uuid4().hex}")
    cache = locations.cache()
    suite, plugins = SUITE, [TINY]
    keys = list(api.planned(suite, plugins=plugins).trainings)
    url = f"memory://{uuid.uuid4().hex}"
    theirs = Tensors(tmp_path / "theirs")

    def plant() -> None:
        from attribug.models.training import initialised

        training = api.planned(suite, plugins=plugins).trainings[keys[0]]
        theirs.save(keys[0], initialised(training.recipe, 7).state_dict())
        cache.remote.write({f"models/{keys[0]}.safetensors": theirs.path(keys[0])})

    run = api.run(suite, out=url, plugins=plugins, reporter=Planting(plant))
    assert run.complete
    assert run.name == url
    told = {key: model["weights"] for key, model in run.facts["models"].items()}
    own = {key: model["weights"] for key, model in json.loads((tiny_run / "run.json").read_text())["models"].items()}
    assert told == own | {keys[0]: theirs.checksum(keys[0])}
    assert there(url)["results.csv"] != (tiny_run / "results.csv").read_bytes(), "they are explained"
    planted = theirs.path(keys[0]).read_bytes()
    assert Models(cache.folder).path(keys[0]).read_bytes() == planted
    assert there(f"{cache.remote.url}/models")[f"{keys[0]}.safetensors"] == planted
