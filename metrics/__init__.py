"""Metrics: similarity of two maps, alignment of a map with a mask; post-processing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribug.contracts.outputs import get as output
from attribug.contracts.pieces import Metric, metric_and_post
from attribug.contracts.shapes import expect_images, spatial
from attribug.errors import InputError, Unsupported
from attribug.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

_registry: Registry[Metric] = Registry("metric", "attribug.metrics", Metric)
register = _registry.register
names = _registry.names
get = _registry.get
described = _registry.described

__all__ = [
    "described", "expect_kind", "formed", "get", "measure", "measured_as", "names", "prepared", "refusal", "register",
]  # fmt: skip


def measured_as(name: str) -> list[tuple[Metric, str]]:
    """The metric and posts that `metric` (all its default posts) or `metric@post` names; raises `InputError`."""
    from attribug.metrics.postprocessing import steps

    if not isinstance(name, str):
        raise InputError(f"metric: expected metric or metric@post, found {type(name).__name__}")
    base, post = metric_and_post(name)
    metric = get(base)
    posts = metric.posts if post is None else (post,)
    for each in posts:
        steps(each)
        reason = refusal(metric, each)
        if reason:
            raise InputError(reason)
    return [(metric, each) for each in posts]


def refusal(metric: Metric, post: str) -> str:
    """Why a metric does not take a post; empty where it does."""
    from attribug.metrics.postprocessing import range_after, reduces_channels

    if not output(metric.reads).maps and post != "none":
        return f"metric {metric.name!r} reads {metric.reads}: the only post is 'none', found {post!r}"
    if metric.kind == "alignment" and not metric.channels and not reduces_channels(post):
        return f"metric {metric.name!r} needs one value a pixel; post {post!r} keeps the channels (…_sum does not)"
    low, high = metric.domain
    lowest, highest = range_after(post)
    if (low is None or lowest >= low) and (high is None or highest <= high):
        return ""
    spelled = f"in [{'−∞' if low is None else low}, {'∞' if high is None else high}]"
    wanted, able = ("without negative values", "abs_…") if (low, high) == (0, None) else (spelled, "…_minmax")
    return f"metric {metric.name!r} needs a map {wanted}; post {post!r} cannot promise it ({able} can)"


def prepared(metric: Metric, maps: Tensor, post: str) -> object:
    """The form of attributions (N, *shape) that a metric receives after a post; raises `Unsupported` for maps of
    another kind than the metric is defined for."""
    from attribug.metrics.postprocessing import postprocess

    expect_kind(metric, maps)
    return formed(metric, postprocess(maps, post))


def expect_kind(metric: Metric, maps: Tensor) -> None:
    """Raises `Unsupported` for maps (N, *shape) of another kind than the metric is defined for."""
    if metric.images:
        try:
            expect_images(maps.shape)
        except Unsupported as reason:
            raise Unsupported(f"metric {metric.name!r}: {reason}") from None


def formed(metric: Metric, plane: Tensor) -> object:
    """The form of post-processed attributions that a metric receives."""
    return plane if metric.prepare is None else metric.prepare(plane)


def measure(name: str, maps: Tensor, other: Tensor, beside: Tensor | None = None) -> Tensor:
    """One number an example, (N,) float64: `name` is `metric@post`, or a metric with its default post.

    maps: of images (N, C, H, W), sequences (N, C, L) or vectors (N, D); or the kind of output that the metric reads,
    such as probabilities (N, K). other: as maps for a similarity; masks (N, *spatial) bool, of the maps' shape without
    channels, for an alignment; for a response, as maps, of the same inputs' other version. beside: as maps, for an
    alignment that reads a second version (`gt2_ssim`). NaN where undefined. Raises `InputError` for wrong names and
    shapes, `Unsupported` where a metric declines.
    """
    metric, post = measured_as(name)[0]
    _check_operands(name, metric, maps, other, beside)
    if metric.kind != "alignment":
        similarities: Tensor = metric.function(prepared(metric, maps, post), prepared(metric, other, post))
        return similarities
    second = [] if beside is None else [prepared(metric, beside, post)]
    values: Tensor = metric.function(prepared(metric, maps, post), other, *second)
    return values


def _check_operands(name: str, metric: Metric, maps: Tensor, other: Tensor, beside: Tensor | None) -> None:
    import torch

    second = metric.kind == "alignment" and bool(metric.beside)
    if second != (beside is not None):
        expected = f"the maps of {metric.beside} as third operand" if second else "two operands"
        raise InputError(f"{name}: expected {expected}, found {'none' if second else 'three'}")
    for operand in (maps, other, *([] if beside is None else [beside])):
        if not isinstance(operand, torch.Tensor):
            raise InputError(f"{name}: expected tensors, found {type(operand).__name__}")
    unlike = "" if metric.kind == "alignment" else output(metric.reads).unlike(maps, other)
    if not unlike and metric.kind == "response" and maps.shape != other.shape:
        unlike = f"expected two versions' outputs of one shape, found {tuple(maps.shape)} and {tuple(other.shape)}"
    if unlike:
        raise InputError(f"{name}: {unlike}")
    if metric.kind == "alignment" and output(metric.reads).maps:
        masks = (len(maps), *spatial(maps.shape))
        if tuple(other.shape) != masks or other.dtype != torch.bool:
            raise InputError(f"{name}: expected masks {masks} torch.bool, found {tuple(other.shape)} {other.dtype}")
    if beside is not None and beside.shape != maps.shape:
        raise InputError(f"{name}: expected two maps of one shape, found {tuple(maps.shape)} and {tuple(beside.shape)}")
