"""Objectives: what training minimises on a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attribug.contracts.data import Data

Objective = Callable[..., "Tensor"]
"""`objective(model, batch, **parameters)`: a number to minimise, of a batch (inputs, labels, and masks, annotations and
groups where the examples have them) and the model in training."""


def cross_entropy(model: nn.Module, batch: Data) -> Tensor:
    """Mean of −log p of the labels."""
    from torch.nn import functional

    loss: Tensor = functional.cross_entropy(model(batch.inputs), batch.labels)
    return loss


def summed_cross_entropy(model: nn.Module, batch: Data) -> Tensor:
    """Sum of −log p of the labels."""
    from torch.nn import functional

    loss: Tensor = functional.cross_entropy(model(batch.inputs), batch.labels, reduction="sum")
    return loss


def squared_norm(model: nn.Module) -> Tensor:
    """‖θ‖² of the parameters that learn."""
    import torch

    return torch.stack([each.square().sum() for each in model.parameters() if each.requires_grad]).sum()
