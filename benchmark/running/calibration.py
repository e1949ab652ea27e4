"""Rates of jobs, timed on untrained models, which cost what trained ones do."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from attribug import keys
from attribug.contracts import outputs
from attribug.contracts.pieces import Method
from attribug.maps.attribution import attributions
from attribug.models.lab import Lab, logits
from attribug.models.training import initialised, train
from attribug.models.trials import figures
from attribug.query.query import Query
from attribug.running.estimate import Rates, cell_of, chunk_size, cost_group, cost_place, usual_side
from attribug.running.jobs import Block, MeasureChecks, Train, Try, Write
from attribug.running.outcome import Outcome
from attribug.running.resources import peak_megabytes
from attribug.scores.blocks import score_block
from attribug.scores.records import Record
from attribug.storage.records import Records

if TYPE_CHECKING:
    from torch import nn

    from attribug.contracts.contrasts import Contrast, Trial
    from attribug.contracts.data import Data, Examples
    from attribug.contracts.models import Trained
    from attribug.plans.plan import Cell, Plan
    from attribug.running.jobs import Job

TIMED_STEPS = 4  # of an optimiser
TIMED_EXAMPLES = 128  # of a pass without gradients
SECONDS_A_METHOD = 2.0  # a method that takes longer for a chunk is timed on fewer examples
MOST_RECORDS = 200  # that tables are made of when they are timed
ID_STEP = 1_000_000_000  # between examples that stand for further chunks


class Untrained:
    """A store in which every model lies untrained."""

    def __init__(self, trained: Mapping[str, Trained]) -> None:
        self.trained = trained

    def load_weights(self, key: str) -> dict[str, Tensor]:
        """The weights that its network begins with."""
        return initialised(self.trained[key].recipe, self.trained[key].seed).state_dict()

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        """Keeps nothing."""


def measured(plan: Plan, waiting: Sequence[Job], write: Write | None) -> Rates:
    """Times a little of everything that waits, in the process of a worker.

    Gives, in seconds: `train KEY`; `check PLACE`; `try PLACE`, of a mended model; `explain GROUP METHOD`, of a chunk
    under one model; `fit GROUP METHOD`, of a model; `score PLACE OUTPUT` and `block PLACE`, of a chunk; `load`, of the
    data that a worker needs; `tables`, where `write` makes them. Further `examples PLACE`, `bytes …` of what is stored,
    and `megabytes`, the largest resident size.
    """
    bench = _Bench(plan)
    for job in waiting:
        if isinstance(job, Train):
            bench.time_training(plan.trainings[job.key])
        elif isinstance(job, MeasureChecks):
            bench.time_checks(*cell_of(plan, job))
        elif isinstance(job, Try):
            bench.time_trial(plan.cells[job.cell], plan.cells[job.cell].trials[job.trial])
    for job in waiting:
        if isinstance(job, Block):
            bench.time_methods(*cell_of(plan, job), job.methods)
            bench.time_scoring(*cell_of(plan, job))
    loads = bench.loads.values()
    bench.rates |= {"load": sum(max(seconds) for seconds in loads), "megabytes": peak_megabytes()}
    bench.rates |= {} if write is None else bench.tables(write)
    return bench.rates


class _Bench:
    """Times pieces of a plan; each kind of thing once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lab = Lab(Untrained(plan.trainings), device=plan.device)
        self.rates: Rates = {}
        self.loads: dict[Any, list[float]] = defaultdict(list)
        """Seconds by what builds examples."""
        self.steps: dict[str, float] = {}
        self.records: dict[str, dict[str, Record]] = {}
        """Records of maps that are noise, by place and output."""

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds, until a device has finished as well."""
        started = time.perf_counter()
        work()
        if self.lab.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def data(self, examples: Examples) -> Data:
        """The examples, the time to load them noted."""
        self.loads[getattr(examples.build, "func", examples.build)].append(self.timed(lambda: self.lab.data(examples)))
        return self.lab.data(examples)

    def time_training(self, training: Trained) -> None:
        """A few steps, for all epochs."""
        recipe, data = training.recipe, self.data(training.examples)
        model = self.placed(initialised(recipe, training.seed))
        steps = -(-len(data) // recipe.batch)
        kind = keys.digest(replace(recipe, epochs=1), training.trainable, data.inputs.shape[1:])
        if kind not in self.steps:
            trainable = None if training.trainable is None else training.trainable(model)
            few = data.select(torch.arange(min(len(data), TIMED_STEPS * recipe.batch)))
            fit = _tolerant(recipe.fit) if recipe.fit is not None else train
            work = partial(fit, model, few, replace(recipe, epochs=1), training.seed, trainable=trainable)
            if recipe.fit is None:  # the first one allocates; of a user's, nobody knows how long it takes
                work()
            self.steps[kind] = self.timed(work) / min(steps, TIMED_STEPS)
        load = median(self.loads[getattr(training.examples.build, "func", training.examples.build)])
        self.rates[f"train {training.key}"] = load + self.steps[kind] * steps * recipe.epochs
        self.rates[f"bytes {training.key}"] = sum(value.nbytes for value in model.state_dict().values())

    def placed(self, model: nn.Module) -> nn.Module:
        """As the lab places models."""
        return model.to(self.lab.device).to(memory_format=torch.channels_last)

    def time_checks(self, cell: Cell, contrast: Contrast) -> None:
        """A pass over a few examples, for all that the checks look at."""
        name = f"check {cost_place(cell)}"
        if name in self.rates:
            return
        passes = {(m.key, check.examples): m for check in contrast.checks for m in (*check.models, *check.minus)}
        self.rates[name] = 0.0
        for (_, examples), model in passes.items():
            inputs = self.data(examples).inputs
            few, network = inputs[:TIMED_EXAMPLES], self.lab.model(model)
            self.rates[name] += self.timed(partial(logits, network, few)) * len(inputs) / max(1, len(few))

    def time_trial(self, cell: Cell, trial: Trial) -> None:
        """All that is measured of a mended model."""
        name = f"try {cost_place(cell)}"
        if name not in self.rates:
            self.rates[name] = self.timed(partial(_tolerant(figures), trial, self.lab))

    def time_methods(self, cell: Cell, contrast: Contrast, names: Sequence[str]) -> None:
        """A chunk of one side, with passes shared as in a block."""
        group, side = cost_group(cell), usual_side(contrast)
        chosen = [pair for pair in self.plan.methods if pair[0].name in names]
        if all(f"explain {group} {method.name}" in self.rates for method, _ in chosen):
            return
        data, model = self.data(side.examples), self.lab.model(side.model)
        size = max(1, min(chunk_size(self.plan), len(data)))
        queries = {
            count: Query(
                model, few.inputs.to(self.lab.device), few.labels.to(self.lab.device), ids=few.ids,
                seed=self.plan.settings.seed, rows=self.plan.settings.rows,
                train=self.lab.training_data(side.model), kept=self.lab.kept(side.model),
            )
            for count in {1, size}
            for few in [data.select(torch.arange(count))]
        }  # fmt: skip
        for method, parameters in chosen:
            first = one = self.timed(partial(_try, method, queries[1], parameters))
            if method.fits_training_data or first < SECONDS_A_METHOD:  # the first one imports and allocates
                one = self.timed(partial(_try, method, self.fresh(queries[1], 1), parameters))
            count = int(min(size, max(2, SECONDS_A_METHOD / max(one, 1e-9))))
            query = queries[size] if count == size else self.fresh(queries[size], count)
            many = self.timed(partial(_try, method, query, parameters)) if size > 1 else one
            each = max(many - one, 0.0) / max(1, count - 1)
            self.rates[f"fit {group} {method.name}"] = max(first - one, 0.0) if method.fits_training_data else 0.0
            self.rates[f"explain {group} {method.name}"] = many + each * (size - count)

    def fresh(self, query: Query, count: int) -> Query:
        """A query about the first examples of another, which remembers no passes."""
        asked = (query.model, query.inputs[:count], query.targets[:count])
        kept = query.kept
        return Query(*asked, ids=query.ids[:count], seed=query.seed, rows=query.rows, train=query._train, kept=kept)

    def time_scoring(self, cell: Cell, contrast: Contrast) -> None:
        """A chunk of maps that cost nothing, on all sides."""
        place = cost_place(cell)
        if place in self.records:
            return
        plan, data = self.plan, self.data(contrast.contaminated.examples)
        of_output = {method.output: method for method, _ in plan.methods_of(cell)}
        free: list[tuple[Method, Mapping[str, Any]]] = [(_costless(method), {}) for method in of_output.values()]
        settings = replace(plan.settings, examples=chunk_size(plan), chunk=chunk_size(plan))
        work = partial(
            score_block,
            replace(contrast, keep=None),
            free,
            plan.measured_in(cell),
            self.lab,
            settings,
            subject=cell.subject,
        )
        work()  # loads and derives models
        started = time.perf_counter()
        self.records[place] = work()
        spent = time.perf_counter() - started
        scoring = {output: record.scoring_seconds for output, record in self.records[place].items()}
        explained = min(plan.settings.examples, len(data))
        self.rates |= {f"score {place} {output}": seconds for output, seconds in scoring.items()}
        self.rates[f"block {place}"] = max(spent - sum(scoring.values()), 0.0)
        self.rates[f"examples {place}"] = explained
        self.rates[f"bytes {place} maps"] = explained * data.inputs[:1].nbytes

    def tables(self, write: Write) -> Rates:
        """Lets `write` make tables of records of noise, as many as there will be, or as can be made quickly."""
        plan, out = self.plan, Path(tempfile.mkdtemp(prefix="attribug-"))
        each = max(1, MOST_RECORDS // max(1, len(plan.cells)))
        first_of_output = {method.output: (method, options) for method, options in reversed(plan.methods)}
        chosen = tuple(pair for number, pair in enumerate(plan.methods)
                       if number < each or pair in first_of_output.values())  # fmt: skip
        outcome = Outcome(replace(plan, methods=chosen), stored=Records(out))
        try:
            sizes = self.fill(outcome)
            before = _size(out)
            seconds = self.timed(lambda: write(outcome, out))
            made = _size(out) - before
        finally:
            shutil.rmtree(out, ignore_errors=True)
        more = len(plan.methods) / len(chosen)
        return {"tables": seconds * more, "bytes tables": made * more, **sizes}

    def fill(self, outcome: Outcome) -> Rates:
        """Stores a record of noise for every cell and method; returns the bytes that one takes, by place and output."""
        plan, sizes = outcome.plan, Rates()
        for number, cell in enumerate(plan.cells):
            records = self.records.get(cost_place(cell), {})
            outcome.figures[number] = {}
            for method, _ in plan.methods_of(cell):
                if cell.contrast is not None and method.output in records and outcome.stored is not None:
                    key, name = plan.record_key(cell, method.name), f"bytes {cost_place(cell)} {method.output}"
                    record, folder = self.as_of(records[method.output], cell), outcome.stored.folder.parent
                    before = 0 if name in sizes else _size(folder)
                    outcome.stored.save(key, record)
                    outcome.keep(number, method.name, record)
                    sizes[name] = sizes.get(name) or _size(folder) - before
        return sizes

    def as_of(self, record: Record, cell: Cell) -> Record:
        """A chunk's record as if of all examples, and of another seed of its place."""
        units, first = self.plan.suite.seeds, next(c.seed for c in self.plan.cells if cost_place(c) == cost_place(cell))
        chunks = -(-int(self.rates[f"examples {cost_place(cell)}"]) // chunk_size(self.plan))
        scores = pd.concat([record.scores.assign(example=record.scores["example"] + number * ID_STEP)
                            for number in range(chunks)], ignore_index=True)  # fmt: skip
        for role in ("seed", "reference", "control_seed") if cell.subject is None else ():
            seed = scores[role]
            turned = seed - seed % units + (seed + cell.seed - first) % units
            scores[role] = turned.where(seed >= 0, seed)
        return replace(record, scores=scores)


def _try(method: Method, query: Query, parameters: Mapping[str, Any]) -> None:
    """A method that declines or fails costs what it takes to do so."""
    with contextlib.suppress(Exception):
        attributions(method, query, parameters)


def _tolerant(fit: Callable[..., object]) -> Callable[..., None]:
    """Likewise a user's own training, which may want more examples, and what is measured of a mended model."""

    def tried(*arguments: Any, **options: Any) -> None:
        with contextlib.suppress(Exception):
            fit(*arguments, **options)

    return tried


def _costless(method: Method) -> Method:
    """A method of the same output, under its name, that costs next to nothing."""
    free = outputs.get(method.output).free
    if free is None:
        return replace(method, name=method.output)
    return Method(method.output, lambda query: free(query.inputs), output=method.output)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
