"""Bug: every weight is a little off, as after careless quantisation, or a damaged file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from attribug import bugs
from attribug.bugs.damage import damaged
from attribug.contracts.contrasts import Contrast
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models.perturbed import perturb


@bugs.register(
    "weight_noise", stage="model", levels=(0.3, 1.0), primary="spearman@sum", seen_in_predictions=True,
    paper="multiplicative noise as in Bykov et al. 2022 (NoiseGrad), equation 2, there used to explain",
)  # fmt: skip
def weight_noise(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """Every weight of the model is off by a random factor.

    Every weight is multiplied by 1 + `level` · N(0, 1), its own draw.
    """
    level = float(level)
    if not 0 <= level < float("inf"):
        raise InputError(f"weight_noise: expected a level of at least 0, found {level:g}")
    if task.given is not None and 0 < level <= task.given.sigma:
        raise Unsupported(f"the control has noise of {task.given.sigma:.3g} already: expected a level above it")
    damage = partial(perturb, sigma=level)
    return damaged(
        task, seed, seeds, damage=damage, choice=everything, stream="weight_noise", whole=True, nothing=level == 0
    )


def everything(model: nn.Module) -> list[str]:
    """Names of all modules with weights of their own."""
    return [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
