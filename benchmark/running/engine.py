"""Engines: where jobs run, and how they end badly."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from attribug.running.jobs import Done, Event, Job


class Engine(AbstractContextManager["Engine"], Protocol):
    """Where jobs run. Leaving it ends what still does."""

    def submit(self, job: Job, event: Event, timeout: float | None = None) -> Future[Done]:
        """Queues a job. The future raises `JobFailed`, `WorkerDied` (also past `timeout` seconds of the job itself), or
        `InputError` where a worker refuses to start."""


class JobFailed(Exception):
    """A job raised: the message is its reason."""


class WorkerDied(Exception):
    """A worker ended, or was ended, in the middle of a job."""
