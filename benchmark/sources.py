"""The code that a content key covers: the definitions that a function reaches, and nothing that merely stands beside.

Inside attribug a key follows names: a function, what it calls, the classes of what it is given, and so on, each by
itself. Of other packages and plugin files whole modules count, with all that they import nearby, and the content of
files that these read while they are loaded or declare (`attribug.opened`). Comments, docstrings and the facts that a
piece is registered with do not count; whoever needs a fact puts it into the key.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attribug import opened
from attribug.plugin_files import is_plugin_file, portable

DIGEST_CHARACTERS = 32  # 128 bits: collisions are out of reach, file names stay readable
HOUSE = "attribug"
REGISTRIES = frozenset({"attribug.bugs", "attribug.fixes", "attribug.methods", "attribug.metrics", "attribug.tasks"})
DOORS = REGISTRIES | {HOUSE}
"""Packages that lead to pieces: whoever names one computes with what it takes from there, not with all there is."""
WITHOUT_NUMBERS = (
    "attribug.api", "attribug.artefacts", "attribug.conformance", "attribug.contracts.outputs",
    "attribug.contracts.pieces", "attribug.data_places", "attribug.data_sources", "attribug.errors", "attribug.keys",
    "attribug.opened", "attribug.plugin_files", "attribug.plugins", "attribug.registry", "attribug.reports",
    "attribug.running", "attribug.sources", "attribug.storage", "attribug.studies", "attribug.terminal",
    "attribug.testing",
)  # fmt: skip
"""What finds, carries, keeps and shows results, and computes none: in no key. Facts of pieces and outputs stand in keys
by their values. Random streams rest on `keys.digest`; a test holds their seeds to fixed numbers."""
STAR = "*"
EVERYTHING = ""
"""Stands for all of a module's definitions."""


def code(module: str, *names: str) -> str:
    """Digest of the definitions `names` of a module, of all of them where none is named, and of whatever they reach.

    Raises `KeyError` for a name that the module does not have.
    """
    return _code(module, names)


def covered(module: str, *names: str) -> dict[str, tuple[str, ...]]:
    """What `code` covers: by module, its definitions; `""` stands for all of them."""
    definitions: dict[str, set[str]] = {}
    for where, name, _ in _closure(module, names):
        definitions.setdefault(where, set()).add(name)
    return {where: tuple(sorted(definitions[where])) for where in sorted(definitions)}


@functools.cache
def _code(module: str, names: tuple[str, ...]) -> str:
    closure = _closure(module, names)
    told = sorted((portable(where), name, text) for where, name, text in closure)
    told += [("", *file) for file in _files(module, {where for where, *_ in closure if not _in_house(where)})]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:DIGEST_CHARACTERS]


def _files(module: str, reached: set[str]) -> list[tuple[str, str]]:
    """Name and digest of the files that modules outside attribug rest on; names as they lie beside `module`."""
    files: set[Path] = set()
    for where, path in ((where, _path(where)) for where in reached):
        if path is not None:
            files |= opened.read_by(where) | opened.there(path, _taken_apart(where, path).declared)
    return opened.contents(files, _path(module)) if files else []


def expect_files(module: str) -> None:
    """Raises `InputError` where a module declares files that are not there."""
    path = _path(module)
    if path is not None:
        opened.there(path, opened.declared(parsed(path), path.name))  # not remembered: it may be mended


@dataclass
class _Definition:
    """A statement of a module, with the modules' names that it takes from elsewhere."""

    digest: str
    references: list[tuple[str, ...]] = field(default_factory=list)
    """Names, each with the attributes asked of it: `("metrics", "prepared")`."""
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Inside it: module and name by local name."""

    def followed_by(self, other: _Definition) -> _Definition:
        """Both, of a name that is bound again."""
        digest = hashlib.sha256(f"{self.digest} {other.digest}".encode()).hexdigest()
        return _Definition(digest, [*self.references, *other.references], self.imports | other.imports)


@dataclass
class _Module:
    """A module's source, taken apart."""

    definitions: dict[str, _Definition]
    """By the name that a statement binds."""
    effects: list[_Definition]
    """Statements that bind nothing: they count wherever anything of the module does."""
    imports: dict[str, tuple[str, str]]
    """Module and name by local name; no name stands for the module itself."""
    whole: str
    """Digest of all statements."""
    declared: tuple[str, ...]
    """Files that it says it reads."""


def _closure(module: str, names: tuple[str, ...]) -> set[tuple[str, str, str]]:
    """Module, name and digest of everything that is reached."""
    closure: set[tuple[str, str, str]] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(module, name) for name in names or (EVERYTHING,)]
    for name in names:
        if _read(module) is not None and not _knows(module, name):
            raise KeyError(f"{module} has no {name}")
    while waiting:
        place = waiting.pop()
        if place in seen or (_carries(place[0]) and not _within(place[0], module)):
            continue
        seen.add(place)
        read = _read(place[0])
        if read is None:
            continue
        where, name = place
        if name == EVERYTHING or not _in_house(where):
            closure.add((where, EVERYTHING, read.whole))
            waiting += _of_whole(where, read, module)
            continue
        definition = read.definitions.get(name)
        if definition is None:
            waiting += _taken_from(where, read, name)
            continue
        closure.add((where, name, definition.digest))
        waiting += _reached(where, read, definition)
        for number, effect in enumerate(read.effects):
            closure.add((where, f"statement {number}", effect.digest))
            waiting += _reached(where, read, effect)
    return closure


def _within(module: str, room: str) -> bool:
    """Whether a module is a room or lies in it."""
    return module == room or module.startswith(f"{room}.")


def _carries(module: str) -> bool:
    return any(_within(module, room) for room in WITHOUT_NUMBERS)


def _knows(module: str, name: str) -> bool:
    read = _read(module)
    return read is not None and (name in read.definitions or name in read.imports)


def _of_whole(where: str, read: _Module, root: str) -> Iterator[tuple[str, str]]:
    """What a module reaches that counts as a whole."""
    for definition in [*read.definitions.values(), *read.effects]:
        yield from (place for place in _reached(where, read, definition) if place[0] != where)
    statements = [*read.definitions.values(), *read.effects]
    inner = [place for statement in statements for place in statement.imports.values()]
    for other, name in [*read.imports.values(), *inner]:
        if not _in_house(other):
            yield from ((near, EVERYTHING) for near in _named(other, name) if _is_near(near, root))
        elif name == STAR:
            yield other, EVERYTHING
        elif _in_house(where) and other not in DOORS:
            yield (f"{other}.{name}", EVERYTHING) if name and _path(f"{other}.{name}") else (other, name)


def _named(module: str, name: str) -> Iterator[str]:
    """What an import names: a module, and where that is a package, maybe one in it."""
    yield module
    path = _path(module)
    if name and path is not None and path.name == "__init__.py":  # to look below a module would import it
        yield f"{module}.{name}"


def _taken_from(where: str, read: _Module, name: str) -> Iterator[tuple[str, str]]:
    """A name that a module has from another one, or a module below it."""
    if name in read.imports:
        other, original = read.imports[name]
        yield (other, original) if original else (other, EVERYTHING)
    elif _path(f"{where}.{name}") is not None:
        yield (f"{where}.{name}", EVERYTHING)


def _reached(where: str, read: _Module, definition: _Definition) -> Iterator[tuple[str, str]]:
    """What a definition names, as far as it lies inside attribug."""
    for name, *attributes in definition.references:
        if name in definition.imports or (name in read.imports and name not in read.definitions):
            module, original = definition.imports.get(name) or read.imports[name]
            if not _in_house(module):
                continue
            steps = [original, *attributes] if original else list(attributes)
            while steps and _path(f"{module}.{steps[0]}") is not None:  # `attribug.metrics.measure`
                module = f"{module}.{steps.pop(0)}"
            if steps:
                yield module, steps[0]
            elif module not in DOORS:
                yield module, EVERYTHING
        elif name in read.definitions:
            yield where, name


def _in_house(module: str) -> bool:
    return module.partition(".")[0] == HOUSE and not is_plugin_file(module)


def _is_near(other: str, module: str) -> bool:
    """Whether an import is part of the module's own package, or a file beside a plugin file."""
    if _in_house(module) or other.partition(".")[0] == HOUSE:
        return False
    if other.partition(".")[0] == module.partition(".")[0]:
        return True
    path, root = _path(other), _path(module)
    if path is None or root is None:
        return False
    return root.parent in path.parents and root.parent.name not in {"site-packages", "dist-packages"}


def _path(module: str) -> Path | None:
    """The file of a module's source; None where it has none, or there is no such module."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file and file.endswith(".py") else None
    return _found(module)


@functools.cache
def _found(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def has_source(module: str) -> bool:
    """Whether a module's source can be read."""
    return _path(module) is not None


def forget() -> None:
    """Reads all sources anew when they are asked for again."""
    for remembered in (_code, _taken_apart, _found):
        remembered.cache_clear()
    opened.forget()


def parsed(path: Path) -> ast.Module:
    """A Python source, read as Python reads it: it may tell its encoding, and a byte-order mark says nothing."""
    return ast.parse(path.read_bytes())


def _read(module: str) -> _Module | None:
    path = _path(module)
    return None if path is None else _taken_apart(module, path)


@functools.cache
def _taken_apart(module: str, path: Path) -> _Module:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = _without_docstrings(parsed(path))
    read = _Module({}, [], {}, "", () if _in_house(module) else opened.declared(tree, path.name))
    for statement in tree.body:
        read.imports |= dict(_imported_outside(statement, package))
    for statement in _statements(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass):
            continue
        definition = _definition(statement, package, read.imports)
        for name in _bound(statement):
            before = read.definitions.get(name)
            read.definitions[name] = definition if before is None else before.followed_by(definition)
        if not _bound(statement):
            read.effects.append(definition)
    read.whole = _digest(tree)
    return read


def _imported_outside(statement: ast.stmt, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """What a module's statement imports for the whole module, under whatever condition; not inside functions."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from _imported(statement, package)
    elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for below in ast.iter_child_nodes(statement):
            if isinstance(below, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from _imported_outside(below, package)  # type: ignore[arg-type]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's statements; those under `if TYPE_CHECKING` as if they stood outside."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from (*statement.body, *statement.orelse)
        else:
            yield statement


def _definition(statement: ast.stmt, package: str, imports: dict[str, tuple[str, str]]) -> _Definition:
    _drop_facts(statement, imports)
    inner: dict[str, tuple[str, str]] = {}
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            inner |= dict(_imported(node, package))
    return _Definition(_digest(statement), sorted(set(_references(statement))), inner)


def _drop_facts(statement: ast.stmt, imports: dict[str, tuple[str, str]]) -> None:
    """Takes `@bugs.register(…)` off a piece: what it is registered with changes none of its numbers."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        statement.decorator_list = [
            decorator
            for decorator in statement.decorator_list
            if not (
                isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Attribute)
                and decorator.func.attr == "register"
                and isinstance(decorator.func.value, ast.Name)
                and ".".join(filter(None, imports.get(decorator.func.value.id, ("", "")))) in REGISTRIES
            )
        ]


def _references(statement: ast.stmt) -> Iterator[tuple[str, ...]]:
    """Every name that is read, with the attributes asked of it where it is asked for some."""
    inner: set[int] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            attributes, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                inner.add(id(base))
                attributes.insert(0, base.attr)
                base = base.value
            if isinstance(base, ast.Name):
                inner.add(id(base))
                yield (base.id, *attributes)
        elif isinstance(node, ast.Name) and id(node) not in inner:
            yield (node.id,)


def _bound(statement: ast.stmt) -> list[str]:
    """Names that a statement of a module binds, imports aside."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    bound: list[str] = []
    for node in ast.iter_child_nodes(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.append(node.id)
        elif isinstance(
            node, ast.Tuple | ast.List | ast.Starred | ast.withitem | ast.ExceptHandler | ast.match_case | ast.stmt
        ):
            bound += _bound(node)  # type: ignore[arg-type]
    return bound


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Local name → module and name."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                yield alias.asname, (alias.name, "")
            else:
                first, _, rest = alias.name.partition(".")
                yield first, (first, "")
                if rest:  # imported for its own sake
                    yield alias.name, (alias.name, "")
        return
    base = node.module or ""
    if node.level:
        base = importlib.util.resolve_name("." * node.level + base, package)
    for alias in node.names:
        yield alias.asname or alias.name, (base, alias.name)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            kept = [statement for statement in body if not _is_text(statement)]
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, of whatever stands above it."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _digest(tree: ast.AST) -> str:
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
