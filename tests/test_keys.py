"""Content keys: equal content gives equal digests, other content others."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from attribug import keys, sources
from attribug.bugs import _registry as bugs
from attribug.contracts.data import Data, Examples
from attribug.keys import digest


@dataclass(frozen=True)
class Point:
    x: float
    y: Any = None


@dataclass(frozen=True)
class Place:
    x: float
    y: Any = None


class Keyed:
    def __init__(self, key: str) -> None:
        self.key = key

    def __content_key__(self) -> str:
        return self.key


@dataclass(frozen=True)
class Patch:
    """A field that happens to be called `key` says nothing of the others."""

    key: str
    size: int


def function(x: int, k: int = 1) -> int:
    return x + k


def another(x: int, k: int = 1) -> int:
    return x + k


DIFFERENT = [
    1, 1.0, "1", True, None, 0, 0.0, "", False, "None", 2, 1.5, float("nan"), float("inf"), -1, b"1", b"",
    [], [1], [1, 2], [2, 1], [[1], 2], [1, [2]], {}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": {"a": 1}},
    Point(1.0), Point(1), Point(1.0, 2), Place(1.0), Keyed("k"), Keyed("l"), Patch("top", 4), Patch("top", 8),
    Patch("bottom", 4),
    function, another, functools.partial(function, 1), functools.partial(function, 2), functools.partial(another, 1),
    functools.partial(function, k=1), Point, Keyed,
]  # fmt: skip


def test_unlike_values_have_unlike_digests() -> None:
    """Among them 1, 1.0, "1" and True, although Python holds three of these equal."""
    digests = [digest(value) for value in DIFFERENT]
    assert len(set(digests)) == len(DIFFERENT)
    assert all(len(text) == sources.DIGEST_CHARACTERS and int(text, 16) >= 0 for text in digests)


@pytest.mark.parametrize(("one", "other"), [
    ((1, 2), [1, 2]),
    ({"a": 1, "b": [2]}, {"b": (2,), "a": 1}),
    (Point(1.0, {"a": 1, "b": 2}), Point(1.0, {"b": 2, "a": 1})),
    (0.1 + 0.2, 0.30000000000000004),
    (np.float64(0.1), 0.1),
    (np.str_("a"), "a"),
    (functools.partial(function, k=1), functools.partial(function, k=1)),
    (float("nan"), float("nan")),
    (Keyed("k"), Keyed("k")),
])  # fmt: skip
def test_equal_values_have_equal_digests(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


def test_parts_are_told_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(1, 2) != digest([1, 2])
    assert digest() != digest(None)
    assert digest(1, 2) == digest(1, 2)


@pytest.mark.parametrize("value", [object(), 1j, np.zeros(2), np.int64(1), sys, [object()], {"a": object()}])
def test_values_whose_content_cannot_be_told_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="content key: expected"):
        digest(value)


def test_sets_and_tensors_are_told_by_content() -> None:
    words = [f"word {number}" for number in range(50)]
    assert digest(set(words)) == digest(frozenset(reversed(words)))
    assert digest({1, 2}) != digest({1, 3})
    assert digest(torch.arange(6.0)) == digest(torch.arange(6.0).clone())
    others = [torch.arange(6.0), torch.arange(6), torch.arange(6.0).reshape(2, 3), torch.arange(6.0) + 1]
    assert len({digest(other) for other in others}) == len(others)


def test_an_object_that_cannot_be_pickled_is_refused() -> None:
    class Holding:
        def __init__(self) -> None:
            self.stream = (number for number in range(3))

        def __call__(self) -> int:
            return next(self.stream)

    with pytest.raises(TypeError, match="content key: expected what can be pickled, found Holding"):
        digest(Holding())


def test_stream_seeds_are_fixed_for_good() -> None:
    """Another number here would mean other splits, other noise, other models than all published ones."""
    assert keys.stream_seed("example", 0, "random", 7) == 2955393711683811523
    seeds = {keys.stream_seed("x", number) for number in range(500)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)


def multiplied(k: int, note: str = "") -> Callable[[int], int]:
    def inner(x: int) -> int:
        return x * k

    return inner


def test_closures_and_lambdas_are_told_by_content() -> None:
    assert digest(multiplied(2)) == digest(multiplied(2))
    assert digest(multiplied(2)) != digest(multiplied(3))
    assert digest(lambda x: x + 1) != digest(lambda x: x + 2)
    held = [lambda x, k=k: x + k for k in (1, 1, 2)]
    assert digest(held[0]) == digest(held[1]) != digest(held[2])


def test_objects_and_bound_methods_are_told_by_content() -> None:
    class Adding:
        def __init__(self, k: int) -> None:
            self.k = k

        def __call__(self, x: int) -> int:
            return x + self.k

        def subtract(self, x: int) -> int:
            return x - self.k

    one, same, other = Adding(1), Adding(1), Adding(2)
    assert digest(one) == digest(same) != digest(other)
    assert digest(one.subtract) == digest(same.subtract) != digest(other.subtract)
    assert digest(one.subtract) != digest(one)


def test_a_function_that_encloses_itself_is_told() -> None:
    def count(n: int) -> int:
        return count(n - 1) if n else 0

    assert digest(count) == digest(count)


def test_a_registered_plain_function_is_told_by_itself() -> None:
    def wrapper(query: Any) -> Any:
        return function(query)

    wrapper.__wrapped_function__ = function  # type: ignore[attr-defined]
    assert digest(wrapper) == digest(function)


def test_examples_key_is_code_and_parameters() -> None:
    def build(*, size: int) -> Data:
        raise AssertionError("nothing is read for a key")

    one = Examples.of(build, size=1)
    assert one == Examples.of(build, size=1)
    assert one != Examples.of(build, size=2)
    assert one.key != Examples.of(build, size=True).key


@dataclass
class Package:
    """Modules that stand inside attribug for a test, written and read anew at will."""

    folder: Path
    loaded: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> str:
        """Writes module `attribug_made.<name>`, imports it and returns its code digest."""
        (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        forget()
        module = f"attribug.made.{name}"
        sys.modules.pop(module, None)
        bugs.forget("made")
        importlib.invalidate_caches()
        importlib.import_module(module)
        return sources.code(module)

    def code(self, name: str) -> str:
        forget()
        return sources.code(f"attribug.made.{name}")


def forget() -> None:
    sources.forget()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    made = ModuleType("attribug.made")
    made.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "attribug.made", made)
    yield Package(tmp_path)
    for name in [name for name in sys.modules if name.startswith("attribug.made.")]:
        del sys.modules[name]
    bugs.forget("made")
    forget()


PLAIN = """
    '''Module.'''
    SIZE = 3

    def f(x):
        '''Doc.'''
        return x * SIZE  # why

    class Thing:
        '''Doc.'''
        def g(self):
            '''Doc.'''
            return 'text'
"""
ALIKE = {
    "another comment": PLAIN.replace("# why", "# because"),
    "no comment": PLAIN.replace("  # why", ""),
    "another docstring": PLAIN.replace("Doc.", "Explains at length.\n\n    And more."),
    "no module docstring": PLAIN.replace("'''Module.'''", ""),
    "other white space": PLAIN.replace("x * SIZE", "x*SIZE").replace("\n\n", "\n\n\n"),
    "other quotes": PLAIN.replace("'text'", '"text"'),
}
UNLIKE = {
    "constant": PLAIN.replace("SIZE = 3", "SIZE = 4"),
    "type of a constant": PLAIN.replace("SIZE = 3", "SIZE = 3.0"),
    "operator": PLAIN.replace("x * SIZE", "x + SIZE"),
    "text that is no docstring": PLAIN.replace("'text'", "'test'"),
    "default": PLAIN.replace("f(x)", "f(x=1)"),
}


@pytest.mark.parametrize("text", ALIKE.values(), ids=ALIKE)
def test_comments_and_docstrings_do_not_count(package: Package, text: str) -> None:
    assert textwrap.dedent(text) != textwrap.dedent(PLAIN)
    assert package.write("a", PLAIN) == package.write("a", text)


@pytest.mark.parametrize("text", UNLIKE.values(), ids=UNLIKE)
def test_code_counts(package: Package, text: str) -> None:
    assert package.write("a", PLAIN) != package.write("a", text)


@pytest.mark.parametrize("line", [
    "from attribug.made import low", "from attribug.made.low import f", "import attribug.made.low",
    "from attribug.made.low import f as g", "def late():\n    from attribug.made import low",
    "from . import low", "from .low import f",
])  # fmt: skip
def test_code_that_is_imported_inside_attribug_counts(package: Package, line: str) -> None:
    package.write("low", PLAIN)
    package.write("middle", line)
    before = package.write("high", "import attribug.made.middle\nimport os")
    package.write("low", ALIKE["another comment"])
    assert package.code("high") == before
    package.write("low", UNLIKE["constant"])
    assert package.code("high") != before


NAMED = """
    from attribug import bugs
    from attribug.made.low import Thing, f

    SCALE = 2

    class Given:
        def value(self):
            return f(1)

    @bugs.register("made", levels=(1,), primary="spearman@sum")
    def wanted(given: Given):
        return given.value() * SCALE

    def beside():
        return 3
"""


@pytest.mark.parametrize("change", [
    ("SCALE = 2", "SCALE = 3"), ("return f(1)", "return f(2)"), ("* SCALE", "+ SCALE"),
    ("given: Given", "given: Thing"),
])  # fmt: skip
def test_what_a_definition_reaches_counts(package: Package, change: tuple[str, str]) -> None:
    """A constant, the class of what it is given, what that calls in another module."""
    package.write("low", PLAIN)
    package.write("named", NAMED)
    before = sources.code("attribug.made.named", "wanted")
    package.write("named", NAMED.replace(*change))
    assert sources.code("attribug.made.named", "wanted") != before
    package.write("named", NAMED)
    package.write("low", UNLIKE["constant"])
    assert sources.code("attribug.made.named", "wanted") != before


@pytest.mark.parametrize("change", [
    ("return 3", "return 4"), ("levels=(1,)", "levels=(2,)"), ("spearman", "pearson"),
    ("SCALE = 2", "SCALE = 2  # why"),
    ("    def beside", "    def another():\n        return 0\n\n    def beside"),
])  # fmt: skip
def test_what_stands_beside_a_definition_does_not_count(package: Package, change: tuple[str, str]) -> None:
    """Nor do the facts that a piece is registered with, nor an unused class of another module."""
    package.write("low", PLAIN)
    package.write("named", NAMED)
    before = sources.code("attribug.made.named", "wanted")
    package.write("named", NAMED.replace(*change))
    assert NAMED.replace(*change) != NAMED
    package.write("low", PLAIN.replace("'text'", "'test'"))
    assert sources.code("attribug.made.named", "wanted") == before


def test_statements_that_bind_nothing_count(package: Package) -> None:
    package.write("low", PLAIN)
    package.write("named", NAMED)
    before = sources.code("attribug.made.named", "beside")
    package.write("named", NAMED + "\n    Given.value = lambda self: 0\n")
    assert sources.code("attribug.made.named", "beside") != before


def test_a_name_that_a_module_does_not_have_is_refused(package: Package) -> None:
    package.write("low", PLAIN)
    package.write("named", NAMED)
    with pytest.raises(KeyError, match="has no nothing"):
        sources.code("attribug.made.named", "nothing")


def test_a_name_that_is_handed_on_is_followed_home(package: Package) -> None:
    package.write("low", PLAIN)
    package.write("door", "from attribug.made.low import Thing, f")
    package.write("user", "from attribug.made.door import f\n\ndef g():\n    return f(1)\n")
    assert set(sources.covered("attribug.made.user", "g")) == {"attribug.made.user", "attribug.made.low"}


def test_a_name_bound_again_counts_with_all_its_statements(package: Package) -> None:
    text = "TABLE = {'a': 1}\nTABLE |= {'b': 2}\n\ndef f():\n    return TABLE\n"
    package.write("again", text)
    before = sources.code("attribug.made.again", "f")
    for change in (("1", "3"), ("2", "3")):
        package.write("again", text.replace(*change))
        assert sources.code("attribug.made.again", "f") != before


def test_names_of_comprehensions_bind_nothing(package: Package) -> None:
    package.write("loops", "def f():\n    return 1\n\nNAMES = [f for f in (1, 2)]\n")
    before = sources.code("attribug.made.loops", "f")
    package.write("loops", "def f():\n    return 1\n\nNAMES = [f for f in (1, 2, 3)]\n")
    assert sources.code("attribug.made.loops", "f") == before


IMPORTING = [
    "import {name}", "from {name} import f", "from {name} import *",
    "try:\n    import {name}\nexcept ImportError:\n    raise",
    "if True:\n    from {name} import f", "def late():\n    import {name}",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import {name}",
]  # fmt: skip


@pytest.mark.parametrize("line", IMPORTING)
def test_a_plugins_imports_count_wherever_they_stand(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "beside_it.py").write_text("def f():\n    return 1\n")
    (tmp_path / "own_plugin.py").write_text(line.format(name="beside_it") + "\n")
    importlib.invalidate_caches()
    forget()
    assert set(sources.covered("own_plugin")) == {"own_plugin", "beside_it"}


@pytest.mark.parametrize("line", [
    "from attribug.streams import generator", "from attribug.streams import *",
    "try:\n    from attribug.streams import generator\nexcept ImportError:\n    raise",
])  # fmt: skip
def test_a_plugins_imports_of_attribug_count(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_plugin.py").write_text(f"{line}\n\ndef f():\n    return generator('x')\n")
    importlib.invalidate_caches()
    forget()
    assert set(sources.covered("own_plugin")) == {"own_plugin", "attribug.streams"}


def test_modules_that_import_each_other_have_a_digest(package: Package) -> None:
    package.write("b", "X = 1")
    package.write("a", "import attribug.made.b")
    before = package.write("b", "X = 1\nimport attribug.made.a"), package.code("a")
    after = package.write("b", "X = 2\nimport attribug.made.a"), package.code("a")
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_foreign_modules_do_not_count(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.syspath_prepend(str(outside))
    (outside / "foreign_module.py").write_text("X = 1")
    before = package.write("a", "import foreign_module")
    (outside / "foreign_module.py").write_text("X = 2")
    assert package.code("a") == before
    sys.modules.pop("foreign_module", None)


SCRIPT = """
import cloudpickle, subprocess, sys
from attribug import keys, sources
SCALE = {scale}

class Helper:
    def double(self, x):
        return x * {double}

def helper(x):
    return Helper().double(x) * SCALE  # {comment}

def mine(model, inputs, targets, *, k={k}):
    '''{doc}'''
    return [helper(v) if "a" in {{"a", "b", "c"}} else mine(model, v, None) for v in inputs]

UNUSED = {unused}
print(keys.digest(mine), flush=True)
receive = "import cloudpickle, sys; from attribug import keys; print(keys.digest(cloudpickle.load(sys.stdin.buffer)))"
subprocess.run([sys.executable, "-c", receive], input=cloudpickle.dumps(mine), check=True)
"""
ORIGINAL = {"scale": 3, "double": 2, "comment": "why", "k": 1, "doc": "Doc.", "unused": 0}


def digests_of_script(folder: Path, **changes: Any) -> tuple[str, str]:
    """Digests of a function of `__main__`, where it was written and where it arrived pickled."""
    path = folder / "script.py"
    path.write_text(SCRIPT.format(**{**ORIGINAL, **changes}))
    environment = {**os.environ, "PYTHONHASHSEED": str(len(changes))}
    run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True, env=environment)
    here, there = run.stdout.split()
    return here, there


@pytest.mark.slow
def test_a_scripts_function_is_told_by_what_it_does_in_every_process(tmp_path: Path) -> None:
    """Else an edited function would find the scores of its former self, or a worker store them under another key."""
    here, there = digests_of_script(tmp_path)
    assert here == there
    assert digests_of_script(tmp_path, comment="because", doc="Long.\\n\\nMore.", unused=1) == (here, here)
    for change in ({"scale": 4}, {"double": 3}, {"k": 2}):
        other, received = digests_of_script(tmp_path, **change)
        assert other == received
        assert other != here
