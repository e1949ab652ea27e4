"""What every bug must keep: checks of a registered bug on a small task, from what it describes to level 0."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from attribug import methods, metrics, tasks
from attribug.conformance.checks import ConformanceCheck, Nonconformant, expect, tries
from attribug.conformance.level_zero import expect_one_half, table
from attribug.conformance.tasks import small
from attribug.contracts import outputs
from attribug.contracts.contrasts import HELD_OUT, TEST_SETS, TRUTHS, Contrast
from attribug.contracts.models import Derived, Given, Trained, training_examples
from attribug.contracts.pieces import Method
from attribug.contracts.shapes import KINDS, spatial
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported, one_line
from attribug.keys import digest
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.scores.records import Settings
from attribug.streams import global_states_restored, seed_globally

if TYPE_CHECKING:
    from attribug.contracts.data import Data, Examples
    from attribug.contracts.models import ModelSpec
    from attribug.contracts.pieces import Bug
    from attribug.contracts.tasks import Level

SEEDS = (0, 1, 2)
FIRST_TASKS = ("digits", "textures")  # embedded, so everybody has them; a bug that declines these meets the others
EXPLAINED = Settings(seed=0, examples=11, chunk=4, rows=64)
READ = ("spearman", "ssim", "total_variation", "mass_accuracy", "ccm", "background_swap")  # those that a bug offers
EXPLAINING = ("gradient", "random", "predictions")  # one that looks at the model, one that does not, and no explanation


def _tried_on(bug: Bug) -> str:
    task = task_of(bug)
    return f"the task {task.name} in small, inputs {task.shape}"


@tries(_tried_on)
def check_contrasts_are_described(bug: Bug) -> None:
    """At every declared level, for every seed, a `Contrast`; so there must be levels, and a task it is made for."""
    expect(bug.levels, "levels: expected at least one, found none; a bug without levels gives no rows")
    for level in bug.levels:
        for contrast in described(bug, level):
            expect(isinstance(contrast, Contrast), f"expected a Contrast, found {type(contrast).__name__}")


def check_facts_fit_together(bug: Bug) -> None:
    """The primary metric exists, reads an explanation, is more than a reproduction, and finds in every contrast what it
    needs: a truth to align with, other versions of the inputs."""
    ((metric, _),) = metrics.measured_as(bug.primary)
    explains = outputs.get(metric.reads).explains
    expect(explains, f"primary: expected a metric of explanations, found {bug.primary}, which reads {metric.reads}")
    expect(not metric.reproduction, f"primary: {bug.primary} only repeats published numbers and decides nothing")
    for level in bug.levels:
        for contrast in described(bug, level):
            missing = ", ".join(sorted(metric.required - contrast.offers))
            expect(not missing, f"{bug.primary} needs {missing} of a contrast, found none at level {level}")


def check_references_meet_other_controls(bug: Bug) -> None:
    """Every reference meets a control that is another side, and no contaminated side is a reference or control."""
    for level, contrast in _all(bug):
        sides, where = contrast.contaminated_sides, f"level {level}"
        expect(contrast.references, f"{where}: expected references, found none")
        expect(len(set(sides)) == len(sides), f"{where}: expected draws that differ, found one twice")
        for name, controls in contrast.control_sets.items():
            expect(controls, f"{where}: expected controls {name!r}, found none")
            mixed = set(sides) & {*controls, *contrast.references}
            expect(not mixed, f"{where}: a contaminated side is also a reference or a control {name!r}")
            met = all(any(control != reference for control in controls) for reference in contrast.references)
            expect(met, f"{where}: a reference meets no other control {name!r}, so there is nothing to compare")


def check_descriptions_repeat_themselves(bug: Bug) -> None:
    """Described twice, whatever the global seeds: the same models; every seed has contaminated models of its own."""
    for level in bug.levels:
        once = [model.key for contrast in _with_global_seed(bug, level, 1) for model in contrast.models()]
        again = [model.key for contrast in _with_global_seed(bug, level, 2) for model in contrast.models()]
        expect(once == again, f"level {level}: described twice, found other models; use the seed and stream_seed")
        sides = [side.model.key for contrast in described(bug, level) for side in contrast.contaminated_sides]
        expect(len(set(sides)) == len(sides), f"level {level}: two seeds share a contaminated model")


def check_sides_see_the_same_examples(bug: Bug) -> None:
    """All sides explain the same ids in the same order, each once, under the same labels; a truth has its masks."""
    for level in bug.levels:
        contrast = described(bug, level)[1]
        ours = _load(contrast.contaminated.examples)
        expect(len(ours), f"level {level}: expected examples to explain, found none")
        expect(len(ours.ids.unique()) == len(ours), f"level {level}: expected every id once, found some again")
        for side in contrast.sides:
            data = _load(side.examples)
            expect(torch.equal(data.ids, ours.ids), f"level {level}: expected the same ids on all sides, found others")
            same = torch.equal(data.labels, ours.labels)
            expect(same, f"level {level}: expected the same labels on all sides, found others")
        if contrast.keep is not None:
            same = torch.equal(_load(contrast.keep).ids, ours.ids)
            expect(same, f"level {level}: keep: expected the ids of the explained examples, found others")
        for version, examples in contrast.extra.items():
            same = torch.equal(_load(examples).ids, ours.ids) and torch.equal(_load(examples).labels, ours.labels)
            expect(same, f"level {level}: extra {version!r}: expected the ids and labels explained, found others")
        if contrast.truth is not None:
            _expect_truth(contrast.truth, ours, f"level {level}: truth {contrast.truth!r}")


def check_checks_can_be_measured(bug: Bug) -> None:
    """Something tells whether the bug took: named once, bounded, on examples, of models that the contrast names."""
    for level in bug.levels:
        contrast = described(bug, level)[0]
        expect(contrast.checks, f"level {level}: expected checks, found none: nothing tells whether the bug took")
        names = [check.name for check in contrast.checks]
        expect(len(set(names)) == len(names), f"level {level}: expected checks of different names, found {names}")
        for check in contrast.checks:
            where = f"level {level}: check {check.name!r}"
            expect(check.models, f"{where}: expected models, found none")
            expect(check.bound, f"{where}: expected at_least or at_most, found neither")
            expect(len(_load(check.examples)), f"{where}: expected examples, found none")
            relative = check.statistic == "accuracy" or check.minus
            expect(relative, f"{where}: {check.statistic} is measured against other models; found none in minus")


def check_contaminated_models_are_checked(bug: Bug) -> None:
    """At the last level every contaminated model is measured by a check."""
    contrast = described(bug, bug.levels[-1])[0]
    checked = {model for check in contrast.checks for model in (*check.models, *check.minus)}
    missed = sum(side.model not in checked for side in contrast.contaminated_sides)
    expect(not missed, f"expected every contaminated model in a check, found {missed} in none")


def check_only_what_is_declared_changes(bug: Bug) -> None:
    """`data`: other training examples, else made as the control. `model`: a reference's training, then changed weights.
    `test`: a clean model, of this task with other inputs, or of another task."""
    for level, contrast in _all(bug):
        try:
            RULES[bug.stage](contrast, task_of(bug))
        except Nonconformant as error:
            raise Nonconformant(f"stage {bug.stage!r}, level {level}: {error}") from error


def check_level_zero_is_the_identity(bug: Bug) -> None:
    """At level 0 nothing is contaminated: from training to table every effect is exactly .5."""
    try:
        contrasts = described(bug, 0)
    except Exception as error:  # foreign code may raise anything
        raise Nonconformant(f"expected level 0, at which nothing is contaminated, found {one_line(error)}") from error
    known: list[tuple[Method, dict[str, Any]]] = [(methods.get(name), {}) for name in EXPLAINING]
    pairs = [pair for name in (*READ, bug.primary) for pair in metrics.measured_as(name)]
    images = KINDS.get(len(task_of(bug).shape) + 1) == "images"  # others have no metrics of images
    pairs = [pair for pair in dict.fromkeys(pairs) if images or not pair[0].images]
    measured = [pair for pair in pairs if pair[0].applies(contrasts[0])]
    expected = {
        (method.name, metric.name)
        for (method, _), (metric, _) in itertools.product(known, measured)
        if metric.reads == method.output
    }
    count = min(EXPLAINED.examples, len(_load(contrasts[0].contaminated.examples)))
    for visible in (None, 0.0):
        results = table(contrasts, known, measured, _lab(), EXPLAINED, visible)
        expect_one_half(results)
        scored = set(zip(results["method"], results["metric"], strict=True))
        silent = sorted(f"{method}, {metric}" for method, metric in expected - scored)
        expect(not silent, f"expected rows of every method and metric, found none of {'; '.join(silent)}")
        seeds, n = set(results["seeds"]), set(results["n"])
        expect(seeds == {len(SEEDS)}, f"expected {len(SEEDS)} contaminated models, found {sorted(seeds)}")
        expect(n == {count}, f"expected {count} examples, found {sorted(n)}")


def check_what_fixes_need_is_there(bug: Bug) -> None:
    """A bug that can be mended has annotations, groups and labelled test sets; what is held out is in no other set."""
    for level in bug.levels:
        contrast = described(bug, level)[0]
        learnt = training_examples(contrast.contaminated.model)
        if not contrast.tests or learnt is None:
            continue
        data, where = _load(learnt), f"level {level}"
        unknown = ", ".join(sorted(set(contrast.tests) - set(TEST_SETS)))
        expect(not unknown, f"{where}: tests: expected names of {', '.join(TEST_SETS)}, found {unknown}")
        unknown = ", ".join(sorted(set(contrast.held_out) - set(HELD_OUT)))
        expect(not unknown, f"{where}: held_out: expected names of {', '.join(HELD_OUT)}, found {unknown}")
        expect(contrast.truth is not None, f"{where}: expected a truth, found none: a fix is told what must not matter")
        expect(data.annotations is not None, f"{where}: expected annotations of the training examples, found none")
        expect(data.groups is not None, f"{where}: expected groups of the training examples, found none")
        ids = set(data.ids.tolist())
        for name, examples in (*contrast.tests.items(), *contrast.held_out.items()):
            kept = set(_load(examples).ids.tolist())
            expect(not ids & kept, f"{where}: {name}: expected examples that train no model, found some that do")
        tested = {each for examples in contrast.tests.values() for each in _load(examples).ids.tolist()}
        for name, examples in contrast.held_out.items():
            kept = set(_load(examples).ids.tolist())
            expect(not tested & kept, f"{where}: held_out {name}: expected examples that test nothing, found some")


CHECKS: list[ConformanceCheck] = [
    check_contrasts_are_described, check_facts_fit_together, check_references_meet_other_controls,
    check_descriptions_repeat_themselves, check_sides_see_the_same_examples, check_checks_can_be_measured,
    check_contaminated_models_are_checked, check_only_what_is_declared_changes, check_level_zero_is_the_identity,
    check_what_fixes_need_is_there,
]  # fmt: skip


def _expect_truth(truth: str, data: Data, where: str) -> None:
    """A known word, and masks (N, *spatial) bool by it that leave something to tell apart."""
    expect(truth in TRUTHS, f"{where}: expected one of {', '.join(TRUTHS)}, or None")
    masks = data.truth(truth)
    if masks is None:
        raise Nonconformant(f"{where}: expected masks, found none")
    found, expected = f"{tuple(masks.shape)} {masks.dtype}", f"{(len(data), *spatial(data.inputs.shape))} torch.bool"
    expect(found == expected, f"{where}: expected masks {expected}, found {found}")
    pixels = masks.flatten(1)
    some = (pixels.any(1) & ~pixels.all(1)).any()
    expect(some, f"{where}: expected masks of a part of the input, found every one empty or full")


def _data_only(contrast: Contrast, task: Task) -> None:
    _expect_same_inputs(contrast)
    controls = [side.model for sides in contrast.control_sets.values() for side in sides]
    clean = {training_examples(model) for model in [*controls, *(side.model for side in contrast.references)]}
    for side in contrast.contaminated_sides:
        expect(isinstance(side.model, Trained), "expected a trained model, found one whose weights were changed")
        same = all(_procedure(side.model) == _procedure(control) for control in controls)
        expect(same, "expected the controls' recipe, start and trainable parts, found others")
        expect(training_examples(side.model) not in clean, "expected other training examples, found the controls' own")


def _model_only(contrast: Contrast, task: Task) -> None:
    _expect_same_inputs(contrast)
    references = {_procedure(_root(side.model), examples=True) for side in contrast.references}
    for side in contrast.contaminated_sides:
        expect(isinstance(side.model, Derived), "expected a model Derived from a trained one, found a trained one")
        trained = _procedure(_root(side.model), examples=True)
        expect(trained in references, "expected a model trained as a reference is, found other examples or recipe")


def _test_only(contrast: Contrast, task: Task) -> None:
    for side in {*contrast.references, *contrast.controls}:
        expect(_home([task], side.model), "expected clean models of this task as references and controls, found others")
    inputs = [_load(side.examples).inputs for side in contrast.references]
    for side in contrast.contaminated_sides:
        home = _home(_with_others(task), side.model)
        expect(home, "expected a clean model, of this task or another; found one that was trained or changed otherwise")
        same = all(torch.equal(_load(side.examples).inputs, each) for each in inputs)
        if home == task.name:
            expect(not same, "expected other inputs than the references', or a model of another task; found neither")
        else:
            expect(same, "expected the references' inputs with a model of another task, found both changed")


RULES: dict[str, Callable[[Contrast, Task], None]] = {"data": _data_only, "model": _model_only, "test": _test_only}


def _expect_same_inputs(contrast: Contrast) -> None:
    ours = _load(contrast.contaminated.examples).inputs
    same = all(torch.equal(_load(side.examples).inputs, ours) for side in contrast.sides)
    expect(same, "expected the same inputs on all sides, found others")


def _procedure(model: ModelSpec, *, examples: bool = False) -> str:
    """Content of how a model is made, seeds aside, and training examples too unless asked for."""
    if isinstance(model, Derived):
        return digest("derived", _procedure(model.base, examples=examples), model.change)
    if isinstance(model, Given):
        return model.key
    start = None if model.start is None else _procedure(model.start, examples=examples)
    return digest("trained", model.recipe, model.trainable, start, model.examples.key if examples else "")


def _root(model: ModelSpec) -> ModelSpec:
    """The model below all changes of weights."""
    return _root(model.base) if isinstance(model, Derived) else model


def _home(known: Iterable[Task], model: ModelSpec) -> str:
    """Name of the first of the tasks whose clean model it is; empty where it is of none."""
    if not isinstance(model, Trained):
        return ""
    return next((task.name for task in known if not task.untrained and task.clean(model.seed) == model), "")


def _with_others(task: Task) -> Iterator[Task]:
    """A task, and the other registered ones whose data are here: each made when it is asked for, as some take long."""
    yield task
    for name in dict.fromkeys([*FIRST_TASKS, *tasks.names()]):
        if name != task.name and not tasks.get(name).absent:
            with contextlib.suppress(InputError, Unsupported):  # of what nobody brought
                yield small(name)


@functools.lru_cache(maxsize=4)
def task_of(bug: Bug) -> Task:
    """The first task, in small, that the bug takes at its last level; raises `Nonconformant` with the first refusal."""
    refusals = []
    for name in dict.fromkeys([*FIRST_TASKS, *tasks.names()]):
        if not tasks.get(name).absent:
            try:
                bug.function(small(name), bug.levels[-1], SEEDS[0], SEEDS)
            except (InputError, Unsupported) as error:
                refusals.append(f"{name}: {error}")
            else:
                return small(name)
    raise Nonconformant(f"expected a contrast on one of the tasks, found none; {refusals[0]}")


def described(bug: Bug, level: Level) -> list[Contrast]:
    """One contrast a seed."""
    return [bug.function(task_of(bug), level, seed, SEEDS) for seed in SEEDS]


def _all(bug: Bug) -> list[tuple[Level, Contrast]]:
    return [(level, contrast) for level in bug.levels for contrast in described(bug, level)]


def _with_global_seed(bug: Bug, level: Level, seed: int) -> list[Contrast]:
    with global_states_restored():
        seed_globally(seed)
        return described(bug, level)


@functools.cache
def _lab() -> Lab:
    """Models of every bug in memory: many share the clean ones."""
    return Lab(Memory())


def _load(examples: Examples) -> Data:
    return _lab().data(examples)
