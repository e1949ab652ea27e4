"""Panels: models that are asked side by side how far their explanations agree with masks; one panel a file."""

from __future__ import annotations

from attribug.contracts.pieces import Panel
from attribug.registry import Registry

_registry: Registry[Panel] = Registry("panel", "attribug.panels", Panel)
register = _registry.register
names = _registry.names
get = _registry.get
described = _registry.described

__all__ = ["described", "get", "names", "register"]
