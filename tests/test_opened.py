"""Files that code reads while it is loaded, or declares: their content is part of its content key."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from attribug import keys, methods, opened, plugin_files, sources
from attribug.errors import InputError
from attribug.plugins import load_plugin
from doubles.pieces import forgotten

METHOD = """
from pathlib import Path
from attribug import methods

{reading}

@methods.register("{name}")
def {name}(query):
    return query.gradient()
"""
BESIDE = "STRENGTH = Path(__file__).with_name('strength.txt').read_text()"

MADE = ("a_far_module", "an_early_module", "some_library")
"""Names of modules that tests write."""


@pytest.fixture(autouse=True)
def _pieces_are_gone_afterwards() -> Iterator[None]:
    noted = opened.noted()
    with forgotten():
        yield
    opened.adopt(noted)
    sources.forget()
    for name in MADE:
        sys.modules.pop(name, None)


def written(folder: Path, reading: str, name: str = "reader") -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(METHOD.format(reading=textwrap.dedent(reading), name=name))
    return str(folder / f"{name}.py")


def key(name: str = "reader") -> str:
    sources.forget()
    return keys.digest(methods.get(name).function)


READINGS = {
    "read_text": BESIDE,
    "open": "with open(Path(__file__).with_name('strength.txt')) as file:\n    file.read()",
    "os.open": "import os\nos.close(os.open(str(Path(__file__).with_name('strength.txt')), os.O_RDONLY))",
    "also to be changed": "open(Path(__file__).with_name('strength.txt'), 'r+').read()",
    "also written": "path = Path(__file__).with_name('strength.txt')\npath.open('a').close()\npath.read_text()",
    "a library": "import numpy\nnumpy.loadtxt(Path(__file__).with_name('strength.txt'))",
    "a class": f"class Settings:\n    {BESIDE}",
    "a function": "def read():\n    return Path(__file__).with_name('strength.txt').read_text()\nread()",
    "a thread": "from concurrent.futures import ThreadPoolExecutor\ndef read():\n"
    "    return Path(__file__).with_name('strength.txt').read_text()\nThreadPoolExecutor(1).submit(read).result()",
    "declared": "ATTRIBUG_FILES = ('strength.txt',)",
    "declared in a list": "ATTRIBUG_FILES: list[str] = ['strength.txt']",
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_what_a_plugin_reads_beside_itself_counts(tmp_path: Path, reading: str) -> None:
    """By its content: wherever both lie, whenever it was written."""
    (tmp_path / "strength.txt").write_text("1")
    load_plugin(written(tmp_path, reading))
    before = key()
    (tmp_path / "strength.txt").write_text("2")
    assert key() != before
    (tmp_path / "strength.txt").write_text("1")
    assert key() == before
    (tmp_path / "strength.txt").unlink()
    if "ATTRIBUG_FILES" not in reading:
        assert key() != before, "a file that is not there any more"


def test_a_file_that_appears_counts(tmp_path: Path) -> None:
    load_plugin(written(tmp_path, f"try:\n    {BESIDE}\nexcept OSError:\n    pass"))
    before = key()
    (tmp_path / "strength.txt").write_text("1")
    assert key() != before


def test_contents_change_places(tmp_path: Path) -> None:
    """Beside the plugin, and elsewhere, where two files may have one name."""
    outside = tmp_path / "outside"
    files = [tmp_path / "inside" / "a.txt", tmp_path / "inside" / "b.txt", outside / "a" / "c", outside / "b" / "c"]
    for number, file in enumerate(files):
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(str(number))
    reading = f"for file in {[str(file) for file in files]}:\n    Path(file).read_text()"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        load_plugin(written(tmp_path / "inside", reading))
        before = key()
        for one, other in (files[:2], files[2:]):
            kept = one.read_text()
            one.write_text(other.read_text())
            other.write_text(kept)
            assert key() != before
            other.write_text(one.read_text())
            one.write_text(kept)
            assert key() == before


def test_keys_tell_nothing_of_places(tmp_path: Path) -> None:
    found = set()
    for place in ("here", "there"):
        plugin = written(tmp_path / place, BESIDE)
        (tmp_path / place / "strength.txt").write_text("1")
        with forgotten():
            load_plugin(plugin)
            found.add(key())
    assert len(found) == 1


UNREAD = {
    "a file that it makes": "Path(__file__).with_name('made.txt').write_text('{}')",
    "a file that it empties first": "open(Path(__file__).with_name('made.txt'), 'w+').close()",
    "a file for a moment": "import os, subprocess, tempfile\nfolder = tempfile.mkdtemp()\n"
    "subprocess.run(['touch', folder + '/made'], check=True)\nopen(folder + '/made').close()",
    "a folder": "import os\nos.close(os.open(str(Path(__file__).parent), os.O_RDONLY))",
    "a source": "Path(__file__).read_text()",
    "the system's": "open('/proc/self/status').read()\nopen('/dev/null').read()",
    "a library's": "import importlib.metadata\nimportlib.metadata.version('torch')\nimport numpy\nnumpy.random",
    "a file that is open": "import os\nnumber = os.open('/etc/hostname', os.O_RDWR | os.O_CREAT) if False else 0\n",
    "what it reads later": "def later():\n    return Path(__file__).with_name('strength.txt').read_text()",
}


@pytest.mark.parametrize("reading", UNREAD.values(), ids=UNREAD)
def test_what_does_not_decide_does_not_count(tmp_path: Path, reading: str) -> None:
    plugin = Path(written(tmp_path, reading))
    load_plugin(str(plugin))
    assert opened.contents(opened.read_by(plugin_files.module_of(plugin)), plugin) == []


def test_a_library_that_is_loaded_reads_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings say nothing of the plugin that happens to load it first."""
    library = tmp_path / "site-packages"
    written(library, BESIDE, "some_library")
    (library / "strength.txt").write_text("1")
    monkeypatch.syspath_prepend(str(library))
    (tmp_path / "own.txt").write_text("1")
    plugin = written(tmp_path, "import some_library\nPath(__file__).with_name('own.txt').read_text()")
    load_plugin(plugin)
    assert opened.noted()[plugin_files.module_of(Path(plugin))] == (str(tmp_path / "own.txt"),)


FAR = """
from pathlib import Path

def read(name):
    return Path(__file__).with_name(name).read_text()

AT_ONCE = read("at_once.txt")
"""


@pytest.mark.parametrize("first", [False, True])
def test_a_module_elsewhere_reads_for_whoever_asks_and_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """What it is asked for at load counts for the plugin; what it reads itself does not, as its code does not."""
    far = tmp_path / "far"
    far.mkdir()
    (far / "a_far_module.py").write_text(FAR)
    for name in ("at_once.txt", "asked.txt"):
        (far / name).write_text("1")
    monkeypatch.syspath_prepend(str(far))
    if first:
        importlib.import_module("a_far_module")
    plugin = Path(written(tmp_path / "own", "import a_far_module\na_far_module.read('asked.txt')"))
    load_plugin(str(plugin))
    assert opened.read_by(plugin_files.module_of(plugin)) == {far / "asked.txt"}


def test_nothing_is_noted_at_other_times(tmp_path: Path) -> None:
    (tmp_path / "strength.txt").write_text("1")
    plugin = written(tmp_path, "")
    load_plugin(plugin)
    before = opened.noted()
    (tmp_path / "strength.txt").read_text()
    assert opened.noted() == before
    with opened.watching():
        (tmp_path / "strength.txt").read_text()
    assert opened.noted() != before, "as it would be inside"


@pytest.mark.parametrize(("declared", "expected"), [
    ("('none.bin',)", r"ATTRIBUG_FILES of reader\.py: expected a file 'none\.bin' beside it, found none$"),
    ("('.',)", r"expected a file '\.' beside it, found none$"),
    ("'strength.txt'", "expected a tuple of paths, written out$"),
    ("tuple(Path('.').glob('*'))", "expected a tuple of paths, written out$"),
    ("(1,)", "expected a tuple of paths, written out$"),
])  # fmt: skip
def test_declarations_that_are_wrong_are_one_line(tmp_path: Path, declared: str, expected: str) -> None:
    (tmp_path / "strength.txt").write_text("1")
    plugin = written(tmp_path, f"ATTRIBUG_FILES = {declared}")
    with pytest.raises(InputError, match=expected) as caught:
        load_plugin(plugin)
    assert str(caught.value).startswith(f"plugin {plugin}: ")
    assert "\n" not in str(caught.value)
    assert load_plugin(written(tmp_path, "ATTRIBUG_FILES = ('strength.txt',)")) == {"method": ["reader"]}


KEPT = """
import functools
from pathlib import Path

@functools.cache
def table():
    return Path(__file__).with_name("table.txt").read_text()

AT_ONCE = Path(__file__).with_name("at_once.txt").read_text()
"""
TELL = """
import sys
from attribug import keys, methods
from attribug.plugins import load_plugin
for name in sys.argv[1:]:
    load_plugin(f"{name}.py")
for name in ("one", "two"):
    print(keys.digest(methods.get(name).function))
"""


def test_the_order_of_plugins_says_nothing(tmp_path: Path) -> None:
    """Also where a module between them reads once for whoever comes first."""
    (tmp_path / "beside.py").write_text(KEPT)
    for name in ("one", "two"):
        written(tmp_path, "import beside\nbeside.table()", name)
    for name in ("table.txt", "at_once.txt"):
        (tmp_path / name).write_text("1")

    def told(*names: str) -> list[str]:
        run = subprocess.run(
            [sys.executable, "-c", TELL, *names], cwd=tmp_path, capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        return run.stdout.split()

    before = told("one", "two")
    assert told("two", "one") == before
    for name in ("table.txt", "at_once.txt"):
        (tmp_path / name).write_text("2")
        assert all(now != then for now, then in zip(told("one", "two"), before, strict=True))
        (tmp_path / name).write_text("1")


def test_a_worker_comes_to_the_same_key_as_who_imported_the_plugin_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was noted there, and the worker, which imports it anew, takes that over."""
    written(tmp_path, BESIDE, "an_early_module")
    (tmp_path / "strength.txt").write_text("1")
    monkeypatch.syspath_prepend(str(tmp_path))
    noted = opened.noted()
    with forgotten():
        importlib.import_module("an_early_module")
        load_plugin("an_early_module")
        here = key("an_early_module")
    del sys.modules["an_early_module"]
    with forgotten():
        load_plugin("an_early_module")
        assert key("an_early_module") != here, "what was noted now"
        opened.adopt(noted)
        assert key("an_early_module") == here


def test_a_linked_plugin_is_the_same_in_workers(tmp_path: Path) -> None:
    """Which are told where the link is: what lies beside it may not lie beside the file."""
    from attribug.running.options import RunOptions
    from attribug.running.request import requested

    shutil.copy(written(tmp_path / "file", BESIDE), tmp_path / "file" / "copy.py")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "reader.py").symlink_to(tmp_path / "file" / "reader.py")
    (tmp_path / "link" / "strength.txt").write_text("1")
    plugin = str(tmp_path / "link" / "reader.py")
    request = requested("smoke", RunOptions(plugins=(plugin,), methods=["reader"], bugs=["reinit"]))
    assert request.options.plugins == (plugin,)
