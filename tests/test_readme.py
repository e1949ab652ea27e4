"""What the README and the docs show runs: plugin files pass `check`, Python blocks execute, commands exist."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import attribug
from attribug import methods
from attribug.networks import bvd_cnn

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
BLOCKS = [(language, text) for page in PAGES for language, text in BLOCK.findall((ROOT / page).read_text())]
FILES = {
    text.partition("\n")[0][2:]: text for language, text in BLOCKS if text.startswith("# ") and language == "python"
}
PYTHON = [text for language, text in BLOCKS if language == "python" and not text.startswith("# ")]
COMMANDS = [
    line.partition("#")[0].strip()
    for language, text in BLOCKS if language == "sh"
    for line in text.splitlines() if line.startswith("attribug ")
]  # fmt: skip
LONGEST = 10  # lines of a way to add a method


def command(arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    start = [sys.executable, "-m", *shlex.split(arguments)]
    return subprocess.run(start, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def folder(tmp_path):
    """A folder with every plugin file that the README shows."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "my_method.py").write_text(FILES["sign_x_input.py"])  # the README's other name for one's own file
    return tmp_path


def test_there_is_something_to_test():
    assert {"sign_x_input.py", "borrowed.py", "plain.py"} <= set(FILES)
    assert len(COMMANDS) >= 8
    assert PYTHON


@pytest.mark.parametrize("name", FILES)
def test_every_way_to_add_a_method_is_short(name):
    assert len([line for line in FILES[name].splitlines()[1:] if line.strip()]) <= LONGEST


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_plugins_conform(name, folder):
    answer = command(f"attribug check {name}", folder)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line, folder):
    if line.startswith("attribug run") and "--dry-run" not in line:
        line += " --dry-run"
    answer = command(line, folder)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


@pytest.mark.slow
@pytest.mark.parametrize("text", PYTHON)
def test_python_runs(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    small = {"task_options.digits": {"train": 60, "test": 60, "epochs": 1, "width": 2}, "examples": 4}
    runs = []

    def tiny(name, **options):
        runs.append(attribug.api.run(name, bugs=["reinit"], changes=small, **options))
        return runs[-1]

    def few(study):
        options = {"task_options": {"train": 60, "test": 60, "epochs": 1, "width": 2}, "examples": 4}
        return lambda *names: study(*names, **options)

    monkeypatch.setattr(attribug, "run", tiny, raising=False)
    for study in (attribug.fold_study, attribug.randomisation_study):
        monkeypatch.setattr(attribug, study.__name__, few(study), raising=False)
    torch.manual_seed(0)
    inputs, targets = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    names = {"model": bvd_cnn(width=4), "inputs": inputs, "targets": targets, "my_function": my_function}
    given = set(names)
    exec(compile(text, "README.md", "exec"), names)
    assert set(names) - given - {"__builtins__", "attribug"}, "it makes something"
    assert "maps" not in names or names["maps"].shape == inputs.shape
    assert len(runs) == text.count("attribug.run(")
    assert all(run.complete for run in runs)


def my_function(model, inputs, targets):
    """What a user might write."""
    return inputs * targets[:, None, None, None]


def test_entry_points_are_as_the_registry_reads_them(folder, monkeypatch):
    (text,) = (text for language, text in BLOCKS if language == "toml")
    ((group, entries),) = tomllib.loads(text)["project"]["entry-points"].items()
    assert group == methods._registry.package
    ((name, value),) = entries.items()
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "sign_x_input.py").write_text(FILES["sign_x_input.py"])
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(methods._registry, "_entry_points", lambda: {name: EntryPoint(name, value, group)})
    try:
        assert name in methods.names()
        maps = attribug.explain(name, bvd_cnn(width=4), torch.rand(1, 3, 32, 32), torch.tensor([1]))
    finally:
        methods._registry.forget(name)
    assert maps.isfinite().all()
