"""Training: examples and a recipe become a model, the same in every process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attribug.contracts.models import Given, chain, trainings
from attribug.models.given import load
from attribug.streams import generator

if TYPE_CHECKING:
    from attribug.contracts.data import Data
    from attribug.contracts.models import Derived, ModelSpec, Recipe, Trained

Progress = Callable[[int], None]
DIVISOR_AT_START = 10.0  # of the one-cycle schedule: the first learning rate is the peak over this


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


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on a device, weights with channels last: convolutions on a CPU then take two thirds."""
    return model.to(device).to(memory_format=torch.channels_last)


def unfilled(spec: ModelSpec) -> nn.Module:
    """The network that weights go into: built as before its training, so that what no state dict holds is the same; of
    a given model, loaded anew."""
    first, below = chain(spec)[0], trainings(spec)
    return load(first) if isinstance(first, Given) else initialised(below[-1].recipe, below[0].seed)


def filled(spec: ModelSpec, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model that a spec describes, with its weights."""
    model = unfilled(spec)
    model.load_state_dict(dict(weights))
    return model


def trained(
    spec: Trained,
    data: Data,
    start: Mapping[str, Tensor] | None,
    device: torch.device,
    progress: Progress = lambda epochs: None,
) -> nn.Module:
    """The model that a spec describes, trained on its examples' data; `start`: the weights of what it starts from."""
    model = initialised(spec.recipe, spec.seed) if spec.start is None or start is None else filled(spec.start, start)
    trainable = None if spec.trainable is None else spec.trainable(model)
    fit = spec.recipe.fit or train
    fitted = fit(placed(model, device), data, spec.recipe, spec.seed, trainable=trainable, progress=progress)
    if _shapes(fitted) != _shapes(model):
        raise ValueError("fit: expected a model of the same layers as the one that was given, found others")
    return fitted.eval()


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def derived(spec: Derived, base: Mapping[str, Tensor]) -> nn.Module:
    """The model that a spec describes, made of another one with its base's weights."""
    model = filled(spec.base, base)
    spec.change(model, generator("derive", spec.seed))
    return model


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
    data = data.to(device)
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
                loss = recipe.objective(model, data.select(rows))
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
