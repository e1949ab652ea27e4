"""The command line as users meet it: whole runs of a tiny suite, and every kind of wrong input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from attribug import api
from attribug.results.schema import RESULT_COLUMNS, SCORE_COLUMNS, read_results

PLUGINS = Path(__file__).parents[1] / "plugins"
TINY = str(PLUGINS / "tiny.yaml")

METHOD = """
from attribug import methods

@methods.register("{name}")
def {name}(query):
    {body}
"""


def plugin(folder: Path, name: str, body: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(METHOD.format(name=name, body=body))
    return str(path)


def one_line(answer: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The error message, after checking that it is one line and no traceback."""
    lines = [line for line in answer.stderr.splitlines() if line.strip()]
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("attribug: ")
    return lines[0]


@pytest.mark.slow
class TestRun:
    def test_writes_every_table_and_figure(self, tiny_run):
        results = read_results(tiny_run / "results.csv")
        assert tuple(results.columns) == RESULT_COLUMNS
        assert set(results["method"]) == {"gradient", "random", "edges", "predictions"}
        assert tuple(pd.read_parquet(tiny_run / "scores.parquet").columns) == SCORE_COLUMNS
        costs = pd.read_csv(tiny_run / "costs.csv")
        assert set(costs["kind"]) == {"training", "record"}
        assert (costs["seconds"] > 0).all()
        facts = json.loads((tiny_run / "run.json").read_text())
        assert facts["suite"]["name"] == "tiny"
        assert facts["versions"]["torch"]
        figures = ["effects_tiny_shaken_1.svg", "gallery_tiny_shaken_1.png", "verdict_matrix_tiny.svg"]
        assert sorted(path.name for path in (tiny_run / "figures").iterdir()) == figures
        shown = (tiny_run.parent / "stdout.txt").read_text()
        assert "gradient" in shown
        assert "spearman@sum" in shown

    def test_null_methods_are_exactly_undecided(self, tiny_run):
        results = read_results(tiny_run / "results.csv")
        null = results[results["method"].isin(["random", "edges"])]
        assert (null["effect"] == 0.5).all()
        assert not (null["verdict"] == "detects").any()
        assert (results.loc[results["method"] == "gradient", "effect"] != 0.5).any()

    def test_second_run_has_nothing_to_do_and_a_lost_record_is_redone(self, attribug, tiny_run, tmp_path):
        folder = tmp_path / "again"
        shutil.copytree(tiny_run, folder)
        before = (folder / "results.csv").read_bytes()
        again = attribug("run", TINY, "--out", "again", tiny=True)
        assert "nothing to do" in again.stdout
        next((folder / "records").glob("*.record")).write_bytes(b"damaged")
        (folder / "results.csv").write_bytes(before[:100])
        answer = attribug("run", TINY, "--out", "again", tiny=True)
        assert "nothing to do" not in answer.stdout
        assert (folder / "results.csv").read_bytes() == before

    def test_workers_do_not_change_a_byte(self, attribug, tiny_run, tmp_path):
        answer = attribug("run", TINY, "--workers", "2", "--out", "two", "--fresh", tiny=True, start="script")
        assert answer.returncode == 0, answer.stderr
        assert (tiny_run / "results.csv").read_bytes() == (tmp_path / "two" / "results.csv").read_bytes()
        attribug("run", TINY, "--seed", "1", "--out", "other", tiny=True)
        assert (tiny_run / "results.csv").read_bytes() != (tmp_path / "other" / "results.csv").read_bytes()

    def test_plugin_method_gets_its_rows(self, attribug, tmp_path):
        mine = plugin(tmp_path, "mine", "return query.inputs * query.gradient()")
        answer = attribug("run", TINY, "--plugin", mine, tiny=True)
        assert answer.returncode == 0, answer.stderr
        results = read_results(tmp_path / "runs" / "tiny" / "results.csv")
        assert set(results.loc[results["method"] == "mine", "metric"]) == {"spearman", "mass_accuracy"}

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("raise RuntimeError('lost in /tmp/some/where.py')", "RuntimeError: lost in where.py"),
            ("return query.inputs[:, :1]", "expected maps (8, 3, 16, 16), found (8, 1, 16, 16)"),
            ("return 'a map'", "expected a tensor, found str"),
            ("import os; os._exit(9)", "its worker ended with code 9"),
            ("next(query.model.parameters()).data.add_(1); return query.gradient()", "changed the model's weights"),
        ],
    )
    def test_bad_method_costs_only_its_own_rows(self, attribug, tiny_run, tmp_path, body, reason):
        bad, ends = plugin(tmp_path, "bad", body), "worker" in reason
        answer = attribug("run", TINY, "--plugin", bad, "--workers", "1", tiny=True, workers=ends)
        assert answer.returncode == 3, answer.stderr
        assert "Traceback" not in answer.stderr
        results = read_results(tmp_path / "runs" / "tiny" / "results.csv")
        rows = results[results["method"] == "bad"]
        assert set(rows["verdict"]) == {"failed"}
        assert rows["reason"].str.contains(reason, regex=False).all(), rows["reason"].iloc[0]
        others = results[results["method"] != "bad"]
        pd.testing.assert_frame_equal(others.reset_index(drop=True), read_results(tiny_run / "results.csv"))

    def test_slow_method_is_stopped(self, attribug, tmp_path):
        slow = plugin(tmp_path, "slow", "import time; time.sleep(60)")
        typed = ["--plugin", slow, "--timeout", "3", "--seeds", "1", "--workers", "1"]
        answer = attribug("run", TINY, *typed, tiny=True, workers=True)
        assert answer.returncode == 3
        results = read_results(tmp_path / "runs" / "tiny" / "results.csv")
        assert set(results.loc[results["method"] == "slow", "reason"]) == {"timeout after 3 s"}

    def test_bad_metric_costs_only_its_own_rows(self, attribug, tiny_run, tmp_path):
        text = "from attribug import metrics\n\n@metrics.register('odd')\ndef odd(a, b):\n    return a / []\n"
        (tmp_path / "odd.py").write_text(text)
        answer = attribug("run", TINY, "--plugin", "odd.py", tiny=True)
        assert answer.returncode == 3, answer.stderr
        results = read_results(tmp_path / "runs" / "tiny" / "results.csv")
        odd = results["metric"] == "odd"
        assert set(results.loc[odd, "verdict"]) == {"failed"}
        expected = read_results(tiny_run / "results.csv")
        pd.testing.assert_frame_equal(results[~odd].reset_index(drop=True), expected)

    def test_one_seed_keeps_every_row(self, attribug, tiny_run, tmp_path):
        answer = attribug("run", TINY, "--seeds", "1", tiny=True)
        assert answer.returncode == 0, answer.stderr
        results = read_results(tmp_path / "runs" / "tiny" / "results.csv")
        assert len(results) == len(read_results(tiny_run / "results.csv"))
        assert set(results["verdict"]) == {"inconclusive"}
        assert set(results["reason"]) == {"1 model; an interval needs 3"}

    def test_matrix_says_what_was_not_measured(self, attribug, tmp_path):
        answer = attribug("run", TINY, "--metrics", "pearson", "--out", "o[/x]", tiny=True)
        assert answer.returncode == 0, answer.stderr
        assert "its primary metric spearman@sum was not measured" in answer.stdout

    def test_edited_plugin_and_what_it_imports_are_run_again(self, attribug, tmp_path):
        (tmp_path / "helping.py").write_text("POWER = 1\n")
        body = "from helping import POWER\n    return query.gradient() ** POWER"
        mine = plugin(tmp_path, "mine", body)
        environment = {"PYTHONPATH": str(tmp_path)}
        attribug("run", TINY, "--plugin", mine, tiny=True, environment=environment)
        folder = tmp_path / "runs" / "tiny"
        before = (folder / "results.csv").read_bytes()
        (tmp_path / "helping.py").write_text("POWER = 2\n")
        answer = attribug("run", TINY, "--plugin", mine, tiny=True, environment=environment)
        assert "nothing to do" not in answer.stdout
        assert (folder / "results.csv").read_bytes() != before

    def test_a_file_that_a_plugin_reads_is_run_again(self, attribug, tmp_path):
        """Workers come to the same keys: they read it as well."""
        reading = "from pathlib import Path\nPOWER = int(Path(__file__).with_name('power.txt').read_text())\n"
        mine = plugin(tmp_path, "mine", "return query.gradient() ** POWER")
        (tmp_path / mine).write_text(reading + (tmp_path / mine).read_text())
        tables = []
        for power in ("1", "2"):
            (tmp_path / "power.txt").write_text(power)
            answer = attribug("run", TINY, "--plugin", mine, "--workers", "1", tiny=True, workers=True)
            assert answer.returncode == 0, answer.stderr
            assert "nothing to do" not in answer.stdout
            tables.append((tmp_path / "runs" / "tiny" / "results.csv").read_bytes())
        assert tables[0] != tables[1]
        again = attribug("run", TINY, "--plugin", mine, "--workers", "1", tiny=True, workers=True)
        assert "nothing to do" in again.stdout

    def test_interrupted_run_says_so_and_goes_on(self, tiny_run, tmp_path):
        slow = plugin(tmp_path, "slow", "import time; time.sleep(60)")
        script = str(Path(sys.executable).with_name("attribug"))
        command = [script, "run", TINY, "--plugin", str(PLUGINS / "tiny.py"), "--plugin", slow]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        records = tmp_path / "runs" / "tiny" / "records"
        deadline = time.monotonic() + 120
        while not list(records.glob("*.record")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert err.splitlines()[-1] == "attribug: interrupted; the same command goes on from here"
        assert not (tmp_path / "runs" / "tiny" / "results.csv").exists()

    def test_whatever_an_interrupt_breaks(self, attribug, tmp_path):
        """C code that is interrupted raises errors of its own, and so do libraries that are being imported."""
        interrupt = "import os, signal\ntry: os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt: pass\n"
        (tmp_path / "broken.py").write_text(interrupt + "raise RuntimeError('numpy.core.multiarray failed to import')")
        (tmp_path / "typer.py").write_text(interrupt + "raise KeyboardInterrupt")
        for answer in (
            attribug("run", TINY, "--plugin", "broken.py", tiny=True, start="script"),
            attribug("list", environment={"PYTHONPATH": str(tmp_path)}, start="script"),
        ):
            assert one_line(answer, 130) == "attribug: interrupted; the same command goes on from here"

    def test_module_runs_beside_stray_files(self, attribug, tmp_path):
        for name in ("metrics", "bugs", "methods", "results", "benchmark"):
            (tmp_path / f"{name}.py").write_text("raise ImportError('a stray file')")
        answer = attribug("run", TINY, "--methods", "gradient", tiny=True, start="module")
        assert answer.returncode == 0, answer.stderr

    def test_given_models_are_used_and_never_trained(self, attribug, tiny_run, tmp_path):
        (tmp_path / "none").mkdir()
        message = one_line(attribug("run", TINY, "--models", "none", "--out", "other", tiny=True), 2)
        assert "3 of 3 models" in message
        given = str(Path(os.environ["ATTRIBUG_CACHE"]) / "models")
        answer = attribug("run", TINY, "--models", given, "--out", "given", tiny=True)
        assert answer.returncode == 0, answer.stderr
        assert (tmp_path / "given" / "results.csv").read_bytes() == (tiny_run / "results.csv").read_bytes()

    def test_out_of_another_suite(self, attribug, tiny_run, tmp_path):
        shutil.copytree(tiny_run, tmp_path / "taken")
        shutil.copy(TINY, tmp_path / "other.yaml")
        text = (tmp_path / "other.yaml").read_text().replace("name: tiny", "name: other")
        (tmp_path / "other.yaml").write_text(text)
        message = one_line(attribug("run", "other.yaml", "--out", "taken", tiny=True), 2)
        assert "expected results of suite 'other', found 'tiny'" in message


WRONG = {
    "unknown suite": (["run", "quik"], "did you mean 'quick'"),
    "unknown method": (["run", "smoke", "--methods", "gradiant"], "unknown method 'gradiant'; did you mean 'gradient'"),
    "unknown bug": (["run", "smoke", "--bugs", "label_flip"], "did you mean 'label_flips'"),
    "unknown metric": (["run", "smoke", "--metrics", "spaerman"], "did you mean 'spearman'"),
    "unknown post": (["run", "smoke", "--metrics", "spearman@summ"], "unknown step 'summ'; did you mean 'sum'"),
    "unknown task": (["run", "smoke", "--tasks", "digit"], "did you mean 'digits'"),
    "unknown option": (["run", "--worker", "2"], "--worker"),
    "unknown command": (["rum"], "rum"),
    "unknown engine": (["run", "--engine", "dask"], "expected local or ray, found 'dask'"),
    "an address for nobody": (["run", "--address", "auto"], "--address auto: expected --engine ray with it"),
    "unknown device": (["run", "smoke", "--device", "tpu"], "expected auto, cpu or cuda, found 'tpu'"),
    "unknown set key": (["run", "smoke", "--set", "sedes=3"], "unknown key 'sedes'; did you mean 'seeds'"),
    "set without value": (["run", "smoke", "--set", "seeds"], "expected KEY=VALUE"),
    "set to a value that has a key twice": (
        ["run", "smoke", "--set", "levels={reinit: [1], reinit: [2]}"],
        "key 'reinit' stands twice, in line 1",
    ),
    "set to no value of its type": (["run", "smoke", "--set", "seeds=2020-13-45"], "expected a YAML value"),
    "set twice": (["run", "smoke", "--set", "seeds=3", "--set", "seeds=2"], "--set seeds: expected it once"),
    "wrong type": (["run", "smoke", "--set", "seeds=many"], "'seeds': expected a valid integer, found 'many'"),
    "wrong type of option": (["run", "smoke", "--seeds", "many"], "expected an integer, found 'many'"),
    "no seeds": (["run", "smoke", "--seeds", "0"], "greater than or equal to 1"),
    "no workers": (["run", "smoke", "--workers", "0"], "expected a number above 0"),
    "unknown level": (["run", "smoke", "--set", "levels.reinit=[99]"], "expected a level from 1 to 8"),
    "level of another type": (
        ["run", "smoke", "--set", "levels.label_flips=[some]"],
        "expected a number, found 'some'",
    ),
    "level too high": (["run", "smoke", "--set", "levels.label_flips=[0.5]"], "at most 1/5"),
    "unknown method option": (["run", "smoke", "--set", "method_options.gradient.sample=3"], "unknown option 'sample'"),
    "unknown kind": (["list", "method"], "did you mean 'methods'"),
    "missing plugin": (["run", "smoke", "--plugin", "none.py"], "none.py: expected a Python file, found none"),
    "missing module": (["run", "smoke", "--plugin", "no_such_module_at_all"], "does not import: ModuleNotFoundError"),
    "missing models": (["run", "smoke", "--models", "nowhere"], "expected a folder of trained models"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(inside, case):
    arguments, expected = WRONG[case]
    assert expected in one_line(inside(*arguments), 2)


def test_wrong_input_ends_the_real_process_so_too(attribug):
    arguments, expected = WRONG["unknown method"]
    assert expected in one_line(attribug(*arguments, start="script"), 2)


def test_suite_file_errors_name_the_key(attribug, tmp_path):
    good = Path(TINY).read_text()
    cases = {
        "unknown": (good + "metods: []\n", "unknown key 'metods'; did you mean 'methods'"),
        "type": (good.replace("seeds: 3", "seeds: three"), "'seeds': expected a valid integer, found 'three'"),
        "missing": (good.replace("seeds: 3", "").replace("tasks: [tiny]", ""), "key 'tasks' is missing"),
        "syntax": (good + "methods: [", "expected YAML"),
        "shape": ("- 1\n", "expected a mapping"),
    }
    for name, (text, expected) in cases.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        assert expected in one_line(attribug("run", f"{name}.yaml", tiny=True), 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "expected at least one @register, found none"),
        ("import no_such_thing\n", "does not import: ModuleNotFoundError"),
        ("def f(:\n", "does not import: SyntaxError"),
        (METHOD.format(name="gradient", body="return query.inputs"), "'gradient' is taken"),
        (METHOD.format(name="fine", body="pass").replace('"fine"', '"fine", target=1'), "unknown fact 'target'"),
    ],
)
def test_plugin_errors(attribug, tmp_path, text, expected):
    (tmp_path / "mine.py").write_text(text)
    message = one_line(attribug("run", "smoke", "--plugin", "mine.py"), 2)
    assert expected in message
    assert "mine.py" in message


def test_out_is_a_file(inside, tmp_path):
    (tmp_path / "taken").write_text("")
    assert "expected a folder, found a file" in one_line(inside("run", "smoke", "--out", "taken"), 2)
    message = one_line(inside("run", "smoke", "--out", "taken/below"), 2)
    assert "expected a folder that can be written" in message


def test_cache_cannot_be_written(inside, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "taken"))
    assert "expected a folder that can be written" in one_line(inside("run", "smoke"), 2)


def test_damaged_run_facts_count_as_absent(inside, tmp_path):
    for text in ('{"suite": "x"}', '{"suite": null}', "[]", "{"):
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / "old" / "run.json").write_text(text)
        message = one_line(inside("run", "smoke", "--out", "old", "--models", "nowhere"), 2)
        assert "expected a folder of trained models" in message


def test_out_cannot_be_written(inside):
    message = one_line(inside("run", "smoke", "--out", "/proc/attribug"), 2)
    assert "expected a folder that can be written" in message


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="this machine has CUDA")
def test_cuda_that_is_absent(inside):
    assert "expected a CUDA device, found none" in one_line(inside("run", "smoke", "--device", "cuda"), 2)


@pytest.mark.usefixtures("uncalibrated")
def test_dry_run_counts_and_writes_nothing(inside, tmp_path):
    answer = inside("run", "quick", "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert "35 trainings, 30 contrasts, 990 records" in answer.stdout
    assert not list(tmp_path.iterdir())


def test_help_and_list(inside):
    answer = inside("--help")
    assert answer.returncode == 0
    assert "run " in answer.stdout
    suites = json.loads(inside("list", "suites", "--json").stdout)["suites"]
    assert {suite["name"] for suite in suites} == {
        "alignment", "own", "paper", "paper-offline", "quick", "right-reasons", "smoke", "smoke-photographs",
        "standard",
    }  # fmt: skip
    brought = {"own", "paper"}  # whose cost is that of what is brought
    suites = [suite for suite in suites if suite["name"] not in brought]
    assert all(suite["cost"]["cold_minutes"] > 0 for suite in suites)
    for suite in suites:
        counts = api.planned(suite["name"]).counts()
        assert {name: suite["cost"][name] for name in ("trainings", "records")} == {
            name: counts[name] for name in ("trainings", "records")
        }
    assert json.loads(inside("list", "--json").stdout)["methods"][0]["name"]


def test_command_line_imports_no_torch():
    code = "import sys, attribug.terminal.command_line; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
