"""Plan → records → tables: schedules jobs on an engine, survives their failures, collects what they stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from attribug import plan as planning
from attribug.contracts import trainings
from attribug.engines.jobs import Block, Done, Event, Job, Measure, Setup, Train
from attribug.engines.local import JobFailed, LocalEngine, WorkerDied
from attribug.plan import Cell, Plan
from attribug.registry import InputError, Missing
from attribug.scoring import Record
from attribug.store import Models, Records
from attribug.suite import Suite

Stage = str


class Reporter(Protocol):
    """Hears how a run gets on."""

    def begin(self, totals: Mapping[Stage, int]) -> None:
        """The amount of work by stage: training, explaining, scoring."""

    def advance(self, stage: Stage, amount: int) -> None:
        """Some of it is done."""

    def end(self) -> None:
        """No more will come."""


class Silent:
    """Says nothing."""

    def begin(self, totals: Mapping[Stage, int]) -> None:
        """Ignored."""

    def advance(self, stage: Stage, amount: int) -> None:
        """Ignored."""

    def end(self) -> None:
        """Ignored."""


@dataclass(frozen=True)
class Options:
    """How to run; none of these changes a number."""

    engine: str = "local"
    address: str | None = None
    workers: int = 1
    timeout: float | None = None
    fresh: bool = False
    keep_maps: bool = False
    models: Path | None = None
    plugins: tuple[str, ...] = ()
    functions: bytes = b""


@dataclass
class Outcome:
    """What a run has produced, by cell number and method name."""

    plan: Plan
    figures: dict[int, dict[str, float]] = field(default_factory=dict)
    records: dict[tuple[int, str], Record] = field(default_factory=dict)
    """Without their scores, which may be more than memory holds: see `scores`."""
    images: dict[tuple[int, str], int] = field(default_factory=dict)
    """Examples that a record has scores of."""
    stored: Records | None = None
    """Where scores are."""
    failures: dict[tuple[int, str], str] = field(default_factory=dict)
    """Reasons by cell and method; `""` as method: the whole cell."""
    trainings: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each training cost, now or earlier: seconds, peak_megabytes."""
    weights: dict[str, str] = field(default_factory=dict)
    """Checksum of each trained model's weights."""
    damaged: list[str] = field(default_factory=list)
    """Stored files that were not what was written: set aside, and made anew."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of the run, and processor time of each stage."""
    jobs: int = 0
    """Jobs that had to be done."""

    @property
    def faults(self) -> list[tuple[int, str, str]]:
        """Cell, method (`""`: all) and reason of everything that failed, metrics included."""
        metrics = [
            (number, method, f"{name}: {reason}")
            for (number, method), record in self.records.items()
            for name, reason in record.failed_metrics.items()
        ]
        cells = [(n, "", cell.reason) for n, cell in enumerate(self.plan.cells) if cell.verdict == "failed"]
        return sorted([*((n, m, reason) for (n, m), reason in self.failures.items()), *metrics, *cells])

    def keep(self, number: int, method: str, record: Record) -> None:
        """Takes a stored record."""
        self.images[number, method] = record.scores["example"].nunique()
        self.records[number, method] = replace(record, scores=record.scores.head(0).copy())

    def scores(self, number: int, method: str) -> pd.DataFrame:
        """A record's scores, as they are stored.

        Raises:
            InputError: they are no longer there.
        """
        key = self.plan.record_key(self.plan.cells[number], method)
        record = self.stored.load(key) if self.stored is not None else None
        if record is None:
            name = self.plan.cells[number].name
            raise InputError(f"{name} / {method}: expected a stored record, found none; run the same command again")
        return record.scores

    def took(self, number: int) -> bool:
        """Whether a cell's checks all hold."""
        return not self.failed_checks(number) and number in self.figures

    def failed_checks(self, number: int) -> list[str]:
        """The checks of a cell that do not hold, with figure and bound."""
        contrast = self.plan.cells[number].contrast
        figures = self.figures.get(number, {})
        return [
            f"{check.name}: {figures[check.name]:.3g}, expected {check.bound}"
            for check in (contrast.checks if contrast is not None else ())
            if check.name in figures and not check.holds(figures[check.name])
        ]


def run(
    plan: Plan,
    out: Path,
    cache: Path,
    options: Options,
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
        with _engine(setup, options, out, schedule.needs) as engine:
            schedule.work(engine, reporter)
    reporter.end()
    schedule.outcome.trainings = {key: models.load_cost(key) for key in plan.trainings}
    found = {*schedule.outcome.damaged, *schedule.records.found_damaged, *models.found_damaged}
    schedule.outcome.damaged = sorted(found)
    schedule.outcome.weights = {key: models.checksum(key) for key in plan.trainings}
    schedule.outcome.seconds["wall"] = time.perf_counter() - started
    return schedule.outcome


def setup_of(plan: Plan, out: Path, cache: Path, options: Options) -> Setup:
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


class Engine(AbstractContextManager["Engine"], Protocol):
    """Where jobs run. Leaving it ends what still does."""

    def submit(self, job: Job, event: Event, timeout: float | None = None) -> Future[Done]:
        """Queues a job. The future raises `JobFailed`, `WorkerDied` (also past `timeout` seconds of the job itself), or
        `InputError` where a worker refuses to start."""


def _engine(setup: Setup, options: Options, out: Path, needs: Callable[[Job], Sequence[str]]) -> Engine:
    if options.engine == "local":
        return LocalEngine(setup, options.workers, out / "workers.log")
    try:
        from attribug.engines.ray import RayEngine
    except ImportError as error:
        raise InputError("--engine ray: expected Ray, which is not installed: pip install 'attribug[ray]'") from error
    return RayEngine(setup, options.workers, options.address, needs)


class Schedule:
    """Jobs with what they wait for. A job starts when all it needs is there; a failure ends what depends on it."""

    def __init__(
        self,
        plan: Plan,
        records: Records,
        models: Models,
        options: Options,
        stored: Callable[[Job], object] = lambda job: None,
    ) -> None:
        self.plan = plan
        self.records = records
        self.options = options
        self.stored = stored
        self.outcome = Outcome(plan, stored=records)
        self.waiting: dict[Job, set[Job]] = {}
        self._plan_jobs(models)
        self.outcome.jobs = len(self.waiting)

    def totals(self) -> dict[Stage, int]:
        """Epochs, sides × methods and examples × methods to come."""
        totals = {"training": 0, "explaining": 0, "scoring": 0}
        for job in self.waiting:
            if isinstance(job, Train):
                totals["training"] += self.plan.trainings[job.key].recipe.epochs
            elif isinstance(job, Block):
                explaining, scoring = self._block_work(job)
                totals["explaining"] += explaining
                totals["scoring"] += scoring
        return totals

    def needs(self, job: Job) -> list[str]:
        """Keys of the trained models that a job rests on."""
        if isinstance(job, Train):
            return [below.key for below in trainings(self.plan.trainings[job.key])[:-1]]
        contrast = self.plan.cells[job.cell].contrast
        models = contrast.models() if contrast is not None else ()
        return list(dict.fromkeys(training.key for model in models for training in trainings(model)))

    def work(self, engine: Engine, reporter: Reporter) -> None:
        """Runs everything that waits."""
        running: dict[Future[Done], Job] = {}
        while self.waiting or running:
            for job in [job for job, needs in self.waiting.items() if not needs]:
                del self.waiting[job]
                running[engine.submit(job, reporter.advance, self._limit(job))] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._finish(running.pop(future), future, reporter)

    def _plan_jobs(self, models: Models) -> None:
        fresh = self.options.fresh
        absent = {key: Train(key) for key in self.plan.trainings if fresh or models.load_weights(key) is None}
        if absent and models.given is not None:
            folder, suite = models.given.folder, self.plan.suite.name
            said = f"--models {folder}: {len(absent)} of {len(self.plan.trainings)} models of this suite are not there"
            if not any(folder.glob("*.safetensors")):
                raise InputError(f"{said}; leave --models out to train them")
            raise Missing(
                f"{said} or were trained by other code or versions; leave --models out to train them, and renew a "
                f"reference's: attribug run {suite} && attribug compare REFERENCE runs/{suite} --accept"
            )
        for key, job in absent.items():
            below = trainings(self.plan.trainings[key])[:-1]
            self.waiting[job] = {absent[t.key] for t in below if t.key in absent}
        for number, cell in enumerate(self.plan.cells):
            if cell.contrast is not None:
                self._plan_cell(number, cell, absent)

    def _plan_cell(self, number: int, cell: Cell, absent: Mapping[str, Train]) -> None:
        contrast = cell.contrast
        if contrast is None:
            return
        needed: set[Job] = {absent[t.key] for m in contrast.models() for t in trainings(m) if t.key in absent}
        figures = None if self.options.fresh else self.records.load_checks(self.plan.check_key(cell))
        if figures is not None and {check.name for check in contrast.checks} <= set(figures):
            self.outcome.figures[number] = figures
            if not self.outcome.took(number):
                return
        else:
            measure = Measure(number)
            self.waiting[measure] = needed
            needed = {measure}
        for bundle in self.plan.bundles:
            missing = tuple(method for method in bundle if not self._stored(number, cell, method))
            if missing:
                self.waiting[Block(number, missing)] = set(needed)

    def _stored(self, number: int, cell: Cell, method: str) -> bool:
        record = None if self.options.fresh else self.records.load(self.plan.record_key(cell, method))
        if record is not None and record.failed_metrics:
            return False  # what failed is tried again
        if record is not None and self.options.keep_maps and not (record.maps_kept or record.verdict):
            return False
        if record is not None:
            self.outcome.keep(number, method, record)
        return record is not None

    def _limit(self, job: Job) -> float | None:
        if self.options.timeout is None or not isinstance(job, Block):
            return None
        return self.options.timeout * len(job.methods)

    def _finish(self, job: Job, future: Future[Done], reporter: Reporter) -> None:
        try:
            done = future.result()
        except (JobFailed, WorkerDied) as error:
            self._fail(job, error)
            return
        self._count(job, done)
        self.stored(job)
        if isinstance(job, Train):
            self._release(job)
        elif isinstance(job, Measure):
            self.outcome.figures[job.cell] = done.figures or {}
            if self.outcome.took(job.cell):
                self._release(job)
            else:
                self._cancel(job, reporter)
        else:
            self._collect(job, done)

    def _collect(self, job: Block, done: Done) -> None:
        for method in job.methods:
            if method in done.failures:
                self.outcome.failures[job.cell, method] = done.failures[method]
            elif not self._stored_now(job.cell, method):
                self.outcome.failures[job.cell, method] = "its stored record cannot be read back"

    def _stored_now(self, number: int, method: str) -> bool:
        record = self.records.load(self.plan.record_key(self.plan.cells[number], method))
        if record is not None:
            self.outcome.keep(number, method, record)
        return record is not None

    def _fail(self, job: Job, error: Exception) -> None:
        """A training or check takes what depends on it along; a block is tried again one method at a time."""
        if isinstance(job, Block):
            if len(job.methods) > 1:
                for method in job.methods:
                    self.waiting[Block(job.cell, (method,))] = set()
            else:
                self.outcome.failures[job.cell, job.methods[0]] = str(error)
            return
        reason = f"{'training' if isinstance(job, Train) else 'checks'}: {error}"
        for dependent in [other for other, needs in self.waiting.items() if job in needs]:
            if dependent in self.waiting:
                self._give_up(dependent, reason)
        if isinstance(job, Measure):
            self.outcome.failures[job.cell, ""] = reason

    def _give_up(self, job: Job, reason: str) -> None:
        del self.waiting[job]
        if not isinstance(job, Train):
            self.outcome.failures[job.cell, ""] = reason
        for other in [other for other, needs in self.waiting.items() if job in needs]:
            if other in self.waiting:
                self._give_up(other, reason)

    def _release(self, job: Job) -> None:
        for needs in self.waiting.values():
            needs.discard(job)

    def _cancel(self, job: Measure, reporter: Reporter) -> None:
        for other in [o for o in self.waiting if isinstance(o, Block) and o.cell == job.cell]:
            explaining, scoring = self._block_work(other)
            reporter.advance("explaining", explaining)
            reporter.advance("scoring", scoring)
            del self.waiting[other]

    def _count(self, job: Job, done: Done) -> None:
        stage = {Train: "training", Measure: "checking", Block: "explaining and scoring"}[type(job)]
        self.outcome.seconds[stage] = self.outcome.seconds.get(stage, 0.0) + done.seconds
        self.outcome.damaged += done.damaged

    def _block_work(self, job: Block) -> tuple[int, int]:
        contrast = self.plan.cells[job.cell].contrast
        sides = len(contrast.sides) if contrast is not None else 0
        settings = self.plan.settings
        chunks = -(-settings.examples // settings.chunk)
        return sides * len(job.methods) * chunks, settings.examples * len(job.methods)


def resolved(suite: Suite, device: str) -> Plan:
    """The plan of a suite on a device, `auto` resolved; raises `InputError` for a device that is not there."""
    import torch

    available = torch.cuda.is_available()
    if device not in {"auto", "cpu", "cuda"}:
        raise InputError(f"device: expected auto, cpu or cuda, found {device!r}")
    if device == "cuda" and not available:
        raise InputError("device: expected a CUDA device, found none on this machine; use --device cpu")
    return planning.make(suite, ("cuda" if available else "cpu") if device == "auto" else device)
