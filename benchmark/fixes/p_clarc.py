"""Fix: projective class artefact compensation; what tells the shortcut is projected out of a layer's activations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Examples
from attribug.contracts.models import Derived, ModelSpec
from attribug.contracts.tasks import Level, Task
from attribug.fixes.concepts import concept
from attribug.fixes.materials import at_least, contaminated, first_dense, held_out, untrained


@fixes.register("p_clarc", needs=("balanced data", "groups", "direction"), paper="Anders et al. 2022, section 3.3")
def p_clarc(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *,
    layer: str = "", directions: int = 0,
) -> ModelSpec:  # fmt: skip
    """P-ClArC removes the shortcut's directions from what a layer sees, and trains nothing.

    The contaminated model, in which a dense layer no longer sees the shortcut's directions: `project_out`.

    `layer`: its name; empty: the first with inputs (N, H) behind another layer with weights. `directions`: how many;
    0: see `attribug.fixes.concepts.patterns`. Fitted on held-out examples whose shortcut tells nothing.
    """
    at_least("p_clarc", "directions", directions, 0)
    model = contaminated(contrast)
    found = first_dense(untrained(model), task.shape, layer)
    examples = held_out(contrast, "balanced")
    return Derived(model, partial(project_out, examples=examples, layer=found, directions=directions), seed)


def project_out(model: nn.Module, stream: torch.Generator, *, examples: Examples, layer: str, directions: int) -> None:
    """Folds h ↦ h − V Vᵀ (h − m) into the layer that is given h: W (I − V Vᵀ) and b + W V Vᵀ m.

    V: the shortcut's directions, (H, d); m: the mean activation. Anders et al. project onto the mean of examples
    without the artefact; a shortcut that is there in one form or another has none, so it is the mean of all.
    """
    model.eval()
    dense = model.get_submodule(layer)
    if not isinstance(dense, nn.Linear):
        raise TypeError(f"expected nn.Linear, got {type(dense).__name__}")
    along, middle = concept(model, layer, examples.load(), directions)
    fold(dense, along, middle)


def fold(dense: nn.Linear, along: Tensor, middle: Tensor) -> None:
    """Puts the projection of its inputs along `along` (H, d) onto `middle` (H,) into a layer's weights and bias."""
    if dense.bias is None:
        raise TypeError("expected a dense layer with a bias, got one without")
    with torch.no_grad():
        weight = dense.weight.double()
        seen = weight @ along  # (M, d)
        dense.weight.copy_(weight - seen @ along.T)
        dense.bias.add_(seen @ (along.T @ middle))
