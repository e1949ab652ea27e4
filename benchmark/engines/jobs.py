"""Jobs: what a worker is told to do, and how it does it. A worker makes the plan itself, so jobs are a few names."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribug.registry import InputError, load_plugin
from attribug.suite import Suite

Event = Callable[[str, int], None]
KILOBYTES_PER_RSS_UNIT = 1 if sys.platform != "darwin" else 1 / 1024


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know once; plain values only."""

    suite: dict[str, Any]
    plan: str
    """Content key of the plan; a worker that comes to another one refuses to work."""
    device: str
    out: str
    cache: str
    models: str | None
    fresh: bool
    keep_maps: bool
    plugins: tuple[str, ...]
    functions: bytes
    """Functions given from Python, pickled by cloudpickle: {name: function}."""


@dataclass(frozen=True)
class Train:
    """Trains the model of a content key."""

    key: str


@dataclass(frozen=True)
class Measure:
    """Measures the checks of a cell, by its number in the plan."""

    cell: int


@dataclass(frozen=True)
class Block:
    """Explains and scores a cell with a bundle of methods."""

    cell: int
    methods: tuple[str, ...]


Job = Train | Measure | Block


@dataclass(frozen=True)
class Calibrate:
    """Times a little of what waits, on untrained models; also the making of tables, where so told."""

    waiting: tuple[Job, ...]
    with_tables: bool


@dataclass(frozen=True)
class Done:
    """What a job reports: seconds, reasons of methods that failed, figures of checks or of a calibration, files that it
    found damaged."""

    seconds: float
    failures: dict[str, str]
    figures: dict[str, float] | None = None
    damaged: tuple[str, ...] = ()


class Workbench:
    """A worker's plan, lab and stores."""

    def __init__(self, setup: Setup) -> None:
        import torch

        from attribug import plan
        from attribug.maps import KeptMaps
        from attribug.methods import register_functions
        from attribug.store import Models, Records
        from attribug.training import Lab

        torch.set_num_threads(1)  # two threads change last bits
        if setup.device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            torch.use_deterministic_algorithms(True, warn_only=True)
        for plugin in setup.plugins:
            load_plugin(plugin)
        register_functions(setup.functions)
        self.setup = setup
        self.plan = plan.make(Suite.model_validate(setup.suite), setup.device)
        if self.plan.key != setup.plan:
            raise InputError("the code changed while the run went on; start it again")
        models = Models(Path(setup.cache), None if setup.models is None else Path(setup.models), setup.device)
        self.models = models
        self.lab = Lab(models, device=setup.device)
        self.records = Records(Path(setup.out))
        self.maps = KeptMaps(
            self.records.maps, place=self.plan.explaining_key, precision=self.plan.settings.maps, keep=setup.keep_maps,
            fresh=setup.fresh,
        )  # fmt: skip

    def do(self, job: Job | Calibrate, event: Event) -> Done:
        """Does a job; results go to the stores."""
        started = time.perf_counter()
        failures: dict[str, str] = {}
        figures = None
        if isinstance(job, Train):
            self._train(job, event)
        elif isinstance(job, Measure):
            figures = self._measure(job)
        elif isinstance(job, Calibrate):
            from attribug.estimation import measured

            figures = measured(self.plan, job.waiting, with_tables=job.with_tables)
        else:
            failures = self._block(job, event)
        damaged = (*self.records.found_damaged, *self.models.found_damaged)
        return Done(time.perf_counter() - started, failures, figures, damaged)

    def _train(self, job: Train, event: Event) -> None:
        training, fresh = self.plan.trainings[job.key], self.setup.fresh
        with self.models.lock(job.key):  # another run may be training it for the same cache
            if not fresh and self.models.load_weights(job.key) is not None:
                event("training", training.recipe.epochs)  # it has, and knows what it cost
                return
            started = time.perf_counter()
            self.lab.train(training, fresh=fresh, progress=lambda epochs: event("training", epochs))
            cost = {"seconds": time.perf_counter() - started, "peak_megabytes": peak_megabytes()}
            self.models.save_cost(job.key, cost)

    def _measure(self, job: Measure) -> dict[str, float]:
        cell = self.plan.cells[job.cell]
        checks = cell.contrast.checks if cell.contrast is not None else ()
        figures = {check.name: self.lab.figure(check) for check in checks}
        self.records.save_checks(self.plan.check_key(cell), figures)
        return figures

    def _block(self, job: Block, event: Event) -> dict[str, str]:
        from attribug.scoring import score_block

        cell = self.plan.cells[job.cell]
        if cell.contrast is None:
            raise ValueError(f"{cell.name}: there is nothing to explain")
        chosen = [pair for pair in self.plan.methods if pair[0].name in job.methods]
        failures = {}
        records = score_block(
            cell.contrast, chosen, self.plan.measured, self.lab, self.plan.settings, kept=self.maps, report=event
        )
        for name, record in records.items():
            if record.verdict == "failed":
                failures[name] = record.reason
            else:
                record.peak_megabytes = peak_megabytes()
                self.records.save(self.plan.record_key(cell, name), record)
        if failures:
            self.lab.forget_models()  # a failed method may have changed one
        return failures


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTES_PER_RSS_UNIT / 1024
