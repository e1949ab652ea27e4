"""Plain functions given from Python, pickled for the workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from typing import Any

import cloudpickle

from attribug import keys
from attribug import methods as registered
from attribug.errors import InputError
from attribug.plugin_files import is_plugin_file


def _pickled(functions: Mapping[str, tuple[Callable[..., Any], str]]) -> bytes:
    """Functions for the workers: by name where their module can be imported there, else with their code."""
    modules = {sys.modules.get(function.__module__) for function, _ in functions.values()}
    unknown = [module for module in modules if module is not None and not _on_path(module.__name__)]
    for module in unknown:
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled: bytes = cloudpickle.dumps(dict(functions))
        return pickled
    finally:
        for module in unknown:
            cloudpickle.unregister_pickle_by_value(module)


def _on_path(module: str) -> bool:
    """Whether another process with this one's `sys.path` finds a module; cloudpickle sees to `__main__` itself. On
    another machine a plugin file may lie elsewhere."""
    if module == "__main__" or is_plugin_file(module):
        return module == "__main__"
    return PathFinder.find_spec(module.partition(".")[0], sys.path) is not None


_GIVEN: set[str] = set()
"""Names of plain functions that this session handed over: a later one of the same name takes an earlier one's place."""


def handed_over(methods: Sequence[str | Callable[..., Any]] | None) -> tuple[list[str] | None, bytes]:
    """Names of all methods, and the plain functions among them, pickled for the workers with their content keys."""
    if methods is None:
        return None, b""
    functions: dict[str, Callable[..., Any]] = {}
    for function in (method for method in methods if callable(method)):
        name = getattr(function, "__name__", None)
        if name is None:
            raise InputError("methods: expected functions with a name; give a partial or an object one by `def`")
        if name in functions or (name not in _GIVEN and name in registered.names()):
            raise InputError(f"methods: the name {name!r} of a function is taken; rename the function")
        functions[name] = function
    keyed = {name: (function, keys.digest(function)) for name, function in functions.items()}
    _GIVEN.update(keyed)
    pickled = _pickled(keyed) if keyed else b""
    registered.register_functions(pickled)
    return [method if isinstance(method, str) else method.__name__ for method in methods], pickled
