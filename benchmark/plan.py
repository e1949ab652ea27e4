"""Suite → trainings and blocks, with their content keys; trains nothing and reads no data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from attribug import bugs, keys, methods, metrics, tasks
from attribug.contracts import Bug, Contrast, Level, Method, Metric, Task, Trained, Unsupported, trainings
from attribug.registry import InputError, near_misses, one_line
from attribug.scoring import Settings
from attribug.suite import Suite

LIBRARIES = ("torch", "torchvision", "captum", "zennit", "numpy", "scipy", "scikit-image", "mlxtend")


@dataclass(frozen=True)
class Cell:
    """One contaminated model's place in the table: task × bug × level × seed."""

    task: str
    bug: str
    level: str
    seed: int
    contrast: Contrast | None
    verdict: str = ""
    """`unsupported` or `failed` where there is no contrast."""
    reason: str = ""

    @cached_property
    def key(self) -> str:
        """Content key of the cell's checks."""
        return keys.digest("checks", self.contrast, keys.code("attribug.training"), keys.version("torch"))

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.task} / {self.bug} {self.level} / seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything a run will do, resolved and named."""

    suite: Suite
    device: str
    cells: tuple[Cell, ...]
    bugs: Mapping[str, Bug]
    methods: tuple[tuple[Method, Mapping[str, Any]], ...]
    measured: tuple[tuple[Metric, str], ...]
    settings: Settings
    trainings: Mapping[str, Trained] = field(default_factory=dict)
    """By content key; what a training starts from comes before it."""

    def record_key(self, cell: Cell, method: str) -> str:
        """Content key of a record: all that determines its numbers, code and library versions included."""
        chosen, parameters = next(pair for pair in self.methods if pair[0].name == method)
        yardsticks = [
            (metric.name, post, metric.function, metric.prepare, metric.kind, sorted(metric.required), metric.inputs)
            for metric, post in self.measured
            if metric.reads == chosen.output
        ]
        if cell.contrast is None:
            raise ValueError(f"{cell.name}: there is nothing to record")
        return keys.digest(
            "record", replace(cell.contrast, checks=()), chosen.name, chosen.function, chosen.output, chosen.needs,
            dict(parameters),
            yardsticks, self.settings, self.device, keys.code("attribug.scoring"), keys.versions(*LIBRARIES),
        )  # fmt: skip

    @cached_property
    def explaining_key(self) -> str:
        """Content key of what all explanations rest on: device, code, library versions."""
        return keys.digest("explaining", self.device, keys.code("attribug.scoring"), keys.versions(*LIBRARIES))

    def check_key(self, cell: Cell) -> str:
        """Content key of a cell's checks on this plan's device."""
        return keys.digest(cell.key, self.device)

    @cached_property
    def bundles(self) -> tuple[tuple[str, ...], ...]:
        """Names of methods that share passes, one bundle a primitive; those that share nothing go together."""
        groups: dict[str, list[str]] = {}
        for method, _ in self.methods:
            groups.setdefault(method.uses, []).append(method.name)
        return tuple(tuple(names) for names in groups.values())

    @cached_property
    def key(self) -> str:
        """Content key of the whole table."""
        records = [self.record_key(cell, m.name) for cell in self.cells if cell.contrast for m, _ in self.methods]
        outcomes = [(cell.name, cell.verdict, cell.reason, cell.contrast and cell.key) for cell in self.cells]
        headlines = [(bug.name, bug.primary, bug.seen_in_predictions, bug.graded) for bug in self.bugs.values()]
        yardsticks = [(metric.name, post, metric.visible) for metric, post in self.measured]
        return keys.digest(
            "table", records, outcomes, headlines, yardsticks, self.suite.name, self.suite.visible, self.device,
            keys.code("attribug.tables"),
        )  # fmt: skip

    @property
    def refusals(self) -> list[str]:
        """Why some metric is not measured under some of the suite's posts, a line each."""
        chosen = {name: metrics.measured_as(name)[0][0] for name in self.suite.metrics if "@" not in name}
        reasons = [
            metrics.refusal(metric, post)
            for metric in chosen.values()
            for post in self.suite.posts
            if metric.reads == "attributions"
        ]
        return [reason for reason in dict.fromkeys(reasons) if reason]

    def counts(self) -> dict[str, int]:
        """Size of the plan."""
        contrasts = sum(cell.contrast is not None for cell in self.cells)
        sides = sum(len(cell.contrast.sides) for cell in self.cells if cell.contrast is not None)
        explained = sum(
            self.queries(cell.contrast, method)
            for cell in self.cells
            for method, _ in self.methods
            if cell.contrast is not None
        )
        return {
            "trainings": len(self.trainings),
            "contrasts": contrasts,
            "records": contrasts * len(self.methods),
            "sides": sides,
            "explanations": explained * self.settings.examples,
        }

    def queries(self, contrast: Contrast, method: Method) -> int:
        """Sides that a method explains, a side once more for every further version of the inputs that is read."""
        applying = [m for m, _ in self.measured if m.reads == method.output and m.applies(contrast)]
        return len(contrast.sides) * len({"", *(version for metric in applying for version in metric.versions)})


def make(suite: Suite, device: str = "cpu") -> Plan:
    """Resolves a suite; raises `InputError` for names, levels or options that do not exist."""
    chosen_methods = tuple((methods.get(name), _method_options(suite, name)) for name in dict.fromkeys(suite.methods))
    for method, _ in chosen_methods:
        _refuse_without_key(method)
    _refuse_unknown("method_options", suite.method_options, suite.methods)
    _refuse_unknown("levels", suite.levels, suite.bugs)
    _refuse_unknown("task_options", suite.task_options, tasks.names())
    chosen_bugs = {name: bugs.get(name) for name in dict.fromkeys(suite.bugs)}
    cells = [
        cell
        for task in _tasks(suite)
        for bug in chosen_bugs.values()
        for level in _levels(suite, bug)
        for cell in _cells(task, bug, level, suite.model_seeds)
    ]
    measured = tuple(_measured(suite))
    _refuse_without_rows(chosen_methods, measured, cells)
    return Plan(
        suite=suite,
        device=device,
        cells=tuple(cells),
        bugs=chosen_bugs,
        methods=chosen_methods,
        measured=measured,
        settings=Settings(suite.seed, suite.examples, suite.chunk, suite.rows, suite.maps),
        trainings=_all_trainings(cells),
    )


def _levels(suite: Suite, bug: Bug) -> list[Level]:
    """The levels of a bug, each once; tables tell them apart by their texts."""
    levels = list(dict.fromkeys(suite.levels.get(bug.name, bug.levels)))
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


def _refuse_without_rows(
    chosen: Iterable[tuple[Method, Any]], measured: Iterable[tuple[Metric, str]], cells: Iterable[Cell]
) -> None:
    """Metrics of which none can read anything that is explained would make an empty table."""
    contrasts = [cell.contrast for cell in cells if cell.contrast is not None]
    outputs = {method.output for method, _ in chosen}
    readable = [metric for metric, _ in measured if metric.reads in outputs]
    if contrasts and not any(metric.applies(contrast) for metric in readable for contrast in contrasts):
        needs = sorted({need for metric in readable for need in metric.required})
        found = f"found only such as need {', '.join(needs)}" if needs else "found none"
        raise InputError(f"metrics: expected one that reads what these methods and bugs give, {found}")


def level_text(level: Level) -> str:
    """A level as tables spell it."""
    return level if isinstance(level, str) else f"{level:g}"


def _cells(task: Task, bug: Bug, level: Level, seeds: tuple[int, ...]) -> Iterable[Cell]:
    if isinstance(level, str) and bug.levels and not any(isinstance(known, str) for known in bug.levels):
        raise InputError(f"levels.{bug.name}: expected a number, found {level!r}")
    for seed in seeds:
        place = (task.name, bug.name, level_text(level), seed)
        try:
            cell = Cell(*place, bug.function(task, level, seed, seeds))
            if not isinstance(cell.contrast, Contrast):
                raise TypeError(f"expected a Contrast, found {type(cell.contrast).__name__}")
            cell.key  # noqa: B018 - raises here, not in the middle of the plan, where a contrast holds foreign values
            _all_trainings([cell])  # and so does this
            yield cell
        except Unsupported as reason:
            yield Cell(*place, None, "unsupported", str(reason))
        except InputError:
            raise
        except Exception as error:  # a plugin's fault costs its own rows only
            yield Cell(*place, None, "failed", one_line(error))


def _all_trainings(cells: Iterable[Cell]) -> dict[str, Trained]:
    found: dict[str, Trained] = {}
    for cell in cells:
        for model in cell.contrast.models() if cell.contrast is not None else ():
            found.update({training.key: training for training in trainings(model) if training.key not in found})
    return found


def _tasks(suite: Suite) -> list[Task]:
    made: dict[str, Task] = {}

    def task(name: str) -> Task:
        if name not in made:
            source = tasks.get(name)
            options = suite.task_options.get(name, {})
            check_options(f"task_options.{name}", source.function, options, skip={"seed", "other"})
            try:
                made[name] = source.function(seed=suite.seed, other=task, **options)
            except TypeError as error:
                raise InputError(f"task_options.{name}: {one_line(error)}") from error
            except InputError:
                raise
            except Exception as error:  # a plugin's fault; without a task there is nothing to plan
                raise InputError(f"task {name!r}: {one_line(error)}") from error
        return made[name]

    return [task(name) for name in dict.fromkeys(suite.tasks)]


def _method_options(suite: Suite, name: str) -> Mapping[str, Any]:
    options = suite.method_options.get(name, {})
    check_options(f"method_options.{name}", methods.get(name).function, options)
    return options


def check_options(
    key: str, function: Callable[..., Any], options: Mapping[str, Any], skip: Iterable[str] = ()
) -> None:
    """Raises `InputError` for options that a function has no keyword for, or of another type than its default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}: expected a function with a signature: {one_line(error)}") from error
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in set(skip)}
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{key}: unknown option {option!r}{near_misses(option, known)}")
        default = known[option]
        if isinstance(default, int | float) and not isinstance(value, int | float | type(default)):
            raise InputError(f"{key}.{option}: expected {type(default).__name__}, found {value!r}")
        if type(default) is int and type(value) is not int:
            raise InputError(f"{key}.{option}: expected int, found {value!r}")


def _measured(suite: Suite) -> Iterable[tuple[Metric, str]]:
    seen: set[tuple[str, str]] = set()
    for name in suite.metrics:
        for metric, post in _with_posts(name, suite.posts):
            if (metric.name, post) not in seen:
                seen.add((metric.name, post))
                yield metric, post


def _with_posts(name: str, posts: list[str]) -> list[tuple[Metric, str]]:
    pairs = metrics.measured_as(name)
    if not posts or "@" in name or pairs[0][0].reads == "probabilities":
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
