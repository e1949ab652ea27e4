"""The wheel, as users get it: complete, importable without leftovers, free of generic top-level modules."""

import itertools
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"attribug": "benchmark", "attribug.bugs": "bugs", "attribug.methods": "methods"}
FOLDERS |= {"attribug.metrics": "metrics", "attribug.results": "results"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the source, which stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = [*set(FOLDERS.values()), "pyproject.toml", "README.md", "LICENSE"]
    source.mkdir()
    for name in names:
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.whl"))


def source_modules() -> set[str]:
    """Every Python file of the source, by its place in the wheel."""
    found = set()
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            found.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}")
    return found


def test_every_folder_of_code_and_every_data_file_is_listed():
    """What the wheel is built from; whether it is complete, `pytest -m survival` looks."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    places = built["package-dir"]
    found = {str(Path(name).parent).replace("/", ".") for name in source_modules()}
    assert set(built["packages"]) == found
    assert {name: places[name] for name in FOLDERS} == FOLDERS
    for package, patterns in built["package-data"].items():
        first = max((name for name in FOLDERS if f"{package}.".startswith(f"{name}.")), key=len)
        folder = ROOT / FOLDERS[first] / package[len(first) + 1 :].replace(".", "/")
        for pattern in patterns:
            assert list(folder.glob(pattern)), (package, pattern)


@pytest.mark.survival
def test_wheel_holds_every_module_suite_and_nothing_generic(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if name.endswith(".py")} == source_modules()
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"attribug"}
    shipped = {f"attribug/suites/{path.name}" for path in (ROOT / "benchmark" / "suites").glob("*.yaml")}
    assert shipped
    assert shipped <= set(names)
    assert "attribug/py.typed" in names
    page = {f"attribug/results/report.{ending}" for ending in ("css", "html.jinja", "js")}
    tables = {f"attribug/results/reference/{path.name}" for path in (ROOT / "results" / "reference").glob("smoke.*")}
    assert len(tables) == 2
    parts = {
        f"attribug/results/{name}" for name in ("published.csv", "alignment_published.csv", "alignment.html.jinja")
    }
    assert {*page, *tables, *parts} <= set(names)
    assert not [name for name in names if name.endswith(".safetensors")]  # megabytes that only CI needs


@pytest.mark.survival
def test_wheel_in_a_clean_environment(wheel, tmp_path):
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True, capture_output=True)
    code = (
        "import importlib.util, attribug, attribug.contracts, attribug.registry;"
        "generic = ['benchmark', 'bugs', 'methods', 'metrics', 'results', 'tests'];"
        "assert not [name for name in generic if importlib.util.find_spec(name)];"
        "print(attribug.__version__)"
    )
    answer = subprocess.run([python, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_every_dependency_states_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    for requirement in [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]:
        lines = [line for line in text.splitlines() if f'"{requirement}"' in line and line.startswith("    ")]
        assert lines, requirement
        assert all(line.partition("#")[2].strip() for line in lines), requirement
