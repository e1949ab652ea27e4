"""The suite file: what is shipped loads, and what is wrong is told in one line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attribug import bugs, metrics, panels
from attribug import methods as method_registry
from attribug.errors import InputError, Shadowed
from attribug.results import published
from attribug.suites.suite import Suite, load, shipped

GOOD = """\
name: mine
tasks: [digits]
bugs: [reinit]
methods: [gradient]
metrics: [spearman]
"""


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(name: str, changes: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load(name, changes)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert "pydantic" not in text
    return text


@pytest.mark.parametrize("name", shipped())
def test_shipped_suites_load_and_name_real_pieces(name: str) -> None:
    loaded = load(name)
    assert loaded.name == name
    assert loaded.description
    assert set(loaded.bugs) <= set(bugs.names())
    assert set(loaded.methods) <= set(method_registry.names())
    assert all(metrics.measured_as(metric) for metric in loaded.metrics)
    honest = {"random", "edges", *(["predictions"] if loaded.bugs else [])}  # panels tell nothing of outputs
    assert honest <= set(loaded.methods), "the honest rows"
    assert loaded.bugs or loaded.panels
    assert set(loaded.panels) <= set(panels.names())
    assert loaded.seeds >= 3, "fewer give no interval"


def test_there_are_suites() -> None:
    assert {"quick", "smoke", "standard"} <= set(shipped())


def test_a_file_needs_names_only(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, GOOD))
    assert loaded == Suite(name="mine", tasks=["digits"], bugs=["reinit"], methods=["gradient"], metrics=["spearman"])
    assert (loaded.seeds, loaded.seed, loaded.visible, loaded.levels, loaded.cost) == (3, 0, None, {}, None)


def test_an_existing_path_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD, "quick")
    assert load("quick").name == "quick"
    monkeypatch.chdir(tmp_path)
    with pytest.warns(Shadowed, match="^quick: the file here is taken, not the shipped suite of that name") as warned:
        assert load("quick").name == "mine"
    shipped_one = str(warned[0].message).rpartition("; for that one: ")[2]
    assert load(shipped_one).name == "quick"


def test_model_seeds_of_other_suite_seeds_never_meet(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    seeds = [load(path, {"seed": seed, "seeds": 500}).model_seeds for seed in (0, 1, 2)]
    flips = [tuple(s + 500 for s in group) for group in seeds]  # label_flips: S … 2S − 1
    everything = [s for group in seeds + flips for s in group]
    assert len(set(everything)) == len(everything)
    assert load(path, {"seed": 7, "seeds": 2}).model_seeds == (7000, 7001)


@pytest.mark.parametrize(("text", "expected"), [
    ("sedes: 4", "unknown key 'sedes'; did you mean 'seeds' or 'sweeps'?"),
    ("zzz: 4", "unknown key 'zzz'; expected one of: "),
    ("seeds: many", "key 'seeds': expected a valid integer, found 'many'"),
    ("seeds: 3.0", "key 'seeds': expected a valid integer, found 3.0"),
    ("seeds: yes", "key 'seeds': expected a valid integer, found True"),
    ("seeds:", "key 'seeds': expected a valid integer, found None"),
    ("seeds: 0", "key 'seeds': expected greater than or equal to 1, found 0"),
    ("seeds: 501", "key 'seeds': expected less than or equal to 500, found 501"),
    ("seed: -1", "key 'seed': expected greater than or equal to 0, found -1"),
    ("seed: 1000000", "key 'seed': expected less than 1000000, found 1000000"),
    ("examples: 0", "key 'examples': expected greater than or equal to 1, found 0"),
    ("chunk: -3", "key 'chunk': expected greater than or equal to 1, found -3"),
    ("rows: 0", "key 'rows': expected greater than or equal to 1, found 0"),
    ("visible: -0.1", "key 'visible': expected greater than or equal to 0, found -0.1"),
    ("visible: .nan", "key 'visible': expected greater than or equal to 0, found nan"),
    ("levels: [1]", "key 'levels': expected a valid dictionary, found [1]"),
    ("levels: {reinit: 1}", "key 'levels.reinit': expected a valid list, found 1"),
    ("levels: {reinit: [1, {a: 2}]}", "key 'levels.reinit.1': expected a valid number, found {'a': 2}"),
    ("levels: {reinit: [true]}", "key 'levels.reinit.0': expected a valid number, found True"),
    ("task_options: {digits: 3}", "key 'task_options.digits': expected a valid dictionary, found 3"),
    ("method_options: {lime: [1]}", "key 'method_options.lime': expected a valid dictionary, found [1]"),
    ("posts: sum", "key 'posts': expected a valid list, found 'sum'"),
    ("posts: [1]", "key 'posts.0': expected a valid string, found 1"),
])  # fmt: skip
def test_wrong_values_are_told_with_key_expected_and_found(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, GOOD + text + "\n")
    assert refusal(path).startswith(f"suite {path}: {expected}")


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("tasks: [digits]\n", "", "key 'tasks' is missing"),
    ("name: mine\n", "", "key 'name' is missing"),
    ("tasks: [digits]", "tasks: []", "key 'tasks': expected at least one name, found none"),
    ("methods: [gradient]", "methods: gradient", "key 'methods': expected a valid list, found 'gradient'"),
    ("bugs: [reinit]", "bugs: [[reinit]]", "key 'bugs.0': expected a valid string, found ['reinit']"),
    ("name: mine", "name: 3", "key 'name': expected a valid string, found 3"),
])  # fmt: skip
def test_what_every_suite_must_have(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in refusal(written(tmp_path, GOOD.replace(old, new)))


@pytest.mark.parametrize(("content", "expected"), [
    (b"name: [unclosed\n", r"expected YAML, line 2: "),
    (b"a: 1\n b: 2\n", "expected YAML, line 2: "),
    (b"\tname: x\n", "expected YAML, line 1: "),
    (b"name: !!python/object/apply:os.system ['true']\n", "expected YAML, line 1: "),
    (b"- digits\n- reinit\n", "expected a mapping of keys to values, found list"),
    (b"digits\n", "expected a mapping of keys to values, found str"),
    (b"", "expected a mapping of keys to values, found NoneType"),
    (b"\xff\xfe\xfa", "cannot be read: not text"),
    (b"name: a\0b\n", "expected YAML"),
    (b"1: 2\n", "key"),
    (b"name: " + b"[" * 5000, "expected YAML, found values nested too deeply"),
    (b"seeds: 2020-13-45\n", "found a value that is not of its type: month must be in 1..12"),
    (b"seeds: !!int many\n", "found a value that is not of its type: invalid literal for int()"),
])  # fmt: skip
def test_files_that_are_no_suites(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    text = refusal(str(path))
    assert text.startswith(f"suite {path}: ")
    assert expected in text


@pytest.mark.parametrize(("text", "expected"), [
    ("seeds: 3\nseeds: 2", "key 'seeds' stands twice, in lines 6 and 7"),
    ("seeds: 3\n'seeds': 3", "key 'seeds' stands twice, in lines 6 and 7"),
    ("method_options:\n  lime: {samples: 50}\n  lime: {samples: 2}", "key 'lime' stands twice, in lines 7 and 8"),
    ("method_options: {smoothgrad: {samples: 50, samples: 2}}", "key 'samples' stands twice, in line 6"),
    ("levels: {reinit: [{1: a, 1.0: b}]}", "key '1.0' stands twice, in line 6"),
])  # fmt: skip
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """Wherever it stands, however it is spelled: YAML itself keeps the last."""
    path = written(tmp_path, GOOD + text + "\n")
    assert refusal(path).startswith(f"suite {path}: {expected}")


def test_a_key_may_stand_in_several_mappings(tmp_path: Path) -> None:
    """Also where one takes another's keys, and gives one of them a value of its own."""
    more = "task_options: {digits: &sizes {train: 60, test: 30}}\nmethod_options: {lime: {<<: *sizes, train: 7}}\n"
    loaded = load(written(tmp_path, GOOD + more))
    assert loaded.task_options == {"digits": {"train": 60, "test": 30}}
    assert loaded.method_options == {"lime": {"train": 7, "test": 30}}


def test_a_byte_order_mark_says_nothing(tmp_path: Path) -> None:
    marked = tmp_path / "marked.yaml"
    marked.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(str(marked)) == load(written(tmp_path, GOOD))


def test_unknown_suites_suggest_near_ones(tmp_path: Path) -> None:
    assert refusal("quik") == "unknown suite 'quik': expected a YAML file or a shipped name; did you mean 'quick'?"
    assert "expected one of: alignment, own, paper, " in refusal("zzzzzzzz")
    assert refusal(str(tmp_path)).startswith(f"unknown suite '{tmp_path}'")
    assert refusal(str(tmp_path / "none.yaml")).startswith("unknown suite")


@pytest.mark.parametrize(("changes", "read", "value"), [
    ({"seeds": 5}, "seeds", 5),
    ({"levels.reinit": [2]}, "levels", {"reinit": [2]}),
    ({"task_options.digits.train": 60}, "task_options", {"digits": {"train": 60}}),
    ({"task_options.a.b": 6, "task_options.a.c": 3}, "task_options", {"a": {"b": 6, "c": 3}}),
    ({"method_options.lime.samples": 7, "method_options": {}}, "method_options", {}),
    ({"methods": ["random", "edges"]}, "methods", ["random", "edges"]),
    ({"methods": "random,edges"}, "methods", ["random", "edges"]),
    ({"fixes": "rrr,dfr"}, "fixes", ["rrr", "dfr"]),
    ({"visible": 0}, "visible", 0.0),
])  # fmt: skip
def test_dotted_changes(tmp_path: Path, changes: dict[str, Any], read: str, value: Any) -> None:
    path = written(tmp_path, GOOD)
    assert getattr(load(path, changes), read) == value
    untouched = set(Suite.model_fields) - {read}
    assert load(path, changes).model_dump(include=untouched) == load(path).model_dump(include=untouched)


def test_a_change_keeps_its_neighbours() -> None:
    plain, changed = load("smoke"), load("smoke", {"task_options.digits.train": 60})
    assert plain.task_options["digits"]["train"] != 60
    expected = {**plain.task_options, "digits": {**plain.task_options["digits"], "train": 60}}
    assert changed.task_options == expected
    assert load("smoke") == plain


@pytest.mark.parametrize(("changes", "expected"), [
    ({"sedes": 3}, "unknown key 'sedes'; did you mean 'seeds' or 'sweeps'?"),
    ({"": 3}, "unknown key ''"),
    ({"level.reinit": [1]}, "unknown key 'level'; did you mean 'levels' or 'task_levels'?"),
    ({"seeds.foo": 3}, "unknown key 'seeds.foo': expected 'seeds' to hold keys, found 3"),
    ({"tasks.0": "digits"}, "unknown key 'tasks.0': expected 'tasks' to hold keys, found ['digits']"),
    ({"task_options.digits.train.x": 1}, "unknown key 'task_options.digits.train.x': expected 'train' to hold keys"),
    ({"seeds": "5"}, "key 'seeds': expected a valid integer, found '5'"),
    ({"examples": 0}, "key 'examples': expected greater than or equal to 1, found 0"),
    ({"levels.reinit": 3}, "key 'levels.reinit': expected a valid list, found 3"),
])  # fmt: skip
def test_changes_that_are_wrong(changes: dict[str, Any], expected: str) -> None:
    seeded = {"seeds": 3} if "seeds.foo" in changes else {}
    assert expected in refusal("smoke", {**seeded, **changes})


def test_measured_costs_are_those_of_the_unchanged_suite(tmp_path: Path) -> None:
    facts = "basis: measured, machine: m, trainings: 1, records: 1, cold_minutes: 1.0, cached_minutes: 1.0"
    path = written(tmp_path, GOOD + f"cost: {{{facts}, peak_gigabytes: 1.0, disk_megabytes: 1.0}}\n")
    cost = load(path).cost
    assert cost is not None
    assert cost.machine == "m"
    assert load(path, {"seeds": 4}).cost is None
    assert "key 'cost.peak_gigabytes' is missing" in refusal(written(tmp_path, GOOD + f"cost: {{{facts}}}\n"))


def test_suites_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        load("smoke").seeds = 9  # type: ignore[misc]


PAPER_CELLS = {
    "paper": {"Table 2": 1, "Figure 6": 1, "Figure 7": 17, "Table 3": 3},
    "paper-offline": {"Table 2": 1, "Figure 6": 1, "Figure 7": 9, "Table 3": 3},
}


class TestPaper:
    """The suites of the paper ask for its settings, or for stand-ins, and for all that its tables hold."""

    @pytest.mark.parametrize("name", PAPER_CELLS)
    def test_every_cell_is_a_setting_of_the_paper(self, name: str) -> None:
        loaded = load(name)
        cells = pd.DataFrame(
            [
                (task, bug, f"{level:g}" if not isinstance(level, str) else level)
                for task, its_bugs in loaded.task_levels.items()
                for bug, levels in its_bugs.items()
                for level in levels or loaded.levels[bug]
            ],
            columns=["task", "bug", "level"],
        )
        found = published.measured(cells)
        assert len(found) == len(cells)
        assert Counter(setting.source for setting, *_ in found) == PAPER_CELLS[name]
        exact = {match == published.EXACT for _, _, _, match in found}
        assert exact == ({True} if name == "paper" else {True, False})  # mnist is the paper's own
        assert published.measured(cells.assign(task="digits")) == []

    @pytest.mark.parametrize("name", PAPER_CELLS)
    def test_methods_stand_in_the_paper_s_order_and_tables_are_measured(self, name: str) -> None:
        loaded = load(name)
        assert loaded.methods[:16] == list(published.PAPER_METHODS)
        measured = {f"{metric.name}@{post}" for each in loaded.metrics for metric, post in metrics.measured_as(each)}
        assert {names[0] for names in published.LIKEST.values()} <= measured
        assert set(loaded.task_levels) == set(loaded.tasks)
