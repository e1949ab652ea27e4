"""Fix: right for the right reasons; gradients are penalised where inputs must not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import ModelSpec
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError
from attribug.fixes.materials import annotated, at_least, contaminated, untrained
from attribug.fixes.reasons import expect_penalty, fitted, refuse_without_second_derivatives
from attribug.streams import generator


@fixes.register("rrr", needs=("annotations",), swept="weight", paper="Ross et al. 2017, equation 1")
def rrr(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *,
    weight: float = 1000.0, decay: float = 1e-4, share: float = 1.0, penalty: str = "sum_log",
) -> ModelSpec:  # fmt: skip
    """RRR, right for the right reasons, trains the model anew and punishes gradients where nothing must matter.

    Trained anew on the same examples with the penalty of `attribug.fixes.reasons.right_reasons`.

    `weight`: λ₁, by default the paper's for decoy digits; 0: the one at which both terms are as large as each other
    early in plain training, too little where a shortcut is spread over many pixels, each of a small gradient. `decay`:
    λ₂. `share`: of the training examples, those that keep their annotations. `penalty`: sum_log, max_log, sum or max.
    Raises `Unsupported` for networks that cannot be differentiated twice.
    """
    at_least("rrr", "weight", weight, 0)
    at_least("rrr", "decay", decay, 0)
    expect_penalty(penalty, weight)
    if not 0 < share <= 1:
        raise InputError(f"rrr: expected a share in (0, 1], found {share:g}")
    model = contaminated(contrast)
    refuse_without_second_derivatives(untrained(model), task.shape)
    few = Examples.of(partly_annotated, base=model.examples, share=share, seed=seed)
    examples = model.examples if share == 1 else few
    return replace(model, examples=examples, recipe=fitted(model.recipe, weight=weight, decay=decay, penalty=penalty))


def partly_annotated(*, base: Examples, share: float, seed: int) -> Data:
    """The examples, of which only a share keeps its annotations, others for every seed; those of a smaller share are
    among them."""
    data = base.load()
    kept = annotated(data).clone()
    rows = torch.randperm(len(data), generator=generator("annotated", seed, len(data)))[round(share * len(data)) :]
    kept[rows] = False
    return replace(data, annotations=kept)
