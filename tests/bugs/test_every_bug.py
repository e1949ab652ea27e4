"""What every registered bug must keep: the package's checks, and broken bugs that each check refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from attribug import bugs
from attribug.conformance import bugs as conformance_of_bugs
from attribug.conformance import tasks as conformance
from attribug.conformance.bugs import (  # fmt: skip
    CHECKS,
    check_checks_can_be_measured,
    check_contaminated_models_are_checked,
    check_contrasts_are_described,
    check_descriptions_repeat_themselves,
    check_facts_fit_together,
    check_level_zero_is_the_identity,
    check_only_what_is_declared_changes,
    check_references_meet_other_controls,
    check_sides_see_the_same_examples,
    check_what_fixes_need_is_there,
)
from attribug.conformance.checks import check, run_check
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Trained, training_examples
from attribug.contracts.pieces import Bug
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError
from attribug.streams import generator

BROKEN = "test_broken"
SLOW = {check_level_zero_is_the_identity}
CASES = [
    pytest.param(each, name, marks=[pytest.mark.slow] if each in SLOW else [], id=f"{each.__name__}-{name}")
    for each in CHECKS
    for name in bugs.names()
]


@pytest.mark.parametrize(("check", "name"), CASES)
def test_bug(check: Callable[..., str | None], name: str) -> None:
    result = run_check(check, "bug", bugs.get(name))
    assert result.passed, str(result)


def test_other_tasks_are_made_until_the_foreign_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are looked at for minutes, and some train nothing."""
    made: list[str] = []

    def small(name: str) -> Task:
        made.append(name)
        return conformance.small(name)

    task = conformance_of_bugs.task_of(bugs.get("ood"))
    monkeypatch.setattr(conformance_of_bugs, "small", small)
    assert conformance_of_bugs._home(conformance_of_bugs._with_others(task), conformance.small("textures").clean(0))
    assert made == ["textures"]


def test_shipped_bugs_name_their_paper_and_explain_themselves() -> None:
    for name in bugs.names():
        assert bugs.get(name).paper
        assert bugs.get(name).function.__doc__


# --- three sound bugs, one a stage, and how to break them ---

Make = Callable[..., Contrast]


def dimmed(*, base: Examples, level: float) -> Data:
    """The examples with the images of label 0 darkened."""
    data = base.load()
    inputs = data.inputs.clone()
    inputs[data.labels == 0] *= 1 - level
    return replace(data, inputs=inputs)


def dimmed_examples(base: Examples, level: float) -> Examples:
    return base if level == 0 else Examples.of(dimmed, base=base, level=level)


def shake(model: torch.nn.Module, stream: torch.Generator, *, level: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(level * torch.randn(parameter.shape, generator=stream))


def against_clean(task: Task, contaminated: Side, seed: int, seeds: Sequence[int], *, seen: Examples) -> Contrast:
    clean = {s: Side(task.clean(s), seen) for s in seeds}
    return Contrast(
        contaminated=contaminated,
        references=tuple(side for s, side in clean.items() if s != seed),
        controls=tuple(clean.values()),
        control="clean",
        target="label",
        checks=(Check("it took", (contaminated.model,), contaminated.examples, at_most=0.9),),
    )


def on_data(task: Task, level: float, seed: int, seeds: Sequence[int], **changes: Any) -> Contrast:
    """Trained on dimmed images."""
    test, trained = task.examples("test"), dimmed_examples(task.examples("train"), level)
    model = Trained(trained, changes.get("recipe", task.recipe), seed)
    return against_clean(task, Side(model, changes.get("explained", test)), seed, seeds, seen=test)


def on_model(task: Task, level: float, seed: int, seeds: Sequence[int], **changes: Any) -> Contrast:
    """Noise on every weight."""
    test = task.examples("test")
    model = Derived(changes.get("base", task.clean(seed)), partial(shake, level=level), seed)
    return against_clean(task, Side(model, changes.get("explained", test)), seed, seeds, seen=test)


def on_input(task: Task, level: float, seed: int, seeds: Sequence[int], **changes: Any) -> Contrast:
    """A clean model sees dimmed images."""
    test = task.examples("test")
    model = changes.get("model", task.clean(seed))
    side = Side(model, dimmed_examples(test, level))
    contrast = against_clean(task, side, seed, seeds, seen=test)
    return contrast if level else replace(contrast, contaminated=Side(Derived(model, partial(shake, level=0), 0), test))


SOUND = [(on_data, "data"), (on_model, "model"), (on_input, "test")]


@pytest.fixture
def register():
    """Registers a bug, whose name is free again afterwards."""

    def enter(function: Make, **facts: Any) -> Bug:
        bugs.register(BROKEN, **{"levels": (0.5,), **facts})(function)
        return bugs.get(BROKEN)

    yield enter
    bugs._registry._entries.pop(BROKEN, None)


def altered(make: Make, **changes: Any) -> Make:
    """A bug whose contrasts have other fields: values, or functions of the contrast."""

    def described(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
        contrast = make(task, level, seed, seeds)
        return replace(contrast, **{k: v(contrast) if callable(v) else v for k, v in changes.items()})

    return described


def no_contrast(task, level, seed, seeds):
    return None


def for_nobody(task, level, seed, seeds):
    raise InputError("made for another task")


def draws_its_seed(task, level, seed, seeds):
    return on_model(task, level, int(torch.randint(1 << 30, ())), seeds)


def draws_its_level_from_numpy(task, level, seed, seeds):
    return on_model(task, level + np.random.rand(), seed, seeds)


def one_model_for_all(task, level, seed, seeds):
    return on_data(task, level, seeds[0], seeds)


def fewer_examples(*, base: Examples) -> Data:
    data = base.load()
    return data.select(torch.arange(len(data) - 1))


def other_labels(*, base: Examples) -> Data:
    data = base.load()
    return Data(data.inputs, 1 - data.labels, data.ids, data.masks)


def unmasked(*, base: Examples) -> Data:
    data = base.load()
    return Data(data.inputs, data.labels, data.ids)


def nothing_marked(*, base: Examples) -> Data:
    data = base.load()
    return replace(data, masks=torch.zeros_like(data.inputs[:, 0], dtype=torch.bool))


def marked_in_every_channel(*, base: Examples) -> Data:
    data = base.load()
    return replace(data, masks=data.inputs > 0)


def repeated(*, base: Examples) -> Data:
    data = base.load()
    return data.select(torch.zeros(len(data), dtype=torch.int64))


def explains(change: Callable[..., Data]) -> Make:
    """The contaminated side sees changed examples."""

    def see(contrast: Contrast) -> Side:
        return replace(contrast.contaminated, examples=Examples.of(change, base=contrast.contaminated.examples))

    return altered(on_data, contaminated=see)


def offers(change: Callable[..., Data]) -> Make:
    """The explained examples in another version."""
    return altered(on_data, extra=lambda c: {"clean_inputs": Examples.of(change, base=c.contaminated.examples)})


def everybody_explains(change: Callable[..., Data], **changes: Any) -> Make:
    def see(side: Side) -> Side:
        return replace(side, examples=Examples.of(change, base=side.examples))

    return altered(
        on_data,
        contaminated=lambda c: see(c.contaminated),
        references=lambda c: tuple(map(see, c.references)),
        controls=lambda c: tuple(map(see, c.controls)),
        **changes,
    )


def trains_longer(task, level, seed, seeds):
    return on_data(task, level, seed, seeds, recipe=task.retrained(epochs=2))


def sees_dimmed_images_too(task, level, seed, seeds):
    return on_data(task, level, seed, seeds, explained=dimmed_examples(task.examples("test"), level))


def trained_on_clean_data(task, level, seed, seeds):
    return on_data(task, 0, seed, seeds)


def shaken_of_dimmed(task, level, seed, seeds):
    base = Trained(dimmed_examples(task.examples("train"), 0.5), task.recipe, seed)
    return on_model(task, level, seed, seeds, base=base)


def shaken_sees_dimmed_images(task, level, seed, seeds):
    return on_model(task, level, seed, seeds, explained=dimmed_examples(task.examples("test"), level))


def dimmed_in_training(task, level, seed, seeds):
    model = Trained(dimmed_examples(task.examples("train"), level), task.recipe, seed)
    return on_input(task, level, seed, seeds, model=model)


def foreign_model_sees_dimmed_images(task, level, seed, seeds):
    return on_input(task, level, seed, seeds, model=task.other("textures").clean(seed))


def clean_after_all(task, level, seed, seeds):
    contrast = on_input(task, level, seed, seeds)
    return replace(contrast, contaminated=replace(contrast.contaminated, examples=task.examples("test")))


def checked_against_contaminated(task, level, seed, seeds):
    contrast = on_input(task, level, seed, seeds)
    other = Trained(dimmed_examples(task.examples("train"), 0.5), task.recipe, seed)
    return replace(contrast, controls=(*contrast.controls, Side(other, task.examples("test"))))


def never_clean(task, level, seed, seeds):
    return on_data(task, 0.5, seed, seeds)


def refuses_level_zero(task, level, seed, seeds):
    if not level:
        raise InputError("level: expected more than 0, found 0")
    return on_data(task, level, seed, seeds)


def lopsided_at_level_zero(task, level, seed, seeds):
    contrast = on_data(task, level, seed, seeds)
    return contrast if level else replace(contrast, controls=contrast.controls[:1])


def took(**changes: Any) -> Make:
    """The check of the contaminated model with other facts."""
    return altered(on_data, checks=lambda c: tuple(replace(check, **changes) for check in c.checks))


def sets(c: Contrast) -> dict[str, Examples]:
    return {"biased": c.contaminated.examples}


def mended(**changes: Any) -> Make:
    """A bug that can be mended, with other fields."""
    return altered(on_data, **{"truth": "background", "tests": sets, **changes})


def learnt_from(change: Callable[..., Data]) -> Make:
    """The contaminated model learnt from other examples."""

    def other(contrast: Contrast) -> Side:
        model = contrast.contaminated.model
        assert isinstance(model, Trained)
        examples = Examples.of(change, base=model.examples)
        return replace(contrast.contaminated, model=replace(model, examples=examples))

    return mended(contaminated=other)


def ungrouped(*, base: Examples) -> Data:
    return replace(base.load(), groups=None)


MODEL, TEST = {"stage": "model"}, {"stage": "test"}
ALIGNED = {"primary": "mass_accuracy@abs_sum"}
BROKEN_BUGS = [
    (check_contrasts_are_described, on_data, {"levels": ()}, "levels: expected at least one, found none"),
    (check_contrasts_are_described, no_contrast, {}, "expected a Contrast, found NoneType"),
    (check_contrasts_are_described, for_nobody, {}, "on one of the tasks, found none; digits: made for another task"),
    (check_facts_fit_together, on_data, {"primary": "spearmen@sum"}, "unknown metric 'spearmen'; did you mean"),
    (check_facts_fit_together, on_data, {"primary": "total_variation@none"}, "expected a metric of explanations"),
    (check_facts_fit_together, on_data, ALIGNED, "mass_accuracy@abs_sum needs truth of a contrast, found none"),
    (
        check_facts_fit_together, altered(on_data, truth="object"), {"primary": "ccm@abs_sum_minmax"},
        r"ccm@abs_sum_minmax needs clean_inputs of a contrast, found none at level 0\.5",
    ),
    (
        check_facts_fit_together, on_data, {"primary": "ccm@abs_sum_minmax"},
        "ccm@abs_sum_minmax needs clean_inputs, truth of a contrast, found none",
    ),
    (
        check_facts_fit_together, on_data, {"primary": "ssim_range2@minmax"},
        "primary: ssim_range2@minmax only repeats published numbers and decides nothing",
    ),
    (
        check_facts_fit_together, altered(on_data, truth="background"), {"primary": "k_ssd@abs_sum_minmax"},
        "primary: k_ssd@abs_sum_minmax only repeats published numbers",
    ),
    (check_references_meet_other_controls, altered(on_data, references=()), {}, "expected references, found none"),
    (check_references_meet_other_controls, altered(on_data, controls=()), {}, "expected controls 'clean', found none"),
    (
        check_references_meet_other_controls, altered(on_data, secondary={"other": ()}), {},
        "expected controls 'other', found none",
    ),
    (
        check_references_meet_other_controls, altered(on_data, controls=lambda c: c.references[:1]), {},
        "a reference meets no other control 'clean'",
    ),
    (
        check_references_meet_other_controls, altered(on_data, controls=lambda c: (*c.controls, c.contaminated)), {},
        "a contaminated side is also a reference or a control 'clean'",
    ),
    (
        check_references_meet_other_controls, altered(on_data, draws=lambda c: (c.contaminated,)), {},
        "expected draws that differ, found one twice",
    ),
    (check_descriptions_repeat_themselves, draws_its_seed, MODEL, "described twice, found other models"),
    (check_descriptions_repeat_themselves, draws_its_level_from_numpy, MODEL, "described twice, found other models"),
    (check_descriptions_repeat_themselves, one_model_for_all, {}, "two seeds share a contaminated model"),
    (
        check_what_fixes_need_is_there, mended(tests=lambda c: {"other": c.contaminated.examples}), {},
        "tests: expected names of biased, decorrelated, swapped, clean, found other",
    ),
    (
        check_what_fixes_need_is_there, mended(held_out=lambda c: {"clean": c.contaminated.examples}), {},
        "held_out: expected names of biased, balanced, found clean",
    ),
    (check_what_fixes_need_is_there, mended(truth=None), {}, "expected a truth, found none"),
    (check_what_fixes_need_is_there, learnt_from(unmasked), {}, "expected annotations of the training examples"),
    (check_what_fixes_need_is_there, learnt_from(ungrouped), {}, "expected groups of the training examples"),
    (
        check_what_fixes_need_is_there, mended(tests=lambda c: {"biased": training_examples(c.contaminated.model)}), {},
        "biased: expected examples that train no model, found some that do",
    ),
    (
        check_what_fixes_need_is_there, mended(held_out=lambda c: {"balanced": c.contaminated.examples}), {},
        "held_out balanced: expected examples that test nothing, found some",
    ),
    (check_sides_see_the_same_examples, explains(fewer_examples), {}, "expected the same ids on all sides"),
    (check_sides_see_the_same_examples, explains(other_labels), {}, "expected the same labels on all sides"),
    (check_sides_see_the_same_examples, everybody_explains(repeated), {}, "expected every id once, found some again"),
    (
        check_sides_see_the_same_examples, everybody_explains(unmasked, truth="object"), {},
        "truth 'object': expected masks, found none",
    ),
    (  # which would otherwise be read as the background
        check_sides_see_the_same_examples, altered(on_data, truth="obejct"), {},
        "level 0.5: truth 'obejct': expected one of background, object, annotated, or None",
    ),
    (
        check_sides_see_the_same_examples, everybody_explains(nothing_marked, truth="background"), {},
        "truth 'background': expected masks of a part of the input, found every one empty or full",
    ),
    (
        check_sides_see_the_same_examples, everybody_explains(marked_in_every_channel, truth="object"), {},
        r"truth 'object': expected masks \(30, 32, 32\) torch.bool, found \(30, 3, 32, 32\) torch.bool",
    ),
    (
        check_sides_see_the_same_examples,
        altered(on_data, keep=lambda c: Examples.of(fewer_examples, base=c.contaminated.examples)), {},
        "keep: expected the ids of the explained examples",
    ),
    (
        check_sides_see_the_same_examples, offers(fewer_examples), {},
        r"level 0\.5: extra 'clean_inputs': expected the ids and labels explained, found others",
    ),
    (check_sides_see_the_same_examples, offers(other_labels), {}, "extra 'clean_inputs': expected the ids and labels"),
    (check_sides_see_the_same_examples, offers(repeated), {}, "extra 'clean_inputs': expected the ids and labels"),
    (check_checks_can_be_measured, altered(on_data, checks=()), {}, "nothing tells whether the bug took"),
    (check_checks_can_be_measured, altered(on_data, checks=lambda c: c.checks * 2), {}, "checks of different names"),
    (check_checks_can_be_measured, took(models=()), {}, "check 'it took': expected models, found none"),
    (check_checks_can_be_measured, took(at_most=None), {}, "expected at_least or at_most, found neither"),
    (check_checks_can_be_measured, took(statistic="total_variation"), {}, "found none in minus"),
    (
        check_contaminated_models_are_checked,
        altered(on_data, checks=lambda c: tuple(replace(k, models=(c.controls[0].model,)) for k in c.checks)), {},
        "expected every contaminated model in a check, found 1 in none",
    ),
    (check_only_what_is_declared_changes, on_model, {}, "stage 'data', level 0.5: expected a trained model"),
    (check_only_what_is_declared_changes, on_input, {}, "stage 'data', level 0.5: expected the same inputs"),
    (check_only_what_is_declared_changes, trains_longer, {}, "expected the controls' recipe, start and trainable"),
    (check_only_what_is_declared_changes, sees_dimmed_images_too, {}, "expected the same inputs on all sides"),
    (check_only_what_is_declared_changes, trained_on_clean_data, {}, "other training examples, found the controls'"),
    (check_only_what_is_declared_changes, on_data, MODEL, "stage 'model', level 0.5: expected a model Derived"),
    (check_only_what_is_declared_changes, shaken_of_dimmed, MODEL, "trained as a reference is, found other examples"),
    (check_only_what_is_declared_changes, shaken_sees_dimmed_images, MODEL, "expected the same inputs on all sides"),
    (check_only_what_is_declared_changes, on_data, TEST, "stage 'test', level 0.5: expected a clean model"),
    (check_only_what_is_declared_changes, on_model, TEST, "stage 'test', level 0.5: expected a clean model"),
    (check_only_what_is_declared_changes, dimmed_in_training, TEST, "expected a clean model, of this task or another"),
    (check_only_what_is_declared_changes, foreign_model_sees_dimmed_images, TEST, "found both changed"),
    (check_only_what_is_declared_changes, clean_after_all, TEST, "or a model of another task; found neither"),
    (check_only_what_is_declared_changes, checked_against_contaminated, TEST, "expected clean models of this task as"),
    (check_level_zero_is_the_identity, never_clean, {}, r"expected an effect of exactly \.5, found .* \(gradient, "),
    (check_level_zero_is_the_identity, refuses_level_zero, {}, "expected level 0, .*found InputError: level: expected"),
    (check_level_zero_is_the_identity, lopsided_at_level_zero, {}, r"expected an effect of exactly \.5, found"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("check", "function", "facts", "reason"), BROKEN_BUGS)
def test_broken_bug_is_refused(check, function, facts, reason, register) -> None:
    result = run_check(check, "bug", register(function, **facts))
    assert not result.passed
    assert re.search(reason, result.reason), result.reason
    assert "\n" not in result.reason


def test_every_check_refuses_something() -> None:
    assert {check for check, *_ in BROKEN_BUGS} == set(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(("function", "stage"), SOUND)
def test_checks_refuse_only_what_is_broken(function, stage, register) -> None:
    register(function, stage=stage)
    results = check("bug", BROKEN)
    assert [str(result) for result in results if not result.passed] == []
    assert len(results) == len(CHECKS)


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (altered(on_data, truth="object"), ALIGNED), (offers(unmasked), {}),
        (altered(offers(unmasked), truth="object"), {"primary": "ccm@abs_sum_minmax"}),
    ],
)  # fmt: skip
def test_a_bug_may_offer_what_its_primary_metric_needs(make, facts, register) -> None:
    bug = register(make, **facts)
    for each in (check_facts_fit_together, check_sides_see_the_same_examples):
        result = run_check(each, "bug", bug)
        assert result.passed, str(result)


def test_a_bug_that_takes_no_task_fails_in_one_line(register) -> None:
    register(for_nobody)
    (result,) = check("bug", BROKEN)
    assert (result.check, result.passed) == ("contrasts are described", False)


def test_a_bug_may_be_made_for_another_task(register) -> None:
    def textures_only(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
        if task.name != "textures":
            raise InputError(f"expected textures, found {task.name}")
        return on_data(task, level, seed, seeds)

    bug = register(textures_only)
    for each in (check_contrasts_are_described, check_only_what_is_declared_changes):
        result = run_check(each, "bug", bug)
        assert result.passed, str(result)


def test_a_stream_decides_what_is_shaken() -> None:
    """The broken bugs above are broken in one thing only: the sound ones are reproducible."""
    models = [torch.nn.Linear(2, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        shake(model, generator("a"), level=1.0)
    assert torch.equal(models[0].weight, models[1].weight)
