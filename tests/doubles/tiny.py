"""Runs of the tiny suite: in this process, in a copy of one that has imported everything, or as users type it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attribug import api
from attribug.errors import InputError
from attribug.storage import folders

PLUGINS = Path(__file__).parents[1] / "plugins"
TINY, SUITE = str(PLUGINS / "tiny.py"), str(PLUGINS / "tiny.yaml")
HONEST = ("gradient", "random", "edges", "predictions")
"""Its methods."""
METRICS = ("spearman", "mass_accuracy", "total_variation")
PROMISED = ("results.csv", "scores.parquet", "analysis/*.csv")


def run(out: Path, *plugins: str, **options: Any) -> api.Run:
    """In this process."""
    return api.run(SUITE, plugins=[TINY, *plugins], out=out, device="cpu", **options)


def stopped_by(out: Path) -> InputError | None:
    """What stops a run, or None where nothing does."""
    try:
        run(out)
    except InputError as error:
        return error
    return None


def typed(*arguments: str, out: str = "run") -> list[str]:
    """The arguments of the command line."""
    return ["run", SUITE, "--plugin", TINY, "--out", out, *arguments]


def start(folder: Path, *arguments: str, out: str = "run", **environment: str) -> subprocess.Popen[str]:
    """As users type it, with two workers and a cache of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "attribug", *typed("--workers", "2", *arguments, out=out)], cwd=folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"ATTRIBUG_CACHE": str(folder / "cache")} | environment,
    )  # fmt: skip


def tables(run: Path, figures: bool = True) -> dict[str, bytes]:
    """Everything that a run promises to repeat."""
    names = (*PROMISED, *(["figures/*"] if figures else []))
    return {str(path.relative_to(run)): path.read_bytes() for name in names for path in sorted(run.glob(name))}


def promised(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same of files by their paths below a run's folder."""
    names = (*PROMISED, "figures/*")
    return {path: content for path, content in files.items() if any(Path(path).match(name) for name in names)}


def half_written(folder: Path) -> list[Path]:
    """Hidden files but locks."""
    hidden = [path for path in folder.rglob(".*") if path.is_file()]
    return [path for path in hidden if not path.name.endswith(folders.LOCK)]


def slow_plugin(folder: Path, body: str) -> str:
    """A plugin with a method `slow`."""
    path = folder / "slow.py"
    path.write_text(
        f"from attribug import methods\n\n@methods.register('slow', uses='slow')\ndef slow(query):\n    {body}\n"
    )
    return str(path)
