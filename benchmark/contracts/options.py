"""Options of pieces: whether a function takes them, and of which type."""

from __future__ import annotations

import inspect
import math
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
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in set(skip)}
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{key}: unknown option {option!r}{near_misses(option, known)}")
        check_option(f"{key}.{option}", known[option], value)


def check_option(name: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raises `InputError` for a value of another type than a parameter's default, and for NaN; a tensor is what a
    parameter takes whose annotation says so."""
    default = parameter.default
    if isinstance(default, str) and parameter.annotation in {"str", str} and not isinstance(value, str):
        raise InputError(f"{name}: expected str, found {value!r}")
    if not isinstance(default, int | float) or (type(value).__name__ == "Tensor" and takes_tensors(parameter)):
        return
    if not isinstance(value, int | float | type(default)):
        raise InputError(f"{name}: expected {type(default).__name__}, found {value!r}")
    if isinstance(value, bool) is not isinstance(default, bool) or (type(default) is int and type(value) is not int):
        raise InputError(f"{name}: expected {type(default).__name__}, found {value!r}")
    if isinstance(value, float) and math.isnan(value):
        raise InputError(f"{name}: expected a number, found NaN")


def takes_tensors(parameter: inspect.Parameter) -> bool:
    """Whether a parameter's annotation names tensors."""
    return any(word in str(parameter.annotation) for word in ("Tensor", "Baseline"))
