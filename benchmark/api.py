"""The benchmark from Python: run a suite, explain inputs."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import cloudpickle
import pandas as pd

from attribug import keys, locations, runner, suite, tables
from attribug import methods as registered
from attribug.analysis import read_analysis
from attribug.plan import Plan
from attribug.registry import InputError, load_plugin, near_misses
from attribug.results.schema import read_results
from attribug.store import ANALYSIS, RESULTS, RUN, SCORES, Models, Tensors, read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attribug.contracts import Data
    from attribug.dry_run import DryRun


@dataclass(frozen=True)
class Run:
    """A finished run and its tables."""

    folder: Path
    """Of the run, or of the copy of what lies at a URL."""
    results: pd.DataFrame
    """One row a task, bug, level, control, method, metric and post."""
    plan: Plan
    outcome: runner.Outcome | None
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
        return tables.headline(self.results, self.plan)

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
    reporter: runner.Reporter | None = None,
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
    with asked.used(cache), tables.prepare(place, cache, plan):
        if not fresh and tables.finished(place.folder, plan, with_maps=keep_maps):
            return Run(place.folder, read_results(place.folder / RESULTS), plan, None, url)
        asked.fetch_given()
        stored = Models(cache.folder, device=plan.device).cache
        exchange = locations.Exchange(place, cache, stored, fresh=fresh)
        exchange.begin(plan.trainings if asked.given is None else ())
        folder = place.folder.resolve()
        outcome = runner.run(plan, folder, cache.folder.resolve(), asked.options, reporter, exchange.sent)
        results = tables.write(outcome, place.folder)
        exchange.end()
        return Run(place.folder, results, plan, outcome, url)


def dry_run(name: str = "quick", **arguments: Any) -> DryRun:
    """What `run` with the same arguments would do, and what that would take by a short calibration on this machine.
    Trains nothing, and writes nothing but copies of remote places."""
    from attribug import dry_run as dry

    asked, cache, unreached = _asked(name, **arguments), locations.cache(), ""
    with asked.used(cache):
        try:
            asked.fetch_given()
            asked.place.fetch("records", "galleries")
            locations.fetch_models(cache, Models(cache.folder, device=asked.plan.device).cache, asked.plan.trainings)
        except InputError as error:
            unreached = f"not reached: {error}"
        places = asked.place.folder.resolve(), cache.folder.resolve()
        told = dry.dry_run(asked.plan, *places, asked.options, default_workers())
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
    options: runner.Options

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
            locations.fetch_models(self.given, Tensors(self.given.folder), self.plan.trainings)


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
    options = runner.Options(
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
    names, functions = _functions(methods)
    given = {key: value for key, value in {"methods": names, **common}.items() if value is not None}
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    return runner.resolved(load_suite(name, {**given, **(changes or {})}, loaded), device), functions


def load_suite(
    name: str, changes: Mapping[str, Any], plugins: Mapping[str, Sequence[str]] | None = None
) -> suite.Suite:
    """The suite with changes; names that plugins register join it, unless the change names their kind itself.

    A bug that the change removes takes its levels along, and so does a method its options.
    """
    loaded = suite.load(name, changes)
    update: dict[str, Any] = {}
    for kind, names in (plugins or {}).items():
        field = {"task": "tasks", "bug": "bugs", "method": "methods", "metric": "metrics"}[kind]
        if field not in changes:
            update[field] = [*getattr(loaded, field), *(n for n in names if n not in getattr(loaded, field))]
    loaded = loaded.model_copy(update=update)
    if "bugs" in changes:
        update["levels"] = {bug: levels for bug, levels in loaded.levels.items() if bug in loaded.bugs}
    if "methods" in changes:
        update["method_options"] = {m: options for m, options in loaded.method_options.items() if m in loaded.methods}
    return loaded.model_copy(update=update)


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@overload
def explain(
    name: str, model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int = ...,
    train_inputs: Tensor | None = ..., ids: Tensor | None = ..., **parameters: Any,
) -> Tensor: ...  # fmt: skip
@overload
def explain(
    name: Sequence[str], model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int = ...,
    train_inputs: Tensor | None = ..., ids: Tensor | None = ..., **parameters: Any,
) -> dict[str, Tensor]: ...  # fmt: skip


def explain(
    name: str | Sequence[str],
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    train_inputs: Tensor | None = None,
    ids: Tensor | None = None,
    **parameters: Any,
) -> Tensor | dict[str, Tensor]:
    """Attributions of one method, (N, *shape), or of several by name, which then share their passes.

    inputs (N, *shape); targets (N,) classes. The model must return logits (N, K); it is explained in eval mode and left
    as it was. `train_inputs` (M, *shape) for methods that need training data, `ids` (N,) name the examples' random
    streams (default 0 … N − 1). With several names each method takes the parameters it has.

    Raises `Unsupported` where a method cannot explain the model, `InputError` for unknown names and parameters.
    """
    from attribug.attribution import attributions, evaluated

    names = [name] if isinstance(name, str) else list(name)
    chosen = [registered.get(each) for each in names]
    options = {method.name: _taken(method.function, parameters) for method in chosen}
    for parameter in parameters:
        if not any(parameter in taken for taken in options.values()):
            known = {p for m in chosen for p in inspect.signature(m.function).parameters if p != "query"}
            raise InputError(f"{', '.join(names)}: unknown parameter {parameter!r}{near_misses(parameter, known)}")
    with evaluated(model) as ready:
        from attribug.query import Query

        query = Query(ready, inputs, targets, ids=ids, seed=seed, train=_training_data(train_inputs))
        maps = {method.name: attributions(method, query, options[method.name]) for method in chosen}
    return maps[names[0]] if isinstance(name, str) else maps


def _taken(function: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    accepted = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted):
        return dict(parameters)
    names = {parameter.name for parameter in accepted}
    return {name: value for name, value in parameters.items() if name in names}


def _training_data(inputs: Tensor | None) -> Callable[[], Data] | None:
    if inputs is None:
        return None
    import torch

    from attribug.contracts import Data

    ids = torch.arange(len(inputs))
    return lambda: Data(inputs, torch.zeros_like(ids), ids)


def _plugins(plugins: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for plugin in plugins:
        for kind, names in load_plugin(plugin).items():
            found.setdefault(kind, []).extend(names)
    return found


def _pickled(functions: Mapping[str, tuple[Callable[..., Any], str]]) -> bytes:
    """Functions for the workers: by name where their module can be imported there, else with their code."""
    modules = {sys.modules.get(function.__module__) for function, _ in functions.values()}
    unknown = [module for module in modules if module is not None and not _on_path(module.__name__)]
    for module in unknown:
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled: bytes = cloudpickle.dumps(dict(functions))
        return pickled
    finally:
        for module in unknown:
            cloudpickle.unregister_pickle_by_value(module)


def _on_path(module: str) -> bool:
    """Whether another process with this one's `sys.path` finds a module; cloudpickle sees to `__main__` itself."""
    return module == "__main__" or PathFinder.find_spec(module.partition(".")[0], sys.path) is not None


_GIVEN: set[str] = set()
"""Names of plain functions that this session handed over: a later one of the same name takes an earlier one's place."""


def _functions(methods: Sequence[str | Callable[..., Any]] | None) -> tuple[list[str] | None, bytes]:
    """Names of all methods, and the plain functions among them, pickled for the workers with their content keys."""
    if methods is None:
        return None, b""
    functions: dict[str, Callable[..., Any]] = {}
    for function in (method for method in methods if callable(method)):
        name = getattr(function, "__name__", None)
        if name is None:
            raise InputError("methods: expected functions with a name; give a partial or an object one by `def`")
        if name in functions or (name not in _GIVEN and name in registered.names()):
            raise InputError(f"methods: the name {name!r} of a function is taken; rename the function")
        functions[name] = function
    keyed = {name: (function, keys.digest(function)) for name, function in functions.items()}
    _GIVEN.update(keyed)
    pickled = _pickled(keyed) if keyed else b""
    registered.register_functions(pickled)
    return [method if isinstance(method, str) else method.__name__ for method in methods], pickled
