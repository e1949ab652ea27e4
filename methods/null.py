"""Rows that keep everyone honest: methods that look at the model not at all, or at its predictions only."""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import methods
from attribug.contracts import Unsupported
from attribug.query import Query


@methods.register("random", uses_target=False, stochastic=True, paper="none: a null method")
def random(query: Query) -> Tensor:
    """Gaussian noise that depends on the example alone: knows neither model nor input."""
    draws = [torch.randn(query.inputs.shape[1:], generator=stream) for stream in query.generators("random")]
    return torch.stack(draws).to(query.inputs)


@methods.register("edges", uses_target=False, paper="Adebayo et al. 2018, section 5: an edge detector")
def edges(query: Query) -> Tensor:
    """Sobel gradient magnitude of the input, channel by channel: knows the input, not the model."""
    if query.inputs.ndim != 4:
        raise Unsupported(f"expected images (N, C, H, W), found {tuple(query.inputs.shape)}")
    channels = query.inputs.shape[1]
    smooth, difference = query.inputs.new_tensor([1, 2, 1]) / 4, query.inputs.new_tensor([-1, 0, 1]) / 2
    padded = torch.nn.functional.pad(query.inputs, (1, 1, 1, 1), mode="replicate")
    horizontal = torch.outer(smooth, difference).expand(channels, 1, 3, 3)
    vertical = horizontal.transpose(2, 3)
    x, y = (torch.nn.functional.conv2d(padded, kernel, groups=channels) for kernel in (horizontal, vertical))
    return torch.sqrt((x.square() + y.square()) / 2)


@methods.register("predictions", uses_target=False, uses="outputs", output="probabilities", paper="none: no explanation")
def predictions(query: Query) -> Tensor:
    """Softmax of the logits, (N, K): what the model's predictions alone would tell."""
    return query.outputs().softmax(1)
