"""Bugs: layers of a trained model carry fresh random weights again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from attribug import bugs
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.models import Derived, ModelSpec, Trained
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError
from attribug.keys import stream_seed
from attribug.models.training import seeded

DRAWS = 4  # a single draw of a two-class head says little; more models say more than more draws
OUTPUTS_MOVE = 0.10  # mean total variation of the outputs
ACCURACY_FALLS = 0.2  # on average over draws
RECOVERED = 0.02  # the retrained control may lose this much accuracy
RETRAINING_EPOCHS = 6  # a few layers on top of trained ones converge quickly; all of them take the recipe's epochs
NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
Choice = Callable[[nn.Module], list[str]]


@bugs.register(
    "reinit", stage="model", levels=(1, 2, 3, 5, "all"), primary="spearman@sum", seen_in_predictions=True,
    paper="Adebayo et al. 2018, section 3 (cascading randomisation); Adebayo et al. 2020, section 5",
)  # fmt: skip
def reinit(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """The top `level` layers, from the output on (`all`: every layer), are re-initialised."""
    return _contrast(task, level, seed, _checked(task, "reinit", level), top)


@bugs.register(
    "reinit_bottom", stage="model", levels=(1, 3, "all"), primary="spearman@sum", seen_in_predictions=True,
    paper="Hedström et al. 2024 (bottom-up randomisation)",
)  # fmt: skip
def reinit_bottom(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """The bottom `level` layers, from the input on (`all`: every layer), are re-initialised."""
    return _contrast(task, level, seed, _checked(task, "reinit_bottom", level), bottom)


@bugs.register(
    "reinit_single", stage="model", levels=(1, 5, 8), primary="spearman@sum", seen_in_predictions=True,
    graded=False,
    paper="Adebayo et al. 2018, section 3 (independent randomisation)",
)  # fmt: skip
def reinit_single(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """The one layer number `level`, counted from the input, is re-initialised."""
    if level == "all":
        raise InputError("reinit_single: expected the number of one layer, found 'all'")
    return _contrast(task, level, seed, _checked(task, "reinit_single", level), single)


def _contrast(task: Task, level: Level, seed: int, number: int, choose: Callable[..., list[str]]) -> Contrast:
    """Reference: the model itself. Control: the same layers re-initialised with another draw and retrained on clean
    data, the rest frozen; so reference, control and contaminated model share everything but the damage."""
    model = task.clean(seed)
    choice = partial(choose, number=number)
    test = task.examples("test")
    damage = partial(reinitialise, choice=choice)
    control: ModelSpec = _retrained(task, model, choice, whole=level == "all")
    draws = [Derived(model, damage, stream_seed("reinit", seed, draw)) for draw in range(DRAWS)]
    checks: tuple[Check, ...] = (
        Check("outputs move", tuple(draws), test, "total_variation", minus=(model,), at_least=OUTPUTS_MOVE),
        Check("accuracy falls", (model,), test, minus=tuple(draws), at_least=ACCURACY_FALLS),
        Check("control recovers", (control,), test, minus=(model,), at_least=-RECOVERED),
    )
    if number == 0:  # no layer at all: contaminated, control and reference are one model under three names
        draws, checks = draws[:1], ()
        control = Derived(model, damage, stream_seed("reinit", seed, "control"))
    first, *further = (Side(draw, test) for draw in draws)
    return Contrast(
        contaminated=first,
        draws=tuple(further),
        references=(Side(model, test),),
        controls=(Side(control, test),),
        control="retrained",
        target="reference",
        checks=checks,
    )


def _retrained(task: Task, model: Trained, choice: Choice, *, whole: bool) -> Trained:
    start = Derived(model, partial(reinitialise, choice=choice), stream_seed("reinit", model.seed, "control"))
    epochs = task.recipe.epochs if whole else min(RETRAINING_EPOCHS, task.recipe.epochs)
    recipe = task.retrained(epochs=epochs)
    return Trained(task.examples("train"), recipe, model.seed, start=start, trainable=choice)


def _checked(task: Task, bug: str, level: Level) -> int:
    """The level as a number of layers; raises `InputError` when the network has fewer."""
    with torch.device("meta"):
        count = len(layers(task.recipe.network()))
    if level == "all":
        return count
    if isinstance(level, str) or not 0 <= level <= count or level != int(level):
        raise InputError(f"{bug}: expected a level from 1 to {count} or 'all' for task {task.name}, found {level!r}")
    return int(level)


def layers(model: nn.Module) -> list[list[str]]:
    """Layers from the input on: modules with parameters of their own in order of definition; a normalisation belongs to
    the layer before it."""
    grouped: list[list[str]] = []
    for name, module in model.named_modules():
        if not list(module.parameters(recurse=False)):
            continue
        if isinstance(module, NORMALISATIONS) and grouped:
            grouped[-1].append(name)
        else:
            grouped.append([name])
    return grouped


def top(model: nn.Module, *, number: int) -> list[str]:
    """Names of the modules of the last `number` layers."""
    return [name for layer in layers(model)[::-1][:number] for name in layer]


def bottom(model: nn.Module, *, number: int) -> list[str]:
    """Names of the modules of the first `number` layers."""
    return [name for layer in layers(model)[:number] for name in layer]


def single(model: nn.Module, *, number: int) -> list[str]:
    """Names of the modules of layer `number`, 1-based from the input; none for 0."""
    return layers(model)[number - 1] if number else []


def reinitialise(model: nn.Module, stream: torch.Generator, *, choice: Choice) -> None:
    """Gives the chosen modules fresh weights by their own initialisers; running statistics stay as they are."""
    names = choice(model)
    with seeded(stream):
        for name in names:
            _initialise(model.get_submodule(name))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, NORMALISATIONS):  # reset_parameters would wipe running statistics
        if module.weight is not None:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    elif callable(initialise := getattr(module, "reset_parameters", None)):
        initialise()
    else:
        raise InputError(f"reinit: {type(module).__name__} has parameters but no initialiser (reset_parameters)")
