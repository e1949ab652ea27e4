"""A worker process: `python -m attribug.running.worker`. Reads a setup and jobs from stdin, writes answers to stdout,
both as pickles between parent and child of one program. Dies with its parent."""

from __future__ import annotations

import ctypes
import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO

LOST_PARENT = 3
STRAY = 4
PROCESS = os.getpid()
PARENT_DEATH_SIGNAL = 1  # prctl(2)


def main() -> None:
    """Serves jobs until stdin ends."""
    if sys.platform == "linux":  # at once, whatever it is doing; elsewhere as soon as it lets another thread run
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a plugin prints must not mix with answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # whoever reads input must not take a job's
    jobs: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(source, jobs), daemon=True).start()
    setup = jobs.get()
    sys.path[:] = setup.pop("path")
    from attribug.errors import InputError, StorageError, one_line
    from attribug.running.jobs import Setup
    from attribug.running.options import RunOptions
    from attribug.running.workbench import Workbench

    try:
        bench = Workbench(Setup(**setup | {"options": RunOptions(**setup["options"])}))
    except InputError as error:
        _write(answers, ("input", str(error)))
        return
    except (Exception, SystemExit) as error:
        _write(answers, ("input", f"a worker cannot start: {one_line(error)}"))
        return
    _write(answers, ("ready", None))
    while True:
        job = jobs.get()
        answer: tuple[str, Any]
        try:
            answer = "done", bench.do(job, lambda stage, amount: _write(answers, ("event", (stage, amount))))
        except StorageError as error:
            answer = "storage", (str(error.args[0]), error.found)
        except BaseException as error:  # foreign code raises what it likes; interrupts never come here
            answer = "error", one_line(error)
        _write(answers, answer)


def _read(source: BinaryIO, jobs: queue.Queue[Any]) -> None:
    while True:
        try:
            jobs.put(pickle.load(source))
        except BaseException:  # the parent is gone, or what it sent cannot be read: no more will come either way
            os._exit(LOST_PARENT)


def _write(answers: BinaryIO, message: Any) -> None:
    if os.getpid() != PROCESS:  # a copy that a job has forked: its answer would be taken for the next job's
        os._exit(STRAY)
    try:
        pickle.dump(message, answers)
        answers.flush()
    except OSError:
        os._exit(LOST_PARENT)


if __name__ == "__main__":
    main()
