"""Bug: outputs stand for other classes than they were trained for, as with class names in another order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from attribug import bugs
from attribug.bugs.damage import damaged, head, sketch
from attribug.contracts.contrasts import Contrast
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models.order import only

FEWEST = 2  # classes that can change places


@bugs.register(
    "head_permutation", stage="model", levels=(1.0,), primary="spearman@sum", seen_in_predictions=True,
    paper="ours: the mistake of a class list in another order than the weights'",
)  # fmt: skip
def head_permutation(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """Classes have changed places in the last layer, so the model gives what it sees a wrong name.

    A share `level` of the classes change places in the last layer: none of these keeps its own.
    """
    level = float(level)
    if not 0 <= level <= 1:
        raise InputError(f"head_permutation: expected a share from 0 to 1, found {level:g}")
    network, last = (task.recipe.network, "") if task.given is None else (task.given.spec.source, task.given.layers[-1])
    model = sketch(network, given=task.given is not None)
    last, classes = last or head(model), len(task.classes) if task.given is None else task.given.classes
    rows = [tuple(each.shape) for each in model.get_submodule(last).parameters(recurse=False)]
    if not any(len(shape) > 1 and shape[0] == classes for shape in rows):
        raise Unsupported(f"expected a last layer with a row of weights a class, {classes}, found {last} with {rows}")
    moved = round(level * classes)
    if 0 < moved < FEWEST:
        raise Unsupported(f"expected at least {FEWEST} classes that change places, found {moved}")
    damage = partial(permute, layer=last, share=level)
    return damaged(
        task, seed, seeds, damage=damage, choice=partial(only, layer=last), stream="head_permutation", whole=False,
        nothing=moved == 0,
    )  # fmt: skip


def permute(model: nn.Module, stream: torch.Generator, *, layer: str, share: float) -> None:
    """Moves the rows of a layer's weights, and of what else it has for each class, on to the next chosen row, in
    place."""
    parameters = list(model.get_submodule(layer).parameters(recurse=False))
    count = next(len(parameter) for parameter in parameters if parameter.ndim > 1)
    chosen = torch.randperm(count, generator=stream)[: round(share * count)]
    with torch.no_grad():
        for parameter in parameters:
            if parameter.ndim and len(parameter) == count:
                parameter[chosen] = parameter[chosen.roll(1)].clone()
