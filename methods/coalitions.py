"""Surrogates on coalitions of segments: LIME and KernelSHAP. One matrix of coalitions and one factorised system serve
all examples of a query; a segment that is left out is zero."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from attribug import methods
from attribug.contracts.shapes import channel_axis, kind, spatial
from attribug.errors import InputError, Unsupported
from attribug.query.query import Query, at_least_one
from attribug.streams import generator

GRID = 8  # default segments across an image, or along a sequence
KERNEL_WIDTH = 0.25  # of LIME's kernel on cosine distances: the authors' code, which halves the paper's exponent
RIDGE = 1.0  # LIME's penalty: the authors' value
ENUMERABLE = 20  # more players are never enumerated


@methods.register("lime", stochastic=True, paper="Ribeiro et al. 2016, eqs. 1 and 2")
def lime(query: Query, *, samples: int = 200, segments: int | Tensor = GRID) -> Tensor:
    """LIME hides random segments of the input and fits how much each one's presence raises the logit.

    Weights of a ridge regression of the target's logit on which segments are present.

    Coalitions are fair coin flips, weighted by exp(−d² / (2 · .25²)) with d the cosine distance to the full coalition;
    penalty 1, intercept free. `segments`: so many across an image or along a sequence (vectors: one an entry), or a
    map of integers of the input's spatial shape.
    """
    labels, count = _segments(query, segments)
    at_least_one("samples", samples)
    stream = generator("coalitions", query.seed, "lime", samples, count)
    present = torch.rand(samples, count, generator=stream, dtype=torch.float64) < 0.5
    present[0] = True  # the input itself
    outputs = _outputs(query, present, labels)
    weights = torch.exp(-((1 - present.double().mean(1).sqrt()) ** 2) / (2 * KERNEL_WIDTH**2))
    return _spread(query, ridge(present.double(), outputs, weights, RIDGE), labels)


@methods.register(
    "kernel_shap", stochastic=True, conserves=True, paper="Lundberg & Lee 2017, theorem 2; Covert & Lee 2021: pairing"
)
def kernel_shap(query: Query, *, samples: int = 200, segments: int | Tensor = GRID) -> Tensor:
    """Kernel SHAP gives each segment of the input its fair share of the class's logit, its Shapley value.

    Shapley values of segments from the weighted regression that has them as its solution; they sum to F(x) − F(0).

    Sizes are drawn by the kernel's weight, every coalition with its complement; where `samples` allow for all 2^S − 2
    coalitions, these are enumerated and the values are exact. `segments` as in `lime`.
    """
    labels, count = _segments(query, segments)
    at_least_one("samples", samples)
    stream = generator("coalitions", query.seed, "kernel_shap", samples, count)
    present, weights = shapley_coalitions(count, samples, stream)
    ends = torch.stack([torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)])
    outputs = _outputs(query, torch.cat([ends, present]), labels)
    empty, full = outputs[:, 0], outputs[:, 1]
    sound = query.inputs.flatten(1).isfinite().all(1).cpu()
    if bool(sound.any()) and not bool(empty[sound].isfinite().any()):
        raise Unsupported("the model's logits are not finite where all segments are left out, at an input of zeros")
    query.promise(query.exactly((full - empty).to(query.inputs.device)))
    return _spread(query, shapley(present.double(), outputs[:, 2:], weights, empty, full), labels)


def ridge(present: Tensor, outputs: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """Weighted ridge coefficients, intercept without penalty: present (M, S), outputs (N, M), weights (M,) → (N, S)."""
    total = weights.sum()
    centre = (weights[:, None] * present).sum(0) / total  # (S,)
    offset = (outputs * weights).sum(1, keepdim=True) / total  # (N, 1)
    features = present - centre
    gram = features.T @ (weights[:, None] * features) + penalty * torch.eye(present.shape[1], dtype=present.dtype)
    right = features.T @ (weights[:, None] * (outputs - offset).T)  # (S, N)
    return torch.cholesky_solve(right, torch.linalg.cholesky(gram)).T


def shapley(present: Tensor, outputs: Tensor, weights: Tensor, empty: Tensor, full: Tensor) -> Tensor:
    """Least squares under Σφ = full − empty: present (M, S), outputs (N, M), empty and full (N,) → (N, S).

    With fewer independent coalitions than segments, the shortest solution; NaN where an example's outputs are not all
    finite.
    """
    total = (full - empty)[:, None]  # (N, 1)
    count = present.shape[1]
    equal = total / count  # deviations from equal shares sum to zero, so the shortest solution favours no segment
    left = outputs - empty[:, None] - equal * present.sum(1)  # (N, M)
    features = present - present.mean(1, keepdim=True)
    root = weights.sqrt()[:, None]
    solvable = left.isfinite().all(1)  # LAPACK stops at others
    solved = torch.full((len(left), count), torch.nan, dtype=left.dtype)  # (N, S)
    if bool(solvable.any()):
        solved[solvable] = torch.linalg.lstsq(root * features, root * left[solvable].T, driver="gelsd").solution.T
    values: Tensor = equal + solved - solved.mean(1, keepdim=True)
    return values


def shapley_coalitions(count: int, samples: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Coalitions (M, S) bool, neither empty nor full, and their weights (M,)."""
    if count <= ENUMERABLE and 2**count - 2 <= samples:
        rows = [row for row in itertools.product((False, True), repeat=count) if 0 < sum(row) < count]
        weights = [(count - 1) / (math.comb(count, k) * k * (count - k)) for k in map(sum, rows)]
        return torch.tensor(rows).reshape(-1, count), torch.tensor(weights, dtype=torch.float64)
    mass = torch.tensor([1 / (size * (count - size)) for size in range(1, count)], dtype=torch.float64)
    half = -(-samples // 2)
    sizes = torch.multinomial(mass, half, replacement=True, generator=stream) + 1
    order = torch.rand(half, count, generator=stream, dtype=torch.float64).argsort(1).argsort(1)
    first = order < sizes[:, None]
    present = torch.stack([first, ~first], dim=1).reshape(-1, count)[:samples]
    return present, torch.ones(len(present), dtype=torch.float64)


def _outputs(query: Query, present: Tensor, labels: Tensor) -> Tensor:
    """Logits under coalitions, (N, M), float64 on the CPU."""
    return query.masked_outputs(present[:, labels.reshape(-1)].reshape(len(present), *labels.shape)).double().cpu()


def _segments(query: Query, segments: int | Tensor) -> tuple[Tensor, int]:
    """Segment numbers 0 … S − 1 of the input's spatial shape, and S."""
    shape = spatial(query.inputs.shape)
    if isinstance(segments, Tensor):
        if segments.shape != shape or segments.is_floating_point():
            found = f"{segments.dtype} {tuple(segments.shape)}"
            raise InputError(f"segments: expected integers of shape {shape}, found {found}")
        values, labels = torch.unique(segments.cpu(), return_inverse=True)
        return labels, len(values)
    if not isinstance(segments, int) or segments < 1:
        raise InputError(f"segments: expected a map of integers or a number across from 1 on, found {segments!r}")
    across = shape if kind(query.inputs.shape) == "vectors" else [min(segments, side) for side in shape]
    labels = torch.zeros((), dtype=torch.int64)
    for side, count in zip(shape, across, strict=True):
        labels = labels[..., None] * count + torch.arange(side) * count // side
    return labels, math.prod(across)


def _spread(query: Query, values: Tensor, labels: Tensor) -> Tensor:
    """Each segment's value evenly over its entries, so that they sum to it: (N, S) → (N, *shape)."""
    axis = channel_axis(query.inputs.shape)
    channels = 1 if axis is None else query.inputs.shape[axis]
    shares = values / (torch.bincount(labels.reshape(-1)) * channels)
    spread = shares[:, labels.reshape(-1)].reshape(len(values), *labels.shape)
    spread = query.exactly(spread.to(query.inputs.device))
    return spread if axis is None else spread.unsqueeze(axis).expand_as(query.inputs)
