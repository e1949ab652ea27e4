"""The plan: names, levels and options resolved; nothing trained, nothing read; a plugin's fault costs its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from attribug import bugs, methods, metrics, tasks
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Examples
from attribug.contracts.models import trainings
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError, Unsupported
from attribug.plans import plan
from attribug.plans.plan import Plan
from attribug.plans.planning import make
from attribug.registry import Registry
from attribug.suites.suite import Suite, load, shipped

Function = Callable[..., Any]


def suite(**changes: Any) -> Suite:
    """A small suite; nothing of it is ever run."""
    names = {"tasks": ["digits"], "bugs": ["reinit"], "methods": ["gradient", "random"], "metrics": ["spearman"]}
    return Suite.model_validate({"name": "mine", "levels": {}, "seeds": 2, **names, **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        make(suite(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def forget(registry: Registry[Any], before: set[str]) -> None:
    """Shipped pieces stay: their modules will not run again."""
    kept = before | set(registry.declared())
    registry._entries = {name: entry for name, entry in registry._entries.items() if name in kept}


@pytest.fixture
def bug() -> Iterator[Callable[..., str]]:
    """Registers a bug for one test."""
    registry = bugs._registry
    before = set(registry.registered())

    def register(function: Function, name: str = "made", **facts: Any) -> str:
        bugs.register(name, **{"levels": (1,), **facts})(function)
        return name

    yield register
    forget(registry, before)


@pytest.fixture
def task() -> Iterator[Callable[[str, Function], str]]:
    """Registers a task for one test."""
    registry = tasks._registry
    before = set(registry.registered())

    def register(name: str, function: Function) -> str:
        tasks.register(name)(function)
        return name

    yield register
    forget(registry, before)


def plain(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """Clean models against clean models."""
    test = task.examples("test")
    sides = [Side(task.clean(s), test) for s in seeds]
    return Contrast(Side(task.clean(seed), test), tuple(sides), tuple(sides), "clean", "label")


# Sizes


OTHERS = {"own", "right-reasons", "paper", "paper-offline", "alignment"}
PLAIN = [name for name in shipped() if name not in OTHERS]
"""All but those that ask for a model or data, the one that mends, those whose tasks have bugs of their own, and the one
without bugs."""


@pytest.mark.parametrize("name", PLAIN)
def test_shipped_suites_plan_and_count(name: str) -> None:
    loaded = load(name)
    made = make(loaded)
    counts = made.counts()
    levels = sum(len(loaded.levels.get(bug, list(bugs.get(bug).levels))) for bug in loaded.bugs)
    assert len(made.cells) == counts["contrasts"] == levels * loaded.seeds * len(loaded.tasks)
    assert all(cell.contrast is not None and not cell.verdict for cell in made.cells)
    assert counts["records"] == counts["contrasts"] * len(loaded.methods)
    sides = sum(len(set(cell.contrast.sides)) for cell in made.cells if cell.contrast is not None)
    assert counts["sides"] == sides
    backgrounds = [cell.contrast for cell in made.cells if cell.contrast and cell.contrast.extra]
    swapped = sum(len(set(contrast.sides)) for contrast in backgrounds)  # predictions of swapped backgrounds as well
    assert counts["explanations"] == (sides * len(loaded.methods) + swapped) * loaded.examples
    needed = {t for cell in made.cells if cell.contrast for model in cell.contrast.models() for t in trainings(model)}
    assert counts["trainings"] == len(needed)
    assert set(made.trainings) == {training.key for training in needed}
    keys = [made.record_key(cell, method.name) for cell in made.cells for method, _ in made.methods]
    assert len(set(keys)) == counts["records"]
    assert sorted(m for bundle in made.bundles for m in bundle) == sorted(m.name for m, _ in made.methods)


def test_the_suite_of_fixes_plans_and_counts() -> None:
    """Every fix of every bug and seed has a cell; what declines has its reason."""
    loaded = load("right-reasons")
    made = make(loaded)
    assert len(made.cells) == len(loaded.tasks) * loaded.seeds * (1 + len(loaded.fixes))
    declined = {(cell.task, cell.bug): cell.reason for cell in made.cells if cell.contrast is None}
    few = {("iris_cancer", f"shortcut+{fix}") for fix in ("dfr", "p_clarc", "rr_clarc")}
    assert set(declined) == few  # a hundred examples leave none for validation
    assert all("validation" in reason for reason in declined.values())
    swept = [cell for cell in made.cells if cell.bug.endswith("+rrr")]
    sizes = {cell.task: len(cell.trials) for cell in swept}
    assert sizes == dict.fromkeys(loaded.tasks, 1) | dict.fromkeys(loaded.swept_tasks, 1 + len(loaded.sweeps["rrr"]))
    needed = {t.key for cell in made.cells for trial in cell.trials for t in trainings(trial.model)}
    assert needed <= set(made.trainings)


def test_the_suite_of_panels_plans_and_counts() -> None:
    """Every subject is a cell, explained once by each method of its panel; what shares a model shares its records."""
    loaded = load("alignment")
    made = make(loaded)
    assert not made.contrasted
    there = [cell for cell in made.cells if cell.contrast is not None]
    assert {cell.reason.partition(": ")[0] for cell in made.cells if cell.contrast is None} <= {"task celebamask_hq"}
    counts = made.counts()
    assert counts["contrasts"] == counts["sides"] == len(there)
    asked = {name: len(loaded.panel_methods.get(name, loaded.methods)) for name in loaded.panels}
    assert counts["records"] == sum(asked[cell.task] for cell in there)
    assert counts["explanations"] == counts["records"] * loaded.examples
    keys = {(cell.task, made.record_key(cell, m.name)) for cell in there for m, _ in made.methods_of(cell)}
    sides = {(cell.task, cell.contrast.contaminated) for cell in there if cell.contrast is not None}
    assert len(keys) == sum(asked[panel] for panel, _ in sides)


def test_sizes_by_hand() -> None:
    """label_flips with three seeds: three clean and three flipped models; every side is one of them."""
    counts = make(suite(bugs=["label_flips"], levels={"label_flips": [0.1]}, seeds=3, examples=5)).counts()
    assert counts == {"trainings": 6, "contrasts": 3, "records": 6, "sides": 18, "explanations": 180}


def test_a_training_comes_after_what_it_starts_from() -> None:
    made = make(suite(bugs=["reinit"], levels={"reinit": [1, "all"]}))
    order = list(made.trainings)
    for key, training in made.trainings.items():
        assert all(order.index(below.key) < order.index(key) for below in trainings(training)[:-1])


def test_names_given_twice_count_once() -> None:
    once = make(suite(levels={"reinit": [1]}))
    twice = suite(
        tasks=["digits"] * 2, bugs=["reinit"] * 2, methods=["gradient", "random", "gradient"], metrics=["spearman"] * 2,
        levels={"reinit": [1, 1.0, 1]},
    )  # fmt: skip
    assert make(twice).counts() == once.counts()
    assert make(twice).key == once.key


# What may be wrong


@pytest.mark.parametrize(("changes", "expected"), [
    ({"tasks": ["digit"]}, "unknown task 'digit'; did you mean 'digits'?"),
    ({"bugs": ["label_flip"]}, "unknown bug 'label_flip'; did you mean 'label_flips'?"),
    ({"methods": ["gradients"]}, "unknown method 'gradients'; did you mean 'gradient'"),
    ({"metrics": ["spearmann"]}, "unknown metric 'spearmann'; did you mean 'spearman'"),
    ({"metrics": ["spearman@summ"]}, "post 'summ': unknown step 'summ'; did you mean 'sum'"),
    ({"posts": ["summ"]}, "post 'summ': unknown step 'summ'"),
    ({"levels": {"reinitt": [1]}}, "levels: unknown name 'reinitt'; did you mean 'reinit'?"),
    ({"levels": {"ood": ["textures"]}}, "levels: unknown name 'ood'"),
    ({"levels": {"reinit": ["most"]}}, "reinit: expected a level from 1 to 8 or 'all' for task digits, found 'most'"),
    ({"levels": {"reinit": [9]}}, "reinit: expected a level from 1 to 8 or 'all' for task digits, found 9"),
    ({"levels": {"reinit": [float("inf")]}}, "reinit: expected a level from 1 to 8"),
    ({"levels": {"reinit": []}}, "levels.reinit: expected at least one level, found none"),
    ({"levels": {"reinit": [1, "1"]}}, "levels.reinit: expected levels that differ in six digits, found [1, '1']"),
    ({"bugs": ["label_flips"], "levels": {"label_flips": ["x"]}}, "levels.label_flips: expected a number, found 'x'"),
    ({"bugs": ["label_flips"], "levels": {"label_flips": [0.3]}}, "label_flips: expected a level of at most 1/5"),
    ({"bugs": ["spurious_background"], "levels": {"spurious_background": [1.5]}}, "expected a share from 0 to 1"),
    ({"bugs": ["ood"], "levels": {"ood": ["texture"]}}, "unknown task 'texture'; did you mean 'textures'?"),
    ({"method_options": {"lime": {}}}, "method_options: unknown name 'lime'"),
    ({"method_options": {"gradient": {"samples": 3}}}, "method_options.gradient: unknown option 'samples'"),
    ({"task_options": {"digit": {}}}, "task_options: unknown name 'digit'; did you mean 'digits'?"),
    ({"task_options": {"digits": {"trian": 3}}}, "task_options.digits: unknown option 'trian'; did you mean 'train'?"),
    ({"task_options": {"digits": {"seed": 3}}}, "task_options.digits: unknown option 'seed'"),
    ({"task_options": {"digits": {"train": "many"}}}, "task_options.digits.train: expected int, found 'many'"),
    ({"task_options": {"digits": {"train": 60.0}}}, "task_options.digits.train: expected int, found 60.0"),
    ({"task_options": {"digits": {"train": True}}}, "task_options.digits.train: expected int, found True"),
    ({"task_options": {"digits": {"train": 5}}}, "digits: expected 20 ≤ train"),
    ({"task_options": {"digits": {"epochs": 0}}}, "digits: expected epochs and width of at least 1, found 0"),
])  # fmt: skip
def test_wrong_input_is_told_with_key_expected_and_found(changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(**changes)


def test_wrong_options_of_a_method() -> None:
    changes: dict[str, Any] = {"methods": ["smoothgrad"]}
    assert "unknown option 'sampels'; did you mean 'samples'?" in refusal(
        **changes, method_options={"smoothgrad": {"sampels": 3}}
    )
    assert "method_options.smoothgrad.noise: expected float, found 'x'" in refusal(
        **changes, method_options={"smoothgrad": {"noise": "x"}}
    )
    made = make(suite(**changes, method_options={"smoothgrad": {"samples": 3, "noise": 1}}))
    assert dict(made.methods[0][1]) == {"samples": 3, "noise": 1}


# Posts


def measured(**changes: Any) -> list[str]:
    return [f"{metric.name}@{post}" for metric, post in make(suite(**changes)).measured]


def test_metrics_bring_their_own_posts() -> None:
    assert measured(metrics=["spearman", "spearman@abs_sum", "total_variation"]) == [
        *(f"spearman@{post}" for post in metrics.get("spearman").posts), "total_variation@none",
    ]  # fmt: skip
    assert measured(metrics=["spearman@abs_max"]) == ["spearman@abs_max"]


def test_a_sweep_of_posts_replaces_them_where_they_fit() -> None:
    names = ["spearman", "mass_accuracy", "total_variation"]
    swept = measured(metrics=names, posts=["sum", "abs_sum", "none"])
    spearman = ["spearman@sum", "spearman@abs_sum", "spearman@none"]
    assert swept == [*spearman, "mass_accuracy@abs_sum", "total_variation@none"]
    assert measured(metrics=["spearman@max", "pearson"], posts=["sum"]) == ["spearman@max", "pearson@sum"]


@pytest.mark.parametrize(("changes", "found"), [
    ({"metrics": ["ccm", "gt2_ssim"]}, "found only such as need background_only, clean_inputs, truth"),
    ({"metrics": ["mass_accuracy", "background_swap"]}, "found only such as need truth"),
    ({"metrics": ["total_variation"]}, "found none"),
    ({"metrics": ["spearman"], "methods": ["predictions"]}, "found none"),
])  # fmt: skip
def test_metrics_that_read_nothing_are_refused(changes: dict[str, Any], found: str) -> None:
    """Each would make an empty table."""
    assert refusal(**changes).endswith(found)
    assert measured(**{**changes, "metrics": [*changes["metrics"], "spearman"], "methods": ["gradient"]})


# Faults of plugins


def of_bug(made: Plan, name: str) -> list[tuple[str, str]]:
    return [(cell.verdict, cell.reason) for cell in made.cells if cell.bug == name]


def assert_only_its_own(made: Plan, name: str, verdict: str, reason: str) -> None:
    assert of_bug(made, name) == [(verdict, reason)] * 2
    assert of_bug(made, "reinit") == [("", "")] * 2
    assert all((cell.contrast is None) == (cell.bug == name) for cell in made.cells)
    assert made.counts()["contrasts"] == 2
    assert made.key


def with_made(bug_name: str) -> Plan:
    return make(suite(bugs=[bug_name, "reinit"], levels={"reinit": [1]}))


def test_a_bug_that_raises_costs_its_own_cells_only(bug: Callable[..., str]) -> None:
    def raising(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
        raise KeyError("lost\nand more")

    assert_only_its_own(with_made(bug(raising)), "made", "failed", r"KeyError: 'lost\nand more'")


def test_a_bug_that_declines_is_unsupported(bug: Callable[..., str]) -> None:
    def declining(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
        raise Unsupported("no left and right in this task")

    assert_only_its_own(with_made(bug(declining)), "made", "unsupported", "no left and right in this task")


def test_a_bug_may_fail_for_one_seed(bug: Callable[..., str]) -> None:
    def at_times(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
        if seed:
            raise RuntimeError("odd")
        return plain(task, level, seed, seeds)

    assert of_bug(with_made(bug(at_times)), "made") == [("", ""), ("failed", "RuntimeError: odd")]


@pytest.mark.parametrize(("answer", "found"), [(None, "NoneType"), ("contrast", "str"), ((1, 2), "tuple")])
def test_a_bug_that_describes_no_contrast_failed(bug: Callable[..., str], answer: Any, found: str) -> None:
    made = with_made(bug(lambda task, level, seed, seeds: answer))
    assert_only_its_own(made, "made", "failed", f"TypeError: expected a Contrast, found {found}")


@pytest.mark.parametrize("foreign", [
    lambda task, seed: {"contaminated": Side(replace(task.clean(seed), recipe=object()), task.examples("test"))},
    lambda task, seed: {"keep": object()},
    lambda task, seed: {"extra": {"clean_inputs": object()}},
], ids=["recipe", "keep", "extra"])  # fmt: skip
def test_a_contrast_of_unknown_content_failed(bug: Callable[..., str], foreign: Callable[..., Any]) -> None:
    """Wherever it holds foreign values: the plan that others stand in has a key all the same."""

    def odd(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
        return replace(plain(task, level, seed, seeds), **foreign(task, seed))

    reason = "TypeError: content key: expected plain values, dataclasses or functions, found object"
    made = with_made(bug(odd))
    assert_only_its_own(made, "made", "failed", reason)
    assert made.key


def test_a_bug_that_finds_the_users_mistake_stops_the_plan(bug: Callable[..., str]) -> None:
    def strict(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
        raise InputError("made: expected more, found less")

    bug(strict)
    assert refusal(bugs=["made"]) == "made: expected more, found less"


def test_a_bug_without_levels_is_told(bug: Callable[..., str]) -> None:
    bug(plain, levels=())
    assert refusal(bugs=["made"]) == "levels.made: expected at least one level, found none"
    assert make(suite(bugs=["made"], levels={"made": [3]})).cells[0].level == "3"


def test_a_task_that_raises_is_told_in_a_line(task: Callable[[str, Function], str]) -> None:
    def lost(*, seed: int, other: Function) -> Task:
        raise OSError("/home/me/data.npz is not there")

    def confused(*, seed: int, other: Function) -> Task:
        return len(3)  # type: ignore[arg-type]

    task("lost", lost)
    task("confused", confused)
    assert refusal(tasks=["lost"]) == "task 'lost': OSError: data.npz is not there"
    assert refusal(tasks=["confused"]).startswith("task_options.confused: TypeError: ")


# What a plan does not do, and what its keys tell


@pytest.mark.parametrize("name", [name for name in shipped() if name != "own"])  # that asks for a model and data
def test_planning_reads_no_data_and_draws_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("data were read")

    from attribug.tasks import color_mnist, decoy_mnist, digits, mnist_block, surfaces, textures

    monkeypatch.setattr(Examples, "load", reading)
    for module in (digits, decoy_mnist, color_mnist, mnist_block):
        monkeypatch.setattr(module, "read", reading)
    for module in (digits, textures, surfaces):
        monkeypatch.setattr(module, "photograph", reading)
    with pytest.raises(AssertionError, match="data were read"):
        tasks.get("digits").function(seed=5, other=None).examples("train").build()
    state = torch.get_rng_state()
    made = make(load(name))
    assert made.key
    assert made.counts()["records"] > 0
    assert torch.equal(torch.get_rng_state(), state)


def keys_of(**changes: Any) -> list[str]:
    made = make(suite(**{"levels": {"reinit": [1]}, **changes}))
    return [made.record_key(cell, "gradient") for cell in made.cells]


@pytest.mark.parametrize("changes", [
    {"seed": 1}, {"examples": 5}, {"chunk": 5}, {"rows": 5}, {"metrics": ["ssim"]}, {"posts": ["max"]},
    {"task_options": {"digits": {"train": 60}}}, {"levels": {"reinit": [2]}},
])  # fmt: skip
def test_what_changes_numbers_changes_keys(changes: dict[str, Any]) -> None:
    assert not set(keys_of()) & set(keys_of(**changes))


@pytest.mark.parametrize("changes", [
    {"name": "other"}, {"description": "x"}, {"visible": 0.0}, {"methods": ["gradient"]}, {"bugs": ["reinit", "ood"]},
    {"metrics": ["spearman", "total_variation"]}, {"seeds": 3},
])  # fmt: skip
def test_what_changes_no_number_keeps_keys(changes: dict[str, Any]) -> None:
    assert set(keys_of()) <= set(keys_of(**changes))


def test_options_of_one_method_are_none_of_anothers() -> None:
    both: dict[str, Any] = {"methods": ["gradient", "smoothgrad"]}
    assert keys_of(**both) == keys_of(**both, method_options={"smoothgrad": {"samples": 3}})


def test_a_device_changes_keys() -> None:
    one, other = (make(suite(levels={"reinit": [1]}), device) for device in ("cpu", "cuda"))
    assert one.record_key(one.cells[0], "gradient") != other.record_key(other.cells[0], "gradient")


def test_visible_changes_the_table() -> None:
    assert make(suite()).key != make(suite(visible=0.0)).key
    assert make(suite()).key == make(suite()).key


@pytest.mark.parametrize(("level", "text"), [(1, "1"), (1.0, "1"), (0.05, "0.05"), (1e-7, "1e-07"), ("all", "all")])
def test_levels_as_tables_spell_them(level: Level, text: str) -> None:
    assert plan.level_text(level) == text


def test_bundles_share_a_primitive() -> None:
    names = ["gradient", "smoothgrad", "input_x_gradient", "vargrad", "random"]
    for bundle in make(suite(methods=names)).bundles:
        assert len({methods.get(name).uses for name in bundle}) == 1
    assert ("gradient", "input_x_gradient") in make(suite(methods=names)).bundles
