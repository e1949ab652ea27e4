"""Jobs with what they wait for: what is stored is not done again, failures cost what depends on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING

from attribug.contracts.models import trainings
from attribug.errors import InputError, Missing
from attribug.maps.asked import asked_of, question
from attribug.running.engine import JobFailed, WorkerDied
from attribug.running.jobs import Block, Done, Explain, Job, MeasureChecks, Train, Try
from attribug.running.outcome import KEPT, Outcome

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast, Trial
    from attribug.contracts.models import ModelSpec
    from attribug.plans.plan import Cell, Plan
    from attribug.running.engine import Engine
    from attribug.running.options import RunOptions
    from attribug.running.progress import Reporter, Stage
    from attribug.scores.records import Record
    from attribug.storage.models import Models
    from attribug.storage.records import Records


class Schedule:
    """Jobs with what they wait for. A job starts when all it needs is there; a failure ends what depends on it."""

    def __init__(
        self,
        plan: Plan,
        records: Records,
        models: Models,
        options: RunOptions,
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
            elif isinstance(job, Explain | Block):
                explaining, scoring = self._work(job)
                totals["explaining"] += explaining
                totals["scoring"] += scoring
        return totals

    def needs(self, job: Job) -> list[str]:
        """Keys of the trained models that a job rests on."""
        if isinstance(job, Train):
            return [below.key for below in trainings(self.plan.trainings[job.key])[:-1]]
        if isinstance(job, Try):
            return [training.key for training in trainings(self._trial(job).model)]
        contrast = self.plan.cells[job.cell].contrast
        models = _models(contrast, job) if contrast is not None else ()
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
            self._plan_trials(number, cell, absent)
        if self.options.engine == "local":  # nodes of a cluster share no disk
            self._plan_sharing(absent)

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
            measure = MeasureChecks(number)
            self.waiting[measure] = needed
            needed = {measure}
        asked = {method.name for method, _ in self.plan.methods_of(cell)}
        for bundle in self.plan.bundles:
            missing = tuple(method for method in bundle if method in asked and not self._stored(number, cell, method))
            if missing:
                self.waiting[Block(number, missing)] = set(needed)

    def _plan_trials(self, number: int, cell: Cell, absent: Mapping[str, Train]) -> None:
        for place, trial in enumerate(cell.trials):
            figures = None if self.options.fresh else self.records.load_checks(self.plan.trial_key(trial))
            if figures is None:
                job = Try(number, place)
                self.waiting[job] = {absent[key] for key in self.needs(job) if key in absent}
            else:
                self.outcome.trials[number, place] = figures

    def _trial(self, job: Try) -> Trial:
        return self.plan.cells[job.cell].trials[job.trial]

    def _plan_sharing(self, absent: Mapping[str, Train]) -> None:
        """What several blocks ask of a side, a job of its own answers once."""
        blocks = [job for job in self.waiting if isinstance(job, Block)]
        contrasts = {number: self.plan.cells[number].contrast for number in {block.cell for block in blocks}}
        questions = {
            number: [question(contrast, side) for side in contrast.sides]
            for number, contrast in contrasts.items()
            if contrast is not None
        }
        bundle_of = {method: bundle for bundle in self.plan.bundles for method in bundle}
        askers: dict[tuple[str, tuple[str, ...]], list[tuple[Block, int]]] = {}
        for block in blocks:
            for number, asked in enumerate(questions[block.cell]):
                askers.setdefault((asked, bundle_of[block.methods[0]]), []).append((block, number))
        for (_, bundle), asking in askers.items():
            methods = tuple(name for name in bundle if sum(name in block.methods for block, _ in asking) > 1)
            if methods:
                job = Explain(asking[0][0].cell, asking[0][1], methods)
                self.waiting[job] = {absent[key] for key in self.needs(job) if key in absent}
                for block, _ in asking:
                    self.waiting[block].add(job)

    def _stored(self, number: int, cell: Cell, method: str) -> bool:
        key = self.plan.record_key(cell, method)
        record = None if self.options.fresh else self.records.load(key, KEPT)
        if record is not None and record.failed_metrics:
            return False  # what failed is tried again
        if record is not None and self.options.keep_maps and not (record.verdict or self._maps_held(record, key)):
            return False
        if record is not None:
            self.outcome.keep(number, method, record)
        return record is not None

    def _maps_held(self, record: Record, key: str) -> bool:
        return record.maps_kept and self.records.holds_maps(key)

    def _limit(self, job: Job) -> float | None:
        if self.options.timeout is None or not isinstance(job, Explain | Block):
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
        if isinstance(job, Train | Explain):
            self._release(job)
        elif isinstance(job, Try):
            self.outcome.trials[job.cell, job.trial] = done.figures or {}
        elif isinstance(job, MeasureChecks):
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
        record = self.records.load(self.plan.record_key(self.plan.cells[number], method), KEPT)
        if record is not None:
            self.outcome.keep(number, method, record)
        return record is not None

    def _fail(self, job: Job, error: Exception) -> None:
        """A training or check takes what depends on it along; a block is tried again one method at a time, and explains
        itself what another job could not."""
        if isinstance(job, Explain):
            self._release(job)
            return
        if isinstance(job, Block):
            if len(job.methods) > 1:
                for method in job.methods:
                    self.waiting[Block(job.cell, (method,))] = set()
            else:
                self.outcome.failures[job.cell, job.methods[0]] = str(error)
            return
        if isinstance(job, Try):
            self._untried(job, f"measuring: {error}")
            return
        reason = f"{'training' if isinstance(job, Train) else 'checks'}: {error}"
        for dependent in [other for other, needs in self.waiting.items() if job in needs]:
            if dependent in self.waiting:
                self._give_up(dependent, reason)
        if isinstance(job, MeasureChecks):
            self.outcome.failures[job.cell, ""] = reason

    def _give_up(self, job: Job, reason: str) -> None:
        del self.waiting[job]
        if isinstance(job, Explain):  # what asks for it needs the same training
            self._release(job)
            return
        if isinstance(job, Try):
            self._untried(job, reason)
        elif not isinstance(job, Train):
            self.outcome.failures[job.cell, ""] = reason
        for other in [other for other, needs in self.waiting.items() if job in needs]:
            if other in self.waiting:
                self._give_up(other, reason)

    def _untried(self, job: Try, reason: str) -> None:
        trial = self._trial(job)
        self.outcome.failures[job.cell, f"fix {trial.fix} {trial.setting}".strip()] = reason

    def _release(self, job: Job) -> None:
        for needs in self.waiting.values():
            needs.discard(job)

    def _cancel(self, job: MeasureChecks, reporter: Reporter) -> None:
        for block in [other for other in self.waiting if isinstance(other, Block) and other.cell == job.cell]:
            self._drop(block, reporter)
        wanted = set[Job]().union(*self.waiting.values())
        for unwanted in [other for other in self.waiting if isinstance(other, Explain) and other not in wanted]:
            self._drop(unwanted, reporter)

    def _drop(self, job: Explain | Block, reporter: Reporter) -> None:
        explaining, scoring = self._work(job)
        reporter.advance("explaining", explaining)
        reporter.advance("scoring", scoring)
        del self.waiting[job]

    def _count(self, job: Job, done: Done) -> None:
        stage = {Train: "training", MeasureChecks: "checking", Try: "checking"}.get(type(job), "explaining and scoring")
        self.outcome.seconds[stage] = self.outcome.seconds.get(stage, 0.0) + done.seconds
        self.outcome.damaged += done.damaged

    def _work(self, job: Explain | Block) -> tuple[int, int]:
        """Sides × methods and examples × methods."""
        contrast, settings = self.plan.cells[job.cell].contrast, self.plan.settings
        chunks = -(-settings.examples // settings.chunk)
        if isinstance(job, Explain):
            return len(job.methods) * chunks, 0
        sides = len(contrast.sides) if contrast is not None else 0
        return sides * len(job.methods) * chunks, settings.examples * len(job.methods)


def _models(contrast: Contrast, job: MeasureChecks | Explain | Block) -> tuple[ModelSpec, ...]:
    """The models that a job looks at."""
    return asked_of(contrast, contrast.sides[job.side]) if isinstance(job, Explain) else contrast.models()
