"""The local engine: a pool of threads, each with one worker process of its own that it replaces when it dies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.errors import InputError, StorageError
from attribug.running.engine import JobFailed, WorkerDied
from attribug.running.jobs import Done
from attribug.storage.files import storing

if TYPE_CHECKING:
    from attribug.running.jobs import Calibrate, Event, Job, Setup

SECONDS_TO_END = 5.0  # a worker whose pipe has closed is about to end
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
"""glibc keeps freed memory for the next tensor, unless the user sets otherwise: asking the system for fresh pages takes
longer than most of what is done with them."""


class LocalEngine:
    """Runs jobs in `workers` spawned processes with one thread each. Use as a context: leaving it ends the workers."""

    def __init__(self, setup: Setup, workers: int, log: Path) -> None:
        self._setup = setup
        self._log = log
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="attribug-worker")
        self._own = threading.local()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._running):
            _kill(process)
        self._pool.shutdown(wait=True)

    def submit(self, job: Job | Calibrate, event: Event, timeout: float | None = None) -> Future[Done]:
        """Queues a job. The future raises `JobFailed`, `WorkerDied` (also past `timeout` seconds of the
        job itself), `StorageError` where a worker cannot store what it made, or `InputError` where it refuses to
        start."""
        return self._pool.submit(self._serve, job, event, timeout)

    def _serve(self, job: Job | Calibrate, event: Event, timeout: float | None) -> Done:
        process = self._worker()
        expired = threading.Event()
        timer = threading.Timer(timeout or 0, _end, (process, expired))
        try:
            if process.stdin is None or process.stdout is None:
                raise WorkerDied("a worker has no pipes")
            pickle.dump(job, process.stdin)
            process.stdin.flush()
            if timeout is not None:
                timer.start()
            return self._answer(process, event)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self._drop(process)
            reason = f"timeout after {timeout:g} s" if expired.is_set() else _ending(process)
            raise WorkerDied(reason) from error
        finally:
            timer.cancel()

    def _answer(self, process: subprocess.Popen[bytes], event: Event) -> Done:
        while True:
            kind, content = pickle.load(process.stdout)  # type: ignore[arg-type]
            if kind == "event":
                event(*content)
            elif kind == "done":
                done: Done = content
                return done
            elif kind == "storage":
                raise StorageError(*content)
            else:
                raise JobFailed(content)

    def _worker(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None or process.poll() is not None:
            process = self._start()
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise WorkerDied("the run was stopped")
        with storing(self._log):
            log = self._log.open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "attribug.running.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, process_group=0,
                env={**KEPT_MEMORY, **os.environ, **ONE_THREAD},
            )  # fmt: skip
        self._running.add(process)
        threading.Thread(target=_end_children, args=(process.pid,), daemon=True).start()
        if self._closed:
            _kill(process)
        self._own.process = process
        setup = dataclasses.asdict(self._setup) | {"path": [path or os.getcwd() for path in sys.path]}
        try:
            pickle.dump(setup, process.stdin)  # type: ignore[arg-type]
            process.stdin.flush()  # type: ignore[union-attr]
            kind, content = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self._drop(process)
            raise WorkerDied(f"before its first job, {_ending(process)}") from error
        if kind == "input":
            raise InputError(content)
        return process

    def _drop(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)  # its own ending is the reason to report
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._running.discard(process)
        self._own.process = None


def _end(process: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a worker with all that it has forked."""
    if process.poll() is None:  # not yet reaped, so that the number is its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _end_children(worker: int) -> None:
    """Ends what a worker has forked as soon as it is gone itself: they hold its pipes open, and nobody awaits them."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return
    with contextlib.suppress(ChildProcessError):  # another thread has heard of its end first
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code is not None and code < 0:
        return f"its worker was ended by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    return f"its worker ended with code {code}"
