"""Fixes: what mends a model that has a bug; one fix a file."""

from __future__ import annotations

from attribug.contracts.pieces import Fix
from attribug.registry import Registry

_registry: Registry[Fix] = Registry("fix", "attribug.fixes", Fix)
register = _registry.register
names = _registry.names
get = _registry.get
described = _registry.described

__all__ = ["described", "get", "names", "register"]
