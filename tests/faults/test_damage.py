"""Runs that are killed at any moment, and damaged files: the same command goes on, and gives the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from doubles.engine import InProcess
from doubles.served import Served, started
from doubles.tiny import run, slow_plugin, start, tables, typed

KILLS = 24
DAMAGES = 12
pytestmark = pytest.mark.slow


def written(folder: Path) -> int:
    """Files that a run has begun or finished."""
    return sum(path.is_file() for path in folder.rglob("*"))


def expect_finished(folder: Path, tiny_run: Path) -> None:
    assert tables(folder / "run") == tables(tiny_run)
    hidden = {path.name for path in (folder / "run").rglob(".*") if path.is_file()}
    assert hidden <= {".lock"}, "nothing half-written is left"


@pytest.mark.survival
def test_killed_at_any_moment(tiny_run: Path, tmp_path: Path) -> None:
    """With -9, the whole group or the parent alone, soon after the next file has appeared: while it trains, checks,
    explains, scores or writes tables."""
    draw = random.Random(0)
    kills = 0
    while kills < KILLS:
        folder = tmp_path / f"try{kills}"
        folder.mkdir()
        while True:  # until it survives
            process = start(folder, "--workers", str(draw.choice([1, 2])))
            before, wanted = written(folder), draw.randint(1, 6)
            while process.poll() is None and written(folder) < before + wanted:
                time.sleep(0.01)
            time.sleep(draw.random() * 0.5)
            if process.poll() is not None:
                break
            if draw.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            kills += 1
        assert process.returncode == 0, process.stderr.read()  # type: ignore[union-attr]
        expect_finished(folder, tiny_run)
        shutil.rmtree(folder)


def own(folder: Path, *arguments: str) -> Served:
    """A run with a cache of its own."""
    return started(typed(*arguments), folder, environment={"ATTRIBUG_CACHE": str(folder / "cache")})


def test_killed_and_gone_on(tiny_run: Path, tmp_path: Path) -> None:
    """A run that does everything in its own process, killed again and again, each time with more files."""
    draw, kills = random.Random(0), 0
    while True:
        served = own(tmp_path)
        before, wanted = written(tmp_path), draw.randint(3, 20)
        while served.alive() and written(tmp_path) < before + wanted:
            time.sleep(0.002)
        if kills < 3:
            kills += served.alive()
            served.kill()
        answer = served.ended()
        if answer.returncode != -signal.SIGKILL:
            break
    assert answer.returncode == 0, answer.stderr
    assert kills > 1
    expect_finished(tmp_path, tiny_run)


def damage(path: Path, files: list[Path], draw: random.Random) -> None:
    """A flipped bit, a cut, a hole, no content, another file's content, or no file."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content)) if content else 0
    kind = draw.choice(["flip", "flip", "cut", "hole", "empty", "foreign", "gone"])
    if kind == "flip" and content:
        content[place] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        content = content[:place]
    elif kind == "hole":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    elif kind == "empty":
        content = bytearray()
    elif kind == "foreign":
        content = bytearray(
            draw.choice([other for other in files if other.suffix == path.suffix and other.exists()]).read_bytes()
        )
    path.write_bytes(bytes(content))
    if kind == "gone":
        path.unlink()


@pytest.mark.usefixtures("lone")
@pytest.mark.parametrize(("rounds", "workers"), [
    (2, False), pytest.param(8, True, marks=pytest.mark.survival),
], ids=["in one process", "with workers"])  # fmt: skip
def test_damaged_files_are_made_anew(tiny_run: Path, tmp_path: Path, cache: Path, rounds: int, workers: bool) -> None:
    """Records, galleries, checks, models, tables, figures, run.json: whatever is damaged, the tables come back."""

    def again() -> None:
        if workers:
            process = start(tmp_path)
            assert process.wait(120) == 0, process.stderr.read()  # type: ignore[union-attr]
        else:
            InProcess.benches.clear()  # they remember what they have read
            assert run(tmp_path / "run").complete

    again()
    draw, damaged = random.Random(1), 0
    for _ in range(rounds):
        stored = [path for name in ("run", "cache") for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        stored = [path for path in stored if path.parent.name != "damaged" and path.name[0] != "."]
        before = {path: path.read_bytes() for path in stored}
        for path in draw.sample(stored, DAMAGES):
            damage(path, stored, draw)
            damaged += path.exists() is False or path.read_bytes() != before[path]
        again()
        assert tables(tmp_path / "run") == tables(tiny_run)
    assert damaged > rounds * DAMAGES / 2


@pytest.mark.usefixtures("lone")
def test_damage_is_told(tmp_path: Path, cache: Path) -> None:
    run(tmp_path / "run")
    record = sorted((tmp_path / "run" / "records").glob("*.record"))[0]
    model = sorted((cache / "models").glob("*.safetensors"))[0]
    for path in (record, model):
        path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "run" / "results.csv").unlink()  # or there is nothing to do
    InProcess.benches.clear()
    run(tmp_path / "run")
    told = json.loads((tmp_path / "run" / "run.json").read_text())["damaged"]
    assert told == sorted([f"models/{model.name}", f"records/{record.name}"])
    for path in (record, model):
        assert (path.parent / "damaged" / path.name).exists()
        assert path.exists()


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    """The second says so and touches nothing."""
    slow = slow_plugin(tmp_path, "import time; time.sleep(2); return query.gradient()")
    first = own(tmp_path, "--plugin", slow, "--seeds", "1")
    while not (tmp_path / "run" / ".lock").exists():
        assert first.alive()
        time.sleep(0.05)
    answer = own(tmp_path).ended()
    assert answer.returncode == 2, answer.stderr
    assert "another run is writing there" in answer.stderr
    assert first.ended().returncode == 0
