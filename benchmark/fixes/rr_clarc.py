"""Fix: right-reason class artefact compensation; fine-tuned until outputs no longer change along the shortcut."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import ModelSpec, Recipe
from attribug.contracts.tasks import Level, Task
from attribug.fixes.concepts import concept
from attribug.fixes.materials import at_least, contaminated, first_dense, held_out, tried, untrained
from attribug.fixes.reasons import refuse_without_second_derivatives
from attribug.models.order import running_order
from attribug.models.training import Progress, train
from attribug.streams import generator


@fixes.register(
    "rr_clarc", needs=("balanced data", "groups", "direction"), swept="weight",
    paper="Dreyer et al. 2024, equation 5",
)  # fmt: skip
def rr_clarc(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *,
    weight: float = 1.0, epochs: int = 10, layer: str = "", directions: int = 0,
) -> ModelSpec:  # fmt: skip
    """RR-ClArC trains the model further and punishes logits that change along the shortcut's directions.

    The contaminated model, trained for `epochs` more on its own examples with the penalty of `AlongConcept`.

    `layer`, `directions`: as of `p_clarc`. The layers before stay as they are, as in the authors' code, so that
    directions keep their meaning; training goes on by the recipe's own learning rate. `weight`: of
    .1, 1, 10 and 100 the best on average on held-out balanced examples of four toys and `digits`.
    """
    at_least("rr_clarc", "weight", weight, 0)
    at_least("rr_clarc", "epochs", epochs, 1)
    at_least("rr_clarc", "directions", directions, 0)
    model = contaminated(contrast)
    network = untrained(model)
    refuse_without_second_derivatives(network, task.shape)
    found = first_dense(network, task.shape, layer)
    fit = partial(
        fine_tuned, examples=held_out(contrast, "balanced"), layer=found, weight=weight, directions=directions
    )
    recipe = replace(model.recipe, fit=fit, epochs=epochs)
    return replace(model, recipe=recipe, start=model, trainable=partial(from_layer, layer=found, shape=task.shape))


def from_layer(model: nn.Module, *, layer: str, shape: tuple[int, ...]) -> list[str]:
    """Names of a layer and of those with weights of their own that run after it, on inputs (N, *shape)."""
    given = tried(shape).to(next(model.parameters()).device)
    names = running_order(copy.deepcopy(model).eval(), given)
    return list(names[names.index(layer) :])


def fine_tuned(
    model: nn.Module, data: Data, recipe: Recipe, seed: int, *, examples: Examples, layer: str, weight: float,
    directions: int, trainable: Sequence[str] | None = None, progress: Progress = lambda epochs: None,
) -> nn.Module:  # fmt: skip
    """Trains with the objective `AlongConcept`, whose directions are those of the model as it is given."""
    along, _ = concept(model.eval(), layer, examples.load(), directions)
    parameter = next(model.parameters())
    objective = AlongConcept(layer, along.to(parameter), weight, generator("rr_clarc", "signs", seed))
    return train(model, data, replace(recipe, objective=objective), seed, trainable=trainable, progress=progress)


@dataclass
class AlongConcept:
    """Mean of −log p of the labels + weight · mean over examples of ‖Vᵀ ∇_h Σₖ sₖ fₖ(x)‖², with h what a layer is
    given, V its directions (H, d), fₖ the logits, and signs sₖ drawn anew for every example and step.

    Over the draws it is Σₖ ‖Vᵀ ∇_h fₖ‖²: no class may change along the shortcut.
    """

    layer: str
    along: Tensor
    weight: float
    stream: torch.Generator

    def __call__(self, model: nn.Module, batch: Data) -> Tensor:
        logits, given = outputs_and_inputs_of(model, self.layer, batch.inputs)
        drawn = torch.randint(0, 2, logits.shape, generator=self.stream) * 2 - 1
        penalty = sensitivity((logits * drawn.to(logits)).sum(1), given, self.along)
        return functional.cross_entropy(logits, batch.labels) + self.weight * penalty


def sensitivity(functions: Tensor, given: Tensor, along: Tensor) -> Tensor:
    """Mean over examples of ‖Vᵀ ∇_h f‖², of functions f (N,) of h (N, H) and V (H, d); can be differentiated again."""
    (gradient,) = torch.autograd.grad(functions.sum(), given, create_graph=True)
    return (gradient @ along).square().sum(1).mean()


def outputs_and_inputs_of(model: nn.Module, layer: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K), and what a layer was given, (N, H), in one graph."""
    held: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(_holding(held))
    try:
        logits: Tensor = model(inputs)
    finally:
        handle.remove()
    return logits, held[0]


def _holding(held: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A hook that holds what a layer is given, as something that gradients are asked of."""

    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = arguments[0] if arguments[0].requires_grad else arguments[0].detach().requires_grad_(True)
        held.append(given)
        return (given, *arguments[1:])

    return hook
