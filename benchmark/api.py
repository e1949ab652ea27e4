"""The benchmark from Python: run a suite, explain inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.errors import InputError
from attribug.plans import planning
from attribug.plans.plan import Plan
from attribug.plans.planning import load_suite
from attribug.plugins import load_plugin
from attribug.results.schema import read_results
from attribug.running import runner
from attribug.running.exchange import Exchange
from attribug.running.functions import handed_over
from attribug.running.options import RunOptions
from attribug.running.outcome import Outcome
from attribug.running.progress import Reporter
from attribug.running.resources import default_workers
from attribug.storage import locations, shared_models
from attribug.storage.files import read_json
from attribug.storage.folders import ANALYSIS, RESULTS, RUN, SCORES
from attribug.storage.models import Models
from attribug.storage.tensors import Tensors
from attribug.tables import analysis, run_folder, writing
from attribug.tables.analysis import read_analysis

if TYPE_CHECKING:
    from attribug.running.dry_run import DryRun


@dataclass(frozen=True)
class Run:
    """A finished run and its tables."""

    folder: Path
    """Of the run, or of the copy of what lies at a URL."""
    results: pd.DataFrame
    """One row a task, bug, level, control, method, metric and post."""
    plan: Plan
    outcome: Outcome | None
    """None when there was nothing to do."""
    url: str | None = None

    @property
    def name(self) -> str:
        """Where the run lies, as the user calls it."""
        return self.url or str(self.folder)

    @property
    def scores(self) -> pd.DataFrame:
        """One row an example and model triple."""
        return pd.read_parquet(self.folder / SCORES)

    @property
    def headline(self) -> pd.DataFrame:
        """Verdict and effect of each bug's primary metric, one row a task, bug, level and method."""
        return analysis.verdict_matrix(self.results, self.plan)

    @property
    def analysis(self) -> dict[str, pd.DataFrame]:
        """What follows from the scores, by name: headline, added, ranking, severity, posts (those that exist)."""
        return {path.stem: read_analysis(path) for path in sorted((self.folder / ANALYSIS).glob("*.csv"))}

    @property
    def complete(self) -> bool:
        """Whether no record failed or is missing."""
        return self.outcome is None or not self.outcome.faults

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json tells: suite, versions, checks, failures."""
        facts: dict[str, Any] = read_json(self.folder / RUN)
        return facts


def run(
    name: str = "quick",
    *,
    out: str | Path | None = None,
    methods: Sequence[str | Callable[..., Any]] | None = None,
    bugs: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    examples: int | None = None,
    visible: float | None = None,
    changes: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
    models: str | Path | None = None,
    device: str = "auto",
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    timeout: float | None = None,
    fresh: bool = False,
    keep_maps: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Runs a suite, a shipped name or a YAML path, and writes its tables to `out` (default `runs/<suite>`), a folder or
    a URL such as `s3://bucket/runs/x`; so may be `models`.

    `methods` may hold plain functions f(model, inputs, targets) besides names; `changes` override the suite by dotted
    key. What `out` and the cache hold already is not done again, unless `fresh`. `keep_maps` stores all attributions in
    `out`/maps, where later runs into `out` find them, with other metrics. Raises `InputError` for wrong input.
    """
    asked = _asked(
        name, out=out, methods=methods, bugs=bugs, metrics=metrics, tasks=tasks, seeds=seeds, seed=seed,
        examples=examples, visible=visible, changes=changes, plugins=plugins, models=models, device=device,
        engine=engine, address=address, workers=workers, timeout=timeout, fresh=fresh, keep_maps=keep_maps,
    )  # fmt: skip
    plan, place, cache = asked.plan, asked.place, locations.cache()
    url = None if place.remote is None else place.name
    with asked.used(cache), run_folder.prepare(place, cache, plan):
        if not fresh and run_folder.finished(place.folder, plan, with_maps=keep_maps):
            return Run(place.folder, read_results(place.folder / RESULTS), plan, None, url)
        asked.fetch_given()
        stored = Models(cache.folder, device=plan.device).cache
        exchange = Exchange(place, cache, stored, fresh=fresh)
        exchange.begin(plan.trainings if asked.given is None else ())
        folder = place.folder.resolve()
        outcome = runner.run(plan, folder, cache.folder.resolve(), asked.options, reporter, exchange.sent)
        results = writing.write(outcome, place.folder)
        exchange.end()
        return Run(place.folder, results, plan, outcome, url)


def dry_run(name: str = "quick", **arguments: Any) -> DryRun:
    """What `run` with the same arguments would do, and what that would take by a short calibration on this machine.
    Trains nothing, and writes nothing but copies of remote places."""
    from attribug.running import dry_run as dry

    asked, cache, unreached = _asked(name, **arguments), locations.cache(), ""
    with asked.used(cache):
        try:
            asked.fetch_given()
            asked.place.fetch("records", "galleries")
            shared_models.fetch_models(
                cache, Models(cache.folder, device=asked.plan.device).cache, asked.plan.trainings
            )
        except InputError as error:
            unreached = f"not reached: {error}"
        places = asked.place.folder.resolve(), cache.folder.resolve()
        told = dry.dry_run(asked.plan, *places, asked.options, default_workers(), writing.write)
    return replace(told, missing=(*told.missing, *([unreached] if unreached else [])))


def planned(name: str = "quick", **arguments: Any) -> Plan:
    """The plan that `run` with the same arguments would follow; reads no data and trains nothing."""
    return _asked(name, **arguments).plan


@dataclass(frozen=True)
class _Asked:
    """What the arguments of a run come to."""

    plan: Plan
    place: locations.Location
    given: locations.Location | None
    """Of trained models."""
    options: RunOptions

    @contextlib.contextmanager
    def used(self, cache: locations.Location) -> Iterator[None]:
        """Messages name the URLs that the user gave; their copies are kept from being pruned."""
        places = (self.place, cache, *([] if self.given is None else [self.given]))
        with locations.named(*places), contextlib.ExitStack() as held:
            for place in places:
                held.enter_context(place.used())
            yield

    def fetch_given(self) -> None:
        """Fetches the given models from their URL."""
        if self.given is not None:
            shared_models.fetch_models(self.given, Tensors(self.given.folder), self.plan.trainings)


def _asked(
    name: str,
    *,
    out: str | Path | None = None,
    methods: Sequence[str | Callable[..., Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
    device: str = "auto",
    models: str | Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    engine: str = "local",
    address: str | None = None,
    timeout: float | None = None,
    keep_maps: bool = False,
    **common: Any,
) -> _Asked:
    plan, functions = _planned(name, methods, common, changes, plugins, device)
    place = locations.at(Path("runs") / plan.suite.name if out is None else out, "--out ")
    given = None if models is None else locations.at(models, "--models ")
    if given is not None and given.remote is None and not given.folder.is_dir():
        raise InputError(f"--models {given.name}: expected a folder of trained models, found none")
    if given is not None and fresh:
        found = f"--models {given.name} none: expected one of them, found both"
        raise InputError(f"--fresh trains every model anew, {found}")
    options = RunOptions(
        engine=engine,
        address=address,
        workers=workers or (1 if plan.device == "cuda" else default_workers()),
        timeout=timeout,
        fresh=fresh,
        keep_maps=keep_maps,
        models=None if given is None else given.folder.resolve(),
        plugins=tuple(str(Path(p).resolve()) if p.endswith(".py") else p for p in plugins),
        functions=functions,
    )
    return _Asked(plan, place, given, options)


def _planned(
    name: str,
    methods: Sequence[str | Callable[..., Any]] | None,
    common: Mapping[str, Any],
    changes: Mapping[str, Any] | None,
    plugins: Sequence[str],
    device: str,
) -> tuple[Plan, bytes]:
    loaded = _plugins(plugins)
    names, functions = handed_over(methods)
    given = {key: value for key, value in {"methods": names, **common}.items() if value is not None}
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    return planning.resolved(load_suite(name, {**given, **(changes or {})}, loaded), device), functions


def _plugins(plugins: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for plugin in plugins:
        for kind, names in load_plugin(plugin).items():
            found.setdefault(kind, []).extend(names)
    return found
