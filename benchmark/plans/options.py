"""Options of pieces, checked against the functions that take them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attribug.errors import InputError, near_misses, one_line


def check_options(key: str, function: Callable[..., Any], options: Mapping[str, Any], skip: Iterable[str] = ()) -> None:
    """Raises `InputError` for options that a function has no keyword for, or of another type than its default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}: expected a function with a signature: {one_line(error)}") from error
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in set(skip)}
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{key}: unknown option {option!r}{near_misses(option, known)}")
        default = known[option]
        if isinstance(default, int | float) and not isinstance(value, int | float | type(default)):
            raise InputError(f"{key}.{option}: expected {type(default).__name__}, found {value!r}")
        if type(default) is int and type(value) is not int:
            raise InputError(f"{key}.{option}: expected int, found {value!r}")
