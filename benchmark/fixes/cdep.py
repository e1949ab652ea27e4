"""Fix: contextual decomposition explanation penalisation; contributions are penalised where inputs must not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data
from attribug.contracts.models import ModelSpec
from attribug.contracts.tasks import Level, Task
from attribug.fixes.decomposition import decomposed, refuse_unknown_layers
from attribug.fixes.materials import annotated, at_least, contaminated, untrained


@fixes.register("cdep", needs=("annotations",), swept="weight", paper="Rieger et al. 2020, equations 2 and 3")
def cdep(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *, weight: float = 10.0
) -> ModelSpec:
    """CDEP trains the model anew and punishes contributions of what is annotated as not to matter.

    Trained anew on the same examples with the penalty of `penalised_contributions`.

    The penalty is least where the rest contributes more to every class alike, which changes no prediction: it may mend
    less than penalties of gradients. Raises `Unsupported` for networks but chains of convolutions, dense layers, ReLUs
    and pooling.
    """
    at_least("cdep", "weight", weight, 0)
    model = contaminated(contrast)
    refuse_unknown_layers(untrained(model))
    objective = partial(penalised_contributions, weight=weight)
    return replace(model, recipe=replace(model.recipe, objective=objective, fit=None))


def penalised_contributions(model: nn.Module, batch: Data, *, weight: float) -> Tensor:
    """Mean of −log p of the labels + weight · mean over examples and classes of e^β / (e^β + e^γ).

    β (N, K): contributions of the annotated inputs to the logits by contextual decomposition, γ those of all others;
    the logits are their sum. As in the authors' code, all classes count.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"expected nn.Sequential, got {type(model).__name__}")
    part, rest = decomposed(model, batch.inputs, annotated(batch))
    share = torch.stack([part, rest], dim=-1).softmax(-1)[..., 0]  # (N, K)
    return functional.cross_entropy(part + rest, batch.labels) + weight * share.mean()
