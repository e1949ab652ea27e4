"""Metrics: similarity of two maps, alignment of a map with a mask; post-processing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribug.contracts import Metric
from attribug.registry import InputError, Registry

if TYPE_CHECKING:
    from torch import Tensor

_registry: Registry[Metric] = Registry("metric", "attribug.metrics", Metric)
register = _registry.register
names = _registry.names
get = _registry.get

__all__ = ["get", "measure", "measured_as", "names", "register"]


def measured_as(name: str) -> list[tuple[Metric, str]]:
    """The metric and posts that `metric` (all its default posts) or `metric@post` names; raises `InputError`."""
    from attribug.metrics.postprocessing import is_nonnegative, reduces_channels, steps

    base, at, post = name.partition("@")
    metric = get(base)
    posts = (post,) if at else metric.posts
    for each in posts:
        steps(each)
        if metric.nonnegative and not is_nonnegative(each):
            raise InputError(
                f"metric {base!r} needs a map without negative values; post {each!r} cannot promise it (abs_… can)"
            )
        if metric.kind == "alignment" and not reduces_channels(each):
            raise InputError(
                f"metric {base!r} needs one value a pixel; post {each!r} keeps the channels (…_sum does not)"
            )
        if metric.reads == "probabilities" and each != "none":
            raise InputError(f"metric {base!r} reads probabilities: the only post is 'none', found {each!r}")
    return [(metric, each) for each in posts]


def prepared(metric: Metric, maps: Tensor, post: str) -> object:
    """The form of attributions (N, C, H, W) that a metric receives after a post."""
    from attribug.metrics.postprocessing import postprocess

    processed = postprocess(maps, post)
    return processed if metric.prepare is None else metric.prepare(processed)


def measure(name: str, maps: Tensor, other: Tensor) -> Tensor:
    """One number an example, (N,) float64: `name` is `metric@post`, or a metric with its default post.

    maps (N, C, H, W), or probabilities (N, K) for a metric that reads these; other: as maps for a similarity, masks
    (N, H, W) bool for an alignment. NaN where undefined. Raises `InputError` for wrong names and shapes, `Unsupported`
    where a metric declines.
    """
    metric, post = measured_as(name)[0]
    _check_operands(name, metric, maps, other)
    if metric.kind == "alignment":
        values: Tensor = metric.function(prepared(metric, maps, post), other)
        return values
    similarities: Tensor = metric.function(prepared(metric, maps, post), prepared(metric, other, post))
    return similarities


def _check_operands(name: str, metric: Metric, maps: Tensor, other: Tensor) -> None:
    import torch

    for operand in (maps, other):
        if not isinstance(operand, torch.Tensor):
            raise InputError(f"{name}: expected tensors, found {type(operand).__name__}")
    found = f"found {tuple(maps.shape)} and {tuple(other.shape)}"
    if metric.reads == "probabilities" and (maps.ndim != 2 or other.ndim != 2 or len(maps) != len(other)):
        raise InputError(f"{name}: expected probabilities (N, K) of the same examples, {found}")
    if metric.reads == "attributions" and metric.kind == "similarity" and maps.shape != other.shape:
        raise InputError(f"{name}: expected two maps of one shape, {found}")
