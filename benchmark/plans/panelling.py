"""Panels in a plan: every subject is a cell without references and controls, held against masks instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attribug import keys, panels
from attribug.contracts.contrasts import Check, Contrast
from attribug.contracts.models import trainings
from attribug.contracts.options import check_options
from attribug.contracts.subjects import Lacking, Subject
from attribug.errors import InputError, Unsupported, near_misses, one_line
from attribug.plans.plan import ACCURACY, Cell

if TYPE_CHECKING:
    from attribug.contracts.pieces import Panel
    from attribug.contracts.subjects import Ask
    from attribug.suites.suite import Suite

NO_CONTROL = "-"
OWN = "own"
"""The panel of what somebody brings: a suite may say how it would be asked."""


def panel_cells(suite: Suite, ask: Ask) -> Iterator[Cell]:
    """The cells of a suite's panels. Raises `InputError` for names and options that do not exist."""
    for key, given in (("panel_options", suite.panel_options), ("panel_methods", suite.panel_methods)):
        for name in given:
            if name not in {*suite.panels, OWN}:
                raise InputError(f"{key}: unknown name {name!r}{near_misses(name, suite.panels)}")
    for name, chosen in suite.panel_methods.items():
        for method in chosen:
            if method not in suite.methods:
                raise InputError(f"panel_methods.{name}: unknown name {method!r}{near_misses(method, suite.methods)}")
    for name in dict.fromkeys(suite.panels):
        yield from _cells(panels.get(name), suite, ask)


def _cells(panel: Panel, suite: Suite, ask: Ask) -> Iterator[Cell]:
    options = suite.panel_options.get(panel.name, {})
    check_options(f"panel_options.{panel.name}", panel.function, options, skip={"seed", "seeds"})
    try:
        told = list(panel.function(ask, seed=suite.seed, seeds=suite.model_seeds, **options))
        cells = [_cell(panel.name, each) for each in told]
        _expect_each_once(cells)
    except Unsupported as reason:
        cells = [Cell(panel.name, "", "", suite.seed, None, "unsupported", str(reason))]
    except InputError:
        raise
    except Exception as error:  # a plugin's fault costs its own rows only
        cells = [Cell(panel.name, "", "", suite.seed, None, "failed", one_line(error))]
    yield from cells


def _cell(panel: str, told: Subject | Lacking) -> Cell:
    if isinstance(told, Lacking):
        return Cell(panel, told.model, told.data, 0, None, "unsupported", told.reason)
    if not isinstance(told, Subject):
        raise TypeError(f"expected Subjects, found {type(told).__name__}")
    tested = told.tested
    checks = () if tested is None else (Check(ACCURACY, (tested.model,), tested.examples),)
    contrast = Contrast(
        told.side, references=(), controls=(), control=NO_CONTROL, target=told.target, truth="object", checks=checks
    )
    keys.digest(contrast, told.regions)  # raises here, not in the middle of the plan
    trainings(told.side.model)
    return Cell(panel, told.model, told.data, told.unit, contrast, subject=told)


def _expect_each_once(cells: list[Cell]) -> None:
    names = [(cell.bug, cell.level, cell.seed) for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError("expected each model, data and seed once, found {} on {}, seed {} twice".format(*twice))
