"""Content keys: short digests of everything that determines an artefact, code included."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from attribug import plugin_files, sources
from attribug.sources import DIGEST_CHARACTERS

ABSENT = "absent"


def digest(*parts: Any) -> str:
    """Digest of nested plain values, dataclasses, and functions (by their code); equal values give equal digests.

    A value that knows its content by a key tells it by a method `__content_key__() -> str`; nothing else is trusted, no
    attribute of whatever name. Raises `TypeError` for a value whose content cannot be told (an open file, say).
    """
    text = json.dumps([_canonical(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def stream_seed(*parts: Any) -> int:
    """A seed in [0, 2⁶³) for the random stream that `parts` name; the same on every machine."""
    return int(digest(*parts)[:16], 16) >> 1


def _canonical(value: Any) -> Any:  # noqa: PLR0911 - one line a type
    if hasattr(value, "__content_key__") and not isinstance(value, type):
        return ["key", type(value).__name__, value.__content_key__()]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return ["float", repr(float(value))]  # NumPy's floats spell themselves otherwise
    if isinstance(value, bytes):
        return ["bytes", hashlib.sha256(value).hexdigest()]
    if isinstance(value, tuple | list):
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _canonical(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _canonical(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return [type(value).__name__, fields]
    if isinstance(value, functools.partial):
        return ["partial", _canonical(value.func), _canonical(value.args), _canonical(value.keywords)]
    if isinstance(value, MethodType):
        return ["method", _canonical(value.__self__), _canonical(value.__func__)]
    if isinstance(value, set | frozenset):
        return ["set", sorted(json.dumps(_canonical(item), sort_keys=True) for item in value)]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(content).hexdigest()]
    if callable(value):
        wrapped = getattr(value, "__wrapped_function__", None)  # a plain function, registered as a method
        return ["function", function_code(value)] if wrapped is None else _canonical(wrapped)
    raise TypeError(f"content key: expected plain values, dataclasses or functions, found {type(value).__name__}")


def function_code(function: Callable[..., Any]) -> list[Any]:
    """Name of a function or class, and a digest of its code: see `attribug.sources`.

    Where no file tells one from another (a closure, a lambda, an object, a notebook's function), also their content.
    """
    module = getattr(function, "__module__", "") or ""
    told = plugin_files.portable(module)
    name = getattr(function, "__qualname__", f"<{type(function).__qualname__}>")
    in_file = module not in {"", "__main__"} and sources.has_source(module)
    if in_file and "<" not in name:
        return [told, name, _code_of(module, name.partition(".")[0])]
    if any(function is other for other in _OPEN):
        return [name, "recursive"]
    _OPEN.append(function)
    try:
        return [*([told, sources.code(module)] if in_file else []), name, _content(function, in_file)]
    finally:
        _OPEN.pop()


def _code_of(module: str, name: str) -> str:
    """Of a definition; of the whole module where its source does not show one of that name."""
    try:
        return sources.code(module, name)
    except KeyError:
        return sources.code(module)


_OPEN: list[Any] = []
"""Functions whose content is being told: one that reaches itself is told once."""


def _content(function: Any, in_file: bool) -> Any:
    """Instructions and values, the same in the process that made a function and in one that received it pickled."""
    if isinstance(function, type):
        members = {name: told(value) for name, value in vars(function).items() if isinstance(value, FunctionType)}
        return [[_base(base) for base in function.__bases__], members]
    if not isinstance(function, FunctionType):
        return _pickled(function)
    compiled = function.__code__
    enclosed = dict(zip(compiled.co_freevars, function.__closure__ or (), strict=True))
    values = {name: cell.cell_contents for name, cell in enclosed.items() if cell != type(cell)()}
    if not in_file:
        values |= {name: function.__globals__[name] for name in _global_names(compiled) if name in function.__globals__}
    defaults = [told(function.__defaults__), told(function.__kwdefaults__)]
    return [_instructions(compiled, function.__doc__), defaults, {name: told(value) for name, value in values.items()}]


def _base(base: type) -> Any:
    """What a class is made of: an installed library's by its version, whose source is long, any other by its code."""
    library = base.__module__.partition(".")[0]
    installed = library != "attribug" and version(library) != ABSENT
    return [library, version(library), base.__qualname__] if installed else told(base)


def told(value: Any) -> Any:
    """A value as content keys see it: plain where it can be, else a digest of it pickled."""
    if isinstance(value, ModuleType):
        return ["module", value.__name__]
    try:
        return _canonical(value)
    except TypeError:
        return _pickled(value)


def _pickled(value: Any) -> str:
    import cloudpickle

    try:
        return hashlib.sha256(plugin_files.portable_pickle(cloudpickle.dumps(value))).hexdigest()
    except Exception as error:  # whatever foreign objects raise
        raise TypeError(f"content key: expected what can be pickled, found {type(value).__name__}") from error


def _instructions(compiled: CodeType, docstring: str | None = None) -> list[Any]:
    constants = [None if place == 0 and value == docstring else value for place, value in enumerate(compiled.co_consts)]
    told = [_instructions(value) if isinstance(value, CodeType) else _constant(value) for value in constants]
    names = [*compiled.co_names, *compiled.co_varnames, *compiled.co_freevars, *compiled.co_cellvars]
    return [compiled.co_code.hex(), compiled.co_argcount, compiled.co_kwonlyargcount, compiled.co_flags, names, told]


def _constant(value: Any) -> str:
    """A constant's text; a set's is in order, which is otherwise another in every process."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _global_names(compiled: CodeType) -> set[str]:
    names = {step.argval for step in dis.get_instructions(compiled) if step.opname == "LOAD_GLOBAL"}
    return names.union(*(_global_names(inner) for inner in compiled.co_consts if isinstance(inner, CodeType)))


@functools.cache
def version(distribution: str) -> str:
    """Installed version of a distribution, `absent` when there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions by distribution name."""
    return {name: version(name) for name in distributions}
