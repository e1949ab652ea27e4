"""`attribug.testing`: the checks of `attribug check` as tests of a plugin's own repository."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from attribug import metrics, testing
from attribug.conformance.checks import checks_of
from attribug.registry import Entry
from doubles.pieces import forgotten

ROOT = Path(__file__).parent.parent
METRIC = """
from attribug import metrics

@metrics.register("{name}", kind="similarity", bounds=(-1, 1))
def {name}(a, b):
    a, b = (each.flatten(1) / each.flatten(1).abs().amax(1, keepdim=True) for each in (a, b))
    a, b = (each / each.norm(dim=1, keepdim=True) for each in (a, b))
    return {value}
"""
BROKEN = {"best is the upper bound", "vectors and sequences"}  # of one that never reaches its bound
COSINE = "(a * b).sum(1).clamp(-1, 1)"
TESTS = """
from attribug import testing

@testing.conforms("sound.py")
def test_sound(check):
    check()

@testing.conforms("halved.py")
def test_halved(check):
    check()

@testing.conforms("halved.py", expected_failures={"best is the upper bound": "half of a cosine", "symmetry": "but it is"})
def test_expected(check):
    check()

@testing.conforms("declining.py", expected_failures={"declines_all: measures ordinary maps": "always"})
def test_declining(check):
    check()
"""  # noqa: E501
DECLINING = """
from attribug import metrics, Unsupported

@metrics.register("declines_all", kind="similarity", bounds=(-1, 1))
def declines_all(a, b):
    raise Unsupported("nothing is measured")
"""


@pytest.fixture(autouse=True)
def _pieces_are_gone_afterwards():
    with forgotten():
        yield


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plugins with their tests in a folder of their own."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "tests").mkdir()
    for name, value in {"sound": COSINE, "halved": f"{COSINE} / 2"}.items():
        (folder / "tests" / f"{name}.py").write_text(METRIC.format(name=f"{name}_cosine", value=value))
    (folder / "tests" / "declining.py").write_text(DECLINING)
    (folder / "tests" / "test_plugins.py").write_text(TESTS)
    return folder


def pytest_in(folder: Path, *arguments: str) -> tuple[int, dict[str, str], str]:
    """Exit status, outcome by test, and all that is printed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--tb=short", *arguments]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = re.findall(r"(?m)^(PASSED|FAILED|XFAIL|SKIPPED) \S*::(\S+\])", answer.stdout)
    return answer.returncode, {test: outcome for outcome, test in found}, answer.stdout


def outcomes(found: dict[str, str], test: str) -> dict[str, str]:
    """Outcomes by check of one test function."""
    return {
        name.removesuffix("]").rpartition("-")[2].replace("_", " "): outcome
        for name, outcome in found.items() if name.startswith(f"{test}[")
    }  # fmt: skip


@pytest.mark.slow
def test_every_check_is_a_test(repository):
    status, found, printed = pytest_in(repository)
    checks = {check.__name__.removeprefix("check_").replace("_", " ") for check in checks_of("metric")}
    assert status == 1
    assert outcomes(found, "test_sound") == dict.fromkeys(checks, "PASSED")
    halved = outcomes(found, "test_halved")
    assert set(halved) == checks
    assert {check for check, outcome in halved.items() if outcome == "FAILED"} == BROKEN
    expected = outcomes(found, "test_expected")
    assert expected.pop("best is the upper bound") == "XFAIL"
    assert expected.pop("symmetry") == "FAILED", "an expected failure that passes fails"
    assert expected.pop("vectors and sequences") == "FAILED", "nobody expected this one"
    assert set(expected.values()) == {"PASSED"}
    assert "[XPASS(strict)] but it is" in printed
    assert (
        "XFAIL tests/test_plugins.py::test_expected[metric-halved_cosine-best_is_the_upper_bound] - half of" in printed
    )
    lines = re.findall(r"(?m)^metric halved_cosine: FAIL ([a-z ]+): .*", printed)
    assert sorted(lines) == sorted([*BROKEN, "vectors and sequences"]), "each reason stands in one line"
    assert "conformance/" not in printed, "no traceback leads into attribug"
    assert outcomes(found, "test_declining") == {"measures ordinary maps": "XFAIL"}
    assert f"{len(checks) - 1} skipped" in printed, "the other checks rest where the first one fails"
    assert "metric declines_all: measures ordinary maps fails, so the other checks rest" in printed


def test_an_unknown_check_ends_the_collection_with_one_line(repository, tmp_path):
    (tmp_path / "test_wrong.py").write_text(
        "from attribug import testing\n\n"
        "@testing.conforms('spearman', expected_failures={'symetry': 'a slip'})\ndef test_it(check):\n    check()\n"
    )
    status, found, printed = pytest_in(tmp_path, "-rN")
    assert (status, found) == (2, {})
    told = "conforms: expected_failures: unknown check 'symetry'; did you mean 'symmetry'?"
    assert printed.splitlines().count(told) == 1
    assert "Traceback" not in printed
    assert "File " not in printed


class TestWhatIsTaken:
    @pytest.mark.parametrize(
        "take", [lambda: "spearman", lambda: metrics.get("spearman"), lambda: metrics.get("spearman").function]
    )
    def test_a_name_an_entry_a_function(self, take):
        cases = cases_of(take())
        assert [(case.kind, case.name) for case in cases] == [("metric", "spearman")] * len(checks_of("metric"))

    def test_a_name_of_an_entry_point(self, tmp_path, monkeypatch):
        from importlib.metadata import EntryPoint

        (tmp_path / "a_package_of_one.py").write_text(METRIC.format(name="from_a_package", value=COSINE))
        monkeypatch.syspath_prepend(tmp_path)
        point = EntryPoint("from_a_package", "a_package_of_one:from_a_package", "attribug.metrics")
        monkeypatch.setattr(metrics._registry, "_entry_points", lambda: {"from_a_package": point})
        assert {case.name for case in cases_of("from_a_package")} == {"from_a_package"}

    def test_a_path_from_the_working_directory(self, repository, monkeypatch):
        monkeypatch.chdir(repository)
        assert {case.name for case in cases_of(Path("tests/sound.py"))} == {"sound_cosine"}

    def test_several(self, repository):
        cases = cases_of(str(repository / "tests" / "sound.py"), "spearman")
        assert {case.name for case in cases} == {"sound_cosine", "spearman"}

    def test_a_check_that_passes_gives_its_result(self):
        (case,) = (case for case in cases_of("spearman") if case.check == "symmetry")
        assert case().passed


@pytest.mark.parametrize(
    ("plugins", "expected", "line"),
    [
        (["spaerman"], {}, "plugin spaerman: expected a file, a module or a registered name, found none; did you mean"),
        (["none.py"], {}, "plugin none.py: expected a Python file, found none"),
        ([], {}, "plugins: expected at least one, found none"),
        ([len], {}, "len: expected a registered piece, found one that is not"),
        ([Entry("stray", len)], {}, "stray: expected a registered piece, found one that is not"),
        (["spearman"], {"pearson: symmetry": "why"}, "expected_failures: unknown check 'pearson: symmetry'; did you"),
        (["spearman"], {"symmetry": " "}, "expected_failures: 'symmetry': expected a reason, found ' '"),
        (["spearman"], {"symmetry": None}, "expected_failures: 'symmetry': expected a reason, found None"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(plugins, expected, line):
    with pytest.raises(pytest.Collector.CollectError) as refused:
        testing.conforms(*plugins, expected_failures=expected)
    (told,) = str(refused.value).splitlines()
    assert told.startswith(f"conforms: {line}")


@pytest.mark.slow
def test_the_page_shows_what_runs(tmp_path):
    """The test file of docs/extending.md, beside the plugin that it tests."""
    page = (ROOT / "docs" / "extending.md").read_text()
    blocks = dict(re.findall(r"(?ms)^```python\n# (\w+\.py)\n(.*?)^```", page))
    for name in ("sign_agreement.py", "test_sign_agreement.py"):
        (tmp_path / name).write_text(blocks[name])
    status, found, printed = pytest_in(tmp_path)
    assert status == 0, printed
    assert set(outcomes(found, "test_sign_agreement").values()) == {"PASSED"}
    assert len(found) == len(checks_of("metric"))


def test_pytest_is_imported_when_it_is_needed():
    script = "import sys; from attribug import testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def cases_of(*plugins) -> list[testing.Case]:
    """What a test is parametrised with."""
    return [each.values[0] for each in testing.conforms(*plugins).args[1]]
