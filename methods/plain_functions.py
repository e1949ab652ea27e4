"""Plain functions f(model, inputs, targets) that Python gives instead of a name: what they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attribug.errors import InputError

LAMBDA = "<lambda>"
NUMBERED = "function_"
"""Begins the names of functions that have none of their own."""


def names_of(given: Sequence[str | Callable[..., Any]]) -> list[str]:
    """The names of methods given by name or as functions: a function's own, and `function_1`, `function_2`, … for those
    without one (lambdas, partials, objects that can be called), by their place among these.

    Raises `InputError` for what is neither, and for a function whose name another one of them has.
    """
    names: list[str] = []
    functions: set[str] = set()
    unnamed = 0
    for each in given:
        if isinstance(each, str):
            names.append(each)
            continue
        if not callable(each):
            raise InputError(f"methods: expected names and functions, found {type(each).__name__}")
        name = getattr(each, "__name__", LAMBDA)
        if name == LAMBDA:
            unnamed += 1
            name = f"{NUMBERED}{unnamed}"
        if name in functions:
            raise taken(name)
        functions.add(name)
        names.append(name)
    return names


def taken(name: str) -> InputError:
    """What to say where a function's name is another method's."""
    return InputError(f"methods: the name {name!r} of a function is taken; rename the function")
