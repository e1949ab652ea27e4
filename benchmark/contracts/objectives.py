"""Objectives: what training minimises on a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attribug.contracts.data import Data

Objective = Callable[..., "Tensor"]
"""`objective(model, batch, **parameters)`: a number to minimise, of a batch (inputs, labels, and masks and annotations
where the examples have them) and the model in training."""


def cross_entropy(model: nn.Module, batch: Data) -> Tensor:
    """Mean of −log p of the labels."""
    from torch.nn import functional

    loss: Tensor = functional.cross_entropy(model(batch.inputs), batch.labels)
    return loss
