"""What bugs of a model's weights share: the damaged model, the model itself, and a control that is all but damaged.

Of a model that the task trains the control is the same damage, by another draw, repaired by training what is damaged;
of a model that is given, copies with slightly other weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import nn

from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.models import Derived, ModelSpec, Trained
from attribug.contracts.tasks import GivenModel, Task
from attribug.keys import stream_seed
from attribug.models.perturbed import against_perturbed, perturbed

DRAWS = 4  # a single draw of a two-class head says little; more models say more than more draws
OUTPUTS_MOVE = 0.10  # mean total variation of the outputs
ACCURACY_FALLS = 0.2  # on average over draws
RECOVERED = 0.02  # the retrained control may lose this much accuracy
RETRAINING_EPOCHS = 6  # a few layers on top of trained ones converge quickly; all of them take the recipe's epochs
Choice = Callable[[nn.Module], list[str]]
"""Of a network, to the names of its modules that are damaged."""
Change = Callable[[nn.Module, torch.Generator], None]


def sketch(network: Callable[[], nn.Module], *, given: bool) -> nn.Module:
    """A network of which layers are looked at: without values, unless it is given, for then it comes with them."""
    with contextlib.nullcontext() if given else torch.device("meta"):
        return network()


def damaged(
    task: Task, seed: int, seeds: Sequence[int], *, damage: Change, choice: Choice, stream: str, whole: bool,
    nothing: bool, draws: int = DRAWS,
) -> Contrast:  # fmt: skip
    """A model's contrast with itself under `damage`, which befalls the modules of `choice`.

    `stream` names the draws; `whole`: all layers are damaged; `nothing`: none, so that all sides are the same; `draws`:
    of each trained model (each draw of a given one stands for itself).
    """
    if task.given is not None:
        return _of_given(task.given, seed, seeds, damage, stream, nothing=nothing)
    model, test = task.clean(seed), task.examples("test")
    control: ModelSpec = _repaired(task, model, damage, choice, stream, whole=whole)
    models = [Derived(model, damage, stream_seed(stream, seed, draw)) for draw in range(draws)]
    checks: tuple[Check, ...] = (
        Check("outputs move", tuple(models), test, "total_variation", minus=(model,), at_least=OUTPUTS_MOVE),
        Check("accuracy falls", (model,), test, minus=tuple(models), at_least=ACCURACY_FALLS),
        Check("control recovers", (control,), test, minus=(model,), at_least=-RECOVERED),
    )
    if nothing:  # contaminated, control and reference are one model under three names
        models, checks = models[:1], ()
        control = Derived(model, damage, stream_seed(stream, seed, "control"))
    first, *further = (Side(each, test) for each in models)
    return Contrast(
        contaminated=first,
        draws=tuple(further),
        references=(Side(model, test),),
        controls=(Side(control, test),),
        control="retrained",
        target="reference",
        checks=checks,
    )


def _of_given(
    given: GivenModel, seed: int, seeds: Sequence[int], damage: Change, stream: str, *, nothing: bool
) -> Contrast:
    if nothing:  # contaminated and control set are the same
        return against_perturbed(given, perturbed(given, seed), seed, seeds)
    model = Derived(given.spec, damage, stream_seed(stream, seed))
    moved = Check("outputs move", (model,), given.looked, "total_variation", minus=(given.spec,), at_least=OUTPUTS_MOVE)
    return against_perturbed(given, model, seed, seeds, [moved])


def _repaired(task: Task, model: Trained, damage: Change, choice: Choice, stream: str, *, whole: bool) -> Trained:
    start = Derived(model, damage, stream_seed(stream, model.seed, "control"))
    epochs = task.recipe.epochs if whole else min(RETRAINING_EPOCHS, task.recipe.epochs)
    recipe = task.retrained(epochs=epochs)
    return Trained(task.examples("train"), recipe, model.seed, start=start, trainable=choice)


def head(model: nn.Module) -> str:
    """Name of the last module with weights of its own, in order of definition."""
    last: str = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))][-1]
    return last
