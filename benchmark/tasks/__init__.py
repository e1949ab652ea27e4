"""Tasks: labelled example sets with the recipe that trains a model on them; one task a file."""

from __future__ import annotations

from attribug.contracts.pieces import TaskSource
from attribug.registry import Registry

_registry: Registry[TaskSource] = Registry("task", "attribug.tasks", TaskSource)
register = _registry.register
names = _registry.names
get = _registry.get
described = _registry.described

__all__ = ["described", "get", "names", "register"]
