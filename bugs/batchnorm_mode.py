"""Bug: batch normalisation does not use the statistics that it was trained to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from attribug import bugs
from attribug.bugs.damage import damaged, sketch
from attribug.contracts.contrasts import Contrast
from attribug.contracts.tasks import GivenModel, Level, Task
from attribug.errors import InputError, Unsupported

LEVELS = ("lost", "training")


@bugs.register(
    "batchnorm_mode", stage="model", levels=("lost", "training"), primary="spearman@sum", graded=False,
    seen_in_predictions=True,
    paper="ours: a checkpoint loaded without buffers, and a model that nobody told to evaluate",
)  # fmt: skip
def batchnorm_mode(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """Batch normalisation uses wrong statistics: an untrained model's, or those of each image by itself.

    Running statistics are those of an untrained model (`lost`), or each image's own (`training`).

    The latter is what a model in training mode does with images that come one by one.
    """
    if level not in {0, *LEVELS}:
        raise InputError(f"batchnorm_mode: expected {' or '.join(LEVELS)}, found {level!r}")
    network = task.recipe.network if task.given is None else task.given.spec.source
    if not normalisations(sketch(network, given=task.given is not None)):
        raise Unsupported("the network has no batch normalisation")
    if level == "training" and task.given is not None:
        _expect_statistics(task.given)
    damage = partial(mistake, level=str(level))
    return damaged(
        task, seed, seeds, damage=damage, choice=normalisations, stream="batchnorm_mode", whole=False,
        nothing=level == 0, draws=1,
    )  # fmt: skip


def _expect_statistics(given: GivenModel) -> None:
    """Raises `Unsupported` where some normalisation gets one value a channel, which has no statistics."""
    model = given.spec.source().eval()
    mistake(model, torch.Generator(), level="training")
    try:
        with torch.no_grad():
            model(given.looked.load().inputs[:1])
    except ValueError as error:
        raise Unsupported(str(error)) from error


def normalisations(model: nn.Module) -> list[str]:
    """Names of the batch normalisations that keep statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [name for name, module in model.named_modules() if isinstance(module, kind) and module.track_running_stats]


def mistake(model: nn.Module, stream: torch.Generator, *, level: str) -> None:
    """Makes the mistake in place."""
    for name in normalisations(model):
        module = model.get_submodule(name)
        if level == "lost":
            module.reset_running_stats()  # type: ignore[operator]
        elif level in LEVELS:
            module.register_forward_pre_hook(_own_statistics)


def _own_statistics(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Inputs (N, C, *spatial) that the module's running statistics turn into what those of each example would give."""
    (x,) = inputs
    spatial = tuple(range(2, x.ndim))
    if not spatial or x[0, 0].numel() == 1:
        raise ValueError(f"expected more than one value a channel, found inputs {tuple(x.shape[1:])}")
    variance, mean = torch.var_mean(x, spatial, keepdim=True, correction=0)
    shape = (1, -1, *(1 for _ in spatial))
    running_mean, running_variance = (getattr(module, name).reshape(shape) for name in ("running_mean", "running_var"))
    scale = ((running_variance + module.eps) / (variance + module.eps)).sqrt()  # type: ignore[operator]
    return ((x - mean) * scale + running_mean,)
