"""Runs that are killed at any moment and go on: the same command, the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"
TINY = ["run", str(PLUGINS / "tiny.yaml"), "--plugin", str(PLUGINS / "tiny.py"), "--out", "run"]
KILLS = 24
ROUNDS, DAMAGES = 8, 12
pytestmark = pytest.mark.slow


def tables(run: Path) -> dict[str, bytes]:
    """Everything that a run promises to repeat."""
    names = ("results.csv", "scores.parquet", "analysis/*.csv", "figures/*")
    return {str(path.relative_to(run)): path.read_bytes() for name in names for path in run.glob(name)}


def start(folder: Path, workers: int) -> "subprocess.Popen[bytes]":
    """The run, in a process group of its own, with a cache of its own."""
    command = [sys.executable, "-m", "attribug", *TINY, "--workers", str(workers)]
    environment = os.environ | {"ATTRIBUG_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def written(folder: Path) -> int:
    """Files that a run has begun or finished."""
    return sum(path.is_file() for path in folder.rglob("*"))


def test_killed_at_any_moment(tiny_run: Path, tmp_path: Path) -> None:
    """With -9, the whole group or the parent alone, soon after the next file has appeared: while it trains, checks,
    explains, scores or writes tables."""
    draw = random.Random(0)
    kills = 0
    while kills < KILLS:
        folder = tmp_path / f"try{kills}"
        folder.mkdir()
        while True:  # until it survives
            process = start(folder, draw.choice([1, 2]))
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
        assert process.returncode == 0, process.stderr.read().decode()  # type: ignore[union-attr]
        assert tables(folder / "run") == tables(tiny_run)
        hidden = {path.name for path in (folder / "run").rglob(".*") if path.is_file()}
        assert hidden <= {".lock"}, "nothing half-written is left"
        shutil.rmtree(folder)


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
        content = bytearray(draw.choice([other for other in files if other.suffix == path.suffix]).read_bytes())
    path.write_bytes(bytes(content))
    if kind == "gone":
        path.unlink()


def test_damaged_files_are_made_anew(tiny_run: Path, tmp_path: Path) -> None:
    """Records, galleries, checks, models, tables, figures, run.json: whatever is damaged, the tables come back."""
    process = start(tmp_path, 2)
    assert process.wait(120) == 0
    draw, damaged = random.Random(1), 0
    for _ in range(ROUNDS):
        stored = [path for name in ("run", "cache") for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        stored = [path for path in stored if path.parent.name != "damaged" and path.name[0] != "."]
        before = {path: path.read_bytes() for path in stored}
        for path in draw.sample(stored, DAMAGES):
            damage(path, stored, draw)
            damaged += path.exists() is False or path.read_bytes() != before[path]
        process = start(tmp_path, 2)
        assert process.wait(120) == 0, process.stderr.read().decode()  # type: ignore[union-attr]
        assert tables(tmp_path / "run") == tables(tiny_run)
    assert damaged > ROUNDS * DAMAGES / 2


def test_damage_is_told(tiny_run: Path, tmp_path: Path) -> None:
    assert start(tmp_path, 1).wait(120) == 0
    record = sorted((tmp_path / "run" / "records").glob("*.record"))[0]
    model = sorted((tmp_path / "cache" / "models").glob("*.safetensors"))[0]
    for path in (record, model):
        path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "run" / "results.csv").unlink()  # or there is nothing to do
    assert start(tmp_path, 1).wait(120) == 0
    told = json.loads((tmp_path / "run" / "run.json").read_text())["damaged"]
    assert told == sorted([f"models/{model.name}", f"records/{record.name}"])
    for path in (record, model):
        assert (path.parent / "damaged" / path.name).exists()
        assert path.exists()


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    """The second says so and touches nothing; side by side with one cache, nothing is trained twice."""
    first = start(tmp_path, 1)
    while not (tmp_path / "run" / ".lock").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    second = start(tmp_path, 1)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2, err
    assert b"another run is writing there" in err
    assert first.wait(120) == 0
