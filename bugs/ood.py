"""Bug: the model comes from another task, so what it explains lies outside its domain."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import bugs
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.data import Examples
from attribug.contracts.models import ModelSpec
from attribug.contracts.tasks import GivenModel, Level, Task
from attribug.errors import InputError, Unsupported
from attribug.models.perturbed import against_perturbed, perturbed

KNOWS_ITS_OWN = 0.8  # of the way from chance to always right, on its own test set: .90 for two classes, .82 for ten
OUTPUTS_DIFFER = 0.10  # mean total variation between a given model and a second one
LEARNT = 0.5  # of the way from the commonest label's share to always right, of models that others have trained


@bugs.register(
    "ood", stage="test", levels=("textures",), primary="spearman@sum", graded=False,
    paper="Adebayo et al. 2020, section 6 (out-of-distribution test examples)",
)  # fmt: skip
def ood(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """The model has to explain images of another kind than those it was trained on.

    A model of task `level` explains this task's test images, for the class it predicts itself, as do clean models.

    Level 0 stands for this task itself. Took: each model knows its own test set.

    A task whose model is given, as `imagenet_squeezenet`, has it explain this task's images in copies with slightly
    other weights, a draw a seed, which resize them as far as it does; these must know the photographs of their task
    whose labels somebody says.
    """
    if task.given is not None:
        return _of_given(task, level, seed, seeds)
    foreign = task if level == 0 else task.other(str(level))
    stranger: ModelSpec
    if foreign.given is None:
        _expect_shape(task, foreign)
        stranger, own, enough = foreign.clean(seed), foreign.examples("test"), _enough(foreign)
    else:
        stranger, own, enough = _given_stranger(task, foreign, foreign.given, seed)
    test = task.examples("test")
    clean = {s: task.clean(s) for s in seeds}
    return Contrast(
        contaminated=Side(stranger, test, None if foreign.given is None else seed),
        references=tuple(Side(model, test) for s, model in clean.items() if s != seed),
        controls=tuple(Side(model, test) for model in clean.values()),
        control="clean",
        target="own",
        checks=(
            Check("foreign models know their own test set", (stranger,), own, at_least=enough),
            *(
                Check(f"clean model {s} knows its test set", (model,), test, at_least=_enough(task))
                for s, model in clean.items()
            ),
        ),
    )  # fmt: skip


def _enough(task: Task) -> float:
    """The accuracy with which a model knows a task."""
    return _above(1 / len(task.classes), KNOWS_ITS_OWN)


def _above(chance: float, part: float) -> float:
    """The accuracy that is so large a part of the way from chance to always right."""
    return chance + part * (1 - chance)


def _given_stranger(task: Task, foreign: Task, given: GivenModel, seed: int) -> tuple[ModelSpec, Examples, float]:
    """A copy of another task's given model, what it must know, and how well."""
    if not given.resizes:
        _expect_shape(task, foreign)
    elif len(task.shape) != 3 or task.shape[0] != foreign.shape[0]:
        found = f"found {task.name} with {task.shape}"
        raise InputError(f"ood: expected pictures of {foreign.shape[0]} channels for {foreign.name}, {found}")
    if given.known is None:
        raise Unsupported(f"nobody says what the photographs of task {foreign.name} show: its model may know nothing")
    return perturbed(given, seed), given.known, _learnt(given.known)


def _expect_shape(task: Task, foreign: Task) -> None:
    if foreign.shape != task.shape:
        raise InputError(f"ood: expected a task with inputs {task.shape}, found {foreign.name} with {foreign.shape}")


def _of_given(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """The model that is given beside a second one of another domain: one that is given, too, in copies with slightly
    other weights, or this one trained further on data of another domain."""
    given, stranger = task.given, task.stranger
    if given is None or (stranger is None and level != 0):
        raise Unsupported("expected a second model or data of another domain: --against NAME, --against PLACE")
    if stranger is None or level == 0:
        return against_perturbed(given, perturbed(given, seed), seed, seeds, target="own")
    foreign: ModelSpec
    if isinstance(stranger, Task):
        foreign, checks = stranger.clean(seed), _knows(stranger, seed)
    else:
        foreign, checks = perturbed(stranger, seed), []
    moved = Check(
        "outputs differ", (foreign,), given.looked, "total_variation", minus=(given.spec,), at_least=OUTPUTS_DIFFER
    )
    return against_perturbed(given, foreign, seed, seeds, [*checks, moved], target="own")


def _knows(stranger: Task, seed: int) -> list[Check]:
    """Whether what was trained on another domain knows the part of it that it never saw."""
    test = stranger.examples("test")
    known = (stranger.clean(seed),)
    return [Check("foreign models know their own test set", known, test, at_least=_learnt(test))]


def _learnt(test: Examples) -> float:
    """The accuracy of a model that has learnt something: see `LEARNT`."""
    labels = test.load().labels
    return _above(float(labels.bincount().max()) / len(labels), LEARNT)
