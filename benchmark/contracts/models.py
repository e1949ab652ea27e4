"""Models as they are described: by examples, recipe and seed, by what is done to another model, or as given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attribug import artefacts, keys
from attribug.contracts.objectives import cross_entropy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from attribug.contracts.data import Examples
    from attribug.contracts.objectives import Objective

Fit = Callable[..., "nn.Module"]
"""`fit(model, data, recipe, seed, *, trainable, progress)`: see `attribug.models.training.train`."""


@dataclass(frozen=True)
class Recipe:
    """What, with a seed, turns examples into a model: Adam, one cycle of the learning rate, an objective."""

    network: Callable[[], nn.Module]
    """Builds the untrained network; a module-level function or a `partial` of one."""
    epochs: int
    batch: int = 64
    learning_rate: float = 3e-3
    """Peak of the cycle."""
    objective: Objective = cross_entropy
    """What a batch is to minimise: a module-level function of model and batch, or a `partial` that sets its
    parameters."""
    fit: Fit | None = None
    """Trains instead of `attribug.models.training.train`, with its arguments and what it returns: a module-level
    function or a `partial` of one. The model it returns may be another one, of the same layers."""


class ByKey:
    """Equality by content key: two descriptions of the same thing are the same thing."""

    key: Any

    def __content_key__(self) -> str:
        return str(self.key)

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
        return keys.digest("trained", *parts, artefacts.code("model"), keys.version("torch"))


@dataclass(frozen=True, eq=False)
class Derived(ByKey):
    """A model made from another without training: `change(model, generator)` edits a copy in place."""

    base: ModelSpec
    change: Callable[[nn.Module, torch.Generator], None]
    seed: int

    @cached_property
    def key(self) -> str:
        """Content key: base model, change with its code, seed."""
        return keys.digest("derived", self.base, self.change, self.seed, artefacts.code("derived model"))


@dataclass(frozen=True, eq=False)
class Given(ByKey):
    """A model that somebody else has trained: `source()` loads it, `digest` tells its weights and buffers. It is never
    trained, and what is loaded must be what was described: see `attribug.models.given`."""

    source: Callable[[], nn.Module]
    """A module-level function or a `partial` of one; every call gives a model of its own."""
    digest: str

    @cached_property
    def key(self) -> str:
        """Content key: the source's code, weights and buffers."""
        return keys.digest("given", self.source, self.digest)


ModelSpec = Trained | Derived | Given


def below(spec: ModelSpec) -> ModelSpec | None:
    """What a model starts from; None of one that starts from nothing."""
    if isinstance(spec, Given):
        return None
    return spec.base if isinstance(spec, Derived) else spec.start


def chain(spec: ModelSpec) -> list[ModelSpec]:
    """A model and all that it starts from, deepest first."""
    start = below(spec)
    return [*([] if start is None else chain(start)), spec]


def trainings(spec: ModelSpec) -> list[Trained]:
    """The trainings a model rests on, deepest first; the last one is the nearest. None of a given model."""
    return [model for model in chain(spec) if isinstance(model, Trained)]


def training_examples(spec: ModelSpec) -> Examples | None:
    """What a model was last trained on; None of a given model."""
    trained = trainings(spec)
    return trained[-1].examples if trained else None
