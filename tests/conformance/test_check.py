"""`attribug check`: what authors of plugins see, and what CI reads."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from attribug.conformance import checks
from attribug.errors import Unsupported
from doubles.pieces import forgotten

HEAD = """
from collections.abc import Sequence

import torch

from attribug import bugs, methods, metrics, tasks
from attribug.contracts import Check, Contrast, Data, Derived, Examples, Level, Recipe, Side, Task
"""

METHOD = """
@methods.register("{name}")
def {name}(query, *, samples=50):
    maps = query.noisy_gradients(samples, 0.0).mean
    {statement}
    return query.inputs * maps
"""

METRIC = """
@metrics.register("{name}", kind="similarity", bounds=(-1, 1))
def {name}(a, b):
    a, b = (each.flatten(1) / each.flatten(1).abs().amax(1, keepdim=True) for each in (a, b))
    a, b = (each / each.norm(dim=1, keepdim=True) for each in (a, b))
    return {value}
"""
SEEING = """
from attribug import methods

@methods.register("seeing")
def seeing(query):
    seeing.seen.add(tuple(query.inputs.shape))
    return query.gradient()

seeing.seen = set()
"""
WARNING = """
import warnings
from attribug import metrics

@metrics.register("warning_metric", kind="similarity", bounds=(-1, 1))
def warning_metric(a, b):
    for message in ("a hook was set", "another hook was set"):
        warnings.warn(message)
    a, b = (each.flatten(1) / each.flatten(1).abs().amax(1, keepdim=True) for each in (a, b))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).clamp(-1, 1)
"""
COSINE = "(a * b).sum(1).clamp(-1, 1)"

BUG = """
def {name}_change(model, stream):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=stream))

def {name}_nothing(model, stream):
    pass

@bugs.register("{name}", stage="model", levels=(1,))
def {name}(task, level, seed, seeds):
    test = task.examples("test")
    clean = {{s: Side(task.clean(s), test) for s in seeds}}
    model = Derived(task.clean(seed), {name}_change if {when} else {name}_nothing, seed)
    return Contrast(
        contaminated=Side(model, test),
        references=tuple(side for s, side in clean.items() if s != seed),
        controls=tuple(clean.values()), control="clean", target="label",
        checks=(Check("outputs move", (model,), test, "total_variation", minus=(task.clean(seed),), at_least=0.1),),
    )
"""


def method(name: str, statement: str = "pass") -> str:
    return METHOD.format(name=name, statement=statement)


def metric(name: str, value: str = COSINE) -> str:
    return METRIC.format(name=name, value=value)


def bug(name: str, when: str = "level") -> str:
    return BUG.format(name=name, when=when)


@pytest.fixture
def plugin(tmp_path: Path):
    """Writes a plugin of some pieces."""

    def write(*pieces: str, name: str = "plugin.py") -> str:
        (tmp_path / name).write_text(HEAD + "".join(pieces))
        return name

    return write


@pytest.fixture(autouse=True)
def _pieces_are_gone_afterwards():
    """Plugins that are checked in this process leave no pieces for other tests."""
    with forgotten():
        yield


def failures(answer: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in answer.stdout.splitlines() if "FAIL" in line]


def one_line(answer: "subprocess.CompletedProcess[str]") -> str:
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert not answer.stdout
    (line,) = answer.stderr.splitlines()
    assert "Traceback" not in line
    return line


def test_a_sound_method_passes(attribug, plugin):
    answer = attribug("check", plugin(method("sound_gradient")))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = answer.stdout.splitlines()
    assert "method sound_gradient: ok   seed decides" in lines
    assert "method sound_gradient: ok   batch equals one by one" in lines
    assert lines[-1] == f"{len(lines) - 1} checks of 1 piece: all pass"
    assert answer.stderr == ""


def test_a_broken_method_fails_with_its_reason(attribug, plugin):
    answer = attribug("check", plugin(method("whole_batch", "maps = maps - maps.mean()")))
    assert answer.returncode == 1
    images, others = failures(answer)
    assert images.startswith(
        "method whole_batch: FAIL batch equals one by one: expected equal maps example 0 alone and"
    )
    assert others.startswith(
        "method whole_batch: FAIL vectors and sequences: inputs (3, 7): expected equal maps example"
    )
    assert answer.stdout.splitlines()[-1].endswith("2 failed (method whole_batch)")
    assert "Traceback" not in answer.stdout + answer.stderr


@pytest.mark.slow
def test_every_piece_of_a_file_is_named(inside, plugin):
    answer = inside("check", plugin(method("first_of_three"), metric("second_of_three"), bug("third_of_three")))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = answer.stdout.splitlines()
    for piece in ("method first_of_three: ok ", "metric second_of_three: ok ", "bug third_of_three: ok "):
        assert any(line.startswith(piece) for line in lines)
    assert lines[-1] == f"{len(lines) - 1} checks of 3 pieces: all pass"


@pytest.mark.slow
def test_each_failure_is_that_of_its_piece(inside, plugin):
    pieces = [
        method("loud_broken", "print('never mind'); raise RuntimeError('a\\nb')"),
        metric("wide_broken", f"2 * {COSINE}"), bug("always_broken", when="True"), metric("fine_metric"),
    ]  # fmt: skip
    answer = inside("check", plugin(*pieces, name="broken.py"))
    assert answer.returncode == 1
    found = failures(answer)
    assert "method loud_broken: FAIL runs on a plain network: RuntimeError: a" in found
    assert "metric wide_broken: FAIL bounds: expected values in [-1, 1], found [2.0]" in " | ".join(found)
    (identity,) = [line for line in found if "always_broken" in line]
    assert identity.startswith("bug always_broken: FAIL level zero is the identity: where nothing is contaminated: ")
    assert not [line for line in found if "fine_metric" in line]
    assert answer.stdout.splitlines()[-1].endswith("(bug always_broken, method loud_broken, metric wide_broken)")


def test_machines_read_json(inside, plugin):
    name = plugin(metric("halved_metric", f"{COSINE} / 2"), metric("plain_metric"), name="json.py")
    answer = inside("check", name, "--json")
    assert answer.returncode == 1
    told = json.loads(answer.stdout)
    assert told["passed"] is False
    assert {row["name"] for row in told["results"]} == {"halved_metric", "plain_metric"}
    failed = [row for row in told["results"] if not row["passed"]]
    assert {(row["kind"], row["name"]) for row in failed} == {("metric", "halved_metric")}
    assert "best is the upper bound" in {row["check"] for row in failed}
    assert all(row["reason"] for row in failed)


def test_a_registered_name_may_be_checked(inside):
    answer = inside("check", "spearman")
    assert answer.returncode == 0
    assert answer.stdout.startswith("metric spearman: ok ")


def test_a_name_wins_over_a_module(inside):
    """`random` is a null method and a module of Python."""
    answer = inside("check", "random", "--json")
    assert {(row["kind"], row["name"]) for row in json.loads(answer.stdout)["results"]} == {("method", "random")}


def test_a_file_wins_over_a_name(inside, plugin):
    plugin(metric("of_the_file"), name="spearman")
    assert "expected a Python file (.py)" in one_line(inside("check", "spearman"))


def test_a_module_is_a_plugin(inside, plugin, tmp_path, monkeypatch):
    plugin(metric("of_a_module"), name="a_module_of_metrics.py")
    monkeypatch.syspath_prepend(tmp_path)
    answer = inside("check", "a_module_of_metrics")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.startswith("metric of_a_module: ok ")


def test_what_was_tried_is_told(inside, plugin):
    answer = inside("check", plugin(metric("told_metric"), name="told.py"))
    assert "metric told_metric: ok   measures ordinary maps (inputs (6, 3, 13, 17))" in answer.stdout.splitlines()
    rows = json.loads(inside("check", "told.py", "--json").stdout)["results"]
    assert [row["tried"] for row in rows if row["check"] == "measures ordinary maps"] == ["inputs (6, 3, 13, 17)"]


def test_shapes_and_networks_are_those_that_a_method_meets(plugin, tmp_path, monkeypatch):
    """Every shape that is told was seen, and every one that was seen is told."""
    from attribug.conformance import methods as conformance

    monkeypatch.chdir(tmp_path)
    Path("seeing.py").write_text(SEEING)
    checks.load_plugin("seeing.py")
    for check in conformance.CHECKS:
        entry = checks.all_registries()["method"].get("seeing")
        entry.function.seen.clear()
        result = checks.run_check(check, "method", entry)
        if result.tried and "level zero" not in result.check:
            told = set(re.findall(r"\(\d[\d, ]*\)", result.tried))
            batches = {str(shape) for shape in entry.function.seen if shape[0] > 1}  # others are asked one by one
            assert told == batches, result


def test_the_same_warning_is_shown_once(plugin, tmp_path, monkeypatch):
    """Of a method that warns at every call, as captum's do; another warning is shown as well."""
    monkeypatch.chdir(tmp_path)
    Path("warning.py").write_text(WARNING)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        checks.check_plugin("warning.py")
    assert sorted(str(each.message) for each in told) == ["a hook was set", "another hook was set"]


class TestWrongInput:
    def test_nothing_of_that_name(self, inside):
        line = one_line(inside("check", "spaerman"))
        assert line.startswith("attribug: plugin spaerman: expected a file, a module or a registered name, found none")
        assert "did you mean 'spearman'" in line

    def test_no_file(self, inside):
        assert one_line(inside("check", "none.py")) == "attribug: plugin none.py: expected a Python file, found none"

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("import a_module_that_is_not_there", "does not import: ModuleNotFoundError"),
            ("raise SystemExit(0)", "does not import: SystemExit"),
            ("def f(:", "does not import: SyntaxError"),
            ("x = 1", "expected at least one @register, found none"),
            (method("gradient"), "method 'gradient' is taken by attribug.methods.gradient"),
        ],
    )
    def test_a_plugin_that_cannot_be_loaded(self, inside, plugin, body, reason):
        assert reason in one_line(inside("check", plugin(body, name="unloadable.py")))

    def test_no_plugin(self, inside):
        assert "Missing argument" in one_line(inside("check"))


class Piece:
    name = "a_piece"


def check_what_raises(piece: object) -> None:
    raise KeyError("in /a/long/path/of/somebody.py at 0x7fe1234567")


def check_what_ends_the_process(piece: object) -> None:
    sys.exit(0)


def check_what_declines(piece: object) -> None:
    raise Unsupported("not this")


def check_what_is_not_kept(piece: object) -> None:
    checks.expect(False, "two\nlines")


def check_what_may_be_declined(piece: object) -> str:
    return "unsupported: not this"


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (check_what_raises, "kind a_piece: FAIL what raises: KeyError: 'in somebody.py at 0x…'"),
        (check_what_ends_the_process, "kind a_piece: FAIL what ends the process: SystemExit: 0"),
        (check_what_declines, "kind a_piece: FAIL what declines: unsupported: not this"),
        (check_what_is_not_kept, "kind a_piece: FAIL what is not kept: two lines"),
        (check_what_may_be_declined, "kind a_piece: ok   what may be declined: unsupported: not this"),
    ],
)
def test_a_result_is_one_line(check, line):
    assert str(checks.run_check(check, "kind", Piece())) == line


def test_results_come_one_by_one_and_the_first_failure_of_all_ends_it(monkeypatch):
    seen = []
    monkeypatch.setattr(checks, "checks_of", lambda kind: [check_what_declines, check_what_raises])
    assert checks.check("method", "gradient", seen.append) == seen
    assert [result.check for result in seen] == ["what declines"]


@pytest.mark.parametrize("kind", ["task", "bug", "method", "metric"])
def test_every_kind_has_its_checks(kind):
    of_kind = checks.checks_of(kind)
    assert all(check.__name__.startswith("check_") and check.__doc__ for check in of_kind)
    assert len({check.__name__ for check in of_kind}) == len(of_kind)


def test_the_package_needs_no_pytest():
    """Nor does the command line need torch to start."""
    script = (
        "import sys; from attribug.terminal import command_line; heavy = 'torch' in sys.modules; "
        "from attribug.conformance import checks as conformance; "
        "[conformance.checks_of(kind) for kind in ('task', 'bug', 'method', 'metric')]; "
        "sys.exit(heavy or 'pytest' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
