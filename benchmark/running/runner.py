"""Plan → outcome: schedules jobs on an engine and collects what they stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.errors import InputError
from attribug.running.jobs import Setup
from attribug.running.local_engine import LocalEngine
from attribug.running.progress import Silent
from attribug.running.schedule import Schedule
from attribug.storage.models import Models
from attribug.storage.records import Records

if TYPE_CHECKING:
    from attribug.plans.plan import Plan
    from attribug.running.engine import Engine
    from attribug.running.jobs import Job
    from attribug.running.options import RunOptions
    from attribug.running.outcome import Outcome
    from attribug.running.progress import Reporter


def run(
    plan: Plan,
    out: Path,
    cache: Path,
    options: RunOptions,
    reporter: Reporter | None = None,
    stored: Callable[[Job], object] = lambda job: None,
) -> Outcome:
    """Does what of a plan is not done yet; returns everything, stored earlier or now.

    `stored` hears of every job whose results are stored, before anything that rests on them starts.
    """
    reporter = reporter or Silent()
    setup = setup_of(plan, out, cache, options)
    started = time.perf_counter()
    models = Models(cache, options.models, plan.device)
    schedule = Schedule(plan, Records(out), models, options, stored)
    reporter.begin(schedule.totals())
    if schedule.waiting:
        with _engine_for(setup, options, out, schedule.needs) as engine:
            schedule.work(engine, reporter)
    reporter.end()
    schedule.outcome.trainings = {key: models.load_cost(key) for key in plan.trainings}
    found = {*schedule.outcome.damaged, *schedule.records.found_damaged, *models.found_damaged}
    schedule.outcome.damaged = sorted(found)
    schedule.outcome.weights = {key: models.checksum(key) for key in plan.trainings}
    schedule.outcome.seconds["wall"] = time.perf_counter() - started
    return schedule.outcome


def setup_of(plan: Plan, out: Path, cache: Path, options: RunOptions) -> Setup:
    """What workers are told of a run."""
    return Setup(
        suite=plan.suite.model_dump(),
        plan=plan.key,
        device=plan.device,
        out=str(out),
        cache=str(cache),
        models=None if options.models is None else str(options.models),
        fresh=options.fresh,
        keep_maps=options.keep_maps,
        plugins=options.plugins,
        functions=options.functions,
    )


def _engine_for(setup: Setup, options: RunOptions, out: Path, needs: Callable[[Job], Sequence[str]]) -> Engine:
    if options.engine == "local":
        return LocalEngine(setup, options.workers, out / "workers.log")
    try:
        from attribug.running.ray_engine import RayEngine
    except ImportError as error:
        raise InputError("--engine ray: expected Ray, which is not installed: pip install 'attribug[ray]'") from error
    return RayEngine(setup, options.workers, options.address, needs)
