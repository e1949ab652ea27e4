"""Fix: group distributionally robust optimisation; the worst group has the most weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data
from attribug.contracts.models import ModelSpec, Recipe
from attribug.contracts.objectives import squared_norm
from attribug.contracts.tasks import Level, Task
from attribug.fixes.materials import at_least, contaminated, groups
from attribug.models.training import Progress, train


@fixes.register("group_dro", needs=("groups",), swept="step", paper="Sagawa et al. 2020, algorithm 1, equation 5")
def group_dro(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *,
    step: float = 0.1, adjustment: float = 0.0, decay: float = 0.0,
) -> ModelSpec:  # fmt: skip
    """Group DRO trains the model anew and gives most weight to the group that it does worst on.

    Trained anew on the same examples by their groups: `WorstGroup`.

    `step`: η_q of the groups' weights. `adjustment`: C of C/√n_g, which is added to a group's loss. `decay`: of ‖θ‖²,
    which Sagawa et al. find large ones to be needed of. Where label and shortcut are one, so are groups and labels, and
    nothing is mended.
    """
    at_least("group_dro", "step", step, 0)
    at_least("group_dro", "adjustment", adjustment, 0)
    at_least("group_dro", "decay", decay, 0)
    model = contaminated(contrast)
    fit = partial(robustly, step=step, adjustment=adjustment, decay=decay)
    return replace(model, recipe=replace(model.recipe, fit=fit))


def robustly(
    model: nn.Module, data: Data, recipe: Recipe, seed: int, *, step: float, adjustment: float, decay: float,
    trainable: Sequence[str] | None = None, progress: Progress = lambda epochs: None,
) -> nn.Module:  # fmt: skip
    """Trains with the objective `WorstGroup`, whose weights start equal."""
    known, counts = groups(data).unique(return_counts=True)
    weights = torch.full((len(known),), 1 / len(known))
    objective = WorstGroup(known, counts, weights, step, adjustment, decay)
    return train(model, data, replace(recipe, objective=objective), seed, trainable=trainable, progress=progress)


@dataclass
class WorstGroup:
    """Σ_g q_g ℓ_g + decay ‖θ‖², with ℓ_g a group's mean cross-entropy in the batch plus C/√n_g, and q_g updated before:
    q_g ← q_g exp(step · ℓ_g), then normalised.

    Algorithm 1 draws one group a step; as in the authors' code, all groups of a batch count, absent ones with ℓ_g of
    C/√n_g alone.
    """

    known: Tensor
    """(G,) int64, sorted."""
    counts: Tensor
    """n_g, (G,)."""
    weights: Tensor
    """q_g, (G,)."""
    step: float
    adjustment: float
    decay: float

    def __call__(self, model: nn.Module, batch: Data) -> Tensor:
        losses = functional.cross_entropy(model(batch.inputs), batch.labels, reduction="none")  # (N,)
        means = self.means(losses, groups(batch))  # (G,)
        self.weights = updated(self.weights.to(means), means.detach(), self.step)
        return (self.weights * means).sum() + self.decay * squared_norm(model)

    def means(self, losses: Tensor, of: Tensor) -> Tensor:
        """ℓ_g of losses (N,) by their groups (N,), (G,)."""
        members = (of[None] == self.known.to(of.device)[:, None]).to(losses)  # (G, N)
        means = (members @ losses) / members.sum(1).clamp(min=1)
        return means + self.adjustment / self.counts.to(losses).sqrt()


def updated(weights: Tensor, losses: Tensor, step: float) -> Tensor:
    """The groups' weights after one step of exponentiated gradient ascent, (G,), sum 1."""
    raised = weights * (step * losses).exp()
    return raised / raised.sum()
