"""Figures of checks: whether a bug took is measured, not assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.contrasts import Check
    from attribug.contracts.data import Examples
    from attribug.models.lab import Lab


def figure(check: Check, lab: Lab) -> float:
    """Measures a check; see `Check` for the definitions."""
    labels = lab.data(check.examples).labels
    outputs = [lab.outputs(model, check.examples) for model in check.models]
    beside = check.examples if check.beside is None else check.beside
    others = [lab.outputs(model, beside) for model in check.minus]
    if check.statistic == "total_variation":
        pairs = [_variation(a.softmax(1), b.softmax(1)) for a in outputs for b in others]
        return float(torch.stack(pairs).mean())
    if check.statistic == "agreement":
        return float(torch.stack([accuracy(a, b.argmax(1)) for a in outputs for b in others]).mean())
    subtracted = float(torch.stack([accuracy(o, labels) for o in others]).mean()) if others else 0.0
    return float(torch.stack([accuracy(o, labels) for o in outputs]).mean()) - subtracted


def tested(examples: Examples, lab: Lab) -> dict[str, float]:
    """How many labelled examples an accuracy rests on."""
    return {"tested": float(len(lab.data(examples)))}


def _variation(a: Tensor, b: Tensor) -> Tensor:
    """Mean total variation of probabilities (N, K) and (N, L); of other numbers of classes from the largest on."""
    if a.shape[1] != b.shape[1]:
        short, long = sorted((each.sort(1, descending=True).values for each in (a, b)), key=lambda each: each.shape[1])
        a, b = torch.nn.functional.pad(short, (0, long.shape[1] - short.shape[1])), long
    return (a - b).abs().sum(1).mean() / 2


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of examples whose largest logit is the label's; NaN for no examples."""
    return (outputs.argmax(1) == labels).double().mean()
