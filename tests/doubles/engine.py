"""An engine without worker processes: for runs in which no process's death is the subject."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from attribug.errors import StorageError, one_line
from attribug.running import runner
from attribug.running.engine import JobFailed
from attribug.running.jobs import Done, Event, Job, Setup
from attribug.running.workbench import Workbench


class InProcess:
    """Does jobs at once and in this process, and answers as a worker does."""

    benches: dict[str, Workbench] = {}  # noqa: RUF012 - workers outlive a run that was stopped, for speed

    def __init__(self, setup: Setup, *_: object) -> None:
        key = str(setup)
        self.stopped = False
        self.bench = self.benches.get(key) or self.benches.setdefault(key, Workbench(setup))

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs any more."""

    def submit(self, job: Job, event: Event, timeout: float | None = None) -> Future[Done]:
        """A future that has ended."""
        answer: Future[Done] = Future()
        if self.stopped:  # others, which would run beside it, get no turn
            return answer
        try:
            answer.set_result(self.bench.do(job, event))
        except StorageError as error:
            self.stopped = True
            answer.set_exception(error)
        except (Exception, SystemExit) as error:
            answer.set_exception(JobFailed(one_line(error)))
        return answer


def without_workers(setup: Setup, *_: Any) -> InProcess:
    """Takes the place of the runner's choice of an engine."""
    return InProcess(setup)


@contextmanager
def used() -> Iterator[None]:
    """Runs of this process have no workers meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_engine_for", without_workers)
        patch.setattr(InProcess, "benches", {})
        yield
