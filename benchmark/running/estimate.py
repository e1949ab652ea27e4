"""What a run would take: its jobs' rates, scheduled as the run schedules them."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attribug import keys
from attribug.contracts import outputs
from attribug.contracts.models import Trained, chain
from attribug.running.jobs import Block, Explain, Job, MeasureChecks, Train, Try

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast, Side
    from attribug.plans.plan import Cell, Plan

HALF = {"float32": 1.0, "float16": 0.5}
Rates = dict[str, float]
"""Seconds, megabytes and bytes, by what they are of."""


@dataclass(frozen=True)
class Estimate:
    """What the jobs that wait would take."""

    wall: float
    """Seconds with the given workers, from the command to the tables."""
    critical: float
    """Seconds with any number of workers: the longest chain of jobs that wait for each other."""
    training: float
    """Seconds of all trainings, one after the other."""
    explaining: float
    """Seconds of all checks and blocks, likewise."""
    tables: float
    """Seconds that tables and figures take."""
    worker_megabytes: float
    """Largest resident size of a worker."""
    run_megabytes: float
    """By which the run's folder grows."""
    model_megabytes: float
    """By which the cache grows."""


def estimated(
    plan: Plan, waiting: Mapping[Job, Iterable[Job]], rates: Rates, *, workers: int, before: float, keep_maps: bool
) -> Estimate:
    """From the rates of `measured` and `startup`, seconds until a worker is ready; `before`: seconds until the first
    job is given to one."""
    fits = _fits(plan, waiting, rates, workers)
    seconds = {job: _seconds(plan, job, shared(waiting, job), rates) + fits[job] for job in waiting}
    around = before + rates["startup"] + rates["load"] + rates["tables"]
    grown = _stored_bytes(plan, waiting, rates) + rates["bytes tables"]
    return Estimate(
        wall=around + makespan(waiting, seconds, workers),
        critical=around + makespan(waiting, seconds, max(1, len(waiting))),
        training=sum(seconds[job] for job in waiting if isinstance(job, Train)),
        explaining=sum(seconds[job] for job in waiting if not isinstance(job, Train)),
        tables=rates["tables"],
        worker_megabytes=rates["megabytes"],
        run_megabytes=(grown + (_map_bytes(plan, waiting, rates) if keep_maps else 0.0)) / 1e6,
        model_megabytes=sum(rates[f"bytes {job.key}"] for job in waiting if isinstance(job, Train)) / 1e6,
    )


def makespan(waiting: Mapping[Job, Iterable[Job]], seconds: Mapping[Job, float], workers: int) -> float:
    """When the last job ends, if each starts in the given order as soon as a worker is free and all it needs done."""
    needs = {job: set(needed) for job, needed in waiting.items()}
    queue, running, turn, now = deque[Job](), list[tuple[float, int, Job]](), itertools.count(), 0.0
    while needs or queue or running:
        ready = [job for job, needed in needs.items() if not needed]
        for job in ready:
            del needs[job]
        queue.extend(ready)
        while queue and len(running) < workers:
            job = queue.popleft()
            heapq.heappush(running, (now + seconds[job], next(turn), job))
        now, _, done = heapq.heappop(running)
        for needed in needs.values():
            needed.discard(done)
    return now


def shared(waiting: Mapping[Job, Iterable[Job]], job: Job) -> list[Explain]:
    """The jobs that explain something for a block."""
    return [other for other in waiting[job] if isinstance(other, Explain)]


def _seconds(plan: Plan, job: Job, explained: Sequence[Explain], rates: Rates) -> float:
    """Of a job, without what methods fit to a model once, and what others have `explained` for it."""
    if isinstance(job, Train):
        return rates[f"train {job.key}"]
    if isinstance(job, Try):
        return rates[f"try {cost_place(plan.cells[job.cell])}"]
    cell, contrast = cell_of(plan, job)
    place = cost_place(cell)
    if isinstance(job, MeasureChecks):
        return rates[f"check {place}"]
    chunks = rates[f"examples {place}"] / chunk_size(plan)
    chosen = [method for method, _ in plan.methods if method.name in job.methods]
    if isinstance(job, Explain):
        return chunks * sum(rates[f"explain {cost_group(cell)} {m.name}"] for m in chosen)
    spared = Counter(name for other in explained for name in other.methods)
    explaining = sum(
        rates[f"explain {cost_group(cell)} {m.name}"] * (plan.queries(contrast, m) - spared[m.name]) for m in chosen
    )
    scoring = sum(rates[f"score {place} {m.output}"] for m in chosen)
    return chunks * (explaining + scoring + rates[f"block {place}"])


def _fits(plan: Plan, waiting: Mapping[Job, Iterable[Job]], rates: Rates, workers: int) -> dict[Job, float]:
    """Seconds in which methods fit themselves to models: once a model in every worker that meets it, which jobs share
    alike; W workers that take n jobs at random meet it W(1 − (1 − 1/W)ⁿ) times."""
    met = {job: _met(plan, job, shared(waiting, job)) for job in waiting}
    occasions = Counter((name, model) for at in met.values() for name, model, _ in at)
    share = {at: workers * (1 - (1 - 1 / workers) ** n) / n for at, n in occasions.items()}
    costs: dict[Job, float] = defaultdict(float)
    for job, at in met.items():
        for name, model, group in at:
            costs[job] += share[name, model] * rates.get(f"fit {group} {name}", 0.0)
    return costs


def _met(plan: Plan, job: Job, explained: Sequence[Explain]) -> list[tuple[str, str, str]]:
    """Methods that fit themselves to models, these models' keys, and their cell's group, of a job that explains what
    others have not `explained` for it."""
    if not isinstance(job, Explain | Block):
        return []
    cell, contrast = cell_of(plan, job)
    fitting = [m.name for m, _ in plan.methods if m.fits_training_data and m.name in job.methods]
    sides = [contrast.sides[job.side]] if isinstance(job, Explain) else contrast.sides
    told = {(name, _side(plan, other).model.key) for other in explained for name in other.methods}
    models = dict.fromkeys(side.model.key for side in sides)
    return [(name, model, cost_group(cell)) for name in fitting for model in models if (name, model) not in told]


def _side(plan: Plan, job: Explain) -> Side:
    _, contrast = cell_of(plan, job)
    return contrast.sides[job.side]


def _stored_bytes(plan: Plan, waiting: Iterable[Job], rates: Rates) -> float:
    """Of records and galleries to come."""
    given = {method.name: method.output for method, _ in plan.methods}
    blocks = [job for job in waiting if isinstance(job, Block)]
    return sum(
        rates[f"bytes {cost_place(plan.cells[job.cell])} {given[name]}"] for job in blocks for name in job.methods
    )


def _map_bytes(plan: Plan, waiting: Iterable[Job], rates: Rates) -> float:
    """Of kept maps: one a method, model and version of the inputs, which cells may share."""
    kept: dict[tuple[str, ...], float] = {}
    for job in waiting:
        if isinstance(job, Block):
            cell, contrast = cell_of(plan, job)
            for method in (method for method, _ in plan.methods if method.name in job.methods):
                size = rates[f"bytes {cost_place(cell)} maps"] if outputs.get(method.output).maps else 0.0
                for side in contrast.sides:
                    versions = plan.queries(contrast, method) // len(contrast.sides)
                    kept[method.name, side.model.key, side.examples.key] = size * versions * HALF[plan.settings.maps]
    return sum(kept.values())


def cell_of(plan: Plan, job: MeasureChecks | Explain | Block) -> tuple[Cell, Contrast]:
    cell = plan.cells[job.cell]
    if cell.contrast is None:
        raise ValueError(f"{cell.name}: there is nothing to do")
    return cell, cell.contrast


def cost_place(cell: Cell) -> str:
    """What cells share that cost the same: all but the seed."""
    return f"{cell.task} {cell.bug} {cell.level}"


def cost_group(cell: Cell) -> str:
    """What cells share in which a method takes as long for a chunk: task and network."""
    first = None if cell.contrast is None else chain(usual_side(cell.contrast).model)[0]
    network = first.recipe.network if isinstance(first, Trained) else first
    return f"{cell.task} {keys.digest(network)}"


def usual_side(contrast: Contrast) -> Side:
    """A side that costs what others do: a control's, or of a subject its own."""
    return (contrast.controls or (contrast.contaminated,))[0]


def chunk_size(plan: Plan) -> int:
    return min(plan.settings.chunk, plan.settings.examples)
