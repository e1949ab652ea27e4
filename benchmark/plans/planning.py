"""Suite → plan: resolves every name; trains nothing and reads no data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attribug import bugs, keys, methods, metrics, panels, tasks
from attribug.contracts import outputs
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import Trained, trainings
from attribug.contracts.options import check_options
from attribug.contracts.pieces import metric_and_post
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported, near_misses, one_line
from attribug.plans.asking import Tasks
from attribug.plans.mending import Chosen, chosen, expect_mended, mended_bugs, with_fixes
from attribug.plans.panelling import OWN, panel_cells
from attribug.plans.plan import Cell, Plan, level_text
from attribug.registry import REGISTRIES
from attribug.scores.records import Settings
from attribug.suites import suite

if TYPE_CHECKING:
    from attribug.contracts.pieces import Bug, Method, Metric
    from attribug.contracts.tasks import Level
    from attribug.suites.suite import Suite


def resolved(suite: Suite, device: str) -> Plan:
    """The plan of a suite on a device, `auto` resolved; raises `InputError` for a device that is not there."""
    import torch

    available = torch.cuda.is_available()
    if device not in {"auto", "cpu", "cuda"}:
        raise InputError(f"device: expected auto, cpu or cuda, found {device!r}")
    if device == "cuda" and not available:
        raise InputError("device: expected a CUDA device, found none on this machine; use --device cpu")
    return make(suite, ("cuda" if available else "cpu") if device == "auto" else device)


def load_suite(
    name: str, changes: Mapping[str, Any], plugins: Mapping[str, Sequence[str]] | None = None
) -> suite.Suite:
    """The suite with changes; names that plugins register join it, unless the change names their kind itself.

    A bug that the change removes takes its levels along, and so does a method its options.
    """
    loaded = suite.load(name, changes)
    update: dict[str, Any] = {}
    for kind, names in (plugins or {}).items():
        field = REGISTRIES[kind].plural
        if field not in changes and field in suite.Suite.model_fields:
            update[field] = [*getattr(loaded, field), *(n for n in names if n not in getattr(loaded, field))]
    whole = loaded.model_copy(update=update)
    if not (whole.tasks and whole.bugs):  # a suite of panels alone: a plugin's tasks without bugs are for panels
        update = {field: names for field, names in update.items() if field not in {"tasks", "bugs"}}
    loaded = loaded.model_copy(update=update)
    if "bugs" in changes:
        update["levels"] = {bug: levels for bug, levels in loaded.levels.items() if bug in loaded.bugs}
    if "methods" in changes:
        update["method_options"] = {m: options for m, options in loaded.method_options.items() if m in loaded.methods}
    if {"panels", "methods"} & set(changes):
        update |= _of_panels(loaded)
    if "fixes" in changes:
        kept = loaded.fixes
        update["fix_options"] = {name: options for name, options in loaded.fix_options.items() if name in kept}
        update["sweeps"] = {name: values for name, values in loaded.sweeps.items() if name in kept}
    if {"bugs", "tasks"} & set(changes):
        update["task_levels"] = {
            task: {bug: levels for bug, levels in its_bugs.items() if bug in loaded.bugs}
            for task, its_bugs in loaded.task_levels.items()
            if task in loaded.tasks
        }
        update["swept_tasks"] = [task for task in loaded.swept_tasks if task in loaded.tasks]
        if loaded.swept_tasks and not update["swept_tasks"]:  # which would mean all
            update["sweeps"] = {}
    return loaded.model_copy(update=update)


def _of_panels(loaded: suite.Suite) -> dict[str, Any]:
    """What a changed suite still says of its panels."""
    there = {name: [m for m in chosen if m in loaded.methods] for name, chosen in loaded.panel_methods.items()}
    return {
        "panel_options": {
            name: options for name, options in loaded.panel_options.items() if name in {*loaded.panels, OWN}
        },
        "panel_methods": {name: chosen for name, chosen in there.items() if chosen and name in {*loaded.panels, OWN}},
    }


def with_own_panel(loaded: suite.Suite) -> suite.Suite:
    """A suite of panels for what somebody brings: the panel `own` in the place of all others."""
    options = {OWN: loaded.panel_options[OWN]} if OWN in loaded.panel_options else {}
    named = {OWN: loaded.panel_methods[OWN]} if OWN in loaded.panel_methods else {}
    return loaded.model_copy(update={"panels": [OWN], "panel_options": options, "panel_methods": named, "cost": None})


def make(suite: Suite, device: str = "cpu") -> Plan:
    """Resolves a suite; raises `InputError` for names, levels or options that do not exist."""
    _refuse_half(suite)
    chosen_methods = tuple((methods.get(name), _method_options(suite, name)) for name in dict.fromkeys(suite.methods))
    for method, _ in chosen_methods:
        _refuse_without_key(method)
        _refuse_unread_headline(method)
    _refuse_unknown("method_options", suite.method_options, suite.methods)
    _refuse_unknown("levels", suite.levels, suite.bugs)
    _refuse_unknown("task_options", suite.task_options, tasks.names())
    chosen_bugs = {name: bugs.get(name) for name in dict.fromkeys(suite.bugs)}
    _refuse_unknown("task_levels", suite.task_levels, suite.tasks)
    for task_name, its_bugs in suite.task_levels.items():
        _refuse_unknown(f"task_levels.{task_name}", its_bugs, suite.bugs)
    _refuse_unknown("swept_tasks", suite.swept_tasks, suite.tasks)
    ask = Tasks(suite)
    chosen_tasks = {name: None if ask.missing(name) else ask(name) for name in dict.fromkeys(suite.tasks)}
    chosen_fixes = {name: chosen(suite, name) for name in chosen_tasks}
    cells = [
        cell
        for name, task in chosen_tasks.items()
        for bug in chosen_bugs.values()
        if bug.name in suite.task_levels.get(name, chosen_bugs)
        for level in _levels(suite, name, bug)
        for cell in (
            _absent(suite, name, bug, level, ask)
            if task is None
            else _cells(task, bug, level, suite.model_seeds, chosen_fixes[name])
        )
    ]
    if not cells and not suite.panels:
        raise InputError("task_levels: expected one of the bugs on one of the tasks, found none")
    expect_mended(suite, cells)
    panelled = list(panel_cells(suite, ask))
    measured, there = tuple(measured_by(suite)), [task for task in chosen_tasks.values() if task is not None]
    _refuse_without_rows(chosen_methods, measured, cells)
    _refuse_without_alignment(chosen_methods, measured, panelled)
    cells += panelled
    return Plan(
        suite=suite,
        device=device,
        cells=tuple(cells),
        bugs=chosen_bugs | mended_bugs(chosen_bugs, cells),
        fixes={each.fix.name: each.fix for each in chosen(suite)},
        panels={name: panels.get(name) for name in suite.panels},
        methods=chosen_methods,
        measured=measured,
        settings=Settings(suite.seed, suite.examples, suite.chunk, suite.rows, suite.maps),
        trainings=_all_trainings(cells),
        features={task.name: task.features for task in there if task.features},
        given={task.name: task.given.spec.key for task in there if task.given is not None},
        notes={task.name: task.notes for task in there if task.notes},
    )


def _refuse_half(suite: Suite) -> None:
    """Bugs without tasks, and tasks without bugs, say nothing; of fixes both are needed."""
    if bool(suite.tasks) != bool(suite.bugs):
        there, absent = ("tasks", "bugs") if suite.tasks else ("bugs", "tasks")
        given = ", ".join(suite.tasks or suite.bugs)
        raise InputError(f"{absent}: expected some for the {there} {given}, found none; name them with --{absent}")
    if suite.fixes and not suite.bugs:
        raise InputError(f"fixes: expected bugs that can be mended with {', '.join(suite.fixes)}, found none")


def _levels(suite: Suite, task: str, bug: Bug) -> list[Level]:
    """The levels of a bug on a task, each once; tables tell them apart by their texts."""
    its_own = suite.task_levels.get(task, {}).get(bug.name, [])
    levels = list(dict.fromkeys(its_own or suite.levels.get(bug.name, list(bug.levels))))
    if not levels:
        raise InputError(f"levels.{bug.name}: expected at least one level, found none")
    texts = [level_text(level) for level in levels]
    if len(set(texts)) < len(texts):
        raise InputError(f"levels.{bug.name}: expected levels that differ in six digits, found {levels}")
    return levels


def _refuse_without_key(method: Method) -> None:
    """A method whose content cannot be told apart from another's could be given that one's stored results."""
    try:
        keys.digest(method.function)
    except TypeError as error:
        raise InputError(f"method {method.name!r}: {error}") from error


def _refuse_unread_headline(method: Method) -> None:
    """A metric that cannot read what a method gives would leave its line of the matrix empty."""
    if method.headline:
        ((metric, _),) = metrics.measured_as(method.headline)
        if metric.reads != method.output:
            found = f"expected a metric of {method.output}, found {method.headline}, which reads {metric.reads}"
            raise InputError(f"method {method.name!r}: headline: {found}")


def _refuse_without_rows(
    chosen: Iterable[tuple[Method, Any]], measured: Iterable[tuple[Metric, str]], cells: Iterable[Cell]
) -> None:
    """Metrics of which none can read anything that is explained would make an empty table."""
    contrasts = [cell.contrast for cell in cells if cell.contrast is not None]
    given = {method.output for method, _ in chosen}
    readable = [metric for metric, _ in measured if metric.reads in given]
    if contrasts and not any(metric.applies(contrast) for metric in readable for contrast in contrasts):
        needs = sorted({need for metric in readable for need in metric.required})
        found = f"found only such as need {', '.join(needs)}" if needs else "found none"
        raise InputError(f"metrics: expected one that reads what these methods and bugs give, {found}")


def _refuse_without_alignment(
    chosen: Iterable[tuple[Method, Any]], measured: Iterable[tuple[Metric, str]], cells: Sequence[Cell]
) -> None:
    """Panels hold maps against masks: without a metric that does, or without a map, there is nothing to tell."""
    given = {method.output for method, _ in chosen if not method.is_bare}
    if cells and not any(metric.kind == "alignment" and metric.reads in given for metric, _ in measured):
        raise InputError(
            "metrics: expected one of alignment for panels, as iou or pointing_game, and a method, found none"
        )


def _cells(
    task: Task, bug: Bug, level: Level, seeds: tuple[int, ...], chosen_fixes: Sequence[Chosen]
) -> Iterable[Cell]:
    if isinstance(level, str) and bug.levels and not any(isinstance(known, str) for known in bug.levels):
        raise InputError(f"levels.{bug.name}: expected a number, found {level!r}")
    for seed in seeds:
        place = (task.name, bug.name, level_text(level), seed)
        try:
            cell = Cell(*place, bug.function(task, level, seed, seeds))
            if not isinstance(cell.contrast, Contrast):
                raise TypeError(f"expected a Contrast, found {type(cell.contrast).__name__}")
            keys.digest(cell.contrast)  # raises here, not in the middle of the plan, where it holds foreign values
            _all_trainings([cell])  # and so does this
            yield from with_fixes(cell, task, level, seeds, chosen_fixes)
        except Unsupported as reason:
            yield Cell(*place, None, "unsupported", str(reason))
        except InputError:
            raise
        except Exception as error:  # a plugin's fault costs its own rows only
            yield Cell(*place, None, "failed", one_line(error))


def _all_trainings(cells: Iterable[Cell]) -> dict[str, Trained]:
    needed: dict[str, Trained] = {}
    for cell in cells:
        explained = cell.contrast.models() if cell.contrast is not None else ()
        for model in (*explained, *(trial.model for trial in cell.trials)):
            needed.update({training.key: training for training in trainings(model) if training.key not in needed})
    return needed


def _absent(suite: Suite, task: str, bug: Bug, level: Level, ask: Tasks) -> Iterable[Cell]:
    """The cells of a task whose data are not on this machine."""
    reason = f"data are missing: {ask.missing(task)}"
    return [Cell(task, bug.name, level_text(level), seed, None, "unsupported", reason) for seed in suite.model_seeds]


def _method_options(suite: Suite, name: str) -> Mapping[str, Any]:
    options = suite.method_options.get(name, {})
    check_options(f"method_options.{name}", methods.get(name).function, options)
    return options


def measured_by(suite: Suite) -> Iterable[tuple[Metric, str]]:
    """Metrics and posts that a suite asks for, each once."""
    seen: set[tuple[str, str]] = set()
    for name in suite.metrics:
        for metric, post in _with_posts(name, suite.posts):
            if (metric.name, post) not in seen:
                seen.add((metric.name, post))
                yield metric, post


def _with_posts(name: str, posts: list[str]) -> list[tuple[Metric, str]]:
    pairs = metrics.measured_as(name)
    if not posts or metric_and_post(name)[1] is not None or not outputs.get(pairs[0][0].reads).maps:
        return pairs
    from attribug.metrics.postprocessing import steps

    metric = pairs[0][0]
    for post in posts:
        steps(post)  # an unknown post is the user's error; one that this metric cannot take is not
    return [(metric, post) for post in dict.fromkeys(posts) if not metrics.refusal(metric, post)]


def _refuse_unknown(key: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in set(known):
            raise InputError(f"{key}: unknown name {name!r}{near_misses(name, known)}")
