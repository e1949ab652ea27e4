"""A worker's plan, lab and stores, and how it does a job; imported by workers only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribug import opened
from attribug.contracts.models import trainings
from attribug.errors import InputError
from attribug.plugins import load_plugin
from attribug.running.jobs import Calibrate, Done, Explain, MeasureChecks, Train, Try
from attribug.running.resources import peak_megabytes
from attribug.suites.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.pieces import Method
    from attribug.running.jobs import Block, Event, Job, Setup


class Workbench:
    """A worker's plan, lab and stores."""

    def __init__(self, setup: Setup) -> None:
        from attribug.methods import register_functions
        from attribug.models.brought import unload
        from attribug.models.lab import Lab
        from attribug.plans import planning
        from attribug.query.settings import reproducible
        from attribug.running.noted_maps import NotedMaps
        from attribug.storage.records import Records

        reproducible(setup.options.device)
        for plugin in setup.options.plugins:
            load_plugin(plugin)
        opened.adopt(setup.opened)
        register_functions(setup.functions)
        unload(setup.brought)
        self.setup = setup
        self.plan = planning.make(Suite.model_validate(setup.suite), setup.options.device)
        if self.plan.key != setup.plan:
            raise InputError("the code changed while the run went on; start it again")
        self.models = models = setup.models()
        self.lab = Lab(models, device=setup.options.device)
        self.records = Records(Path(setup.out))
        self.maps = NotedMaps(
            self.records.maps, place=self.plan.explaining_key, precision=self.plan.settings.maps,
            keep=setup.options.keep_maps, fresh=setup.options.fresh, shared=self.records.shared,
        )  # fmt: skip

    def do(self, job: Job | Calibrate, event: Event) -> Done:
        """Does a job; results go to the stores."""
        started = time.perf_counter()
        failures: dict[str, str] = {}
        figures = None
        if isinstance(job, Train):
            self._train(job, event)
        elif isinstance(job, MeasureChecks):
            figures = self._measure(job)
        elif isinstance(job, Try):
            figures = self._try(job)
        elif isinstance(job, Calibrate):
            from attribug.running.calibration import measured

            figures = measured(self.plan, job.waiting, job.write)
        elif isinstance(job, Explain):
            self._explain(job, event)
        else:
            failures = self._block(job, event)
        damaged = (*self.records.found_damaged, *self.models.found_damaged)
        return Done(time.perf_counter() - started, failures, figures, damaged)

    def _train(self, job: Train, event: Event) -> None:
        training, fresh = self.plan.trainings[job.key], self.setup.options.fresh
        with self.models.lock(job.key):  # another run may be training it for the same cache
            if not fresh and self.models.load_weights(job.key) is not None:
                event("training", training.recipe.epochs)  # it has, and knows what it cost
                return
            started = time.perf_counter()
            self.lab.train(training, fresh=fresh, progress=lambda epochs: event("training", epochs))
            cost = {"seconds": time.perf_counter() - started, "peak_megabytes": peak_megabytes()}
            self.models.save_cost(job.key, {**cost, "trained_for": self._whose(job.key)})

    def _whose(self, key: str) -> str:
        """Suite and task that a model is trained for, for people who look into the cache."""
        for cell in self.plan.cells:
            models = [] if cell.contrast is None else [*cell.contrast.models()]
            models += [] if cell.subject is None else [cell.subject.side.model]
            models += [trial.model for trial in cell.trials]
            if any(key == below.key for model in models for below in trainings(model)):
                return f"{self.plan.suite.name}, {cell.task}"
        return self.plan.suite.name

    def _measure(self, job: MeasureChecks) -> dict[str, float]:
        cell = self.plan.cells[job.cell]
        checks = cell.contrast.checks if cell.contrast is not None else ()
        from attribug.models.checks import figure, tested

        figures = {check.name: figure(check, self.lab) for check in checks}
        if cell.subject is not None and cell.subject.tested is not None:
            figures |= tested(cell.subject.tested.examples, self.lab)
        self.records.save_checks(self.plan.check_key(cell), figures)
        return figures

    def _try(self, job: Try) -> dict[str, float]:
        from attribug.models.trials import figures

        trial = self.plan.cells[job.cell].trials[job.trial]
        found = figures(trial, self.lab)
        self.records.save_checks(self.plan.trial_key(trial), found)
        return found

    def _explain(self, job: Explain, event: Event) -> None:
        from attribug.scores.blocks import share_side

        contrast = self._contrast(job)
        side = contrast.sides[job.side]
        if not share_side(contrast, side, self._methods(job), self.lab, self.plan.settings, self.maps, event):
            self.lab.forget_models()

    def _contrast(self, job: Explain | Block) -> Contrast:
        cell = self.plan.cells[job.cell]
        if cell.contrast is None:
            raise ValueError(f"{cell.name}: there is nothing to explain")
        return cell.contrast

    def _methods(self, job: Explain | Block) -> list[tuple[Method, Mapping[str, Any]]]:
        return [pair for pair in self.plan.methods if pair[0].name in job.methods]

    def _block(self, job: Block, event: Event) -> dict[str, str]:
        from attribug.scores.blocks import score_block

        cell, contrast, failures = self.plan.cells[job.cell], self._contrast(job), {}
        self.maps.noted.clear()
        records = score_block(
            contrast, self._methods(job), self.plan.measured_in(cell), self.lab, self.plan.settings, kept=self.maps,
            subject=cell.subject, report=event,
        )  # fmt: skip
        for name, files in self.maps.noted.items():  # first, so that no record with kept maps lacks them
            self.records.save_map_files(self.plan.record_key(cell, name), files)
        for name, record in records.items():
            if record.verdict == "failed":
                failures[name] = record.reason
            else:
                record.peak_megabytes = peak_megabytes()
                self.records.save(self.plan.record_key(cell, name), record)
        if failures:
            self.lab.forget_models()  # a failed method may have changed one
        return failures
