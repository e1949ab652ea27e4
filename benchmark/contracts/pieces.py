"""The facts of registered pieces: tasks, bugs, methods, metrics, fixes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from attribug.contracts import outputs
from attribug.contracts.tasks import Level
from attribug.registry import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.contrasts import Contrast


@dataclass(frozen=True)
class TaskSource(Entry):
    """A registered task: `function(*, seed, other, **options)` gives a `Task`."""

    source: str = ""
    licence: str = ""
    size: str = ""
    missing: Callable[..., str] | None = None
    """Returns how to get data that are not on this machine, or an empty text; takes, by name and with the same
    defaults, those of the task's options that decide it."""

    @property
    def absent(self) -> str:
        """How to get the data where they are not on this machine, else an empty text."""
        return self.absent_under({})

    def absent_under(self, options: Mapping[str, Any]) -> str:
        """The same under options of the task."""
        if self.missing is None:
            return ""
        known = inspect.signature(self.missing).parameters
        return self.missing(**{name: value for name, value in options.items() if name in known})


@dataclass(frozen=True)
class Bug(Entry):
    """A registered bug: `function(task, level, seed, seeds)` describes a `Contrast`; it trains nothing."""

    stage: Literal["data", "model", "test"] = "data"

    def __post_init__(self) -> None:
        """Raises `ValueError` for a fact that means nothing."""
        _one_of("stage", self.stage, ("data", "model", "test"))
        if metric_and_post(self.primary)[1] is None:
            raise ValueError(f"primary: expected metric@post, found {self.primary!r}")

    levels: tuple[Level, ...] = ()
    primary: str = "spearman@sum"
    """The `metric@post` whose verdict is the headline."""
    graded: bool = True
    """Whether levels are strengths of one contamination, so that an effect can be drawn against them."""
    seen_in_predictions: bool = False
    """Whether the checks are measured on the explained predictions: their row is then true by construction."""


FIX_NEEDS = ("masks", "annotations", "groups", "balanced data", "direction")


@dataclass(frozen=True)
class Fix(Entry):
    """A registered fix: `function(task, contrast, level, seed, seeds, **parameters)` describes the mended model, a
    `ModelSpec`; it trains nothing. `level`, `seed` and `seeds` are those that the bug's contrast was described with."""

    needs: tuple[str, ...] = ()
    """What it must be given beside the contaminated training set, of `FIX_NEEDS`: object masks, annotations of what
    must not matter, group labels, held-out data in which the bug's correlation is broken, a concept's direction."""
    swept: str = ""
    """Its parameter that a sweep varies, if any."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for a fact that means nothing."""
        for need in self.needs:
            _one_of("needs", need, FIX_NEEDS)


@dataclass(frozen=True)
class Panel(Entry):
    """A registered panel: `function(ask, *, seed, seeds, **options)` yields `Subject`s, and `Lacking` for those that
    cannot be asked; `ask(name, **options)` gives a task, `seeds` are those of models that are trained alike. It trains
    nothing."""


@dataclass(frozen=True)
class Method(Entry):
    """A registered method: `function(query, **parameters)` gives signed, unreduced attributions, or its `output`."""

    uses_target: bool = True
    stochastic: bool = False
    uses: str = ""
    """The query's primitive it rests on: methods with the same one are bundled."""
    needs: tuple[str, ...] = ()
    """What the preflight asks of a model before the method runs: see `attribug.query.preflight.PREFLIGHT`."""
    fits_training_data: bool = False
    conserves: bool = False
    """Whether maps sum to what the function states with `query.promise`: measured, stored, warned of."""
    output: str = "attributions"
    """The kind of what it gives: see `attribug.contracts.outputs`."""
    explains: bool = True
    """False for a yardstick, beside which explanations are read: it knows nothing of the model, so that it may detect
    nothing. (What gives a model's own outputs is a yardstick in any case.)"""
    headline: str = ""
    """The `metric@post` that stands for it in the matrix; empty: each bug's primary one."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for a fact that means nothing."""
        _one_of("output", self.output, outputs.names())
        if self.headline and "@" not in self.headline:
            raise ValueError(f"headline: expected metric@post, found {self.headline!r}")

    @property
    def is_bare(self) -> bool:
        """Whether it gives what the model itself says, without any explanation."""
        return not outputs.get(self.output).explains

    @property
    def is_yardstick(self) -> bool:
        """Whether its row explains nothing."""
        return self.is_bare or not self.explains


@dataclass(frozen=True)
class Metric(Entry):
    """A registered metric; values (N,) float64, NaN where undefined (a constant map, an empty mask): counted, never
    dropped.

    `similarity`: `function(a, b)`, two models' maps of one input; a bug lowers it.
    `alignment`: `function(a, masks)`, one model's maps and the truth mask; a bug raises it.
    `response`: `function(a, beside)`, what one model says of an input and of its other version; a bug raises it.
    """

    kind: Literal["similarity", "alignment", "response"] = "similarity"
    bounds: tuple[float, float] = (-1.0, 1.0)
    visible: float = 0.1
    """δ: the smallest difference that counts as seen; our choice."""
    posts: tuple[str, ...] = ("sum",)
    """Default post-processings, the first one the default of a single measurement."""
    prepare: Callable[[Tensor], Any] | None = None
    """Makes of post-processed maps the form in which one map meets many; a slice or (M,) int64 selects examples."""
    chance: Callable[[Tensor], Tensor] | None = None
    """What an alignment expects of maps of Gaussian noise, (N,) from masks (N, *spatial) bool, where that is known
    exactly; None: panels measure it on such maps."""
    symmetric: bool = True
    domain: tuple[float | None, float | None] = (None, None)
    """Lowest and highest value a map may have (None: any): posts that do not promise it are refused."""
    channels: bool = False
    """Whether an alignment reads maps (N, C, *spatial) instead of (N, *spatial)."""
    images: bool = False
    """Whether it is defined for maps of images alone, (N, C, H, W): those of sequences and vectors are refused."""
    reads: str = "attributions"
    """The kind of output it reads: see `attribug.contracts.outputs`."""
    inputs: str = ""
    """Version of the explained examples (of `Contrast.extra`) whose maps are read instead of theirs."""
    beside: str = ""
    """Version whose maps under the same model are a last argument, post-processed and prepared alike."""
    needs: tuple[str, ...] = ()
    """What else a contrast must offer (`truth`, a version): elsewhere the metric has no rows."""
    reproduction: bool = False
    """Kept to repeat published numbers: never a bug's primary metric."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for a fact that means nothing."""
        _one_of("kind", self.kind, ("similarity", "alignment", "response"))
        _one_of("reads", self.reads, outputs.names())
        if not self.posts:
            raise ValueError("posts: expected at least one post, found none")
        if self.kind == "response" and not self.beside:
            raise ValueError("beside: a response compares two versions of an input, expected the second's name")
        if self.kind == "similarity" and self.beside:
            raise ValueError(f"beside: a similarity compares two models, expected none, found {self.beside!r}")

    @property
    def asks_directly(self) -> bool:
        """Whether it asks the model itself, not an explanation, about another version of an input."""
        return self.kind == "response" and not outputs.get(self.reads).explains

    @property
    def versions(self) -> frozenset[str]:
        """Versions of the inputs whose maps it reads; `""`: as explained."""
        return frozenset({self.inputs, *([self.beside] if self.beside else [])})

    @property
    def required(self) -> frozenset[str]:
        """What a contrast must offer for this metric to have rows."""
        truth = {"truth"} if self.kind == "alignment" else set()
        return frozenset({*self.needs, *truth, self.inputs, self.beside} - {""})

    def applies(self, contrast: Contrast | None) -> bool:
        """Whether a contrast offers all that this metric needs; None, which stands for no contrast, offers nothing."""
        return self.required <= (frozenset() if contrast is None else contrast.offers)


def metric_and_post(name: str) -> tuple[str, str | None]:
    """What `metric@post` names; None where it names no post."""
    metric, at, post = name.partition("@")
    return metric, post if at else None


def _one_of(fact: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{fact}: expected one of {', '.join(known)}, found {value!r}")
