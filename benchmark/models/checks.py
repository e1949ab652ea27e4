"""Figures of checks: whether a bug took is measured, not assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.contrasts import Check
    from attribug.models.lab import Lab


def figure(check: Check, lab: Lab) -> float:
    """Measures a check; see `Check` for the definitions."""
    labels = lab.data(check.examples).labels
    outputs = [lab.outputs(model, check.examples) for model in check.models]
    others = [lab.outputs(model, check.examples) for model in check.minus]
    if check.statistic == "total_variation":
        pairs = [(a.softmax(1) - b.softmax(1)).abs().sum(1).mean() / 2 for a in outputs for b in others]
        return float(torch.stack(pairs).mean())
    subtracted = float(torch.stack([accuracy(o, labels) for o in others]).mean()) if others else 0.0
    return float(torch.stack([accuracy(o, labels) for o in outputs]).mean()) - subtracted


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of examples whose largest logit is the label's; NaN for no examples."""
    return (outputs.argmax(1) == labels).double().mean()
