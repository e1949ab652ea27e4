"""Plugin files are modules that every process finds, and that hide none."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from attribug import keys, methods, plugin_files, sources
from attribug.plugins import load_plugin
from doubles.pieces import forgotten

PLUGIN = """
from attribug import methods, metrics

def double(number):
    return number * 2

class Scaled:
    def __call__(self, number):
        return number * 2

@methods.register("mine")
def mine(query):
    return query.gradient()

@metrics.register("own")
def own(a, b):
    return (a * b).sum(1)
"""


@pytest.fixture(autouse=True)
def _pieces_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(plugin_files.FILES, "{}")
    with forgotten():
        yield
    sources.forget()


def written(folder: Path, name: str = "p.py", text: str = PLUGIN) -> str:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(text)
    return str(folder / name)


START = {
    **{
        way: f"""
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context({way!r})) as pool:
                print(pool.submit(double, 21).result())
        """
        for way in ("spawn", "forkserver", "fork")
    },
    "joblib": """
        from joblib import Parallel, delayed
        print(Parallel(n_jobs=2)(delayed(double)(number) for number in (21, 0))[0])
    """,
    "an object": """
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(plugin.Scaled(), (21,)))
    """,
    "who loads it, too": """
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(double, (0,))
            loaded = pool.apply(load_plugin, ("p.py",))
        print(42 if loaded == load_plugin("p.py") else loaded)
    """,
}
MAIN = """
import sys
from attribug import methods
from attribug.plugins import load_plugin

if __name__ == "__main__":
    load_plugin("p.py")
    plugin = sys.modules[methods.get("mine").function.__module__]
    double = plugin.double
"""


@pytest.mark.parametrize("start", START)
def test_a_plugins_functions_reach_processes(start: str, tmp_path: Path) -> None:
    """However they are started. Nothing but the answer is printed, so the plugin is imported without errors."""
    if start == "joblib":
        pytest.importorskip("joblib")
    written(tmp_path)
    (tmp_path / "main.py").write_text(MAIN + textwrap.indent(textwrap.dedent(START[start]), "    "))
    run = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("42\n", "", 0)


@pytest.mark.parametrize("name", [
    "torch.py", "random.py", "attribug.py", "plugins.py", "my-plugin.v2.py", "2nd.py", "ünï.py", "a b.py",
])  # fmt: skip
def test_a_plugin_of_whatever_name_hides_nothing(tmp_path: Path, name: str) -> None:
    before = {module: sys.modules.get(module) for module in ("torch", "random", "attribug", "attribug.plugins")}
    assert load_plugin(written(tmp_path, name)) == {"method": ["mine"], "metric": ["own"]}
    assert {module: sys.modules.get(module) for module in before} == before
    module = methods.get("mine").function.__module__
    assert plugin_files.is_plugin_file(module)
    assert sys.modules[module].__file__ == str(tmp_path / name)


def test_names_and_keys_tell_nothing_of_places(tmp_path: Path) -> None:
    """Of a function, and of an object, which is told by its pickle."""
    modules, told = set(), set()
    for place in ("here", "there"):
        with forgotten():
            load_plugin(written(tmp_path / place))
            module = sys.modules[methods.get("mine").function.__module__]
            modules.add(module.__name__)
            told.add(keys.digest(module.double, functools.partial(module.double, module.Scaled()), module.Scaled()))
    assert len(modules) == 2
    assert len(told) == 1
    assert {plugin_files.portable(name) for name in modules} == {"attribug_plugin_p"}
    assert plugin_files.portable("attribug.plugins") == "attribug.plugins"


STREAM = "from attribug.streams import generator\nSTREAM = generator('mine')\n"


def test_a_plugin_counts_as_a_whole_and_what_it_takes_from_attribug_by_name(tmp_path: Path) -> None:
    """Although its name is one of attribug's."""
    load_plugin(written(tmp_path, text=PLUGIN + STREAM))
    module = methods.get("mine").function.__module__
    assert set(sources.covered(module, "mine")) == {module, "attribug.streams"}
    before = keys.digest(methods.get("mine").function)
    written(tmp_path, text=PLUGIN.replace("number * 2", "number * 3") + STREAM)
    sources.forget()
    assert keys.digest(methods.get("mine").function) != before


def test_a_plugins_function_that_python_hands_over_travels_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may not have the file, although it has attribug."""
    written(tmp_path / "installed" / "attribug", "__init__.py", "")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    load_plugin(written(tmp_path))
    module = sys.modules[methods.get("mine").function.__module__]
    pickled = plugin_files.pickled_for_others({"double": (module.double, "key")}, [module.__name__])
    receive = "import pickle, sys; print(pickle.load(sys.stdin.buffer)['double'][0](21))"
    (tmp_path / "p.py").unlink()
    run = subprocess.run([sys.executable, "-c", receive], input=pickled, capture_output=True, check=False)
    assert (run.stdout, run.returncode) == (b"42\n", 0), run.stderr
