"""Right for the right reasons: an objective that penalises input gradients where annotations say that nothing must
matter (Ross et al. 2017)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from attribug.contracts.data import Data
from attribug.contracts.models import Recipe
from attribug.contracts.objectives import squared_norm
from attribug.errors import InputError, Unsupported, near_misses
from attribug.fixes.materials import annotated, tried
from attribug.models.training import Progress, train
from attribug.query.trace import graph, operation

DECAY = 1e-4  # λ₂ of the paper
EARLY = 1  # epochs of plain training in which the ratio of reasons and answers is measured
PENALISED: dict[str, Callable[[Tensor], Tensor]] = {
    "sum_log": lambda logits: logits.log_softmax(1).sum(1),
    "max_log": lambda logits: logits.log_softmax(1).amax(1),
    "sum": lambda logits: logits.softmax(1).sum(1),
    "max": lambda logits: logits.softmax(1).amax(1),
}
"""What of the logits (N, K) has its input gradient penalised, (N,), by name. The sum of probabilities is constant, so
that its penalty must change nothing: a negative control."""


def right_reasons(
    model: nn.Module, batch: Data, *, weight: float, decay: float = DECAY, penalty: str = "sum_log"
) -> Tensor:
    """−Σₙₖ yₙₖ log pₙₖ + weight Σₙ Σ_d (Aₙ_d ∂/∂xₙ_d Σₖ log pₙₖ)² + decay ‖θ‖², sums over the batch.

    Ross et al. (2017), equation 1; differentiated twice. `penalty`: of which function the gradient is taken, by its
    name in `PENALISED`.
    """
    answers, reasons = terms(model, batch, penalty)
    return answers + weight * reasons + decay * squared_norm(model)


def terms(model: nn.Module, batch: Data, penalty: str) -> tuple[Tensor, Tensor]:
    """The first two terms of the objective, the second without its weight."""
    inputs = batch.inputs.detach().clone().requires_grad_(True)
    logits = model(inputs)
    answers = functional.cross_entropy(logits, batch.labels, reduction="sum")
    return answers, penalised(logits, inputs, annotated(batch), penalty)


def penalised(logits: Tensor, inputs: Tensor, where: Tensor, penalty: str) -> Tensor:
    """Σₙ Σ_d (Aₙ_d ∂/∂xₙ_d f(logitsₙ))²; `where`: A, as the inputs, bool."""
    (gradient,) = torch.autograd.grad(PENALISED[penalty](logits).sum(), inputs, create_graph=True)
    return (gradient * where).square().sum()


@dataclass
class Watched:
    """The answers alone as objective, and how large both terms were."""

    penalty: str
    answers: float = 0.0
    reasons: float = 0.0

    def __call__(self, model: nn.Module, batch: Data) -> Tensor:
        answers, reasons = terms(model, batch, self.penalty)
        self.answers += float(answers.detach())
        self.reasons += float(reasons.detach())
        return answers


def by_ratio(
    model: nn.Module, data: Data, recipe: Recipe, seed: int, *, trainable: Sequence[str] | None = None,
    progress: Progress = lambda epochs: None, decay: float = DECAY, penalty: str = "sum_log",
) -> nn.Module:  # fmt: skip
    """Trains with the weight at which reasons and answers are as large as each other early in training: the ratio of
    their sums over a first epoch of plain training, on a copy of the model. Ross et al. (2017), section 3, choose it by
    that ratio; over which steps is our choice."""
    weight = balancing_weight(model, data, recipe, seed, trainable=trainable, penalty=penalty)
    objective = partial(right_reasons, weight=weight, decay=decay, penalty=penalty)
    return train(model, data, replace(recipe, objective=objective), seed, trainable=trainable, progress=progress)


def balancing_weight(
    model: nn.Module, data: Data, recipe: Recipe, seed: int, *, trainable: Sequence[str] | None = None, penalty: str
) -> float:
    """The weight that `by_ratio` takes; the model stays as it is."""
    watched = Watched(penalty)
    early = replace(recipe, objective=watched, epochs=EARLY)
    train(copy.deepcopy(model), data, early, seed, trainable=trainable)
    if not watched.reasons > 0:
        raise Unsupported("expected gradients on what is annotated early in training, found none: give a weight")
    return watched.answers / watched.reasons


def fitted(recipe: Recipe, *, weight: float, decay: float, penalty: str) -> Recipe:
    """A recipe that trains for the right reasons; a weight of 0 stands for the one of `by_ratio`."""
    if weight:
        objective = partial(right_reasons, weight=weight, decay=decay, penalty=penalty)
        return replace(recipe, objective=objective, fit=None)
    return replace(recipe, fit=partial(by_ratio, decay=decay, penalty=penalty))


def expect_penalty(penalty: str, weight: float) -> None:
    """Raises `InputError` for an unknown function, or a constant one whose weight nothing can balance."""
    if penalty not in PENALISED:
        raise InputError(f"penalty: unknown function {penalty!r}{near_misses(penalty, PENALISED)}")
    if penalty == "sum" and not weight:
        raise InputError("penalty: the sum of probabilities has no gradient that a weight could balance: give a weight")


def refuse_without_second_derivatives(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Raises `Unsupported`, with the operation's name, for a network that cannot be differentiated twice."""
    inputs = tried(shape).requires_grad_(True)
    with torch.enable_grad():
        logits = model(inputs)
        try:
            penalised(logits, inputs, torch.ones_like(inputs, dtype=torch.bool), "sum_log").backward()
        except RuntimeError as error:
            raise Unsupported(
                f"expected a network that can be differentiated twice; {_named(logits, error)}"
            ) from error


def _named(logits: Tensor, error: RuntimeError) -> str:
    """The operation that has no second derivative: a function of the model's own, or as torch names it."""
    own = sorted({
        operation(node) for node in graph(logits) if isinstance(node, torch.autograd.function.BackwardCFunction)
    })
    if own and "once_differentiable" in str(error):
        return f"{', '.join(own)} has no second derivative"
    return (str(error).strip().splitlines() or ["an operation has none"])[0]
