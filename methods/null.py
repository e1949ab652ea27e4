"""Rows that keep everyone honest: methods that look at the model not at all, or at its predictions only."""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import methods
from attribug.query.query import Query


@methods.register("random", uses_target=False, stochastic=True, explains=False, paper="none: a null method")
def random(query: Query) -> Tensor:
    """Random noise knows neither model nor input: what a map that tells nothing looks like.

    Gaussian noise that depends on the example alone.
    """
    shape = query.inputs.shape[1:]
    draws = [torch.randn(shape, generator=stream, dtype=torch.float32) for stream in query.generators("random")]
    return query.exactly(torch.stack(draws).to(query.inputs.device))


@methods.register("edges", uses_target=False, explains=False, paper="Adebayo et al. 2018, section 5: an edge detector")
def edges(query: Query) -> Tensor:
    """Edge detection outlines the picture without asking the model: a map that knows the input alone.

    Sobel magnitude of the input, channel by channel, scaled as `skimage.filters.sobel`.
    """
    query.refuse_all_but_images()
    padded = torch.nn.functional.pad(query.exactly(query.inputs), (1, 1, 1, 1), mode="replicate")
    x, y = _slopes(padded), _slopes(padded.transpose(2, 3)).transpose(2, 3)
    return torch.sqrt((x.square() + y.square()) / 2)


def _slopes(padded: Tensor) -> Tensor:
    """Differences along the last axis, smoothed along the one before; exactly zero where the input is flat."""
    difference = padded[..., 2:] - padded[..., :-2]
    return (difference[..., :-2, :] + 2 * difference[..., 1:-1, :] + difference[..., 2:, :]) / 4


@methods.register(
    "predictions", uses_target=False, uses="outputs", output="probabilities", explains=False,
    headline="total_variation@none", paper="none: no explanation",
)  # fmt: skip
def predictions(query: Query) -> Tensor:
    """Predictions are the model's softmax outputs: what one could tell without any explanation.

    Softmax of the logits, (N, K).
    """
    return query.outputs().softmax(1)
