"""What the README and the docs show runs: plugin files pass `check`, Python blocks execute, commands exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from skimage import data

import attribug as package
from attribug import methods
from attribug.models.networks import bvd_cnn
from attribug.reports.references import references

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
BLOCKS = [(language, text) for page in PAGES for language, text in BLOCK.findall((ROOT / page).read_text())]
FILES = {
    text.partition("\n")[0][2:]: text for language, text in BLOCKS if text.startswith("# ") and language == "python"
}
PLUGINS = [
    name for name, text in FILES.items() if re.search(r"\b(methods|metrics|bugs|fixes|panels|tasks)\.\w+\(", text)
]
PYTHON = [text for language, text in BLOCKS if language == "python" and not text.startswith("# ")]
SHOWN = [
    [line.partition("#")[0].strip() for part in text.splitlines() for line in part.split(" && ")]
    for language, text in BLOCKS if language == "sh"
]  # fmt: skip
COMMANDS = list(dict.fromkeys(line for lines in SHOWN for line in lines if line.startswith("attribug ")))
ON_RUNS = ("attribug compare", "attribug report")
JOURNEYS = SHOWN[1:4]  # the whole benchmark, a method of one's own, a gate
NET = """
from attribug.models.networks import bvd_cnn

def load():
    return bvd_cnn(pixels=64, width=2)
"""
LONGEST = 10  # lines of a way to add a method


def words(line: str) -> list[str]:
    """What is typed after `attribug`."""
    return shlex.split(line)[1:]


@pytest.fixture
def folder(tmp_path):
    """A folder with every plugin file that the README and the docs show."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "my_method.py").write_text(FILES["sign_x_input.py"])  # the README's other name for one's own file
    (tmp_path / "my_net.py").write_text(NET)
    torch.save(bvd_cnn(pixels=64, width=2).state_dict(), tmp_path / "mine.pt")
    (tmp_path / "names.txt").write_text("\n".join(map(str, range(1000))))
    for kind in ("cat", "coffee"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        picture = Image.fromarray(getattr(data, kind)())
        for name, turned in {"one": picture, "two": picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)}.items():
            turned.save(tmp_path / "photos" / kind / f"{name}.jpg")
            mask = turned.convert("L").point(lambda grey: 255 * (grey > 99))
            for place in ("masks", "parts/ears", "parts/eyes"):
                (tmp_path / place / kind).mkdir(parents=True, exist_ok=True)
                mask.save(tmp_path / place / kind / f"{name}.png")
    return tmp_path


def test_there_is_something_to_test():
    assert {"sign_x_input.py", "borrowed.py", "plain.py"} <= set(FILES)
    assert len(COMMANDS) >= 8
    assert PYTHON


@pytest.mark.parametrize("name", ["sign_x_input.py", "borrowed.py", "plain.py", "edge_gradient.py"])
def test_every_way_to_add_a_method_is_short(name):
    assert len([line for line in FILES[name].splitlines()[1:] if line.strip()]) <= LONGEST


@pytest.mark.slow
@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.usefixtures("folder")
def test_plugins_conform(name, attribug):
    answer = attribug("check", name)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(ON_RUNS)])
@pytest.mark.usefixtures("folder")
def test_commands_are_understood(line, attribug):
    if line.startswith("attribug replicate"):  # its options are those of a run
        line, times = re.subn(r"^attribug replicate(.*) --times \d+", r"attribug run\1", line)
        assert times
    line = line.removesuffix(" --run runs/own")  # of which there is none
    line += " --most 4" if "gcompris:" in line else ""
    if line.startswith("attribug run") and "--dry-run" not in line:
        line += " --dry-run"
    answer = attribug(*words(line), calibrated=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


def test_references_that_are_shown_exist():
    compared = [line for line in COMMANDS if line.startswith("attribug compare") and "--methods" not in line]
    shown = {line.split()[2] for line in compared}
    assert {name for name in shown if "." not in name and "/" not in name} == {*references(), "published"}


@pytest.mark.slow
def test_commands_on_runs_work(smoke_run, folder, attribug):
    """In the order in which they are shown; a reference that is accepted is one of the user's."""
    for name in ("smoke", "own", "right-reasons", "alignment"):
        shutil.copytree(smoke_run, folder / "runs" / name)
    lines = [line for line in COMMANDS if line.startswith(ON_RUNS)]
    assert len(lines) >= 5
    for line in sorted(lines, key=lambda line: "--accept" not in line):
        typed = re.sub(r"\b(quick|paper-offline|smoke-photographs)\b", "smoke", line)
        if "--accept" in typed:
            typed = typed.replace("compare smoke", "compare own.csv")
        answer = attribug(*words(typed))
        assert answer.returncode == 0, (line, answer.stderr)
        assert answer.stdout


@pytest.mark.survival
def test_the_three_journeys_as_typed(folder, smoke_models, attribug):
    """From an empty folder, a block after the other, with the smoke suite instead of the default one."""
    assert [lines[0].partition(" --")[0] for lines in JOURNEYS] == [
        "attribug run", "attribug check sign_x_input.py", "attribug compare quick runs/quick",
    ]  # fmt: skip
    for lines in JOURNEYS:
        for line in lines:
            typed = line.replace("quick", "smoke")
            typed = typed.replace("attribug run", f"attribug run smoke --models {smoke_models}")
            answer = attribug(*words(typed), start="module")
            assert answer.returncode == 0, (typed, answer.stdout, answer.stderr)
    results = (folder / "runs" / "smoke" / "results.csv").read_text()
    assert ",sign_x_input," in results
    assert "sign_x_input" not in (folder / "runs" / "smoke" / "report.html").read_text()  # it was written before


@pytest.mark.survival
def test_the_workflow_as_shown(smoke_run, smoke_models, folder, monkeypatch):
    """Every step of the CI recipe but the installation, in a shell, with the summary that CI would show."""
    (text,) = (text for language, text in BLOCKS if language == "yaml")
    ((name, job),) = yaml.safe_load(text)["jobs"].items()
    assert name == "attribug"
    steps = [step["run"] for step in job["steps"] if "run" in step and not step["run"].startswith("pip ")]
    assert len(steps) == 3
    shutil.copytree(smoke_run, folder / "runs" / "smoke")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    accept = "attribug compare expected.csv runs/smoke --accept"
    assert accept in COMMANDS
    for step in [accept, *steps]:
        typed = step.replace("attribug run smoke", f"attribug run smoke --models {smoke_models}")
        answer = subprocess.run(["bash", "-c", typed], cwd=folder, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, (step, answer.stderr)
    assert "nothing worse" in (folder / "summary.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("text", PYTHON)
def test_python_runs(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    small = {"task_options.digits": {"train": 60, "test": 60, "epochs": 1, "width": 2}, "examples": 4}
    runs = []

    def tiny(name, **options):
        runs.append(package.api.run(name, bugs=["reinit"], changes=small, **options))
        return runs[-1]

    def few(study):
        options = {"task_options": {"train": 60, "test": 60, "epochs": 1, "width": 2}, "examples": 4}
        return lambda *names: study(*names, **options)

    monkeypatch.setattr(package, "run", tiny, raising=False)
    for study in (package.fold_study, package.randomisation_study):
        monkeypatch.setattr(package, study.__name__, few(study), raising=False)
    torch.manual_seed(0)
    inputs, targets = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
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
        maps = package.explain(name, bvd_cnn(width=4), torch.rand(1, 3, 32, 32), torch.tensor([1]))
    finally:
        methods._registry.forget(name)
    assert maps.isfinite().all()
