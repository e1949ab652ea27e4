"""Every registered bug: what a contrast must be, whatever the bug."""

from __future__ import annotations

import pytest
import torch

from attribug import bugs, metrics
from attribug.contracts import Bug, Contrast, Level, Task

SEEDS = (0, 1, 2)
CASES = [pytest.param(name, level, id=f"{name}-{level}") for name in bugs.names() for level in bugs.get(name).levels]
AT_TOP = [pytest.param(name, bugs.get(name).levels[-1], id=name) for name in bugs.names()]


def described(bug: Bug, task: Task, level: Level) -> list[Contrast]:
    return [bug.function(task, level, seed, SEEDS) for seed in SEEDS]


@pytest.mark.parametrize("name", bugs.names())
def test_facts_fit_together(name: str, digits: Task) -> None:
    bug = bugs.get(name)
    assert bug.levels, "a bug without levels gives no rows"
    ((metric, _),) = metrics.measured_as(bug.primary)
    if metric.kind == "alignment":
        assert bug.function(digits, bug.levels[-1], 0, SEEDS).truth is not None


@pytest.mark.parametrize(("name", "level"), CASES)
def test_every_reference_meets_another_control(name: str, level: Level, digits: Task) -> None:
    for contrast in described(bugs.get(name), digits, level):
        contaminated = contrast.contaminated_sides
        assert contrast.references
        assert len(set(contaminated)) == len(contaminated)
        for controls in contrast.control_sets.values():
            assert controls
            assert not set(contaminated) & {*controls, *contrast.references}
            assert all(any(control != reference for control in controls) for reference in contrast.references)


@pytest.mark.parametrize(("name", "level"), CASES)
def test_descriptions_repeat_themselves(name: str, level: Level, digits: Task) -> None:
    bug = bugs.get(name)
    once, again = described(bug, digits, level), described(bug, digits, level)
    assert [c.contaminated.model.key for c in once] == [c.contaminated.model.key for c in again]
    assert [m.key for c in once for m in c.models()] == [m.key for c in again for m in c.models()]
    contaminated = [side.model.key for contrast in once for side in contrast.contaminated_sides]
    assert len(set(contaminated)) == len(contaminated), "two seeds share a contaminated model"


@pytest.mark.parametrize(("name", "level"), CASES)
def test_all_sides_see_the_same_ids(name: str, level: Level, digits: Task) -> None:
    bug = bugs.get(name)
    contrast = bug.function(digits, level, 1, SEEDS)
    ours = contrast.contaminated.examples.load()
    for side in contrast.sides:
        data = side.examples.load()
        assert torch.equal(data.ids, ours.ids)
        assert torch.equal(data.inputs, ours.inputs) or not bug.unchanged_input
    if contrast.keep is not None:
        assert torch.equal(contrast.keep.load().ids, ours.ids)
    if contrast.truth is not None:
        assert ours.masks is not None


@pytest.mark.parametrize(("name", "level"), CASES)
def test_checks_have_bounds_and_examples(name: str, level: Level, digits: Task) -> None:
    contrast = bugs.get(name).function(digits, level, 0, SEEDS)
    assert contrast.checks, "nothing tells whether the bug took"
    names = [check.name for check in contrast.checks]
    assert len(set(names)) == len(names)
    for check in contrast.checks:
        assert check.models
        assert check.bound
        assert len(check.examples.load()) > 0
        assert check.statistic == "accuracy" or check.minus
        assert set(check.models) | set(check.minus) <= set(contrast.models())


@pytest.mark.parametrize(("name", "level"), AT_TOP)
def test_the_contaminated_model_is_in_a_check(name: str, level: Level, digits: Task) -> None:
    contrast = bugs.get(name).function(digits, level, 0, SEEDS)
    checked = {model for check in contrast.checks for model in (*check.models, *check.minus)}
    assert {side.model for side in contrast.contaminated_sides} <= checked


def seeds_of(contrast: Contrast) -> dict[str, object]:
    sets = {name: [side.seed for side in sides] for name, sides in contrast.control_sets.items()}
    return {"contaminated": contrast.contaminated.seed, "references": [s.seed for s in contrast.references], **sets}


@pytest.mark.parametrize(("name", "level"), [("spurious_background", 1.0), ("ood", "textures")])
def test_references_differ_from_the_contaminated_seed(name: str, level: Level, digits: Task) -> None:
    for seed, contrast in zip(SEEDS, described(bugs.get(name), digits, level), strict=True):
        others = [s for s in SEEDS if s != seed]
        assert seeds_of(contrast) == {"contaminated": seed, "references": others, "clean": list(SEEDS)}
        assert [side.model for side in contrast.controls] == [digits.clean(s) for s in SEEDS]
        assert [side.model for side in contrast.references] == [digits.clean(s) for s in others]


def test_flips_have_seeds_of_their_own_and_each_other_as_controls(digits: Task) -> None:
    contrasts = described(bugs.get("label_flips"), digits, 0.1)
    for seed, contrast in zip(SEEDS, contrasts, strict=True):
        others, clean = [len(SEEDS) + s for s in SEEDS if s != seed], list(SEEDS)
        expected = {"contaminated": len(SEEDS) + seed, "references": clean, "other_flips": others, "clean": clean}
        assert seeds_of(contrast) == expected
        assert [s.model for s in contrast.references] == [digits.clean(s) for s in SEEDS]
        mine = {c.contaminated.model for c in contrasts} - {contrast.contaminated.model}
        assert {side.model for side in contrast.controls} == mine


@pytest.mark.parametrize("name", ["reinit", "reinit_bottom", "reinit_single"])
def test_damaged_models_are_compared_with_themselves(name: str, digits: Task) -> None:
    for seed, contrast in zip(SEEDS, described(bugs.get(name), digits, 1), strict=True):
        assert seeds_of(contrast) == {"contaminated": seed, "references": [seed], "retrained": [seed]}
        assert contrast.references[0].model == digits.clean(seed)
        assert {side.seed for side in contrast.draws} == {seed}
