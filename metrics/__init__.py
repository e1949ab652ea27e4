"""Metrics: similarity of two maps, alignment of a map with a mask; post-processing."""

from __future__ import annotations

from attribug.contracts import Metric
from attribug.registry import Registry

_registry: Registry[Metric] = Registry("metric", "attribug.metrics", Metric)
register = _registry.register
names = _registry.names
get = _registry.get

__all__ = ["get", "names", "register"]
