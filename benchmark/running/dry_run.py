"""A run that does not happen: what it would do, and, from a short calibration on this machine, what that would take."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attribug import tasks
from attribug.errors import Missing
from attribug.plans.plan import Cell, Plan
from attribug.running.engine import JobFailed, WorkerDied
from attribug.running.jobs import Block, Calibrate, Train, Write
from attribug.running.local_engine import LocalEngine
from attribug.running.schedule import Schedule
from attribug.storage.models import Models
from attribug.storage.records import Records

if TYPE_CHECKING:
    from attribug.running.estimate import Estimate
    from attribug.running.request import Request

LONGEST = 300.0  # seconds of a calibration; beyond, some method is endless


@dataclass(frozen=True)
class DryRun:
    """What a run would do and take."""

    plan: Plan
    trainings: int
    """Models that are not trained yet."""
    records: int
    """Records that are not stored yet."""
    missing: tuple[str, ...]
    """Data and models that are not there: how to get them."""
    workers: int
    estimate: Estimate | None
    """None where nothing is left to do, or it could not be told: see `reason`."""
    reason: str
    seconds: float
    """Of the calibration."""

    def lines(self) -> list[str]:
        """The same in words."""
        counts = ", ".join(f"{number} {what}" for what, number in self.plan.counts().items())
        to_do = f"to do: {self.trainings} trainings, {self.records} records"
        notes = [line for lines in self.plan.notes.values() for line in lines]
        lines = [*notes, f"suite {self.plan.suite.name}: {counts}", to_do]
        if self.estimate is not None:
            lines += _told(self.estimate, self.workers, self.seconds)
        elif self.reason:
            lines.append(f"no estimate: {self.reason}")
            if (cost := self.plan.suite.cost) is not None:
                lines.append(
                    f"elsewhere, {cost.basis} on {cost.machine}: {cost.cold_minutes:g} minutes, "
                    f"{cost.cached_minutes:g} with models, {cost.peak_gigabytes:g} GB a worker, "
                    f"{cost.disk_megabytes:g} MB on disk"
                )
        lines += [f"not measured: {reason}" for reason in self.plan.refusals]
        return [*lines, *_declined(self.plan), *self.missing]


def _declined(plan: Plan) -> list[str]:
    """Cells that nothing can be made of: all of a task that one reason keeps away in a line."""
    alike: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in plan.cells:
        if cell.verdict:
            alike.setdefault((cell.verdict, cell.task, cell.reason), []).append(cell)
    lines = []
    for (verdict, task, reason), cells in alike.items():
        places = ", ".join(dict.fromkeys(f"{cell.bug} {cell.level}" for cell in cells))
        seeds = dict.fromkeys(cell.seed for cell in cells)
        of = "" if len(seeds) == plan.suite.seeds else f" / seed {', '.join(map(str, seeds))}"
        lines.append(f"{verdict}: {task} / {places}{of}: {reason}")
    return lines


def _told(estimate: Estimate, workers: int, seconds: float) -> list[str]:
    processes = "1 worker" if workers == 1 else f"{workers} workers"
    return [
        f"estimate, from {seconds:.0f} s of calibration here: {_duration(estimate.wall)} with {processes}, "
        f"{_duration(estimate.critical)} with as many as can help",
        f"of processor time: training {_duration(estimate.training)}, explaining and scoring "
        f"{_duration(estimate.explaining)}, tables and figures {_duration(estimate.tables)}",
        f"memory: {estimate.worker_megabytes / 1000:.1f} GB a worker; disk: {estimate.run_megabytes:.0f} MB of "
        f"results, {estimate.model_megabytes:.0f} MB of models",
    ]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def dry_run(request: Request, out: Path, cache: Path, processes: int, write: Write) -> DryRun:
    """Looks at what is stored and changes nothing; the calibration takes `processes` workers of this machine, or as few
    as the run would have; `write` makes a run's tables."""
    plan, options = request.plan, request.options
    chosen = plan.suite.task_options
    absent = {name: tasks.get(name).absent_under(chosen.get(name, {})) for name in plan.suite.tasks}
    missing = [f"missing data: {name}: {reason}" for name, reason in absent.items() if reason]
    models = Models(cache, None if options.models is None else Path(options.models), plan.device, mine=False)
    schedule, reason = None, "data are missing" if missing else ""
    try:
        schedule = Schedule(plan, Records(out, mine=False), models, options)
    except Missing as error:
        missing.append(f"missing models: {error}")
        reason = "models are missing"
    waiting = {} if schedule is None else schedule.waiting
    estimate, started = None, time.perf_counter()
    if schedule is not None and waiting and not reason:
        try:
            estimate = _estimated(request, schedule, processes, write)
        except (JobFailed, WorkerDied) as error:
            reason = str(error)
    return DryRun(
        plan,
        trainings=sum(isinstance(job, Train) for job in waiting),
        records=sum(len(job.methods) for job in waiting if isinstance(job, Block)),
        missing=tuple(missing),
        workers=request.workers,
        estimate=estimate,
        reason=reason,
        seconds=time.perf_counter() - started,
    )


def _estimated(request: Request, schedule: Schedule, processes: int, write: Write) -> Estimate:
    from attribug.running.estimate import estimated

    before, jobs, processes = time.process_time(), tuple(schedule.waiting), min(processes, request.workers)
    with tempfile.TemporaryDirectory(prefix="attribug-") as name:
        folder = Path(name)
        untrained = replace(request, options=replace(request.options, models=None))
        with LocalEngine(untrained.setup(folder, folder / "cache"), processes, folder / "workers.log") as engine:
            started = time.perf_counter()
            asked = [Calibrate(jobs, None if number else write) for number in range(processes)]
            answers = [engine.submit(job, lambda stage, amount: None, LONGEST) for job in asked]
            first = next(iter(wait(answers, return_when=FIRST_COMPLETED).done)).result()
            startup = time.perf_counter() - started - first.seconds
            rates = defaultdict[str, list[float]](list)
            for answer in answers:
                for rate, value in (answer.result().figures or {}).items():
                    rates[rate].append(value)
    mean = {rate: sum(values) / len(values) for rate, values in rates.items()}
    return estimated(
        request.plan, schedule.waiting, mean | {"startup": startup}, workers=request.workers, before=before,
        keep_maps=request.options.keep_maps,
    )  # fmt: skip
