"""Post-processing as data: named, ordered steps from attributions to what a metric reads.

A post is its steps joined by `_`, in the order they apply: `abs_sum` takes absolute values, then sums the channels;
`sum_abs` the other way round. `none` does nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from attribug.contracts import Unsupported
from attribug.registry import InputError, near_misses

Step = Callable[[Tensor], Tensor]


def minmax(maps: Tensor) -> Tensor:
    """Each example's values moved and scaled to [0, 1]; a constant map becomes NaN."""
    flat = maps.flatten(1)
    low, high = (extreme.reshape(-1, *[1] * (maps.ndim - 1)) for extreme in (flat.amin(1), flat.amax(1)))
    return (maps - low) / (high - low)


STEPS: dict[str, Step] = {
    "abs": lambda maps: maps.abs(),
    "sum": lambda maps: maps.sum(1),  # (N, C, H, W) -> (N, H, W)
    "mean": lambda maps: maps.mean(1),
    "max": lambda maps: maps.amax(1),
    "minmax": minmax,
    "none": lambda maps: maps,
}
REDUCES = {"sum", "mean", "max"}
NONNEGATIVE_AFTER = {"abs", "minmax"}


@functools.cache
def steps(post: str) -> tuple[str, ...]:
    """The steps of a post; raises `InputError` for an unknown step or a second channel reduction."""
    names = tuple(post.split("_"))
    for name in names:
        if name not in STEPS:
            raise InputError(f"post {post!r}: unknown step {name!r}{near_misses(name, STEPS)}")
    if sum(name in REDUCES for name in names) > 1:
        raise InputError(f"post {post!r}: expected at most one of sum, mean, max")
    return names


def postprocess(maps: Tensor, post: str) -> Tensor:
    """Applies a post to attributions (N, C, H, W); float64 out, so that rounding never decides a comparison.

    Raises `Unsupported` where a post reduces channels and the attributions have another shape.
    """
    if reduces_channels(post) and maps.ndim != 4:
        raise Unsupported(f"post {post!r} reduces channels: expected maps (N, C, H, W), found {tuple(maps.shape)}")
    processed = maps.double()
    for name in steps(post):
        processed = STEPS[name](processed)
    return processed


def is_nonnegative(post: str) -> bool:
    """Whether a post's result cannot be negative, whatever the attributions."""
    return any(name in NONNEGATIVE_AFTER for name in steps(post))


def reduces_channels(post: str) -> bool:
    """Whether a post's result is (N, H, W)."""
    return any(name in REDUCES for name in steps(post))
