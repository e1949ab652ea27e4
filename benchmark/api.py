"""The benchmark from Python: run a suite, explain inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.errors import InputError
from attribug.plans.plan import Plan
from attribug.results.schema import read_results
from attribug.running import runner
from attribug.running.exchange import Exchange
from attribug.running.options import RunOptions
from attribug.running.outcome import Outcome
from attribug.running.progress import Reporter, Silent
from attribug.running.request import requested
from attribug.running.resources import default_workers
from attribug.storage import locations, shared_models
from attribug.storage.folders import RESULTS, is_url
from attribug.storage.models import Models
from attribug.tables import replication, run_folder, writing
from attribug.tables.finished import StoredRun

if TYPE_CHECKING:
    from attribug.running.dry_run import DryRun

FEWEST_REPLICATES = 2


@dataclass(frozen=True, repr=False, eq=False)
class Run(StoredRun):
    """A run that this session did, or found done, with its plan."""

    plan: Plan
    outcome: Outcome | None
    """None when there was nothing to do."""


def run(name: str | None = None, *, reporter: Reporter | None = None, **options: Any) -> Run:
    """Runs a suite, a shipped name or a YAML path, and writes its tables to `out` (default `runs/<suite>`), a folder or
    a URL such as `s3://bucket/runs/x`; so may be `models`. Without a name it is `own` where a `model` is given, else
    `quick`.

    The options are those of the command line, described in `attribug.running.options.RunOptions`. `methods` may hold
    plain functions f(model, inputs, targets) besides names; `changes` override the suite by dotted key. What `out` and
    the cache hold already is not done again, unless `fresh`. `keep_maps` stores all attributions in `out`/maps, where
    later runs into `out` find them, with other metrics. Raises `InputError` for wrong input.
    """
    request, cache = requested(name, RunOptions.of(options)), locations.cache()
    plan, place, reporter = request.plan, request.place, reporter or Silent()
    for line in request.notes:
        reporter.note(line)
    url = None if place.remote is None else place.name
    fresh, keep_maps = request.options.fresh, request.options.keep_maps
    with request.used(cache), run_folder.prepare(place, cache, plan):
        if not fresh and run_folder.finished(place, plan, with_maps=keep_maps):
            results = read_results(place.folder / RESULTS, empty=not plan.contrasted)
            results = read_results(place.folder / RESULTS, empty=not plan.contrasted)
            return Run(place.folder, results, plan, None, url=url)
        request.fetch_given()
        stored = Models(cache.folder, device=plan.device).cache
        exchange = Exchange(place, cache, stored, fresh=fresh)
        exchange.begin(plan.trainings if request.given is None else ())
        folders = place.folder.resolve(), cache.folder.resolve()
        outcome = runner.run(request, *folders, reporter, exchange.sent)
        results = writing.write(outcome, place.folder)
        exchange.end()
        return Run(place.folder, results, plan, outcome, url=url)


@dataclass(frozen=True)
class Replicated:
    """A suite under several suite seeds, which share no model."""

    runs: tuple[Run, ...]
    """By seed; the first is the suite itself."""
    table: pd.DataFrame
    """What became of decided verdicts, a row a cell: `attribug.results.replication.COUNT_COLUMNS`."""
    contradictions: pd.DataFrame
    """The verdicts that another seed contradicts: `attribug.results.replication.CONTRADICTION_COLUMNS`."""

    @property
    def complete(self) -> bool:
        """Whether no record of any run failed or is missing."""
        return all(run.complete for run in self.runs)


def replicate(name: str | None = None, *, times: int, reporter: Reporter | None = None, **options: Any) -> Replicated:
    """Runs a suite under `times` suite seeds, its own and those that follow, and writes to `out`, a folder, what
    becomes of decided verdicts: replication.csv. The options are those of `run`; the first run lies in `out`, the
    others in `out`/replicates/SEED, each an ordinary run that is not done again.

    Raises `InputError` for wrong input: `times` below 2, `out` at a URL, `models` (further seeds have others).
    """
    given = RunOptions.of(options)
    if times < FEWEST_REPLICATES:
        raise InputError(f"--times: expected at least {FEWEST_REPLICATES} suite seeds, found {times}")
    if given.models is not None:
        raise InputError(
            f"--models {given.models}: expected none to replicate a suite: further seeds have other models"
        )
    if given.out is not None and is_url(given.out):
        raise InputError(f"--out {given.out}: expected a folder to replicate a suite, found a URL")
    suite = requested(name, given).plan.suite
    if not suite.bugs:
        raise InputError(f"suite {suite.name}: expected bugs, whose verdicts can be replicated, found panels alone")
    own = suite.seed
    seeded = {
        seed: options | {"changes": {**(given.changes or {}), "seed": seed}} for seed in range(own + 1, own + times)
    }
    for asked in seeded.values():  # refused before anything is trained
        requested(name, RunOptions.of(asked))
    first = run(name, reporter=reporter, **options)
    runs = {own: first}
    for seed, asked in seeded.items():
        runs[seed] = run(name, reporter=reporter, **asked | {"out": replication.replicate_folder(first.folder, seed)})
    found = replication.replicated({seed: each.results for seed, each in runs.items()}, first.plan)
    replication.write(found, first.folder)
    return Replicated(tuple(runs.values()), found.counts, found.contradictions)


def dry_run(name: str | None = None, **options: Any) -> DryRun:
    """What `run` with the same arguments would do, and what that would take by a short calibration on this machine.
    Trains nothing, and writes nothing but copies of remote places."""
    from attribug.running import dry_run as dry

    request, cache, unreached = requested(name, RunOptions.of(options)), locations.cache(), ""
    with request.used(cache):
        try:
            request.fetch_given()
            request.place.fetch("records", "galleries")
            stored = Models(cache.folder, device=request.plan.device).cache
            shared_models.fetch_models(cache, stored, request.plan.trainings)
        except InputError as error:
            unreached = f"not reached: {error}"
        places = request.place.folder.resolve(), cache.folder.resolve()
        told = dry.dry_run(request, *places, default_workers(), writing.write)
    return replace(told, missing=(*told.missing, *([unreached] if unreached else [])))


def planned(name: str | None = None, **options: Any) -> Plan:
    """The plan that `run` with the same arguments would follow; reads no data and trains nothing, but what
    somebody brings: model and data are looked at."""
    return requested(name, RunOptions.of(options)).plan


def _describe(function: Callable[..., Any]) -> None:
    """Shows the options in a function's signature, one by one, to whoever asks for help."""
    asked = inspect.signature(function)
    own = [parameter for parameter in asked.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    more = [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type)
        for option in fields(RunOptions)
    ]
    function.__signature__ = asked.replace(parameters=[*own, *more])  # type: ignore[attr-defined]


for _function in (run, replicate, dry_run, planned):
    _describe(_function)
