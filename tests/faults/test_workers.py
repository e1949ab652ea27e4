"""Processes that are killed, interrupted, or cannot store: the run ends in time and in one line, and goes on later."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from attribug import api
from attribug.running.jobs import Setup, Train
from attribug.running.options import RunOptions
from attribug.running.workbench import Workbench
from attribug.storage.folders import cache_folder
from doubles.served import started
from doubles.tiny import (
    HONEST,
    METRICS,
    PLUGINS,
    SUITE,
    TINY,
    half_written,
    run,
    slow_plugin,
    start,
    tables,
    typed,
)

PIECES = str(PLUGINS / "hostile_pieces.py")
INTERRUPTED = "attribug: interrupted; the same command goes on from here"
SECONDS_TO_STOP = 5.0
KILLS = 20
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP)


def await_(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Waits until something has happened, while a process runs."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def state(pid: int) -> tuple[str, int]:
    """One letter and the parent's number of a process; Z (a zombie) where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "Z", 0
    return fields[0], int(fields[1])


def workers_of(pid: int) -> list[int]:
    """Worker processes that a process has started and that live."""
    children = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for child in children:
        letter, parent = state(child)
        if parent == pid and letter != "Z":
            with suppress(OSError):
                if b"attribug.running.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["vanishes", pytest.param("fills up", marks=pytest.mark.survival)])
def test_workers_that_cannot_store_stop_the_run(tiny_run: Path, tmp_path: Path, fault: str) -> None:
    """One line on stderr and exit code 2; the same command goes on."""
    slow = slow_plugin(tmp_path, "import time; time.sleep(1); return query.gradient()")
    records = tmp_path / "run" / "records"
    process = start(tmp_path, "--plugin", slow, "--methods", ",".join((*HONEST, "slow")))
    await_(process, lambda: len(list(records.glob("*.record"))) > 2)
    if fault == "vanishes":
        (tmp_path / "run").rename(tmp_path / "gone")
    else:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
        for worker in workers_of(process.pid):
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (100, 100))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    found = {"vanishes": "No such file or directory", "fills up": "File too large"}[fault]
    path = rf"{re.escape(str(tmp_path / 'run'))}/\S+"
    said = rf"attribug: {path}: cannot be written: {found}; the same command goes on .*"
    assert re.fullmatch(said, err.splitlines()[-1])
    assert "Traceback" not in err
    assert (tmp_path / "run").exists() == (fault != "vanishes")
    assert fault == "vanishes" or (not half_written(tmp_path / "run") and len(list(records.glob("*.record"))) > 2)
    if fault != "vanishes":
        assert start(tmp_path).wait(200) == 0
        assert tables(tmp_path / "run") == tables(tiny_run)


@pytest.mark.slow
@pytest.mark.parametrize("budgets", [(1, 0), pytest.param((5, 3, 0), marks=pytest.mark.survival)], ids=["one", "many"])
def test_workers_killed_at_any_moment(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budgets: Sequence[int]
) -> None:
    """From outside, with any signal, while they start, train, explain or store: the run ends all the same, and what it
    lacks comes with the next one."""
    draw, killed = random.Random(0), Counter[str]()
    endings = Counter[bool]()

    def strike(ended: threading.Event, budget: int) -> None:
        while budget and not ended.wait(draw.random()):
            workers = workers_of(os.getpid())
            if workers:
                victim, number = draw.choice(workers), draw.choice(SIGNALS)
                with suppress(ProcessLookupError):
                    os.kill(victim, number)
                    killed[signal.Signals(number).name] += 1
                    budget -= 1
                    if number == signal.SIGSTOP:
                        time.sleep(0.2)
                        os.kill(victim, signal.SIGKILL)

    while killed.total() < (1 if sum(budgets) == 1 else KILLS):
        folder = tmp_path / f"try{killed.total()}"
        monkeypatch.setenv("ATTRIBUG_CACHE", str(folder / "cache"))
        for budget in budgets:
            ended = threading.Event()
            killer = threading.Thread(target=strike, args=(ended, budget))
            killer.start()
            try:
                done = run(folder / "run", workers=2)
            finally:
                ended.set()
                killer.join()
            endings[done.complete] += 1
        assert done.complete
        assert tables(folder / "run") == tables(tiny_run)
        assert not half_written(folder / "run")
        shutil.rmtree(folder)
    print(f"faults: {killed.total()} workers killed: {dict(killed)}; runs that ended complete or not: {dict(endings)}")
    assert not workers_of(os.getpid())


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "starting": lambda folder: True,
    "training": lambda folder: any((folder / "cache" / "models").glob(".*.lock")),
    "storing models": lambda folder: any((folder / "cache" / "models").glob("*.safetensors")),
    "explaining": lambda folder: any((folder / "run" / "records").glob("*.record")),
    "writing tables": lambda folder: (folder / "run" / "scores.parquet").exists(),
    "drawing": lambda folder: (folder / "run" / "figures").exists(),
}


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: the run ends in time, says how to resume, and leaves no process behind."""
    workers = workers_of(process.pid)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == INTERRUPTED
    assert "Traceback" not in err
    assert took <= SECONDS_TO_STOP
    deadline = time.monotonic() + SECONDS_TO_STOP
    while any(state(worker)[0] != "Z" for worker in workers):
        assert time.monotonic() < deadline, "a worker has outlived its run"
        time.sleep(0.05)


@pytest.mark.survival
def test_interrupted_at_any_moment(tiny_run: Path, tmp_path: Path) -> None:
    """One run after the other goes on where the last one was stopped."""
    draw = random.Random(0)
    for name, reached in MOMENTS.items():
        process = start(tmp_path)
        if name == "starting":
            time.sleep(1.5)  # before that, it is Python's own start that is interrupted
        await_(process, lambda reached=reached: reached(tmp_path))  # type: ignore[misc]
        time.sleep(draw.random() * 0.2)
        interrupt(process)
    process = start(tmp_path)
    assert process.wait(200) == 0
    assert tables(tmp_path / "run") == tables(tiny_run)
    assert not half_written(tmp_path / "run")
    print(f"faults: {len(MOMENTS)} interrupts, {', '.join(MOMENTS)}")


@pytest.mark.survival
@pytest.mark.parametrize("body", [
    "import os, time; os.fork(); time.sleep(3600)",
    "sum(range(10**15))",
], ids=["sleeps twice", "in C"])  # fmt: skip
def test_interrupted_while_a_method_is_busy(tmp_path: Path, body: str) -> None:
    """Also where it never lets another thread run."""
    slow = slow_plugin(tmp_path, f"import pathlib; pathlib.Path('busy').touch(); {body}")
    process = start(tmp_path, "--plugin", slow, "--methods", "gradient,slow")
    await_(process, (tmp_path / "busy").exists)
    time.sleep(1)
    interrupt(process)
    assert not (tmp_path / "run" / "results.csv").exists()


@pytest.mark.survival
def test_whatever_swallows_an_interrupt(tmp_path: Path) -> None:
    """Code in the run's own process that goes on after Ctrl-C is ended."""
    (tmp_path / "deaf.py").write_text(
        "import pathlib, time\npathlib.Path('here').touch()\nwhile True:\n"
        "    try: time.sleep(3600)\n    except KeyboardInterrupt: pass\n"
    )
    process = start(tmp_path, "--plugin", "deaf.py")
    await_(process, (tmp_path / "here").exists)
    interrupt(process)


@pytest.mark.slow
def test_two_runs_with_one_cache(tmp_path: Path) -> None:
    """Nothing is trained twice, and the cost of a training is that of the run that did it."""
    arguments = ("--plugin", PIECES, "--tasks", "counted", "--bugs", "shaken", "--methods", ",".join(HONEST),
                 "--metrics", ",".join(METRICS))  # fmt: skip
    told = tmp_path / "trainings"
    around = {"TRAININGS": str(told), "ATTRIBUG_CACHE": str(tmp_path / "cache")}
    runs = [started(typed(*arguments, out=out), tmp_path, environment=around) for out in ("one", "two")]
    while not told.exists():
        assert runs[0].alive() or told.exists()
        time.sleep(0.005)
    for served in runs:
        answer = served.ended()
        assert answer.returncode == 0, answer.stderr
    assert len(told.read_text().splitlines()) == 3, "a training a seed"
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    costs = [pd.read_csv(tmp_path / out / "costs.csv").query("kind == 'training'") for out in ("one", "two")]
    pd.testing.assert_frame_equal(costs[0], costs[1])


@pytest.mark.usefixtures("in_process")
def test_a_wait_is_no_cost(tmp_path: Path, cache: Path) -> None:
    """A model that another run has trained meanwhile keeps its cost."""
    run(tmp_path / "run")
    (path, *_) = sorted((cache / "models").glob("*.json"))
    kept = path.read_bytes()
    plan = api.planned(SUITE, plugins=[TINY], device="cpu")
    options = RunOptions(device="cpu", plugins=(TINY,))
    setup = Setup(plan.suite.model_dump(), plan.key, str(tmp_path / "run"), str(cache_folder()), b"", options)
    epochs: list[int] = []
    Workbench(setup).do(Train(path.stem), lambda stage, amount: epochs.append(amount))
    assert path.read_bytes() == kept
    assert sum(epochs) == plan.trainings[path.stem].recipe.epochs
