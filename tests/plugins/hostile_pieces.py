"""Metrics, bugs and tasks that do what none should; names that begin with `ends` take their process along."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attribug import bugs, metrics, tasks
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived
from attribug.contracts.tasks import Task
from attribug.errors import InputError

FULL = OSError(28, "No space left on device", "a plugin's own file")


# Metrics


def meeting(name: str, meet: Callable[[Tensor, Tensor], Any], **facts: Any) -> None:
    """Registers a similarity."""

    def metric(a: Tensor, b: Tensor, *, meet: Callable[[Tensor, Tensor], Any] = meet) -> Any:
        return meet(a, b)

    metric.__name__ = metric.__qualname__ = name
    metrics.register(name, kind="similarity", **facts)(metric)


OF_OUTPUTS: dict[str, Any] = {"reads": "probabilities", "posts": ("none",)}


def raise_(error: BaseException) -> Any:
    """For places that take an expression only."""
    raise error


def spoil(a: Tensor, b: Tensor) -> Tensor:
    """Answers, and leaves nothing of what it was given, nor of torch's settings."""
    for maps in (a, b):
        maps.fill_(torch.nan)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    np.seterr(all="raise")
    return torch.zeros(len(a), device="cpu")


meeting("metric_raises", lambda a, b: raise_(ValueError("no good")))
meeting("metric_is_full", lambda a, b: raise_(FULL))
meeting("metric_refuses", lambda a, b: raise_(InputError("not yours")))
meeting("metric_of_one", lambda a, b: torch.zeros(len(a) + 1))
meeting("metric_of_none", lambda a, b: None)
meeting("metric_complex", lambda a, b: torch.zeros(len(a), dtype=torch.complex64))
meeting("metric_huge", lambda a, b: torch.empty(1 << 50))
meeting("metric_nan", lambda a, b: torch.full((len(a),), torch.nan))
meeting("metric_spoils", spoil)
meeting("metric_spoils_outputs", spoil, **OF_OUTPUTS)
meeting("ends_beside_outputs", lambda a, b: os._exit(9), **OF_OUTPUTS)


@metrics.register("metric_masks", kind="alignment", bounds=(0.0, 1.0))
def metric_masks(a: Tensor, masks: Tensor) -> Tensor:
    """Takes every mask away."""
    masks.fill_(False)
    return torch.zeros(len(a))


# Bugs


def contrast(task: Task, seed: int, seeds: Sequence[int], change: Any, checks: Sequence[Check] = ()) -> Contrast:
    """A changed model beside clean ones."""
    test = task.examples("test")
    clean = {s: Side(task.clean(s), test) for s in seeds}
    return Contrast(
        contaminated=Side(Derived(task.clean(seed), change, seed), test),
        references=tuple(side for s, side in clean.items() if s != seed),
        controls=tuple(clean.values()), control="clean", target="label", truth="object", checks=tuple(checks),
    )  # fmt: skip


def change_is_full(model: nn.Module, stream: torch.Generator) -> None:
    """As where a plugin keeps files of its own."""
    raise FULL


def change_stops(model: nn.Module, stream: torch.Generator) -> None:
    """As a script does at its end."""
    raise SystemExit


def change_to_nan(model: nn.Module, stream: torch.Generator) -> None:
    """Every weight."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)


def change_shape(model: nn.Module, stream: torch.Generator) -> None:
    """One class is left."""
    model[4] = nn.Linear(64, 1)


def change_ends(model: nn.Module, stream: torch.Generator) -> None:
    """At once."""
    os._exit(9)


def change_little(model: nn.Module, stream: torch.Generator) -> None:
    """A bias."""
    with torch.no_grad():
        model[4].bias.add_(1)


def bug(name: str, make: Callable[[Task, int, Sequence[int]], Any]) -> None:
    """Registers a bug."""

    def function(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Any:
        return make(task, seed, seeds)

    function.__name__ = function.__qualname__ = name
    bugs.register(name, stage="model", levels=(1.0,), primary="spearman@sum")(function)


def changed(change: Any) -> Callable[[Task, int, Sequence[int]], Contrast]:
    """A bug that changes models."""
    return lambda task, seed, seeds: contrast(task, seed, seeds, change)


def moved(task: Task, seed: int, seeds: Sequence[int]) -> Contrast:
    """With a check that NaN must not pass."""
    test, base = task.examples("test"), task.clean(seed)
    models = (Derived(base, change_to_nan, seed),)
    check = Check("outputs move", models, test, "total_variation", minus=(base,), at_least=0.1)
    return contrast(task, seed, seeds, change_to_nan, [check])


def checked_by_text(task: Task, seed: int, seeds: Sequence[int]) -> Contrast:
    """With a check of no model."""
    check = Check("of nothing", "total_variation", task.examples("test"))  # type: ignore[arg-type]
    return contrast(task, seed, seeds, change_little, [check])


def mixed(task: Task, seed: int, seeds: Sequence[int]) -> Contrast:
    """Sides that see different examples."""
    made = contrast(task, seed, seeds, change_little)
    return replace(made, contaminated=replace(made.contaminated, examples=task.examples("train")))


bug("bug_raises", lambda task, seed, seeds: raise_(ValueError("no good")))
bug("bug_gives_nothing", lambda task, seed, seeds: None)
bug("bug_is_full", changed(change_is_full))
bug("bug_stops", changed(change_stops))
bug("bug_reshapes", changed(change_shape))
bug("bug_is_undefined", moved)
bug("bug_checks_text", checked_by_text)
bug("bug_mixes", mixed)
bug("ends_the_first", lambda task, seed, seeds: contrast(task, seed, seeds, change_little if seed else change_ends))


# Tasks


def broken(*, error: int, split: str) -> Data:
    """Raises what its number says."""
    raise (FULL, InputError("not yours"), ValueError("no good"))[error]


def no_data(*, split: str) -> Any:
    """Something else."""
    return "data"


def ending(*, split: str) -> Data:
    """Never returns."""
    os._exit(9)


def edited(*, base: Examples, edit: str) -> Data:
    """The tiny task's examples with wrong labels or inputs."""
    data = base.load()
    if edit == "labels":
        return replace(data, labels=data.labels + 7)
    return replace(data, inputs=data.inputs * torch.nan)


def task(name: str, change: Callable[[Task], Task]) -> None:
    """Registers a task that is the tiny one but for a change."""

    def function(*, seed: int, other: Callable[[str], Task]) -> Task:
        return replace(change(other("tiny")), name=name)

    function.__name__ = function.__qualname__ = name
    tasks.register(name, source="none", licence="none", size="0")(function)


def given(build: Callable[..., Any], **parameters: Any) -> Callable[[Task], Task]:
    """Other examples."""
    return lambda base: replace(base, examples=lambda split: Examples.of(build, split=split, **parameters))


def corrupted(edit: str) -> Callable[[Task], Task]:
    """The same examples, edited."""
    return lambda base: replace(base, examples=lambda split: Examples.of(edited, base=base.examples(split), edit=edit))


task("task_is_full", given(broken, error=0))
task("task_refuses", given(broken, error=1))
task("task_raises", given(broken, error=2))
task("task_of_text", given(no_data))
task("task_of_other_labels", corrupted("labels"))
task("task_of_nan", corrupted("inputs"))
task("task_diverges", lambda base: replace(base, recipe=replace(base.recipe, learning_rate=1e30)))
task("ends_when_read", given(ending))


class Counted(nn.Sequential):
    """Leaves a line in $TRAININGS when a training begins."""

    def train(self, mode: bool = True) -> "Counted":
        """As every module's."""
        if mode and "TRAININGS" in os.environ:
            with open(os.environ["TRAININGS"], "a") as file:
                file.write(f"{os.getpid()}\n")
        return super().train(mode)


def counted_network(*, base: Callable[[], nn.Module]) -> nn.Module:
    """The tiny task's network, which tells of its trainings."""
    return Counted(*base())


task("counted", lambda base: replace(
    base, recipe=replace(base.recipe, epochs=40, network=partial(counted_network, base=base.recipe.network))
))  # fmt: skip
