"""Plain functions given from Python, pickled for the workers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attribug import keys
from attribug import methods as registered
from attribug.methods.plain_functions import names_of, taken
from attribug.plugin_files import pickled_for_others

_GIVEN: set[str] = set()
"""Names of plain functions that this session handed over: a later one of the same name takes an earlier one's place."""


def handed_over(methods: Sequence[str | Callable[..., Any]] | None) -> tuple[list[str] | None, bytes]:
    """Names of all methods, and the plain functions among them, pickled for the workers with their content keys."""
    if methods is None:
        return None, b""
    names = names_of(methods)
    functions = {name: given for name, given in zip(names, methods, strict=True) if not isinstance(given, str)}
    for name in functions:
        if name not in _GIVEN and name in registered.names():
            raise taken(name)
    keyed = {name: (function, keys.digest(function)) for name, function in functions.items()}
    _GIVEN.update(keyed)
    modules = [module for function in functions.values() for module in _modules(function)]
    pickled = pickled_for_others(keyed, modules) if keyed else b""
    registered.register_functions(pickled)
    return names, pickled


def _modules(function: Any) -> Iterator[str]:
    """Where a function's code stands; a partial's also where that of what it holds does."""
    yield getattr(function, "__module__", None) or ""
    if isinstance(function, functools.partial):
        for held in (function.func, *function.args, *function.keywords.values()):
            yield from _modules(held)
