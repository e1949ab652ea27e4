"""Fixes in a plan: what is left of a bug in mended models is asked as of a bug of its own, called `bug+fix`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attribug import fixes, keys
from attribug.contracts.contrasts import Contrast, Side, Trial
from attribug.contracts.models import trainings
from attribug.contracts.options import check_options
from attribug.errors import InputError, Unsupported, near_misses, one_line
from attribug.plans.plan import Cell
from attribug.results.mending import BALANCED, BEST, NONE, VALIDATION
from attribug.results.schema import MENDED

if TYPE_CHECKING:
    from attribug.contracts.models import ModelSpec
    from attribug.contracts.pieces import Bug, Fix
    from attribug.contracts.tasks import Level, Task
    from attribug.suites.suite import Suite


@dataclass(frozen=True)
class Chosen:
    """A fix that a suite asks for."""

    fix: Fix
    options: Mapping[str, Any]
    values: Sequence[float]
    """Of its swept parameter."""


def chosen(suite: Suite, task: str | None = None) -> tuple[Chosen, ...]:
    """The fixes of a suite, with the values that are swept on a task.

    Raises `InputError` for names, options and sweeps that mean nothing.
    """
    for key, given in (("fix_options", suite.fix_options), ("sweeps", suite.sweeps)):
        for name in given:
            if name not in suite.fixes:
                raise InputError(f"{key}: unknown name {name!r}{near_misses(name, suite.fixes)}")
    found = []
    for name in dict.fromkeys(suite.fixes):
        fix, options, values = fixes.get(name), suite.fix_options.get(name, {}), suite.sweeps.get(name, [])
        check_options(f"fix_options.{name}", fix.function, options)
        if values and not fix.swept:
            raise InputError(f"sweeps.{name}: expected a fix with a parameter that is swept, found one without")
        for value in values:
            check_options(f"sweeps.{name}", fix.function, {fix.swept: value})
        here = task is None or not suite.swept_tasks or task in suite.swept_tasks
        found.append(Chosen(fix, options, tuple(dict.fromkeys(values)) if here else ()))
    return tuple(found)


def with_fixes(
    cell: Cell, task: Task, level: Level, seeds: Sequence[int], chosen_fixes: Sequence[Chosen]
) -> Iterator[Cell]:
    """A cell, and what every fix leaves of it, where its bug can be mended."""
    contrast = cell.contrast
    if contrast is None or not contrast.tests or not chosen_fixes:
        yield cell
        return
    asked = [each for each in chosen_fixes if each.fix.name != NONE]
    bound = [side.model for side in contrast.controls if side.seed == cell.seed]
    measured = [(NONE, contrast.contaminated.model)]
    measured += [(BEST, bound[0])] if bound and BEST not in {each.fix.name for each in asked} else []
    yield replace(cell, trials=tuple(_trial(contrast, fix, "", model) for fix, model in measured))
    for each in asked:
        name = f"{cell.bug}{MENDED}{each.fix.name}"
        try:
            yield _mended(replace(cell, bug=name), contrast, task, level, seeds, each)
        except Unsupported as reason:
            yield replace(cell, bug=name, contrast=None, verdict="unsupported", reason=str(reason))
        except InputError:
            raise
        except Exception as error:  # a plugin's fault costs its own rows only
            yield replace(cell, bug=name, contrast=None, verdict="failed", reason=one_line(error))


def expect_mended(suite: Suite, cells: Iterable[Cell]) -> None:
    """Raises `InputError` where fixes are asked for, and no bug that is there can be mended."""
    there = [cell for cell in cells if cell.contrast is not None]
    if suite.fixes and there and not any(cell.trials for cell in there):
        raise InputError(f"fixes: expected a bug that can be mended with {', '.join(suite.fixes)}, found none")


def mended_bugs(known: Mapping[str, Bug], cells: Iterable[Cell]) -> dict[str, Bug]:
    """What is to be known of mended bugs, by name."""
    found = {}
    for name in dict.fromkeys(cell.bug for cell in cells if MENDED in cell.bug):
        bug, fix = known[name.partition(MENDED)[0]], fixes.get(name.partition(MENDED)[2])
        found[name] = replace(bug, name=name, function=fix.function, paper=fix.paper, graded=False)
    return found


def _mended(cell: Cell, contrast: Contrast, task: Task, level: Level, seeds: Sequence[int], each: Chosen) -> Cell:
    """The cell of a mended model: it is explained in the place of the contaminated one."""

    def made(options: Mapping[str, Any]) -> ModelSpec:
        model: ModelSpec = each.fix.function(task, contrast, level, cell.seed, seeds, **options)
        keys.digest(model)  # raises here, not in the middle of the plan
        trainings(model)
        return model

    others = {name: value for name, value in each.options.items() if name != each.fix.swept}
    options = [each.options, *({**others, each.fix.swept: value} for value in each.values)]
    trials = [(setting, made(chosen)) for setting, chosen in {_setting(chosen): chosen for chosen in options}.items()]
    model = trials[0][1]
    explained = Side(model, contrast.contaminated.examples)
    return replace(
        cell,
        contrast=replace(contrast, contaminated=explained, draws=()),
        trials=tuple(_trial(contrast, each.fix.name, setting, model) for setting, model in trials),
    )


def _trial(contrast: Contrast, fix: str, setting: str, model: ModelSpec) -> Trial:
    kept = {VALIDATION: "biased", BALANCED: "balanced"}
    held_out = {name: contrast.held_out[of] for name, of in kept.items() if of in contrast.held_out}
    return Trial(fix, setting, model, {**contrast.tests, **held_out}, contrast.truth or "object")


def _setting(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                     for name, value in options.items())  # fmt: skip
