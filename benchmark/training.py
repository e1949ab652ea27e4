"""Turns examples into models, and the Lab: resolves any `ModelSpec` (train, derive, load) by its content key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from attribug.contracts import Check, Data, Derived, Examples, ModelSpec, Recipe, Trained, trainings
from attribug.streams import generator

Progress = Callable[[int], None]
DIVISOR_AT_START = 10.0  # of the one-cycle schedule: the first learning rate is the peak over this
ROWS = 64  # of a pass without gradients: more do not fit a core's cache
REMEMBERED_MODELS = 32
REMEMBERED_DATA = 8
REMEMBERED_OUTPUTS = 128


class ModelStore(Protocol):
    """Where trained weights are kept by content key."""

    def load_weights(self, key: str) -> dict[str, Tensor] | None:
        """The weights, or None when they are absent or damaged."""

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        """Keeps weights for good."""


@contextmanager
def seeded(stream: torch.Generator) -> Iterator[None]:
    """Seeds torch's global generator from a stream (initialisers know no other) and restores it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream.initial_seed())
        yield


def initialised(recipe: Recipe, seed: int) -> nn.Module:
    """The untrained network of a seed."""
    with seeded(generator("initialise", seed)):
        return recipe.network()


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    seed: int,
    *,
    trainable: Sequence[str] | None = None,
    progress: Progress = lambda epochs: None,
) -> nn.Module:
    """Trains a model in place and returns it in eval mode, on its own device.

    `trainable`: names of the modules that learn; all others are frozen (and stay in eval mode). `progress` is told the
    number of epochs that have passed, one by one.
    """
    device = next(model.parameters()).device
    inputs, labels = data.inputs.to(device), data.labels.to(device)
    parameters = _unfreeze(model, trainable)
    if not parameters:
        return model.eval()
    steps = -(-len(data) // recipe.batch)
    optimiser = torch.optim.Adam(parameters, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.epochs * steps, div_factor=DIVISOR_AT_START
    )
    stream = generator("shuffle", seed)
    with seeded(generator("train", seed)):  # dropout, where a network has it
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(data), generator=stream).to(device).split(recipe.batch):
                loss = nn.functional.cross_entropy(model(inputs[rows]), labels[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
            progress(1)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    return model.eval()


def _unfreeze(model: nn.Module, trainable: Sequence[str] | None) -> list[nn.Parameter]:
    """Sets who learns; returns their parameters."""
    if trainable is None:
        model.train()
        return list(model.parameters())
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    learning = [model.get_submodule(name).train() for name in trainable]
    parameters = [parameter for module in learning for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


class Lab:
    """Resolves models and their outputs; keeps the last few in memory, trained weights in the store."""

    def __init__(self, store: ModelStore, *, device: str = "cpu") -> None:
        self.store = store
        self.device = torch.device(device)
        self._models: _Recent[nn.Module] = _Recent(REMEMBERED_MODELS)
        self._data: _Recent[Data] = _Recent(REMEMBERED_DATA)
        self._outputs: _Recent[Tensor] = _Recent(REMEMBERED_OUTPUTS)

    def data(self, examples: Examples) -> Data:
        """The examples, loaded once."""
        return self._data.get(examples.key, examples.load)

    def model(self, spec: ModelSpec) -> nn.Module:
        """The model in eval mode on the lab's device; the same object for the same key, so leave it as it is."""
        return self._models.get(spec.key, lambda: self._placed(self._resolve(spec)).eval())

    def train(self, spec: Trained, *, fresh: bool = False, progress: Progress = lambda epochs: None) -> None:
        """Sees to it that a trained model lies in the store; `fresh` trains it anew even if it does."""
        if not fresh and self.store.load_weights(spec.key) is not None:
            return
        model = initialised(spec.recipe, spec.seed) if spec.start is None else self._copy(spec.start)
        trainable = None if spec.trainable is None else spec.trainable(model)
        train(
            self._placed(model),
            self.data(spec.examples),
            spec.recipe,
            spec.seed,
            trainable=trainable,
            progress=progress,
        )
        self.store.save_weights(spec.key, model.state_dict())
        self.forget_models()

    def forget_models(self) -> None:
        """Drops all models and their outputs from memory, in case somebody changed one."""
        self._models.clear()
        self._outputs.clear()

    def outputs(self, spec: ModelSpec, examples: Examples) -> Tensor:
        """Logits (N, K) on the CPU, float32."""
        key = f"{spec.key} {examples.key}"
        return self._outputs.get(key, lambda: logits(self.model(spec), self.data(examples).inputs))

    def figure(self, check: Check) -> float:
        """Measures a check; see `Check` for the definitions."""
        labels = self.data(check.examples).labels
        outputs = [self.outputs(model, check.examples) for model in check.models]
        others = [self.outputs(model, check.examples) for model in check.minus]
        if check.statistic == "total_variation":
            pairs = [(a.softmax(1) - b.softmax(1)).abs().sum(1).mean() / 2 for a in outputs for b in others]
            return float(torch.stack(pairs).mean())
        subtracted = float(torch.stack([accuracy(o, labels) for o in others]).mean()) if others else 0.0
        return float(torch.stack([accuracy(o, labels) for o in outputs]).mean()) - subtracted

    def _resolve(self, spec: ModelSpec) -> nn.Module:
        if isinstance(spec, Derived):
            model = self._copy(spec.base)
            spec.change(model, generator("derive", spec.seed))
            return model
        weights = self.store.load_weights(spec.key)
        if weights is None:
            self.train(spec)
            weights = self.store.load_weights(spec.key)
        if weights is None:
            raise RuntimeError("a model that was just trained cannot be read back")
        model = _unfilled(spec)
        model.load_state_dict(weights)
        return model

    def _placed(self, model: nn.Module) -> nn.Module:
        """The model on the lab's device, weights with channels last: convolutions on a CPU then take two thirds."""
        return model.to(self.device).to(memory_format=torch.channels_last)

    def _copy(self, spec: ModelSpec) -> nn.Module:
        model = _unfilled(spec)
        model.load_state_dict(self.model(spec).state_dict())
        return model


def _unfilled(spec: ModelSpec) -> nn.Module:
    """The network that weights go into: built as before its training, so that what no state dict holds is the same."""
    chain = trainings(spec)
    return initialised(chain[-1].recipe, chain[0].seed)


def logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs of a model in bounded passes, (N, K) on the CPU."""
    device = next(model.parameters()).device
    with torch.no_grad():
        return torch.cat([model(rows.to(device)).cpu() for rows in inputs.split(ROWS)])


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of examples whose largest logit is the label's; NaN for no examples."""
    return (outputs.argmax(1) == labels).double().mean()


T = TypeVar("T")


class _Recent(Generic[T]):
    """The last few values by key."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        if key not in self.values:
            self.values[key] = make()
            while len(self.values) > self.size:
                self.values.popitem(last=False)
        self.values.move_to_end(key)
        return self.values[key]

    def clear(self) -> None:
        self.values.clear()
