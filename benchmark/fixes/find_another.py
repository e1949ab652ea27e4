"""Fix: find another explanation; what a model rests on must not matter to the next one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import ModelSpec, Recipe
from attribug.contracts.objectives import summed_cross_entropy
from attribug.contracts.tasks import Level, Task
from attribug.fixes.materials import ROWS, accuracy, at_least, contaminated, untrained
from attribug.fixes.reasons import fitted, refuse_without_second_derivatives
from attribug.models.training import Progress, train
from attribug.streams import generator

LARGE = 0.67  # of an example's largest gradient: larger ones are masked (Ross et al. 2017, section 3)
LOST = 0.25  # of what the first model's accuracy is above chance: whoever loses more has no explanation left
KEPT_APART = 10  # one example of so many, where no validation data are held out


@fixes.register("find_another", swept="weight", paper="Ross et al. 2017, section 3 (find another explanation)")
def find_another(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *,
    rounds: int = 1, weight: float = 10.0, decay: float = 1e-4,
) -> ModelSpec:  # fmt: skip
    """The model is trained anew for other reasons than before, again and again; nobody annotates anything.

    Trained anew, up to `rounds` times, each time for other reasons than before: `repeatedly`.

    `weight`, `decay`: as of `rrr`. A lower weight than there leaves more of the accuracy on examples with the shortcut
    (decoy digits: .89 at 10, .82 at 1000), since much that matters is masked as well. It is looked at on held-out ones,
    or on a tenth of the training examples. Nobody knows a better reason, only another: it may be worse than the first.
    """
    at_least("find_another", "rounds", rounds, 1)
    at_least("find_another", "weight", weight, 0)
    at_least("find_another", "decay", decay, 0)
    model = contaminated(contrast)
    refuse_without_second_derivatives(untrained(model), task.shape)
    looked = contrast.held_out.get("biased")
    fit = partial(repeatedly, rounds=rounds, weight=weight, decay=decay, looked=looked)
    return replace(model, recipe=replace(model.recipe, fit=fit))


def repeatedly(
    model: nn.Module, data: Data, recipe: Recipe, seed: int, *, rounds: int, weight: float, decay: float,
    looked: Examples | None, trainable: Sequence[str] | None = None, progress: Progress = lambda epochs: None,
) -> nn.Module:  # fmt: skip
    """The last of the models before accuracy falls, by `LOST` of what the first one's was above chance: each is trained
    from the same start and must not rest on what those before it rested on."""
    data, seen = apart(data, seed) if looked is None else (data, looked.load())
    used = torch.zeros_like(data.inputs, dtype=torch.bool)
    plain = replace(recipe, objective=summed_cross_entropy, fit=None)
    best = train(copy.deepcopy(model), data, plain, seed, trainable=trainable, progress=progress)
    first, chance = accuracy(best, seen), 1 / len(seen.labels.unique())
    least = first - LOST * (first - chance)
    for _ in range(rounds):
        used |= rested_on(best, data.inputs)
        again = fitted(recipe, weight=weight, decay=decay, penalty="sum_log")
        train_again = again.fit or train
        other = train_again(copy.deepcopy(model), replace(data, annotations=used), again, seed, trainable=trainable)
        if accuracy(other, seen) < least:
            break
        best = other
    return best


def rested_on(model: nn.Module, inputs: Tensor) -> Tensor:
    """Where |∂ max_k p_k / ∂x_d| > `LARGE` · max_d |…| of an example, (N, *shape) bool."""
    device = next(model.parameters()).device
    found = []
    for rows in inputs.split(ROWS):
        leaf = rows.to(device).detach().clone().requires_grad_(True)
        with torch.enable_grad():
            largest = model(leaf).log_softmax(1).amax(1).sum()  # of the same direction as p, and never saturated
        (gradient,) = torch.autograd.grad(largest, leaf)
        size = gradient.abs()
        most = size.flatten(1).amax(1).reshape(-1, *[1] * (size.ndim - 1))
        found.append((size > LARGE * most).to(inputs.device))
    return torch.cat(found)


def apart(data: Data, seed: int) -> tuple[Data, Data]:
    """Nine tenths of the examples, and the others."""
    order = torch.randperm(len(data), generator=generator("find_another", "apart", seed))
    size = -(-len(data) // KEPT_APART)
    return data.select(order[size:]), data.select(order[:size])
