"""Bugs: contaminations of data, model or test input; one bug a file."""

from __future__ import annotations

from attribug.contracts.pieces import Bug
from attribug.registry import Registry

_registry: Registry[Bug] = Registry("bug", "attribug.bugs", Bug)
register = _registry.register
names = _registry.names
get = _registry.get
described = _registry.described

__all__ = ["described", "get", "names", "register"]
