"""Plan → outcome: schedules jobs on an engine and collects what they stored."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.errors import InputError
from attribug.running.local_engine import LocalEngine
from attribug.running.progress import Silent
from attribug.running.schedule import Schedule
from attribug.storage.folders import SHARED
from attribug.storage.records import Records

if TYPE_CHECKING:
    from attribug.running.engine import Engine
    from attribug.running.jobs import Job, Setup
    from attribug.running.outcome import Outcome
    from attribug.running.progress import Reporter
    from attribug.running.request import Request


def run(
    request: Request,
    out: Path,
    cache: Path,
    reporter: Reporter | None = None,
    stored: Callable[[Job], object] = lambda job: None,
) -> Outcome:
    """Does what of a run's plan is not done yet; returns everything, stored earlier or now.

    `out`, `cache`: folders, the copies where places are remote. `stored` hears of every job whose results are stored,
    before anything that rests on them starts.
    """
    reporter = reporter or Silent()
    plan, setup = request.plan, request.setup(out, cache)
    started = time.perf_counter()
    models = setup.models()
    if request.options.fresh:  # of a run that was killed
        shutil.rmtree(out / SHARED, ignore_errors=True)
    schedule = Schedule(plan, Records(out), models, request.options, stored)
    reporter.begin(schedule.totals())
    if schedule.waiting:
        with _engine_for(setup, request.workers, out, schedule.needs) as engine:
            schedule.work(engine, reporter)
    shutil.rmtree(out / SHARED, ignore_errors=True)
    reporter.end()
    schedule.outcome.trainings = {key: models.load_cost(key) for key in plan.trainings}
    damaged = {*schedule.outcome.damaged, *schedule.records.found_damaged, *models.found_damaged}
    schedule.outcome.damaged = sorted(damaged)
    schedule.outcome.weights = {key: models.checksum(key) for key in plan.trainings}
    schedule.outcome.seconds["wall"] = time.perf_counter() - started
    return schedule.outcome


def _engine_for(setup: Setup, workers: int, out: Path, needs: Callable[[Job], Sequence[str]]) -> Engine:
    if setup.options.engine == "local":
        return LocalEngine(setup, workers, out / "workers.log")
    try:
        from attribug.running.ray_engine import RayEngine
    except ImportError as error:
        raise InputError("--engine ray: expected Ray, which is not installed: pip install 'attribug[ray]'") from error
    return RayEngine(setup, workers, needs)
