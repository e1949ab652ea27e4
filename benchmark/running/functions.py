"""Plain functions given from Python, pickled for the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attribug import keys
from attribug import methods as registered
from attribug.errors import InputError
from attribug.plugin_files import pickled_for_others

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
    modules = [function.__module__ for function in functions.values()]
    pickled = pickled_for_others(keyed, modules) if keyed else b""
    registered.register_functions(pickled)
    return [method if isinstance(method, str) else method.__name__ for method in methods], pickled
