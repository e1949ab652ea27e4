"""Content keys: short digests of everything that determines an artefact, code included."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

DIGEST_CHARACTERS = 32  # 128 bits: collisions are out of reach, file names stay readable


def digest(*parts: Any) -> str:
    """Digest of nested plain values, dataclasses, and functions (by their code); equal values give equal digests.

    Raises `TypeError` for a value whose content cannot be told (an open file, say).
    """
    text = json.dumps([_canonical(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def stream_seed(*parts: Any) -> int:
    """A seed in [0, 2⁶³) for the random stream that `parts` name; the same on every machine."""
    return int(digest(*parts)[:16], 16) >> 1


def _canonical(value: Any) -> Any:
    if hasattr(value, "key") and isinstance(value.key, str) and not isinstance(value, type):
        return ["key", type(value).__name__, value.key]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return ["float", repr(value)]
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
    if callable(value):
        return ["function", function_code(value)]
    raise TypeError(f"content key: expected plain values, dataclasses or functions, found {type(value).__name__}")


def function_code(function: Callable[..., Any]) -> list[str]:
    """Name and code digest of a function or class: its whole module, with what that imports inside attribug."""
    module = getattr(function, "__module__", "") or ""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if module and module != "__main__" and _source_path(module) is not None:
        return [module, name, code(module)]
    try:  # a notebook's or a console's function: its own text is all there is
        text = inspect.getsource(function)
    except (OSError, TypeError):
        import cloudpickle

        text = hashlib.sha256(cloudpickle.dumps(function)).hexdigest()
    return [name, hashlib.sha256(text.encode()).hexdigest()]


@functools.cache
def code(module: str) -> str:
    """Digest of a module's syntax tree and of all it imports inside attribug: comments and docstrings do not count."""
    sources = {name: _normalised(path) for name, path in sorted(_closure(module).items())}
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:DIGEST_CHARACTERS]


@functools.cache
def version(distribution: str) -> str:
    """Installed version of a distribution, `absent` when there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions by distribution name."""
    return {name: version(name) for name in distributions}


def _closure(module: str) -> dict[str, Path]:
    """The module and everything inside attribug that it imports, directly or not; the registry carries no numbers."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source_path(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += [other for other in _imports(name, path) if other.startswith("attribug.")]
    return {name: path for name, path in found.items() if name not in {"attribug.registry", "attribug.keys"}}


def _imports(module: str, path: Path) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _source_path(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file and file.endswith(".py") else None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


@functools.cache
def _normalised(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
