"""The Lab resolves any `ModelSpec` (train, derive, load) by its content key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from attribug.contracts.data import Data
from attribug.contracts.models import Derived, Given, chain, training_examples
from attribug.models.given import load
from attribug.models.training import derived, filled, placed, trained
from attribug.query.below import Below, Passed, unchanged

if TYPE_CHECKING:
    from attribug.contracts.data import Examples
    from attribug.contracts.models import ModelSpec, Trained
    from attribug.models.training import Progress

ROWS = 64  # of a pass without gradients: more do not fit a core's cache
REMEMBERED_MODELS = 32
REMEMBERED_BYTES = 3_000_000_000  # of models, and two whatever their size: a contrast of ViT-B has seven, 2.4 GB
FEWEST = 2
REMEMBERED_DATA = 8
REMEMBERED_OUTPUTS = 128


class ModelStore(Protocol):
    """Where trained weights are kept by content key."""

    def load_weights(self, key: str) -> dict[str, Tensor] | None:
        """The weights, or None when they are absent or damaged."""

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        """Keeps weights for good."""


class Lab:
    """Resolves models and their outputs; keeps the last few in memory, trained weights in the store."""

    def __init__(self, store: ModelStore, *, device: str = "cpu") -> None:
        self.store = store
        self.device = torch.device(device)
        self._models: _Recent[tuple[nn.Module, dict[Any, Any]]] = _Recent(REMEMBERED_MODELS, _bytes)
        self._data: _Recent[Data] = _Recent(REMEMBERED_DATA)
        self._outputs: _Recent[Tensor] = _Recent(REMEMBERED_OUTPUTS)
        self._passed = Passed()

    def data(self, examples: Examples) -> Data:
        """The examples, loaded once."""
        return self._data.get(examples.key, examples.load)

    def training_data(self, spec: ModelSpec) -> Callable[[], Data] | None:
        """Loads what a model was last trained on; None of a given model, of which nobody knows."""
        examples = training_examples(spec)
        return None if examples is None else partial(self.data, examples)

    def model(self, spec: ModelSpec) -> nn.Module:
        """The model in eval mode on the lab's device; the same object for the same key, so leave it as it is."""
        return self._remembered(spec)[0]

    def kept(self, spec: ModelSpec) -> dict[Any, Any]:
        """What queries of a model remember of it, as long as it is in memory: nobody changes it there."""
        return self._remembered(spec)[1]

    def below(self, spec: ModelSpec) -> Below | None:
        """What a model shares with the one that it was made of first; None where nothing."""
        first, kept = chain(spec)[0], self.kept(spec)
        if first == spec:
            return None
        if "below" not in kept:
            there = isinstance(first, Given) or self.store.load_weights(first.key) is not None
            count = unchanged(self.model(spec), self.model(first)) if there else 0
            kept["below"] = Below(first.key, count, self.kept(first), self._passed) if count else None
        below: Below | None = kept["below"]
        return below

    def _remembered(self, spec: ModelSpec) -> tuple[nn.Module, dict[Any, Any]]:
        return self._models.get(spec.key, lambda: (placed(self._resolve(spec), self.device).eval(), {}))

    def train(self, spec: Trained, *, fresh: bool = False, progress: Progress = lambda epochs: None) -> None:
        """Sees to it that a trained model lies in the store; `fresh` trains it anew even if it does."""
        if not fresh and self.store.load_weights(spec.key) is not None:
            return
        start = None if spec.start is None else self.model(spec.start).state_dict()
        model = trained(spec, self.data(spec.examples), start, self.device, progress)
        self.store.save_weights(spec.key, model.state_dict())
        self.forget_models()

    def forget_models(self) -> None:
        """Drops all models and their outputs from memory, in case somebody changed one."""
        self._models.clear()
        self._outputs.clear()
        self._passed.clear()

    def outputs(self, spec: ModelSpec, examples: Examples) -> Tensor:
        """Logits (N, K) on the CPU, float32."""
        key = f"{spec.key} {examples.key}"
        return self._outputs.get(key, lambda: logits(self.model(spec), self.data(examples).inputs, self.below(spec)))

    def _resolve(self, spec: ModelSpec) -> nn.Module:
        if isinstance(spec, Given):
            return load(spec)
        if isinstance(spec, Derived):
            return derived(spec, self.model(spec.base).state_dict())
        weights = self.store.load_weights(spec.key)
        if weights is None:
            self.train(spec)
            weights = self.store.load_weights(spec.key)
        if weights is None:
            raise RuntimeError("a model that was just trained cannot be read back")
        return filled(spec, weights)


def logits(model: nn.Module, inputs: Tensor, below: Below | None = None) -> Tensor:
    """Outputs of a model in bounded passes, (N, K) on the CPU; `below`: what it shares with another."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def of(rows: Tensor) -> Tensor:
        outputs: Tensor = model(rows) if below is None else below.outputs(model, rows)[0]
        return outputs.cpu()

    with torch.no_grad():
        return torch.cat([of(rows.to(device)) for rows in inputs.split(ROWS)])


def _bytes(remembered: tuple[nn.Module, dict[Any, Any]]) -> int:
    state = remembered[0].state_dict().values()
    return sum(value.nbytes for value in state if isinstance(value, Tensor))


T = TypeVar("T")


class _Recent(Generic[T]):
    """The last few values by key."""

    def __init__(self, size: int, weigh: Callable[[T], int] = lambda value: 0) -> None:
        """`weigh`: bytes of a value, of which all together take at most `REMEMBERED_BYTES`."""
        self.size = size
        self.weigh = weigh
        self.values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        if key not in self.values:
            self.values[key] = make()
            while len(self.values) > self.size or (len(self.values) > FEWEST and self._heavy()):
                self.values.popitem(last=False)
        self.values.move_to_end(key)
        return self.values[key]

    def _heavy(self) -> bool:
        return sum(self.weigh(value) for value in self.values.values()) > REMEMBERED_BYTES

    def clear(self) -> None:
        self.values.clear()
