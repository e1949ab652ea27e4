"""Post-processing as data: named, ordered steps from attributions to what a metric reads.

A post is its steps joined by `_`, in the order they apply: `abs_sum` takes absolute values, then sums the channels;
`sum_abs` the other way round. Where there are no channels, in vectors (N, D), a step that would reduce them does
nothing, as `none` does. Every step also says which values can come out of it, so that a
metric that needs maps in a certain range can refuse the posts that do not promise it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attribug.contracts.shapes import channel_axis
from attribug.errors import InputError, Unsupported, near_misses

Range = tuple[float, float]
"""Lowest and highest value that can occur."""

CACHED = 2**18  # numbers of some maps that stay in a core's cache while they are worked on
CAP = 0.99  # quantile of absolute values at which SmoothGrad's authors cap a map


@dataclass(frozen=True)
class Step:
    """One step: what it does to maps (N, …), and to the range of their values."""

    apply: Callable[[Tensor], Tensor]
    range: Callable[[float, float], Range]
    reduces: bool = False
    """Whether it takes the channels away: (N, C, *spatial) becomes (N, *spatial)."""


def minmax(maps: Tensor) -> Tensor:
    """Each example's values moved and scaled to [0, 1]; a constant map becomes NaN."""
    low, high = _per_example(maps, maps.flatten(1).amin(1)), _per_example(maps, maps.flatten(1).amax(1))
    return (maps - low) / (high - low)


def percentile(maps: Tensor) -> Tensor:
    """Each example's values divided by the 99th percentile of their absolute values and capped to [−1, 1].

    Smilkov et al. 2017 (SmoothGrad), section 3.2.1. A map whose percentile is 0 becomes NaN.
    """
    cap = np.quantile(maps.flatten(1).abs().cpu().numpy(), CAP, axis=1)
    scale = _per_example(maps, torch.as_tensor(cap, dtype=maps.dtype, device=maps.device))
    return torch.where(scale > 0, (maps / scale).clamp(-1, 1), torch.nan)


def secondmoment(maps: Tensor) -> Tensor:
    """Each example's values divided by the root of their mean square; a zero map becomes NaN.

    Binder et al. 2023 (Shortcomings of top-down randomization-based sanity checks), section 3: keeps signs and zero,
    and one extreme value moves it less than it moves `minmax`.
    """
    largest = _per_example(maps, maps.flatten(1).abs().amax(1))
    scaled = maps / largest  # so that squares of tiny and huge values keep their digits
    return scaled / _per_example(maps, scaled.flatten(1).square().mean(1).sqrt())


def _per_example(maps: Tensor, numbers: Tensor) -> Tensor:
    """Numbers (N,) in a shape that meets maps (N, …)."""
    return numbers.reshape(-1, *[1] * (maps.ndim - 1))


def _over_channels(reduce: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor], Tensor]:
    """A reduction of the channels, where there are any: (N, C, *spatial) → (N, *spatial)."""

    def reduced(maps: Tensor) -> Tensor:
        axis = channel_axis(maps.shape)
        return maps if axis is None else reduce(maps, axis)

    return reduced


def _unbounded(low: float, high: float) -> Range:
    """Signs stay, sizes may grow."""
    return (0.0 if low >= 0 else -math.inf), (0.0 if high <= 0 else math.inf)


def _absolute(low: float, high: float) -> Range:
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _capped(low: float, high: float) -> Range:
    return (0.0 if low >= 0 else -1.0), (0.0 if high <= 0 else 1.0)


def _same(low: float, high: float) -> Range:
    return low, high


STEPS: dict[str, Step] = {
    "abs": Step(lambda maps: maps.abs(), _absolute),
    "sum": Step(_over_channels(torch.sum), _unbounded, reduces=True),
    "mean": Step(_over_channels(torch.mean), _same, reduces=True),
    "max": Step(_over_channels(torch.amax), _same, reduces=True),
    "minmax": Step(minmax, lambda low, high: (0.0, 1.0)),
    "percentile": Step(percentile, _capped),
    "secondmoment": Step(secondmoment, _unbounded),
    "none": Step(lambda maps: maps, _same),
}
REDUCING = tuple(name for name, step in STEPS.items() if step.reduces)


@functools.cache
def steps(post: str) -> tuple[str, ...]:
    """The steps of a post; raises `InputError` for an unknown step or a second channel reduction."""
    names = tuple(post.split("_"))
    for name in names:
        if name not in STEPS:
            raise InputError(f"post {post!r}: unknown step {name!r}{near_misses(name, STEPS)}")
    if sum(STEPS[name].reduces for name in names) > 1:
        raise InputError(f"post {post!r}: expected at most one of {', '.join(REDUCING)}")
    return names


def postprocess(maps: Tensor, post: str) -> Tensor:
    """Applies a post to attributions of images (N, C, H, W), sequences (N, C, L) or vectors (N, D); float64 out, so
    that rounding never decides a comparison.

    Raises `Unsupported` where a post reduces channels and the attributions have another shape.
    """
    if reduces_channels(post):
        try:
            channel_axis(maps.shape)
        except Unsupported as reason:
            raise Unsupported(f"post {post!r} reduces channels: {reason}") from None
    size = max(1, CACHED * len(maps) // max(1, maps.numel()))
    parts = [_stepped(some, steps(post)) for some in maps.split(size)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _stepped(maps: Tensor, names: tuple[str, ...]) -> Tensor:
    processed = maps.detach().double()
    for name in names:
        processed = STEPS[name].apply(processed)
    return processed


def range_after(post: str) -> Range:
    """The lowest and highest value a post's result can have, whatever the attributions; NaN apart."""
    low, high = -math.inf, math.inf
    for name in steps(post):
        low, high = STEPS[name].range(low, high)
    return low, high


def reduces_channels(post: str) -> bool:
    """Whether a post's result has no channels, (N, *spatial)."""
    return any(STEPS[name].reduces for name in steps(post))
