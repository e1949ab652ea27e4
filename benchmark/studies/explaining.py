"""What studies share: tasks, methods, maps and tables of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from attribug import methods as registered
from attribug import metrics, tasks
from attribug.contracts import outputs
from attribug.contracts.options import check_options
from attribug.contracts.pieces import Method
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported, near_misses, one_line
from attribug.maps.attribution import attributions
from attribug.models.lab import Lab
from attribug.query.query import Query
from attribug.storage.files import storing
from attribug.storage.folders import cache_folder
from attribug.storage.models import Models

if TYPE_CHECKING:
    from attribug.contracts.data import Data
    from attribug.contracts.models import ModelSpec

STUDIED_METHODS = ("gradient", "guided_backprop", "grad_cam", "random", "edges")
"""Of one pass each, or none; `smoothgrad` takes 50."""
STUDIED_METRIC = "spearman@sum"
Options = Mapping[str, Mapping[str, Any]]


def lab_of_the_cache() -> Lab:
    cache = cache_folder()
    with storing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    return Lab(Models(cache))


def expect_whole(**numbers: object) -> None:
    """Raises `InputError` for what is no whole number."""
    for name, number in numbers.items():
        if not isinstance(number, int):
            raise InputError(f"{name}: expected a whole number, found {number!r}")


def refuse_single_images(examples: int) -> None:
    if examples < 2:
        raise InputError(f"examples: expected at least 2, so that maps of different images meet, found {examples}")


def made_task(task: str | Task, seed: int, options: Mapping[str, Any]) -> Task:
    if isinstance(task, Task):
        if options:
            raise InputError("task_options: expected none beside a task that is made already")
        return task
    source = tasks.get(task)
    if absent := source.absent_under(options):
        raise InputError(f"missing data: {task}: {absent}")
    check_options("task_options", source.function, options, skip={"seed", "other"})
    made: Task = source.function(seed=seed, other=lambda name: made_task(name, seed, {}), **options)
    return made


def chosen_methods(methods: Sequence[str | Method], options: Options) -> list[tuple[Method, Mapping[str, Any]]]:
    for method in methods:
        if not isinstance(method, str | Method):
            raise InputError(f"methods: expected registered names or methods, found {type(method).__name__}")
    chosen = {each.name: each for each in (registered.get(m) if isinstance(m, str) else m for m in methods)}
    if len(chosen) < len(methods):
        raise InputError("methods: expected every method once, found one twice")
    for name, given in options.items():
        if name not in chosen:
            raise InputError(f"method_options: unknown name {name!r}{near_misses(name, chosen)}")
        check_options(f"method_options.{name}", chosen[name].function, given)
    return [(method, options.get(name, {})) for name, method in chosen.items()]


def similarity_post(name: str, only: Sequence[str] = ()) -> str:
    """The post of a similarity of maps; raises `InputError` for another metric, or for one that is not among `only`."""
    metric, post = metrics.measured_as(name)[0]
    if metric.kind != "similarity" or not outputs.get(metric.reads).maps:
        raise InputError(f"metric: expected a similarity of maps, found {name!r}")
    if only and metric.name not in only:
        raise InputError(f"metric: expected {' or '.join(only)}, found {name!r}")
    return post


def maps_of(method: Method, options: Mapping[str, Any], query: Query) -> Tensor:
    if not outputs.get(method.output).maps:
        raise Unsupported(f"it gives {method.output}, not maps")
    return attributions(method, query, options).cpu()


def study_query(lab: Lab, model: ModelSpec, data: Data, targets: Tensor, seed: int) -> Query:
    """A query of its own for every method, so that none can spoil what another gets."""
    train = lab.training_data(model)
    inputs, targets = data.inputs.to(lab.device), targets.to(lab.device)
    kept = lab.kept(model)
    return Query(lab.model(model), inputs, targets, ids=data.ids, seed=seed, train=train, kept=kept)


def study_table(
    task: Task,
    methods: Sequence[tuple[Method, Mapping[str, Any]]],
    columns: Sequence[str],
    measured: Callable[[Method, Mapping[str, Any]], dict[str, Any]],
    lab: Lab,
) -> pd.DataFrame:
    """One row a method: what `measured` tells, or the reason why it cannot."""
    rows = []
    for method, options in methods:
        try:
            numbers = measured(method, options)
        except Unsupported as reason:
            numbers = {"reason": f"unsupported: {reason}"}
        except Exception as error:  # foreign code: whatever it raises costs its own row only
            numbers = {"reason": f"failed: {one_line(error)}"}
            lab.forget_models()  # it may have changed one
        rows.append({"task": task.name, "method": method.name, **numbers})
    texts = {"task", "method", "reason"}
    table = pd.DataFrame(rows, columns=list(columns))
    return table.astype({name: str if name in texts else np.float64 for name in columns})
