"""Attribution methods; one family a file."""

from __future__ import annotations

from attribug.contracts import Method
from attribug.registry import Registry

_registry: Registry[Method] = Registry("method", "attribug.methods", Method)
register = _registry.register
names = _registry.names
get = _registry.get

__all__ = ["get", "names", "register"]
