"""Copies of a given model with slightly other weights: what there is instead of further models like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attribug.contracts.contrasts import Check, Contrast, Side, Target
from attribug.contracts.models import Derived
from attribug.errors import Unsupported
from attribug.keys import stream_seed
from attribug.models.lab import logits
from attribug.streams import generator

if TYPE_CHECKING:
    from torch import nn

    from attribug.contracts.data import Examples
    from attribug.contracts.models import Given, ModelSpec
    from attribug.contracts.tasks import GivenModel

AGREEMENT = 0.95
"""Share of examples for which a perturbed copy predicts what the model does, at least."""
VARIATION = 0.05
"""Mean total variation between their outputs, at most."""
MARGIN = 0.01
"""Of both, in the search for σ: on another machine a prediction may flip, and checks must hold there, too."""
SMALLEST, LARGEST = 1e-6, 0.5
STEPS = 8  # of the bisection: σ to within 5 %


@dataclass(frozen=True)
class Perturbation:
    """How much noise a model's weights bear, and what it does to the outputs, means over the copies."""

    sigma: float
    agreement: float
    variation: float

    @property
    def holds(self) -> bool:
        """Whether outputs are nearly what they were, with a margin."""
        return self.agreement >= AGREEMENT + MARGIN and self.variation <= VARIATION - MARGIN


def perturb(model: nn.Module, stream: torch.Generator, *, sigma: float) -> None:
    """Multiplies every weight by 1 + σ·ε in place, ε from N(0, 1), each its own; buffers stay."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=stream, dtype=torch.float32)
                parameter.mul_((1 + sigma * noise).to(parameter))


def perturbed(given: GivenModel, draw: int) -> Derived:
    """The perturbed copy of a draw."""
    return Derived(given.spec, partial(perturb, sigma=given.sigma), _stream(given.spec, draw))


def _stream(spec: Given, draw: int) -> int:
    return stream_seed("perturbed", spec.digest, draw)


def largest(model: nn.Module, spec: Given, inputs: Tensor, draws: Sequence[int]) -> Perturbation:
    """The largest σ under which copies still predict nearly what the model does: see `AGREEMENT`, `VARIATION`.

    By bisection of log σ; on a coarse grid the last that holds may be a tenth of it. `model` is changed and changed
    back: give a copy that nobody else has. `inputs` (N, *shape). Raises `Unsupported` where no σ holds.
    """
    outputs = logits(model, inputs)
    state = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def tried(sigma: float) -> Perturbation:
        agreement, variation = [], []
        for draw in draws:
            perturb(model, generator("derive", _stream(spec, draw)), sigma=sigma)
            others = logits(model, inputs)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(state[name])
            agreement.append((others.argmax(1) == outputs.argmax(1)).double().mean())
            variation.append((others.softmax(1) - outputs.softmax(1)).abs().sum(1).mean() / 2)
        return Perturbation(sigma, float(torch.stack(agreement).mean()), float(torch.stack(variation).mean()))

    low, high = SMALLEST, LARGEST
    best = tried(low)
    if not best.holds:
        raise Unsupported(
            f"weights that differ by a millionth change predictions: agreement {best.agreement:.2f}, "
            f"total variation {best.variation:.2f}, so there is no control"
        )
    widest = tried(high)
    if widest.holds:
        return widest
    while high / low > (LARGEST / SMALLEST) ** (0.5**STEPS):
        middle = (low * high) ** 0.5
        found = tried(middle)
        low, high, best = (middle, high, found) if found.holds else (low, middle, best)
    return best


def against_perturbed(
    given: GivenModel,
    contaminated: ModelSpec,
    seed: int,
    seeds: Sequence[int],
    checks: Sequence[Check] = (),
    *,
    wrong: Examples | None = None,
    right: Sequence[Examples] = (),
    target: Target = "reference",
) -> Contrast:
    """A contaminated model beside perturbed copies of the given one, which is the reference; draws are the seeds.

    `wrong`: what the contaminated model sees instead of the given examples; `right`: what the copies see, by seed.
    """
    examples = given.examples
    copies = {s: perturbed(given, s) for s in seeds}
    seen = dict(zip(seeds, right, strict=True)) if right else dict.fromkeys(seeds, examples)
    control, looked = tuple(copies.values()), given.looked
    return Contrast(
        contaminated=Side(contaminated, examples if wrong is None else wrong, seed),
        references=(Side(given.spec, examples, -1),),
        controls=tuple(Side(copies[s], seen[s], s) for s in seeds),
        control="perturbed",
        target=target,
        checks=(
            *checks,
            Check("controls agree", control, looked, "agreement", minus=(given.spec,), at_least=AGREEMENT),
            Check("controls' outputs stay", control, looked, "total_variation", (given.spec,), at_most=VARIATION),
        ),
    )
