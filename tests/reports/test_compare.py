"""`attribug compare` as users meet it: planted regressions, damaged tables, references that are accepted."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import attribug as package
from attribug.errors import InputError
from attribug.reports import references
from attribug.results.findings import FINDINGS
from attribug.results.schema import KEYS, read_results
from attribug.results.summary import summarise

PLUGINS = Path(__file__).parents[1] / "plugins"
TINY = str(PLUGINS / "tiny.yaml")
NOISY = """
from attribug import methods

@methods.register("noisy", stochastic=True)
def noisy(query, *, noise=0.05):
    import torch
    draws = [torch.randn(query.inputs.shape[1:], generator=g) for g in query.generators("noisy")]
    return query.gradient() + noise * torch.stack(draws)
"""
CORRELATION = """
from attribug import metrics

@metrics.register("agreement", kind="similarity", posts=("sum",))
def agreement(a, b):
    a, b = (x.double().flatten(1) - x.double().flatten(1).mean(1, keepdim=True) for x in (a, b))
    return {sign}(a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
"""


def ends(answer, code: int, *parts: str) -> str:
    """The one line on stderr, after checking code and content."""
    lines = [line for line in answer.stderr.splitlines() if line.strip()]
    assert answer.returncode == code, answer.stderr + answer.stdout
    assert len(lines) == (0 if code == 0 else 1), answer.stderr
    for part in parts:
        assert part in (answer.stderr if code else answer.stdout)
    return answer.stdout


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the finished run, `old`, and another, `new`, to spoil."""
    for name in ("old", "new"):
        shutil.copytree(tiny_run, tmp_path / name)
    return tmp_path


def edited(folder: Path, **facts: object) -> None:
    """Changes facts in run.json."""
    told = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(told | facts))


@pytest.mark.slow
def test_planted_regressions_in_runs(attribug, tiny_run: Path, tmp_path: Path) -> None:
    """A method's noise doubled, a metric's sign flipped, a missing method: all under the same trained models."""
    (tmp_path / "noisy.py").write_text(NOISY)
    for sign, name in (("", "agreement"), ("-", "flipped")):
        (tmp_path / f"{name}.py").write_text(CORRELATION.format(sign=sign))
    plugged = ["run", TINY, "--plugin", "noisy.py"]
    assert attribug(*plugged, "--plugin", "agreement.py", "--out", "old", tiny=True).returncode == 0
    assert attribug(*plugged, "--plugin", "flipped.py", "--out", "flipped", tiny=True).returncode == 0
    louder = ["--set", "method_options.noisy.noise=0.1"]
    assert attribug(*plugged, "--plugin", "agreement.py", *louder, "--out", "louder", tiny=True).returncode == 0
    ends(attribug("compare", "old", "old"), 0, "nothing worse in")
    ends(attribug("compare", "old", "louder"), 1, "rows worse, first tiny / shaken 1 / noisy /")
    shown = json.loads(attribug("compare", "old", "louder", "--format", "json").stdout)["rows"]
    assert {row["method"] for row in shown if row["status"] != "same"} == {"noisy"}
    assert all(row["same_models"] for row in shown)
    ends(attribug("compare", "old", "flipped"), 1, "agreement@sum")
    shown = json.loads(attribug("compare", "old", "flipped", "--format", "json").stdout)["rows"]
    assert {row["metric"] for row in shown if row["status"] != "same"} == {"agreement"}
    ends(attribug("compare", "old", tiny_run), 3, "not measured, first tiny / shaken 1 /", "has no such row")
    ends(attribug("compare", tiny_run, "old"), 0, "nothing worse in")


@pytest.mark.slow
def test_a_failing_method_is_not_measured(attribug, inside, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    assert attribug("run", TINY, "--plugin", "noisy.py", "--out", "old", tiny=True).returncode == 0
    (tmp_path / "noisy.py").write_text(NOISY.replace("import torch", "raise ValueError('planted')"))
    assert attribug("run", TINY, "--plugin", "noisy.py", "--out", "broken", tiny=True).returncode == 3
    ends(attribug("compare", "old", "broken"), 3, "noisy", "failed: ValueError: planted")
    ends(attribug("compare", "ref.csv", "broken", "--accept"), 2, "expected a whole run, found 3 failed records")
    assert not (tmp_path / "ref.csv").exists()


def test_damaged_tables(inside, runs: Path) -> None:
    table = runs / "new" / "results.csv"
    whole = table.read_text()
    table.write_text(whole[: len(whole) // 2])
    ends(inside("compare", "old", "new/results.csv"), 2, "new/results.csv", "truncated line")
    table.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # a table that is whole in itself
    ends(inside("compare", "old", "new"), 2, "new/results.csv", "it was cut or edited")
    shutil.copy(table, runs / "bare.csv")
    ends(inside("compare", "old", "bare.csv"), 3, "1 of ", "not measured")
    for text, said in (("", "an empty file"), ("a,b\n1,2\n", "found none named"), ("\xff", "truncated")):
        (runs / "bare.csv").write_text(text, encoding="latin-1")
        ends(inside("compare", "old", "bare.csv"), 2, "bare.csv: expected")
        assert said in inside("compare", "old", "bare.csv").stderr or text == "\xff"
    table.unlink()
    ends(inside("compare", "old", "new"), 2, "results.csv: expected a results table, found no such file")
    (runs / "new" / "run.json").write_text("{")
    ends(inside("compare", "old", "new"), 2, "run.json")


def test_other_suites_and_schemas(inside, runs: Path) -> None:
    edited(runs / "new", schema=99)
    ends(inside("compare", "old", "new"), 2, "run.json: expected schema 1, found 99")
    shutil.copy(runs / "old" / "results.csv", runs / "bare.csv")
    text = (runs / "bare.csv").read_text()
    (runs / "bare.csv").write_text(text.replace("tiny,tiny", "other,tiny"))
    ends(inside("compare", "old", "bare.csv"), 2, "expected results of suite 'tiny', as old, found 'other'")
    (runs / "bare.csv").write_text(text.replace("tiny,tiny", "other,tiny", 1))
    ends(inside("compare", "old", "bare.csv"), 2, "expected rows of one suite, found")


WRONG = {
    "no such run": (["compare", "old", "nowhere"], "expected a run's folder, a results.csv or a reference"),
    "no such format": (["compare", "old", "new", "--format", "xml"], "expected text, markdown, junit, json"),
    "no such gate": (["compare", "old", "new", "--only", "values"], "--only: expected verdicts"),
    "no number": (["compare", "old", "new", "--tolerance", "spearman=much"], "expected a number, found 'much'"),
    "a tolerance twice": (
        ["compare", "old", "new", "--tolerance", "effect=1", "--tolerance", "effect=2"],
        "--tolerance effect: expected it once, found it twice",
    ),
    "negative": (["compare", "old", "new", "--tolerance", "-1"], "tolerance: expected a number of at least 0"),
    "no such metric": (["compare", "old", "new", "--tolerance", "spaerman=1"], "did you mean 'spearman'"),
    "accepting onto a run": (["compare", "old", "new", "--accept"], "found the folder old"),
    "accepting a table": (["compare", "a.csv", "new/results.csv", "--accept"], "expected a run's folder"),
    "accepting a reference": (["compare", "a.csv", "smoke", "--accept"], "expected a run's folder"),
    "accepting as a run's table": (["compare", "new/results.csv", "new", "--accept"], "a .csv file but results.csv"),
    "accepting as no reference": (["compare", "mine", "new", "--accept"], "a reference (", "found 'mine'"),
    "published gates nothing": (["compare", "published", "new", "--accept"], "nothing is gated"),
    "published has no test report": (["compare", "published", "new", "--format", "junit"], "text, markdown, json"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(inside, runs: Path, name: str) -> None:
    arguments, *said = WRONG[name]
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    ends(inside(*arguments), 2, *said)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_accepting_a_reference(inside, runs: Path) -> None:
    answer = inside("compare", "kept/tiny.csv", "new", "--accept")
    assert ends(answer, 0) == "written: kept/tiny.csv\n"
    assert (runs / "kept" / "tiny.csv").read_bytes() == (runs / "new" / "results.csv").read_bytes()
    facts = json.loads((runs / "kept" / "tiny.json").read_text())
    told = json.loads((runs / "new" / "run.json").read_text())
    assert {name: facts[name] for name in ("plan", "versions", "revision", "models", "contrasts", "written")} == {
        name: told[name] for name in ("plan", "versions", "revision", "models", "contrasts", "written")
    }
    ends(inside("compare", "kept/tiny.csv", "new"), 0, "nothing worse in")
    same = json.loads(inside("compare", "kept/tiny.csv", "new", "--format", "json").stdout)["rows"]
    assert all(row["same_models"] for row in same)
    rows = (runs / "kept" / "tiny.csv").read_text().splitlines(keepends=True)
    (runs / "kept" / "tiny.csv").write_text("".join(rows[:-1]))
    ends(inside("compare", "kept/tiny.csv", "new"), 2, "it was cut or edited")


def test_a_reference_keeps_its_models(inside, runs: Path) -> None:
    """And nothing else: files that it does not know stay, an earlier reference's models go."""
    folder = runs / "kept" / "tiny"
    folder.mkdir(parents=True)
    for name in ("mine", "earlier"):
        (folder / f"{name}.safetensors").write_text("weights")
    (runs / "kept" / "tiny.json").write_text(json.dumps({"models": {"earlier": {}}}))
    ends(inside("compare", "kept/tiny.csv", "new", "--accept"), 0)
    keys = json.loads((runs / "kept" / "tiny.json").read_text())["models"]
    assert {path.stem for path in folder.iterdir()} == {*keys, "mine"}
    models = Path(os.environ["ATTRIBUG_CACHE"]) / "models"
    for key in keys:
        assert (folder / f"{key}.safetensors").read_bytes() == (models / f"{key}.safetensors").read_bytes()
    gone = {key: {"seed": 0, "rests_on": [], "weights": "of models that are gone"} for key in keys}
    edited(runs / "new", models=gone)
    ends(inside("compare", "kept/tiny.csv", "new", "--accept"), 3, "3 of its 3 models are not in the cache")


@pytest.mark.slow
def test_a_run_of_kept_models_can_be_accepted(attribug, inside, runs: Path, monkeypatch) -> None:
    (runs / "kept" / "tiny").mkdir(parents=True)
    ends(inside("compare", "kept/tiny.csv", "new", "--accept"), 0)
    monkeypatch.setenv("ATTRIBUG_CACHE", str(runs / "empty"))
    answer = attribug("run", TINY, "--models", "kept/tiny", "--out", "given", tiny=True)
    assert answer.returncode == 0, answer.stderr
    assert "given → " not in ends(attribug("compare", "kept/tiny.csv", "given"), 0, "10 under the same models")
    ends(inside("compare", "kept/tiny.csv", "given", "--accept"), 0)
    ends(attribug("run", TINY, "--models", "kept/tiny", "--fresh", tiny=True), 2, "expected one of them, found both")


DAMAGED = {
    "no JSON": "<<<<<<< HEAD",
    "a list": "[]",
    "no files": {"files": 3},
    "files that are a list": {"files": ["results.csv"]},
    "another suite": {"suite": "tiny"},
    "no seeds": {"suite": {"name": "tiny"}},
    "pieces": {"pieces": {"bugs": [], "metrics": {}}},
    "a visible difference that is a text": {"pieces": {"bugs": {}, "metrics": {"spearman": {"visible": "a"}}}},
    "models": {"models": {"key": 3}},
    "contrasts": {"contrasts": {"cell": {"key": 1}}},
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("command", ["compare", "report"])
def test_facts_that_no_run_writes(inside, runs: Path, name: str, command: str) -> None:
    """Never a traceback, and never a comparison that looks away: whatever is wrong with run.json is said."""
    damage = DAMAGED[name]
    if isinstance(damage, str):
        (runs / "new" / "run.json").write_text(damage)
    else:
        edited(runs / "new", **damage)
    arguments = ["old", "new"] if command == "compare" else ["new"]
    ends(inside(command, *arguments), 2, "run.json")
    assert not (runs / "new" / "report.html").exists()


REPORTED = {
    "checks": [{"task": "tiny"}], "failures": None, "seconds": {"wall": "long"}, "revision": 3,
    "versions": {"torch": 2}, "machine": [],
}  # fmt: skip


@pytest.mark.parametrize("fact", REPORTED)
def test_facts_that_no_report_can_show(inside, runs: Path, fact: str) -> None:
    edited(runs / "new", **{fact: REPORTED[fact]})
    ends(inside("report", "new"), 2, f"run.json: {fact}", "run the suite again")
    ends(inside("compare", "kept.csv", "new", "--accept"), 2, f"run.json: {fact}")
    assert not (runs / "kept.csv").exists()


def test_a_reference_beside_broken_facts_is_refused(inside, runs: Path) -> None:
    """Otherwise the gate would fall back from every value to chance."""
    ends(inside("compare", "kept.csv", "new", "--accept"), 0)
    (runs / "kept.json").write_text("<<<<<<< HEAD\n" + (runs / "kept.json").read_text())
    ends(inside("compare", "kept.csv", "new"), 2, "kept.json: expected what a run writes")


def test_where_the_page_goes(inside, runs: Path) -> None:
    assert ends(inside("report", "new"), 0) == "written: new/report.html\n"
    ends(inside("report", "new", "--output", "new"), 2, "--output new: expected a file to write, found a folder")
    ends(inside("report", "nowhere"), 2, "nowhere: expected the folder of a run")


@pytest.mark.slow
def test_models_of_other_code_are_renewed(attribug, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    answer = attribug("run", TINY, "--models", "given", tiny=True)
    ends(answer, 2, "3 of 3 models of this suite are not there; leave --models out")
    (tmp_path / "given" / f"{'0' * 32}.safetensors").write_text("trained by other code")
    answer = attribug("run", TINY, "--models", "given", tiny=True)
    ends(answer, 3, "trained by other code", "attribug run tiny && attribug compare REFERENCE runs/tiny --accept")


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("is_file", [False, True])
def test_a_run_that_is_called_like_a_reference_is_taken_and_the_other_named(
    inside, runs: Path, side: int, is_file: bool
) -> None:
    if is_file:
        shutil.copy(runs / "old" / "results.csv", runs / "smoke")
    else:
        shutil.copytree(runs / "old", runs / "smoke")
    answer = inside("compare", *(("smoke", "new"), ("new", "smoke"))[side])
    assert answer.returncode == 0, answer.stderr
    found = "file" if is_file else "folder"
    said = f"attribug: smoke: the {found} here is taken, not the reference of that name; for that one: "
    assert answer.stderr.startswith(said)
    assert answer.stderr.count("\n") == 1
    other = answer.stderr.removeprefix(said).strip()
    ends(inside("compare", other, "new"), 2, "expected results of suite 'smoke'")
    assert inside("compare", other, "./smoke").stderr.count("the reference of that name") == 0
    ends(inside("compare", "smoke", "new", "--accept"), 2, f"found the {found} smoke")


def test_a_run_that_is_called_published_is_taken_and_the_other_named(inside, runs: Path) -> None:
    shutil.copytree(runs / "old", runs / "published")
    answer = inside("compare", "published", "new")
    assert answer.returncode == 0
    assert "the folder here is taken, not the published values" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_byte_order_mark_in_a_run_says_nothing(inside, runs: Path) -> None:
    """As long as the rest is what the run wrote."""
    for name in ("results.csv", "run.json", "costs.csv"):
        (runs / "new" / name).write_bytes(b"\xef\xbb\xbf" + (runs / "new" / name).read_bytes())
    ends(inside("compare", "old", "new"), 0)
    ends(inside("report", "new"), 0)
    (runs / "new" / "results.csv").write_bytes((runs / "new" / "results.csv").read_bytes().replace(b"\n", b"\r\n"))
    ends(inside("compare", "old", "new"), 2, "it was cut or edited")


def test_published_values(inside, runs: Path) -> None:
    shown = ends(inside("compare", "published", "new"), 0)
    assert shown.count("not measured") == len(FINDINGS)  # on its only task
    assert "no row of this run measures a published setting; these there are:\n  Table 2: birds_dogs" in shown
    assert "birds_dogs by animals; imagenet by imagenet_lite0 or imagenet_squeezenet" in shown
    facts = json.loads(ends(inside("compare", "published", "new", "--format", "json"), 0))
    assert len(facts["values"]) == 2 * 15 + 6 * 15
    assert {row["ours"] for row in facts["values"]} == {None}
    assert (len(facts["findings"]), facts["deviations"]) == (len(FINDINGS), [])
    assert "### Published findings" in ends(inside("compare", "published", "new", "--format", "markdown"), 0)
    shutil.copy(runs / "new" / "results.csv", runs / "bare.csv")
    ends(inside("compare", "published", "bare.csv"), 2, "found a table")


def test_from_python(runs: Path) -> None:
    found = package.compare(runs / "old", runs / "new")
    assert found.ok
    assert set(found.table["status"]) == {"same"}
    assert found.compared
    for wrong in (float("nan"), -1, "much", {"spearman": None}):
        with pytest.raises(InputError, match="expected a number of at least 0, found"):
            package.compare(runs / "old", runs / "new", tolerance=wrong)
    assert package.compare(runs / "old", runs / "new", tolerance=np.float32(0.1)).ok


def test_scores_give_the_table_that_is_compared(runs: Path) -> None:
    """What makes the intervals is what made the table."""
    side = references.load_table(runs / "old")
    pieces = side.facts["pieces"]["metrics"]
    again = summarise(
        side.scores, suite="tiny", seeds_total=side.seeds,
        kinds={name: piece["kind"] for name, piece in pieces.items()},
        visible={name: piece["visible"] for name, piece in pieces.items()},
    )  # fmt: skip
    keys = list(KEYS)
    table = read_results(runs / "old" / "results.csv")
    both = table.merge(again, on=keys, suffixes=("", "_again"))
    assert len(both) == len(table)
    pd.testing.assert_series_equal(both["effect"], both["effect_again"], check_names=False, rtol=1e-5)


def test_two_methods_of_a_run_are_compared(smoke_run, attribug, tmp_path):
    """The same differences from Python and from the command line, in every format; other words in one line."""
    found = package.compare_methods(smoke_run, "guided_backprop", "gradient")
    assert found.table["bug"].nunique() == 4
    effects = package.load(smoke_run).headline.set_index(["bug", "level", "method"])["effect"]
    for row in found.table.itertuples():
        one, other = (effects[row.bug, row.level, name] for name in ("guided_backprop", "gradient"))
        assert row.difference == pytest.approx(one - other, abs=1e-5)
        assert row.ci_low <= row.difference <= row.ci_high
    shown = {kind: attribug("compare", "--methods", "guided_backprop,gradient", str(smoke_run), "--format", kind)
             for kind in ("text", "markdown", "json")}  # fmt: skip
    assert all(answer.returncode == 0 for answer in shown.values())
    assert found.conclusion in shown["text"].stdout
    rows = json.loads(shown["json"].stdout)["rows"]
    assert [row["difference"] for row in rows] == pytest.approx(found.table["difference"].tolist())
    for methods, place, said in (
        ("gradient", smoke_run, "expected two methods"), ("gradient,gradient", smoke_run, "'gradient' twice"),
        ("gradient,gradien", smoke_run, "did you mean 'gradient'"),
        ("gradient,edges", "smoke", "expected a run's folder"),
    ):  # fmt: skip
        answer = attribug("compare", "--methods", methods, str(place))
        assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
        assert said in answer.stderr
    for words in (["compare", "--methods", "a,b", "smoke", "smoke"], ["compare", "smoke"]):
        answer = attribug(*words)
        assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)


def test_common_rows_alone_can_be_gated(smoke_run, attribug, tmp_path):
    """A table of fewer methods is no regression where only common rows are asked for."""
    rows = (smoke_run / "results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "part.csv").write_text("".join(line for line in rows if ",guided_backprop," not in line))
    answer = attribug("compare", str(smoke_run), "part.csv")
    assert answer.returncode == 3
    assert "is a part of" in answer.stdout
    answer = attribug("compare", str(smoke_run), "part.csv", "--common")
    assert answer.returncode == 0, answer.stderr
    assert "left out: " in answer.stdout
