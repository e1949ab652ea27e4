"""Command lines in processes of their own that need not import anything: they are copies of one that has."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from attribug.__main__ import main
from attribug.running import dry_run, runner
from attribug.running.engine import WorkerDied
from doubles import engine

IMPORTED = [
    "attribug.api", "attribug.conformance.checks", "attribug.reports.comparing", "attribug.reports.pages",
    "attribug.running.dry_run", "attribug.running.workbench", "attribug.tables.writing", "attribug.terminal.matrix",
    "captum.attr", "fsspec.implementations.local", "matplotlib.pyplot", "pytest",
    "scipy.stats", "skimage.metrics", "torchvision.models", "zennit.attribution",
]  # fmt: skip
"""What a run or a check comes to import; a name that is wrong costs time and nothing else."""
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(IMPORTED)


@dataclass(frozen=True)
class Served:
    """A command line at work."""

    process: BaseProcess
    arguments: tuple[str, ...]
    out: Path
    err: Path

    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """With -9."""
        self.process.kill()

    def ended(self, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """What it has said, once it has ended."""
        self.process.join(seconds)
        out, err = self.out.read_text(), self.err.read_text()
        shutil.rmtree(self.out.parent)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.arguments, seconds, out, err)
        return subprocess.CompletedProcess(self.arguments, self.process.exitcode, out, err)


def started(
    arguments: Sequence[str], folder: Path, *, environment: Mapping[str, str] | None = None, workers: bool = False,
    calibrated: bool = True,
) -> Served:  # fmt: skip
    """The command line in a folder, in a process of its own."""
    said = Path(tempfile.mkdtemp(prefix="said"))
    out, err = said / "out", said / "err"
    around = os.environ | dict(environment or {})
    options = {"workers": workers, "calibrated": calibrated}
    given = (tuple(arguments), str(folder), around, str(out), str(err), options)
    process = SERVER.Process(target=_serve, args=given)
    out.touch()
    err.touch()
    process.start()
    return Served(process, tuple(arguments), out, err)


def _serve(
    arguments: tuple[str, ...], folder: str, environment: dict[str, str], out: str, err: str, options: dict[str, bool]
) -> None:
    """The new process: says what the command line says, and ends as it does."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["attribug", *arguments]
    if not options["workers"]:
        runner._engine_for = engine.without_workers  # type: ignore[assignment]
    if not options["calibrated"]:
        dry_run._estimated = no_estimate  # type: ignore[assignment]
    main()


def no_estimate(*_: object) -> None:
    """Takes the place of a dry run's calibration: it tells what there is to do, at once, and not what it would take."""
    raise WorkerDied("not asked for")
