"""Bugs: layers of a trained model carry fresh random weights again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from attribug import bugs
from attribug.bugs.damage import Choice, damaged, sketch
from attribug.contracts.contrasts import Contrast
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError, Unsupported
from attribug.models.training import seeded

NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
Order = tuple[str, ...] | None
INITIALISERS = ("reset_parameters", "_reset_parameters")  # the latter of torch's attention


@bugs.register(
    "reinit", stage="model", levels=(1, 2, 3, 5, "all"), primary="spearman@sum", seen_in_predictions=True,
    paper="Adebayo et al. 2018, section 3 (cascading randomisation); Adebayo et al. 2020, section 5",
)  # fmt: skip
def reinit(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """The layers next to the output have lost what they learnt: their weights are random again.

    The top `level` layers, from the output on (`all`: every layer), are re-initialised.
    """
    return _contrast(task, level, seed, seeds, _checked(task, "reinit", level), top)


@bugs.register(
    "reinit_bottom", stage="model", levels=(1, 3, "all"), primary="spearman@sum", seen_in_predictions=True,
    paper="Hedström et al. 2024 (bottom-up randomisation)",
)  # fmt: skip
def reinit_bottom(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """The layers next to the input have lost what they learnt: their weights are random again.

    The bottom `level` layers, from the input on (`all`: every layer), are re-initialised.
    """
    return _contrast(task, level, seed, seeds, _checked(task, "reinit_bottom", level), bottom)


@bugs.register(
    "reinit_single", stage="model", levels=(1, 5, 8), primary="spearman@sum", seen_in_predictions=True,
    graded=False,
    paper="Adebayo et al. 2018, section 3 (independent randomisation)",
)  # fmt: skip
def reinit_single(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """One layer alone has lost what it learnt: its weights are random again.

    The one layer number `level`, counted from the input, is re-initialised.
    """
    if level == "all":
        raise InputError("reinit_single: expected the number of one layer, found 'all'")
    return _contrast(task, level, seed, seeds, _checked(task, "reinit_single", level), single)


def _contrast(
    task: Task, level: Level, seed: int, seeds: Sequence[int], number: int, choose: Callable[..., list[str]]
) -> Contrast:
    """Reference: the model itself. Control of a trained model: the same layers re-initialised with another draw and
    retrained on clean data, the rest frozen; so all three share everything but the damage."""
    order = None if task.given is None else task.given.layers
    choice = partial(choose, number=number, **({} if order is None else {"order": order}))
    damage = partial(reinitialise, choice=choice)
    whole, nothing = level == "all", number == 0
    return damaged(task, seed, seeds, damage=damage, choice=choice, stream="reinit", whole=whole, nothing=nothing)


def _checked(task: Task, bug: str, level: Level) -> int:
    """The level as a number of layers; raises `InputError` when the network has fewer."""
    order = None if task.given is None else task.given.layers
    count = _count(task.recipe.network if task.given is None else task.given.spec.source, order)
    if level == "all":
        return count
    if isinstance(level, str) or not 0 <= level <= count or level != int(level):
        expected = f"expected a level from 1 to {count} or 'all' for task {task.name}, found {level!r}"
        raise Unsupported(expected) if task.given is not None else InputError(f"{bug}: {expected}")
    return int(level)


@functools.lru_cache(maxsize=8)
def _count(network: Callable[[], nn.Module], order: Order) -> int:
    return len(layers(sketch(network, given=order is not None), order))


def layers(model: nn.Module, order: Order = None) -> list[list[str]]:
    """Layers from the input on: modules with parameters of their own in order of definition, or as `order` names them;
    a normalisation belongs to the layer before it."""
    modules = dict(model.named_modules())
    grouped: list[list[str]] = []
    for name in modules if order is None else order:
        module = modules[name]
        if not list(module.parameters(recurse=False)):
            continue
        if isinstance(module, NORMALISATIONS) and grouped:
            grouped[-1].append(name)
        else:
            grouped.append([name])
    return grouped


def top(model: nn.Module, *, number: int, order: Order = None) -> list[str]:
    """Names of the modules of the last `number` layers."""
    return [name for layer in layers(model, order)[::-1][:number] for name in layer]


def bottom(model: nn.Module, *, number: int, order: Order = None) -> list[str]:
    """Names of the modules of the first `number` layers."""
    return [name for layer in layers(model, order)[:number] for name in layer]


def single(model: nn.Module, *, number: int, order: Order = None) -> list[str]:
    """Names of the modules of layer `number`, 1-based from the input; none for 0."""
    return layers(model, order)[number - 1] if number else []


def reinitialise(model: nn.Module, stream: torch.Generator, *, choice: Choice) -> None:
    """Gives the chosen modules fresh weights by their own initialisers; running statistics stay as they are."""
    names = choice(model)
    with seeded(stream):
        for name in names:
            _initialise(model.get_submodule(name))


def _initialise(module: nn.Module) -> None:
    """By the module's own initialiser; what has none, as class tokens and position embeddings, gets its own entries in
    random order."""
    if isinstance(module, NORMALISATIONS):  # reset_parameters would wipe running statistics
        if module.weight is not None:
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        return
    known = (getattr(module, name, None) for name in INITIALISERS)
    initialise = next((function for function in known if callable(function)), None)
    if initialise is not None:
        initialise()
        return
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            parameter.copy_(parameter.flatten()[torch.randperm(parameter.numel())].reshape(parameter.shape))
