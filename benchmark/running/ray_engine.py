"""The Ray engine: trainings, checks and blocks are tasks of a Ray cluster.

A task runs its job in a worker process of its own kind (`attribug.running.local_engine`, one worker), so that threads,
timeouts and reasons are those of a local run, and so are the numbers. Nodes share nothing: the weights that a job needs
travel to it through Ray's object store, and what it made travels back and is stored here.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from attribug.errors import InputError, StorageError, one_line
from attribug.running.engine import JobFailed, WorkerDied
from attribug.running.jobs import Block, Done
from attribug.running.local_engine import LocalEngine
from attribug.storage.files import make_folder, storing, write_atomically
from attribug.storage.models import Models

if TYPE_CHECKING:
    from attribug.running.jobs import Event, Job, Setup

PREFIX = "attribug-ray-"
RETRIES = 3
"""How often Ray starts a task again whose node was lost."""
Files = dict[str, bytes]
"""What a job made, by its path below the run's folder (`out/…`) or the cache (`cache/…`)."""


class RayEngine:
    """Runs jobs on a Ray cluster: one that listens at `address`, else one on this machine with `workers` processors.
    Use as a context: leaving it ends what still runs."""

    def __init__(self, setup: Setup, workers: int, needs: Callable[[Job], Sequence[str]]) -> None:
        """`needs`: keys of the trained models that a job rests on."""
        self._setup = setup
        self._needs = needs
        self._models, address = setup.models(), setup.options.address
        self._weights: dict[str, Any] = {}
        self._running: set[Any] = set()
        self._own = not ray.is_initialized()
        if self._own:
            options: dict[str, Any] = {"num_cpus": workers} if address is None else {"address": address}
            try:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = one_line(error)
                raise InputError(f"--address {address}: expected a Ray cluster, found none: {reason}") from error
        gpus = 1.0 / max(workers, 1) if setup.options.device == "cuda" else 0.0
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(perform)
        self._shared = ray.put(setup)

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        for task in list(self._running):
            ray.cancel(task, force=True)
        if self._own:
            ray.shutdown()
            _sweep()

    def submit(self, job: Job, event: Event, timeout: float | None = None) -> Future[Done]:
        """Queues a job: as `LocalEngine.submit`. Progress is told when the job is done."""
        keys = list(self._needs(job))
        task = self._task.remote(self._shared, job, timeout, keys, *[self._put(key) for key in keys])
        self._running.add(task)
        answer: Future[Done] = Future()

        def arrived(future: Future[Any]) -> None:
            self._running.discard(task)
            try:
                answer.set_result(self._keep(future.result(), event))
            except RayError as error:
                answer.set_exception(WorkerDied(f"its node was lost: {one_line(error)}"))
            except Exception as error:
                answer.set_exception(error)

        task.future().add_done_callback(arrived)
        return answer

    def _put(self, key: str) -> Any:
        """A model's file in Ray's object store, put there once."""
        if key not in self._weights:
            self._weights[key] = ray.put(self._models.path(key).read_bytes())
        return self._weights[key]

    def _keep(self, answer: tuple[str, Any, list[tuple[str, int]], Files], event: Event) -> Done:
        kind, content, events, files = answer
        for path, stored in files.items():
            place, _, name = path.partition("/")
            target = Path(getattr(self._setup, place)) / name
            make_folder(target.parent)
            write_atomically(target, partial(Path.write_bytes, data=stored))
        for stage, amount in events:
            event(stage, amount)
        if kind == "storage":
            raise StorageError(*content)
        if kind != "done":
            raise {"failed": JobFailed, "died": WorkerDied, "input": InputError}[kind](content)
        done: Done = content
        return done


def perform(
    setup: Setup, job: Job, timeout: float | None, keys: Sequence[str], *weights: bytes
) -> tuple[str, Any, list[tuple[str, int]], Files]:
    """Runs a job on a node: outcome (`done` with what it reports, else `failed`, `died`, `storage`, `input` with a
    reason), progress, and the files it made."""
    try:
        engine, folder = _bench(setup)
        models = Models(folder / "cache", None, setup.options.device)
        for key, content in zip(keys, weights, strict=True):
            path = models.path(key)
            if not path.exists():
                make_folder(path.parent)
                write_atomically(path, partial(Path.write_bytes, data=content))
    except StorageError as error:
        return "storage", error.args, [], {}
    before = _files(folder)
    events: list[tuple[str, int]] = []
    outcome: tuple[str, Any]
    try:
        outcome = "done", engine.submit(job, lambda stage, amount: events.append((stage, amount)), timeout).result()
    except StorageError as error:
        outcome = "storage", error.args
    except JobFailed as error:
        outcome = "failed", str(error)
    except WorkerDied as error:
        outcome = "died", str(error)
    except InputError as error:
        outcome = "input", str(error)
    given = {str(models.path(key).relative_to(folder)) for key in keys}  # loading one sets its time
    now = {path: written for path, written in _files(folder).items() if path not in given}
    made = {path: (folder / path).read_bytes() for path, written in now.items() if before.get(path) != written}
    if isinstance(job, Block):
        for place in (folder / "out").iterdir():  # records and galleries are of no more use here
            shutil.rmtree(place, ignore_errors=True)
    return *outcome, events, made


_BENCHES: dict[str, tuple[LocalEngine, Path]] = {}
"""This process's engine and folder, by run."""


def _bench(setup: Setup) -> tuple[LocalEngine, Path]:
    """The worker and the folder of this process, made for the first job of a run."""
    key = f"{setup.plan} {setup.out}"
    if key not in _BENCHES:
        for engine, folder in _BENCHES.values():
            engine.__exit__()
            shutil.rmtree(folder, ignore_errors=True)
        _BENCHES.clear()
        _sweep()
        with storing(Path(tempfile.gettempdir())):
            folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            for name in ("out", "cache"):
                (folder / name).mkdir()
        own = dataclasses.replace(
            setup,
            out=str(folder / "out"),
            cache=str(folder / "cache"),
            options=dataclasses.replace(setup.options, models=None),
        )
        _BENCHES[key] = LocalEngine(own, 1, folder / "workers.log"), folder
    return _BENCHES[key]


def _sweep() -> None:
    """Removes the folders of processes of this machine that are no more: Ray ends its workers without notice."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        try:
            os.kill(int(folder.name.removeprefix(PREFIX).partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError):
            continue


def _files(folder: Path) -> dict[str, int]:
    """When the files that jobs make were written, in nanoseconds, by path below a folder."""
    paths = [path for name in ("out", "cache") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths if path.name[0] != "."}
