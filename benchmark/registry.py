"""One generic registry for tasks, bugs, methods and metrics: unique names, known facts, near misses, plugins."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from attribug.contracts import Entry
from attribug.keys import digest

E = TypeVar("E", bound=Entry)
F = TypeVar("F", bound=Callable[..., Any])
NAME = re.compile(r"[a-z][a-z0-9_]*(\.v\d+)?")
LONGEST_REASON = 500  # characters of an exception's message
REGISTRIES: dict[str, Registry[Any]] = {}


class InputError(ValueError):
    """The user's input is wrong: one line that says what was expected and what was found."""


class StorageError(InputError):
    """The system refuses to store a file: a full or read-only disk, no permission, a folder that is gone."""

    def __init__(self, path: object, found: str) -> None:
        """`found`: what the system says."""
        super().__init__(path, found)
        self.found = found

    def __str__(self) -> str:
        path, found = self.args
        return f"{path}: cannot be written: {found}; the same command goes on from here once it can"


class Missing(InputError):
    """What is asked for was not done yet, or by other code: the line names the command that does it."""


def near_misses(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a known name is close, else the known names; starts with its own punctuation."""
    options = sorted(set(known))
    close = difflib.get_close_matches(name, options, n=2, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(option) for option in close) + "?"
    return f"; expected one of: {', '.join(options)}" if options else ""


@dataclasses.dataclass(frozen=True)
class Declared:
    """What a decorator in a source file says, read without importing it (importing costs torch)."""

    name: str
    module: str
    facts: dict[str, Any]
    summary: str
    parameters: dict[str, Any]


class Registry(Generic[E]):
    """Pieces of one kind by name: shipped ones (imported when asked for), entry points, and registered ones."""

    def __init__(self, kind: str, package: str, entry: type[E]) -> None:
        self.kind = kind
        self.package = package
        self.entry = entry
        self._entries: dict[str, E] = {}
        self._declared: dict[str, Declared] | None = None
        REGISTRIES[kind] = self

    def register(self, name: str, **facts: Any) -> Callable[[F], F]:
        """Decorator: enters the function under `name` with its facts, and returns it unchanged.

        Raises `InputError` for a malformed or taken name and for an unknown fact.
        """
        self._check_name(name)
        known = {field.name for field in dataclasses.fields(self.entry)} - {"name", "function"}
        for fact in facts:
            if fact not in known:
                raise InputError(f"{self.kind} {name!r}: unknown fact {fact!r}{near_misses(fact, known)}")

        def enter(function: F) -> F:
            if not callable(function):
                raise InputError(f"{self.kind} {name!r}: expected a function, found {type(function).__name__}")
            self._refuse_taken(name, function)
            try:
                self._entries[name] = self.entry(name=name, function=function, **facts)
            except ValueError as error:
                raise InputError(f"{self.kind} {name!r}: {error}") from error
            return function

        return enter

    def names(self) -> list[str]:
        """All names, sorted; plugins installed as packages included."""
        return sorted({*self.declared(), *self._entries, *self._entry_points()})

    def get(self, name: str) -> E:
        """The piece of that name; raises `InputError` with near misses."""
        if name not in self._entries:
            if name in self.declared():
                importlib.import_module(self.declared()[name].module)
            elif name in self._entry_points():
                self._load_entry_point(name)
        if name not in self._entries:
            raise InputError(f"unknown {self.kind} {name!r}{near_misses(name, self.names())}")
        return self._entries[name]

    def registered(self) -> list[str]:
        """Names entered so far in this process."""
        return sorted(self._entries)

    def forget(self, name: str) -> None:
        """Removes what was entered under a name."""
        self._entries.pop(name, None)

    def withdraw(self, module: str, keep: Iterable[str]) -> None:
        """Removes what a module entered, except the names in `keep`."""
        theirs = {name for name, entry in self._entries.items() if entry.function.__module__ == module}
        self._entries = {name: entry for name, entry in self._entries.items() if name not in theirs - set(keep)}

    def declared(self) -> dict[str, Declared]:
        """The shipped pieces, read from this package's source files."""
        if self._declared is None:
            spec = importlib.util.find_spec(self.package)
            folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
            found = [piece for path in sorted(folder.glob("*.py")) for piece in _read(path, self.package)]
            self._declared = {piece.name: piece for piece in found}
        return self._declared

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(f"{self.kind} name: expected lower case letters, digits and _, found {name!r}")

    def _refuse_taken(self, name: str, function: Callable[..., Any]) -> None:
        shipped = self.declared().get(name)
        module = getattr(function, "__module__", None)
        if shipped is not None and shipped.module != module:
            raise InputError(f"{self.kind} {name!r} is taken by {shipped.module}; choose another name")
        before = self._entries.get(name)
        rerun = before is not None and module == "__main__" and before.function.__module__ == "__main__"
        if before is not None and before.function is not function and not rerun:  # a notebook cell may be run again
            raise InputError(f"{self.kind} {name!r} is taken by {before.function.__module__}; choose another name")

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        group = importlib.metadata.entry_points(group=self.package)
        return {point.name: point for point in group}

    def _load_entry_point(self, name: str) -> None:
        point = self._entry_points()[name]
        try:
            loaded = point.load()
        except Exception as error:
            raise InputError(
                f"{self.kind} {name!r}: entry point {point.value} does not load: {one_line(error)}"
            ) from error
        if name not in self._entries and callable(loaded):
            self.register(name)(loaded)


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and first line, without paths and addresses."""
    try:
        first = (str(error).strip().splitlines() or [""])[0]
    except Exception:  # foreign code again
        first = "its message cannot be told"
    if len(first) > LONGEST_REASON:
        first = f"{first[:LONGEST_REASON]}…"
    first = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in first)
    first = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", first)
    first = re.sub(r"(?<![\w.])(?<!:/)/(?:[\w.+-]+/)+([\w.+-]+)", r"\1", first)  # not the path of a web address
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def load_plugin(plugin: str) -> dict[str, list[str]]:
    """Imports a plugin, a `.py` file or a module, and returns the names it registered by kind.

    Raises `InputError` when it does not exist, does not import, collides, or registers nothing.
    """
    path = Path(plugin)
    is_file = plugin.endswith(".py") or path.is_file()
    module = f"attribug_plugin_{path.stem}_{digest(str(path.resolve()))[:8]}" if is_file else plugin
    if module in _LOADED:
        return _LOADED[module]
    before = {kind: set(registry.registered()) for kind, registry in all_registries().items()}
    try:
        if is_file:
            _import_file(path, module)
        else:
            importlib.import_module(module)
    except (Exception, SystemExit) as error:
        for kind, registry in all_registries().items():  # so that it can be loaded again when it is mended
            registry.withdraw(module, keep=before[kind])
        found = str(error) if isinstance(error, InputError) else f"does not import: {one_line(error)}"
        raise InputError(f"plugin {plugin}: {found}") from error
    new = {kind: _of_module(registry, before[kind], module) for kind, registry in all_registries().items()}
    if not any(new.values()):
        raise InputError(f"plugin {plugin}: expected at least one @register, found none")
    _LOADED[module] = {kind: names for kind, names in new.items() if names}
    return _LOADED[module]


_LOADED: dict[str, dict[str, list[str]]] = {}


def all_registries() -> dict[str, Registry[Any]]:
    """Every registry by kind: task, bug, method, metric."""
    for name in ("tasks", "bugs", "methods", "metrics"):
        importlib.import_module(f"attribug.{name}")
    return REGISTRIES


def _of_module(registry: Registry[Any], before: set[str], module: str) -> list[str]:
    mine = [name for name in registry.registered() if registry.get(name).function.__module__ == module]
    shipped = set(registry.declared())
    return sorted({*mine, *(name for name in registry.registered() if name not in before and name not in shipped)})


def _import_file(path: Path, module: str) -> None:
    if not path.is_file():
        raise InputError("expected a Python file, found none")
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise InputError("expected a Python file (.py)")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded  # before it runs: its functions' sources are found by module name
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise


def _read(path: Path, package: str) -> list[Declared]:
    module = package if path.stem == "__init__" else f"{package}.{path.stem}"
    pieces = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == "register":
                    name = ast.literal_eval(call.args[0])
                    summary = (ast.get_docstring(node) or "").partition("\n")[0]
                    pieces.append(Declared(name, module, _literals(call.keywords), summary, _parameters(node)))
    return pieces


def _literals(keywords: list[ast.keyword]) -> dict[str, Any]:
    facts = {}
    for keyword in keywords:
        try:
            facts[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            facts[str(keyword.arg)] = ast.unparse(keyword.value)
    return facts


def _parameters(node: ast.FunctionDef) -> dict[str, Any]:
    """Keyword-only parameters with their defaults."""
    pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return {argument.arg: ast.unparse(default) if default is not None else "" for argument, default in pairs}
