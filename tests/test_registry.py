"""The registry: names, facts, collisions, near misses, plugins; what is listed without importing torch."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attribug import bugs, keys, methods, metrics, plugins, registry, sources, tasks
from attribug.contracts.pieces import Method
from attribug.errors import InputError, near_misses, one_line
from attribug.plugin_files import is_plugin_file
from attribug.plugins import all_registries, load_plugin
from attribug.registry import Entry, Registry
from attribug.terminal import listing

KINDS = {"task": tasks, "bug": bugs, "method": methods, "metric": metrics}
SHIPPED = [pytest.param(kind, n, id=f"{kind}-{n}") for kind in KINDS for n in all_registries()[kind].declared()]
MALFORMED = ["", "Bear", "1bear", "be-ar", "be ar", "bear.v", "bear.2", "_bear", "bär", "bear\n", 3, None]


@dataclass(frozen=True)
class Toy(Entry):
    colour: str = "red"
    legs: int = 4


@pytest.fixture
def toys() -> Iterator[Registry[Toy]]:
    before = dict(registry.REGISTRIES)
    yield Registry("toy", "attribug.results", Toy)  # a package that registers nothing
    registry.REGISTRIES.clear()
    registry.REGISTRIES.update(before)


def bear() -> str:
    return "bear"


def cat() -> str:
    return "cat"


def the_line(caught: pytest.ExceptionInfo[InputError]) -> str:
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


def test_a_piece_is_found_by_name_with_its_facts(toys: Registry[Toy]) -> None:
    assert toys.register("bear", colour="brown", paper="Milne 1926")(bear) is bear
    assert toys.get("bear") == Toy("bear", bear, "Milne 1926", "brown", 4)
    assert toys.names() == toys.registered() == ["bear"]


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_names_are_refused(toys: Registry[Toy], name: Any) -> None:
    with pytest.raises(InputError, match="toy name: expected lower case letters, digits and _, found") as caught:
        toys.register(name)
    assert repr(name) in the_line(caught)


@pytest.mark.parametrize("name", ["bear", "b", "bear_2", "bear.v2", "bear2.v10"])
def test_well_formed_names_are_taken(toys: Registry[Toy], name: str) -> None:
    toys.register(name)(bear)
    assert toys.names() == [name]


def test_unknown_facts_are_refused_before_anything_is_entered(toys: Registry[Toy]) -> None:
    with pytest.raises(InputError, match=r"toy 'bear': unknown fact 'color'; did you mean 'colour'\?$") as caught:
        toys.register("bear", color="brown")
    the_line(caught)
    with pytest.raises(InputError, match="toy 'bear': unknown fact 'function'"):
        toys.register("bear", function=bear)
    assert toys.names() == []


def test_only_functions_are_entered(toys: Registry[Toy]) -> None:
    with pytest.raises(InputError, match="toy 'bear': expected a function, found int"):
        toys.register("bear")(3)  # type: ignore[type-var]


def test_collisions_raise_and_leave_the_first(toys: Registry[Toy]) -> None:
    toys.register("bear")(bear)
    expected = re.escape(f"toy 'bear' is taken by {__name__}; choose another name")
    with pytest.raises(InputError, match=expected) as caught:
        toys.register("bear")(cat)
    the_line(caught)
    assert toys.get("bear").function is bear
    toys.register("bear", legs=2)(bear)  # the same function may tell its facts again
    assert toys.get("bear").legs == 2


def test_a_notebook_cell_may_run_again(toys: Registry[Toy]) -> None:
    def first() -> None: ...
    def second() -> None: ...

    first.__module__ = second.__module__ = "__main__"
    toys.register("bear")(first)
    toys.register("bear")(second)
    assert toys.get("bear").function is second
    with pytest.raises(InputError, match="is taken by __main__"):
        toys.register("bear")(cat)


def test_a_shipped_name_is_taken_even_before_its_module_is_imported() -> None:
    code = """
        import sys
        from attribug import methods
        from attribug.registry import InputError
        try:
            methods.register("gradient")(lambda query: query.inputs)
        except InputError as error:
            print(error, "torch" in sys.modules)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "method 'gradient' is taken by attribug.methods.gradient; choose another name False"


def test_unknown_names_suggest_near_ones(toys: Registry[Toy]) -> None:
    with pytest.raises(InputError, match=r"^unknown toy 'bear'$"):
        toys.get("bear")
    toys.register("bear")(bear)
    toys.register("cat")(cat)
    with pytest.raises(InputError, match=r"^unknown toy 'bera'; did you mean 'bear'\?$"):
        toys.get("bera")
    with pytest.raises(InputError, match=r"^unknown toy 'zebrafish'; expected one of: bear, cat$"):
        toys.get("zebrafish")


@pytest.mark.parametrize(("kind", "wrong", "right"), [
    ("task", "digit", "digits"), ("bug", "label_flip", "label_flips"), ("method", "smooth_grad", "smoothgrad"),
    ("metric", "spearmann", "spearman"),
])  # fmt: skip
def test_real_registries_suggest_near_names(kind: str, wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=f"^unknown {kind} {wrong!r}; did you mean .*{right!r}") as caught:
        KINDS[kind].get(wrong)
    the_line(caught)


def test_near_misses_start_with_their_own_punctuation() -> None:
    assert near_misses("abc", []) == ""
    assert near_misses("abc", ["abd", "abe", "abf"]).count(" or ") == 1
    assert near_misses("q", ["b", "a", "a"]) == "; expected one of: a, b"


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_what_a_file_declares_is_what_it_registers(kind: str, name: str) -> None:
    declared, entry = all_registries()[kind].declared()[name], KINDS[kind].get(name)
    defaults = {f.name: f.default for f in dataclasses.fields(entry) if f.name not in {"name", "function"}}
    assert set(declared.facts) <= set(defaults)
    for fact, default in defaults.items():
        value = getattr(entry, fact)
        if callable(value):
            assert declared.facts[fact] == value.__name__
        else:
            assert declared.facts.get(fact, default) == value
    assert declared.name == entry.name == name
    assert declared.module == entry.function.__module__
    assert declared.summary == (inspect.getdoc(entry.function) or "").partition("\n")[0]
    assert declared.summary, "a piece says in one line what it is"
    keyword_only = [p for p in inspect.signature(entry.function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert list(declared.parameters) == [parameter.name for parameter in keyword_only]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_the_package_is_declared(kind: str) -> None:
    own = all_registries()[kind]
    for name in own.declared():
        own.get(name)
    package = f"attribug.{kind}s"
    entered = [name for name in own.registered() if own.get(name).function.__module__.startswith(package)]
    assert entered == sorted(own.declared())


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_what_is_listed_are_the_facts(kind: str, name: str) -> None:
    (row,) = [row for row in listing.listed(f"{kind}s") if row["name"] == name]
    entry = KINDS[kind].get(name)
    for fact in (f.name for f in dataclasses.fields(entry)):
        if fact not in registry.HIDDEN:
            assert row[fact] == getattr(entry, fact)
    json.dumps(row)


def test_listing_imports_no_torch() -> None:
    code = """
        import json, sys
        import attribug.terminal.listing
        listed = attribug.terminal.listing.listed
        found = {kind: listed(kind) for kind in ("methods", "bugs", "metrics", "tasks", "suites")}
        attribug.terminal.listing.text(found)
        heavy = [name for name in ("torch", "captum", "scipy", "skimage", "matplotlib") if name in sys.modules]
        print(json.dumps([heavy, {kind: len(rows) for kind, rows in found.items()}]))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    heavy, counts = json.loads(run.stdout)
    assert heavy == []
    assert counts.pop("suites") >= 3
    assert counts == {f"{kind}s": len(all_registries()[kind].declared()) for kind in KINDS}


def test_text_has_a_line_a_piece() -> None:
    found = {"bugs": listing.listed("bugs")}
    lines = listing.text(found).splitlines()
    assert lines[0] == "bugs:"
    assert [line.split()[0] for line in lines[1:]] == bugs.names()


# Plugins


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Writes a plugin; what it registers is gone after the test."""
    before = {kind: dict(own._entries) for kind, own in all_registries().items()}
    loaded = dict(plugins._LOADED)
    OF_OTHER_TESTS.update(left_in_memory())

    def write(text: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    yield write
    for kind, own in all_registries().items():  # shipped pieces stay: their modules will not run again
        kept = {name: entry for name, entry in own._entries.items() if name in own.declared()}
        own._entries = before[kind] | kept
    plugins._LOADED.clear()
    plugins._LOADED.update(loaded)
    for module in left_in_memory():
        del sys.modules[module]
    OF_OTHER_TESTS.clear()


OF_OTHER_TESTS: set[str] = set()
"""Modules of plugins that other tests have loaded: whose module is gone has other content keys."""


def left_in_memory() -> list[str]:
    return [name for name in sys.modules if is_plugin_file(name) and name not in OF_OTHER_TESTS]


GOOD = """
    from attribug import methods, metrics

    @methods.register("mine", stochastic=True, paper="ours")
    def mine(query, *, samples: int = 5):
        '''Nothing at all.'''
        return query.inputs * 0

    @metrics.register("closeness")
    def closeness(a, b):
        '''How close.'''
        return (a * b).sum(1)
"""


def test_a_plugin_tells_what_it_registers(plugin: Callable[..., str]) -> None:
    path = plugin(GOOD)
    assert load_plugin(path) == {"method": ["mine"], "metric": ["closeness"]}
    entry = methods.get("mine")
    assert isinstance(entry, Method)
    assert entry.stochastic
    assert "mine" in methods.names()
    (row,) = [row for row in listing.listed("methods") if row["name"] == "mine"]
    assert row["summary"] == "Nothing at all."


def test_a_plugin_is_loaded_once(plugin: Callable[..., str], tmp_path: Path) -> None:
    path = plugin(GOOD)
    first = load_plugin(path)
    function = methods.get("mine").function
    assert load_plugin(path) == first
    assert load_plugin(str(tmp_path / "." / "mine.py")) == first
    assert methods.get("mine").function is function


def test_a_second_plugin_cannot_take_a_plugins_name(plugin: Callable[..., str]) -> None:
    load_plugin(plugin(GOOD))
    with pytest.raises(InputError, match=r"method 'mine' is taken by attribug\.plugins\.mine_") as caught:
        load_plugin(plugin(GOOD, "other.py"))
    the_line(caught)


@pytest.mark.parametrize(("text", "expected"), [
    ("def broken(:\n    pass\n", "does not import: SyntaxError: invalid syntax"),
    ("import no_such_module\n", "does not import: ModuleNotFoundError: No module named 'no_such_module'"),
    ("from attribug.methods import nothing_of_that_name\n", "does not import: ImportError: cannot import name"),
    ("open('/nowhere/to/be/found.txt')\n", "does not import: FileNotFoundError: .*'found.txt'$"),
    ("raise RuntimeError('first\\nsecond')\n", "does not import: RuntimeError: first$"),
    ("raise ValueError\n", "does not import: ValueError$"),
    ("import sys\nsys.exit('no GPU')\n", "does not import: SystemExit: no GPU$"),
    ("x = 1\n", "expected at least one @register, found none"),
    ("from attribug import methods\nmethods.register('edges')(print)\n", "'edges' is taken by attribug.methods.null"),
    ("from attribug import bugs\nbugs.register('ood')(print)\n", "bug 'ood' is taken by attribug.bugs.ood"),
    ("from attribug import metrics\nmetrics.register('Bad')(print)\n", "metric name: expected lower case letters"),
    ("from attribug import methods\nmethods.register('m', use='x')\n", "'m': unknown fact 'use'; did you mean 'uses'"),
])  # fmt: skip
def test_plugins_that_do_not_load_say_why_in_a_line(plugin: Callable[..., str], text: str, expected: str) -> None:
    path = plugin(text)
    with pytest.raises(InputError, match=expected) as caught:
        load_plugin(path)
    line = the_line(caught)
    assert line.startswith(f"plugin {path}: ")
    assert "/nowhere" not in line
    assert not re.search(r"0x[0-9a-f]{6}", line)
    assert not left_in_memory() or "@register" in line


@pytest.mark.parametrize(("name", "expected"), [
    ("missing.py", "expected a Python file, found none"),
    ("no_such_plugin_module", "does not import: ModuleNotFoundError"),
    ("folder", "does not import: ModuleNotFoundError"),
    ("folder.py", "expected a Python file, found none"),
])  # fmt: skip
def test_plugins_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Callable[..., str], name: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match=f"^plugin {name}: {expected}") as caught:
        load_plugin(name)
    the_line(caught)


ENCODED = {
    "a byte-order mark": b"\xef\xbb\xbf" + textwrap.dedent(GOOD).encode(),
    "a coding cookie": b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + textwrap.dedent(GOOD).encode(),
}


@pytest.mark.parametrize("content", ENCODED.values(), ids=ENCODED)
def test_a_source_is_read_as_python_reads_it(plugin: Callable[..., str], tmp_path: Path, content: bytes) -> None:
    """Where it is loaded, where its content key is made, and where its pieces are declared."""
    path = plugin(GOOD)
    Path(path).write_bytes(content)
    assert load_plugin(path) == {"method": ["mine"], "metric": ["closeness"]}
    told = keys.digest(methods.get("mine").function)
    Path(path).write_bytes(content.replace(b"inputs * 0", b"inputs * 1"))
    sources.forget()
    assert keys.digest(methods.get("mine").function) != told
    assert [piece.name for piece in registry._read(Path(path), "attribug.methods")] == ["mine", "closeness"]


def test_a_mended_plugin_loads(plugin: Callable[..., str]) -> None:
    path = plugin(GOOD + "\n    raise RuntimeError('half way')\n")
    with pytest.raises(InputError, match="half way"):
        load_plugin(path)
    assert "mine" not in methods.names()
    assert load_plugin(plugin(GOOD)) == {"method": ["mine"], "metric": ["closeness"]}


def test_a_failed_plugin_takes_no_shipped_piece_along(plugin: Callable[..., str]) -> None:
    with pytest.raises(InputError):
        load_plugin(plugin("from attribug.methods import gradient, null\nraise RuntimeError\n"))
    assert methods.get("gradient")
    assert methods.get("random")


def test_a_module_is_a_plugin(plugin: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(GOOD, "importable_plugin.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert load_plugin("importable_plugin") == {"method": ["mine"], "metric": ["closeness"]}
        assert load_plugin("importable_plugin") == {"method": ["mine"], "metric": ["closeness"]}
    finally:
        sys.modules.pop("importable_plugin", None)


@dataclass
class Point:
    """An entry point of an installed package."""

    name: str
    value: str
    loaded: Any

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def test_installed_packages_add_pieces(toys: Registry[Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point("bear", "zoo:bear", bear), Point("lion", "zoo:lion", ImportError("/home/zoo/lion.so: gone"))]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "attribug.results" else [])
    assert toys.names() == ["bear", "lion"]
    assert toys.get("bear").function is bear
    with pytest.raises(InputError, match=r"'lion': entry point zoo:lion does not load: ImportError: lion\.so: gone$"):
        toys.get("lion")


@pytest.mark.parametrize(("error", "expected"), [
    (ValueError("two\nlines"), "ValueError: two"),
    (ValueError("\n\n  late\n"), "ValueError: late"),
    (KeyError("k"), "KeyError: 'k'"),
    (RuntimeError(), "RuntimeError"),
    (OSError(13, "Denied", "/home/me/data/x.npz"), "PermissionError: [Errno 13] Denied: 'x.npz'"),
    (ValueError("a/b is 3/4 of 1/2"), "ValueError: a/b is 3/4 of 1/2"),
    (ValueError("<Thing at 0x7f00deadbeef>"), "ValueError: <Thing at 0x…>"),
    (ValueError("see https://example.org/a/b.html"), "ValueError: see https://example.org/a/b.html"),
    (ValueError("file:///home/me/x.py"), "ValueError: file://x.py"),
    (ValueError("path:/home/me/x.py"), "ValueError: path:x.py"),
])  # fmt: skip
def test_an_exception_in_one_line_names_no_place(error: Exception, expected: str) -> None:
    assert one_line(error) == expected
