"""Fixes in a plan: what is left of a bug is a bug of its own, and nothing else of the plan changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import ModelSpec, Trained
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError, Unsupported
from attribug.plans import planning
from attribug.plans.plan import Plan
from attribug.results.mending import NONE
from attribug.suites import suite

SMALL = {"tasks": ["digits"], "methods": ["gradient"], "metrics": ["mass_accuracy", "spearman"], "seeds": 2}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    @fixes.register("of_two", swept="epochs")
    def of_two(
        task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *, epochs: int = 3
    ) -> ModelSpec:
        """Mends the second model, after so many epochs."""
        if seed == seeds[0]:
            raise Unsupported("it needs an elder sister")
        return Trained(contrast.held_out["balanced"], task.retrained(epochs=epochs), seed)

    @fixes.register("broken")
    def broken(task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int]) -> ModelSpec:
        """Divides by zero."""
        return 1 / 0  # type: ignore[return-value]

    yield
    for name in ("of_two", "broken"):
        fixes._registry.forget(name)


def plan(**changes: object) -> Plan:
    base: dict[str, object] = {"bugs": ["spurious_background"], "levels": {"spurious_background": [1.0]}, **SMALL}
    return planning.make(suite.load("smoke", base | {"method_options": {}} | changes))


def test_what_a_fix_left_is_asked_as_of_a_bug_of_its_own() -> None:
    plain, mended = plan(), plan(fixes=["of_two"], sweeps={"of_two": [1, 2]})
    names = [cell.bug for cell in mended.cells]
    assert names == ["spurious_background", "spurious_background+of_two"] * 2
    first, _, second, left = mended.cells
    assert [cell.contrast for cell in (first, second)] == [cell.contrast for cell in plain.cells]
    assert left.contrast is not None
    assert second.contrast is not None
    assert left.contrast.contaminated.model == left.trials[0].model != second.contrast.contaminated.model
    assert left.contrast.contaminated.examples == second.contrast.contaminated.examples
    assert (left.contrast.references, left.contrast.controls) == (second.contrast.references, second.contrast.controls)
    assert [(trial.fix, trial.setting) for trial in left.trials] == [
        ("of_two", ""), ("of_two", "epochs=1"), ("of_two", "epochs=2"),
    ]  # fmt: skip
    clean = next(side.model for side in second.contrast.controls if side.seed == 1)
    measured = [(NONE, second.contrast.contaminated.model), ("clean_data", clean)]
    assert [(trial.fix, trial.model) for trial in second.trials] == measured
    assert set(left.trials[0].sets) == {"biased", "decorrelated", "swapped", "validation", "balanced"}
    assert {trial.model.key for trial in left.trials} <= set(mended.trainings)


def test_a_fix_that_declines_or_fails_costs_its_own_rows_only() -> None:
    cells = plan(fixes=["of_two", "broken"]).cells
    assert (cells[1].verdict, cells[1].reason) == ("unsupported", "it needs an elder sister")
    assert cells[1].contrast is None
    assert not cells[1].trials
    assert cells[2].verdict == "failed"
    assert "division by zero" in cells[2].reason
    assert not cells[3].verdict


def test_a_plans_key_tells_fixes_their_options_and_sweeps_apart() -> None:
    chosen: list[dict[str, object]] = [
        {}, {"fixes": ["of_two"]}, {"fixes": ["of_two"], "fix_options": {"of_two": {"epochs": 4}}},
        {"fixes": ["of_two"], "sweeps": {"of_two": [1]}},
    ]  # fmt: skip
    assert len({plan(**changes).key for changes in chosen}) == len(chosen)


def test_facts_of_a_mended_bug_are_the_fixes() -> None:
    told = plan(fixes=["of_two"]).bugs
    assert told["spurious_background+of_two"].summary == "Mends the second model, after so many epochs."
    assert told["spurious_background+of_two"].primary == told["spurious_background"].primary


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "no such fix": ({"fixes": ["of_tow"]}, "unknown fix 'of_tow'; did you mean 'of_two'"),
    "options of another": ({"fixes": ["of_two"], "fix_options": {"rr": {}}}, "fix_options: unknown name 'rr'"),
    "no such option": ({"fixes": ["of_two"], "fix_options": {"of_two": {"x": 1}}}, "unknown option 'x'"),
    "nothing to sweep": ({"fixes": ["broken"], "sweeps": {"broken": [1]}}, "expected a fix with a parameter"),
    "values of another type": ({"fixes": ["of_two"], "sweeps": {"of_two": [0.5]}}, "expected int, found 0.5"),
    "nothing to mend": ({"bugs": ["reinit"], "levels": {}, "fixes": ["of_two"]}, "expected a bug that can be mended"),
    "sweeps of no task": ({"swept_tasks": ["textures"]}, "swept_tasks: unknown name 'textures'"),
    "bugs of no task": ({"task_levels": {"textures": {}}}, "task_levels: unknown name 'textures'"),
    "no such bug": ({"task_levels": {"digits": {"ood": []}}}, "task_levels.digits: unknown name 'ood'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_means_nothing_is_refused_in_one_line(case: str) -> None:
    changes, said = WRONG[case]
    with pytest.raises(InputError) as refused:
        plan(**changes)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_that_are_alike_make_one_trial_and_the_swept_one_is_told_last() -> None:
    @fixes.register("of_three", swept="weight")
    def of_three(
        task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *, weight: float = 1.0,
        decay: float = 0.0,
    ) -> ModelSpec:  # fmt: skip
        return contrast.contaminated.model

    try:
        chosen = {"of_three": {"weight": 10.0, "decay": 0.5}}
        (cell, *_) = [
            cell
            for cell in plan(fixes=["of_three"], fix_options=chosen, sweeps={"of_three": [1, 1.0, 10]}).cells
            if cell.bug.endswith("of_three")
        ]
    finally:
        fixes._registry.forget("of_three")
    assert [trial.setting for trial in cell.trials] == [
        "weight=10, decay=0.5",
        "decay=0.5, weight=1",
        "decay=0.5, weight=10",
    ]


def test_nothing_but_none_measures_the_bugs_own_models() -> None:
    cells = plan(fixes=[NONE]).cells
    assert [[trial.fix for trial in cell.trials] for cell in cells] == [[NONE, "clean_data"]] * 2


def test_data_that_are_missing_cost_their_own_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from attribug import tasks

    source = dataclasses.replace(tasks.get("textures"), missing=lambda: "ask its owner")
    monkeypatch.setitem(tasks._registry._entries, "textures", source)
    found = plan(tasks=["digits", "textures"], bugs=["ood", "label_flips"], levels={"label_flips": [0.1]})
    reasons = {(cell.task, cell.bug): cell.reason for cell in found.cells}
    assert reasons["textures", "label_flips"] == "data are missing: ask its owner"
    assert reasons["digits", "ood"] == "task textures: data are missing: ask its owner"
    assert reasons["digits", "label_flips"] == ""


def test_a_task_may_have_bugs_of_its_own() -> None:
    chosen = {"bugs": ["spurious_background", "ood"], "levels": {}}
    found = plan(**chosen, task_levels={"digits": {"ood": []}})
    assert {(cell.bug, cell.level) for cell in found.cells} == {("ood", "textures")}
    found = plan(**chosen, task_levels={"digits": {"spurious_background": [0.5]}})
    assert {(cell.bug, cell.level) for cell in found.cells} == {("spurious_background", "0.5")}


def test_fixes_that_a_change_leaves_out_take_their_settings_along() -> None:
    loaded = suite.load("smoke", {"fixes": ["of_two"], "sweeps": {"of_two": [1]}, "fix_options": {"of_two": {}}})
    assert loaded.sweeps
    kept = planning.load_suite("smoke", {"fixes": ["broken"], "sweeps": {"of_two": [1]}})
    assert not kept.sweeps
    kept = planning.load_suite("right-reasons", {"tasks": ["digits"]})
    assert not kept.sweeps
    assert kept.fixes
    assert set(kept.task_levels) == {"digits"}
