"""What is measured of a model that learnt a shortcut, and of one that was mended: right, and for the right reasons?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from attribug.models.checks import accuracy
from attribug.models.lab import ROWS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attribug.contracts.contrasts import Trial
    from attribug.models.lab import Lab

ACCURACY, WORST_GROUP, MASK_SHARE, AREA = "accuracy", "worst_group", "mask_share", "area"
FEWEST = 10
"""Examples of a group whose accuracy says anything."""
ASKED = 512
"""Examples of a set whose gradients are asked for."""


def figures(trial: Trial, lab: Lab) -> dict[str, float]:
    """By `set statistic`: accuracy; accuracy of the worst group, where all have at least `FEWEST` examples; mean share
    of the input gradient's magnitude on what must not matter; the share of the input that this is. What a set cannot
    tell is not there."""
    found: dict[str, float] = {}
    for name, examples in trial.sets.items():
        data, outputs = lab.data(examples), lab.outputs(trial.model, examples)
        found[f"{name} {ACCURACY}"] = float(accuracy(outputs, data.labels))
        if data.groups is not None:
            groups = [data.groups == group for group in data.groups.unique()]
            if all(int(rows.sum()) >= FEWEST for rows in groups):  # else the ones that conflict would be left out
                found[f"{name} {WORST_GROUP}"] = min(
                    float(accuracy(outputs[rows], data.labels[rows])) for rows in groups
                )
        truth = data.truth(trial.truth)
        if truth is not None:
            found[f"{name} {AREA}"] = float(truth.double().mean())
            found[f"{name} {MASK_SHARE}"] = mask_share(lab.model(trial.model), data.inputs, truth)
    return found


def mask_share(model: nn.Module, inputs: Tensor, truth: Tensor) -> float:
    """Mean over the first `ASKED` examples of Σ |g| inside the truth mask over Σ |g|, g the input gradient of Σₖ log pₖ
    that Ross et al. (2017, equation 2) penalise; examples whose gradient is zero are left out, NaN where all are.

    inputs (N, *shape), truth (N, *spatial) bool.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    shares = []
    for rows in torch.arange(min(len(inputs), ASKED)).split(ROWS):
        magnitude = _gradient(model, inputs[rows].to(device)).abs().double().cpu()
        inside = truth[rows].unsqueeze(1) if magnitude.ndim > truth.ndim else truth[rows]
        shares.append((magnitude * inside).flatten(1).sum(1) / magnitude.flatten(1).sum(1))
    return float(torch.cat(shares).nanmean())


def _gradient(model: nn.Module, inputs: Tensor) -> Tensor:
    inputs = inputs.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(inputs).log_softmax(1).sum(), inputs)
    return gradient
