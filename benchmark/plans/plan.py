"""The plan of a run: its cells, trainings and blocks, with their content keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attribug import artefacts, keys, metrics, tasks
from attribug.contracts import outputs
from attribug.contracts.contrasts import Contrast, Trial
from attribug.contracts.models import Trained
from attribug.contracts.pieces import Bug, Fix, Method, Metric, Panel, metric_and_post
from attribug.scores.records import Settings
from attribug.suites.suite import Suite

if TYPE_CHECKING:
    from attribug.contracts.subjects import Subject
    from attribug.contracts.tasks import Level

LIBRARIES = ("torch", "torchvision", "captum", "zennit", "numpy", "scipy", "scikit-image", "mlxtend")
ACCURACY = "accuracy"
"""The check of a subject, which has no bounds: it is told, not judged."""


@dataclass(frozen=True)
class Cell:
    """One contaminated model's place in the table: task × bug × level × seed; of a subject, in the same fields, panel ×
    model × data × seed."""

    task: str
    bug: str
    level: str
    seed: int
    contrast: Contrast | None
    verdict: str = ""
    """`unsupported` or `failed` where there is no contrast."""
    reason: str = ""
    trials: tuple[Trial, ...] = ()
    """Mended models that are measured; the first one is the one that is explained. Of a bug itself: its own model."""
    subject: Subject | None = None
    """Of a panel: the model that is held against masks; its contrast has neither references nor controls."""

    @cached_property
    def key(self) -> str:
        """Content key of the cell's checks."""
        checks = () if self.contrast is None else self.contrast.checks
        return keys.digest("checks", checks, artefacts.code("check"), keys.version("torch"))

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
    fixes: Mapping[str, Fix] = field(default_factory=dict)
    panels: Mapping[str, Panel] = field(default_factory=dict)
    trainings: Mapping[str, Trained] = field(default_factory=dict)
    """By content key; what a training starts from comes before it."""
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the entries of a task's inputs, by task; of those that have any."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Content keys of models that somebody brings, by task."""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What was found about models and data that somebody brings, by task."""

    @property
    def contrasted(self) -> list[tuple[int, Cell]]:
        """Cells of bugs, with their numbers."""
        return [(n, cell) for n, cell in enumerate(self.cells) if cell.task not in self.panels]

    @property
    def panelled(self) -> list[tuple[int, Cell]]:
        """Cells of panels, with their numbers."""
        return [(n, cell) for n, cell in enumerate(self.cells) if cell.task in self.panels]

    def methods_of(self, cell: Cell) -> tuple[tuple[Method, Mapping[str, Any]], ...]:
        """The methods that a cell is explained by: all, or, of a panel, those that explain and that the suite names for
        it."""
        if cell.task not in self.panels:
            return self.methods
        named = self.suite.panel_methods.get(cell.task)
        return tuple(
            (method, options) for method, options in self.methods
            if not method.is_bare and (named is None or method.name in named)
        )  # fmt: skip

    def measured_in(self, cell: Cell) -> tuple[tuple[Metric, str], ...]:
        """The metrics and posts that a cell is measured by."""
        applying = tuple(pair for pair in self.measured if pair[0].applies(cell.contrast))
        return applying if cell.subject is None else tuple(p for p in applying if p[0].kind == "alignment")

    def record_key(self, cell: Cell, method: str) -> str:
        """Content key of a record: all that determines its numbers, code and library versions included."""
        chosen, parameters = next(pair for pair in self.methods if pair[0].name == method)
        if cell.contrast is None:
            raise ValueError(f"{cell.name}: there is nothing to record")
        yardsticks = [
            (
                metric.name,
                post,
                metric.function,
                metric.prepare,
                metric.kind,
                metric.inputs,
                metric.beside,
                metric.images,
                metric.chance,
            )
            for metric, post in self.measured_in(cell)
            if metric.reads == chosen.output
        ]
        asked = () if cell.subject is None else (cell.subject.regions, cell.subject.tested is None)
        return keys.digest(
            "record", replace(cell.contrast, checks=()), chosen.name, chosen.function,
            outputs.get(chosen.output).content, chosen.needs, chosen.conserves, dict(parameters),
            yardsticks, asked, self.settings, self.device, artefacts.code("record"),
            keys.versions(*LIBRARIES),
        )  # fmt: skip

    @cached_property
    def explaining_key(self) -> str:
        """Content key of what all explanations rest on: device, code, library versions."""
        return keys.digest("explaining", self.device, artefacts.code("kept map"), keys.versions(*LIBRARIES))

    def check_key(self, cell: Cell) -> str:
        """Content key of a cell's checks on this plan's device."""
        return keys.digest(cell.key, self.device)

    def trial_key(self, trial: Trial) -> str:
        """Content key of what is measured of a mended model."""
        told = (trial.model, dict(trial.sets), trial.truth)
        return keys.digest("trial", told, artefacts.code("trial"), keys.version("torch"), self.device)

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
        records = [self.record_key(cell, m.name)
                   for cell in self.cells if cell.contrast for m, _ in self.methods_of(cell)]  # fmt: skip
        outcomes = [(cell.name, cell.verdict, cell.reason, cell.contrast and cell.key) for cell in self.cells]
        trials = [(t.fix, t.setting, self.trial_key(t)) for cell in self.cells for t in cell.trials]
        contrasts = [cell.contrast for cell in self.cells]
        rows = [[metric.applies(contrast) for contrast in contrasts] for metric, _ in self.measured]
        return keys.digest(
            "table", records, outcomes, trials, rows, self._facts(), self.features, self.notes, self.suite.name,
            self.suite.visible, self.device, artefacts.code("table"),
        )  # fmt: skip

    def _facts(self) -> list[Any]:
        """Everything that the run's pieces say of themselves: tables, run.json and pages repeat it."""
        told = [tasks.get(name) for name in dict.fromkeys(self.suite.tasks)]
        pieces = [
            *told,
            *self.panels.values(),
            *self.bugs.values(),
            *self.fixes.values(),
            *(method for method, _ in self.methods),
        ]
        return [*((piece.facts, piece.summary) for piece in pieces),
                *((metric.facts, metric.summary, post) for metric, post in self.measured)]  # fmt: skip

    @property
    def refusals(self) -> list[str]:
        """Why some metric is not measured under some of the suite's posts, a line each."""
        chosen = {
            name: metrics.measured_as(name)[0][0] for name in self.suite.metrics if metric_and_post(name)[1] is None
        }
        reasons = [
            metrics.refusal(metric, post)
            for metric in chosen.values()
            for post in self.suite.posts
            if outputs.get(metric.reads).maps
        ]
        return [reason for reason in dict.fromkeys(reasons) if reason]

    def counts(self) -> dict[str, int]:
        """Size of the plan."""
        contrasts = sum(cell.contrast is not None for cell in self.cells)
        sides = sum(len(cell.contrast.sides) for cell in self.cells if cell.contrast is not None)
        explained = sum(
            self.queries(cell.contrast, method)
            for cell in self.cells
            for method, _ in self.methods_of(cell)
            if cell.contrast is not None
        )
        return {
            "trainings": len(self.trainings),
            "contrasts": contrasts,
            "records": sum(len(self.methods_of(cell)) for cell in self.cells if cell.contrast is not None),
            "sides": sides,
            "explanations": explained * self.settings.examples,
        }

    def queries(self, contrast: Contrast, method: Method) -> int:
        """Sides that a method explains, a side once more for every further version of the inputs that is read."""
        applying = [m for m, _ in self.measured if m.reads == method.output and m.applies(contrast)]
        return len(contrast.sides) * len({"", *(version for metric in applying for version in metric.versions)})


def level_text(level: Level) -> str:
    """A level as tables spell it."""
    return level if isinstance(level, str) else f"{level:g}"
