"""Runs that are killed at any moment and go on: the same command, the same bytes."""

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
        assert not [path for path in (folder / "run").rglob(".*") if path.is_file()], "nothing half-written is left"
        shutil.rmtree(folder)
