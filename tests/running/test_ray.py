"""The Ray engine on a real cluster of two nodes: the tables of a local run, also when a node is lost."""

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402
from ray.exceptions import RayError  # noqa: E402

from attribug.running import ray_engine  # noqa: E402
from attribug.running.jobs import Block  # noqa: E402
from doubles import mine  # noqa: E402
from doubles.engine import InProcess  # noqa: E402
from doubles.tiny import run, tables, typed  # noqa: E402

HANGS = 900  # seconds after which a run is taken to hang; a busy machine takes minutes


@pytest.fixture
def cluster():
    """A head that does no work, and two nodes of one processor."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        started.add_node(num_cpus=1)
    yield started
    started.shutdown()


def start(cluster: Cluster, folder: Path, *more: str) -> "subprocess.Popen[str]":
    """A run with a cache of its own, which must train."""
    command = [sys.executable, "-m", "attribug", *typed(), "--engine", "ray", "--address", cluster.address, *more]
    environment = os.environ | {"ATTRIBUG_CACHE": str(folder / "cache")}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **piped)


class Ended:
    """A task that has ended, or was lost with its node."""

    def __init__(self, answer: Any, lost: bool) -> None:
        self.answer, self.lost = answer, lost

    def future(self) -> "Future[Any]":
        answer: Future[Any] = Future()
        if self.lost:
            answer.set_exception(RayError("node 7 is gone"))
        else:
            answer.set_result(self.answer)
        return answer


@pytest.mark.slow
@pytest.mark.parametrize("losing", [False, True], ids=["all nodes stay", "a node is lost"])
def test_what_travels_to_tasks_and_back_gives_the_same_tables(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losing: bool
) -> None:
    """Setups, jobs, weights and files, without the cluster: tasks are calls. A block that is lost is done again, one
    method at a time."""
    lost: list[Block] = []

    def task(function: Any, setup: Any, job: Any, *given: Any) -> Ended:
        if losing and not lost and isinstance(job, Block) and len(job.methods) > 1:
            lost.append(job)
            return Ended(None, True)
        return Ended(function(setup, job, *given), False)

    def remote(**_: Any) -> Any:
        return lambda function: SimpleNamespace(remote=partial(task, function))

    double = SimpleNamespace(is_initialized=lambda: True, put=lambda value: value, remote=remote)
    monkeypatch.setattr(ray_engine, "ray", double)
    monkeypatch.setattr(ray_engine, "LocalEngine", InProcess)
    monkeypatch.setattr(ray_engine, "_BENCHES", {})
    monkeypatch.setattr(InProcess, "benches", {})
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "cache"))
    assert run(tmp_path / "run", engine="ray").complete
    assert tables(tmp_path / "run") == tables(tiny_run)
    assert len(list((tmp_path / "cache" / "models").glob("*.safetensors"))) == 3
    assert len(lost) == losing
    ((_, folder),) = ray_engine._BENCHES.values()
    shutil.rmtree(folder)


@pytest.mark.survival
def test_tables_are_those_of_a_local_run(cluster: Cluster, tiny_run: Path, tmp_path: Path) -> None:
    process = start(cluster, tmp_path)
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, err
    assert tables(tmp_path / "run") == tables(tiny_run)
    assert len(list((tmp_path / "cache" / "models").glob("*.safetensors"))) == 3


@pytest.mark.survival
def test_a_lost_node_costs_no_row(cluster: Cluster, tiny_run: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "from attribug import methods\n\n@methods.register('slow')\ndef slow(query):\n"
        "    import time\n    time.sleep(1)\n    return query.gradient()\n"
    )
    process = start(cluster, tmp_path, "--plugin", str(slow))
    records = tmp_path / "run" / "records"
    deadline = time.monotonic() + HANGS
    while not list(records.glob("*.record")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    lost = cluster.worker_nodes.copy().pop()
    threading.Thread(target=cluster.remove_node, args=(lost, False)).start()  # killed, not asked
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, err
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert [line for line in rows if ",slow," not in line] == (tiny_run / "results.csv").read_text().splitlines()
    assert any(",slow," in line for line in rows)


@pytest.mark.survival
def test_an_own_model_travels_to_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """With the data, and the function that trains it: nodes share no folder with whoever starts the run. The table is
    that of a local run."""
    mine.written(tmp_path)
    fast = (
        "--methods", "gradient,random", "--bugs", "reinit,label_flips", "--examples", "6", "--seeds", "2", "--set",
        "levels.reinit=[all]", "--set", "levels.label_flips=[0.2]", "--fit", "fit.py:train",
    )  # fmt: skip
    command = [sys.executable, "-m", "attribug", "run", *mine.TYPED, *fast]
    for place, more in (("local", []), ("away", ["--engine", "ray", "--address", cluster.address])):
        environment = os.environ | {"ATTRIBUG_CACHE": str(tmp_path / f"cache {place}")}  # either trains
        answer = subprocess.run(
            [*command, "--out", place, *more], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=HANGS,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "away" / "results.csv").read_bytes() == (tmp_path / "local" / "results.csv").read_bytes()
