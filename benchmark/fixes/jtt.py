"""Fix: just train twice; what an early-stopped model gets wrong is shown more often."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data
from attribug.contracts.models import ModelSpec, Recipe
from attribug.contracts.tasks import Level, Task
from attribug.fixes.materials import at_least, contaminated, predictions
from attribug.models.training import Progress, train


@fixes.register("jtt", swept="up", paper="Liu et al. 2021, algorithm 1")
def jtt(
    task: Task,
    contrast: Contrast,
    level: Level,
    seed: int,
    seeds: Sequence[int],
    *,
    first_epochs: int = 1,
    up: int = 20,
) -> ModelSpec:
    """JTT trains the model anew and repeats many times the examples that a first model gets wrong.

    Trained anew on the same examples, of which those that a first model gets wrong occur `up` times.

    The first model is trained by the same recipe for `first_epochs`, the second in as many steps as the recipe takes on
    the examples as they are, where Liu et al. keep its epochs, which `up` makes many times longer. They choose both by
    the worst group of validation data; the defaults here are fixed, so that no groups are needed.
    """
    at_least("jtt", "first_epochs", first_epochs, 1)
    at_least("jtt", "up", up, 1)
    model = contaminated(contrast)
    return replace(model, recipe=replace(model.recipe, fit=partial(twice, first_epochs=first_epochs, up=up)))


def twice(
    model: nn.Module, data: Data, recipe: Recipe, seed: int, *, first_epochs: int, up: int,
    trainable: Sequence[str] | None = None, progress: Progress = lambda epochs: None,
) -> nn.Module:  # fmt: skip
    """Trains a copy of the model first, then the model itself where the copy's errors have more weight."""
    first = train(copy.deepcopy(model), data, replace(recipe, epochs=first_epochs), seed, trainable=trainable)
    rows = upsampled(predictions(first, data.inputs) != data.labels.cpu(), up)
    epochs = max(1, round(recipe.epochs * len(data) / len(rows)))
    return train(model, data.select(rows), replace(recipe, epochs=epochs), seed, trainable=trainable, progress=progress)


def upsampled(wrong: Tensor, up: int) -> Tensor:
    """All rows once, then those that are wrong, (N,) bool, `up − 1` times more; (M,) int64."""
    return torch.cat([torch.arange(len(wrong)), wrong.nonzero().flatten().repeat(up - 1)])
