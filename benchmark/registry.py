"""The values that tasks, bugs, methods and metrics exchange: frozen, described by content, lazy where they are large.

Shapes used throughout: `N` examples, `C` channels, `H × W` pixels, `K` classes; inputs are `(N, *shape)`, usually
`(N, C, H, W)`, and attributions have the shape of the inputs they explain.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from attribug import opened
from attribug.errors import InputError, near_misses, one_line
from attribug.sources import parsed


@dataclass(frozen=True)
class Entry:
    """Name and function of a registered piece; subclasses add its facts."""

    name: str
    function: Callable[..., Any] = field(repr=False)
    paper: str = ""
    """Where the definition comes from."""

    @property
    def facts(self) -> dict[str, Any]:
        """All facts but those that are functions, by name."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name not in HIDDEN}

    @property
    def summary(self) -> str:
        """The first line of what it says of itself."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


E = TypeVar("E", bound=Entry)
F = TypeVar("F", bound=Callable[..., Any])
NAME = re.compile(r"[a-z][a-z0-9_]*(\.v\d+)?")
HIDDEN = {"function", "prepare", "chance", "missing"}  # facts that are functions
REGISTRIES: dict[str, Registry[Any]] = {}


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
        self.plural = package.rpartition(".")[2]
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
            pieces = [piece for path in sorted(folder.glob("*.py")) for piece in _read(path, self.package)]
            self._declared = {piece.name: piece for piece in pieces}
        return self._declared

    def described(self) -> list[dict[str, Any]]:
        """One row a piece: name, summary, facts, parameters, module; shipped ones are not imported."""
        told = {each.name: each.default for each in dataclasses.fields(self.entry) if each.name not in HIDDEN}
        rows = []
        for name in self.names():
            shipped = self.declared().get(name)
            if shipped is not None:
                facts = {**told, **{fact: value for fact, value in shipped.facts.items() if fact not in HIDDEN}}
                facts |= {"summary": shipped.summary, "parameters": shipped.parameters, "from": shipped.module}
            else:
                entry = self.get(name)
                facts = entry.facts | {"summary": entry.summary, "from": entry.function.__module__}
            rows.append({**facts, "name": name})
        return rows

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
            with opened.watching():
                loaded = point.load()
        except Exception as error:
            raise InputError(
                f"{self.kind} {name!r}: entry point {point.value} does not load: {one_line(error)}"
            ) from error
        if name not in self._entries and callable(loaded):
            self.register(name)(loaded)


def _read(path: Path, package: str) -> list[Declared]:
    module = package if path.stem == "__init__" else f"{package}.{path.stem}"
    pieces = []
    for node in parsed(path).body:
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
