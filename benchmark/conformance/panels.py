"""What every panel must keep: checks of a registered panel, on tasks with few examples."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from attribug import keys
from attribug.conformance.checks import ConformanceCheck, expect
from attribug.conformance.tasks import small
from attribug.contracts.models import Derived, Given, Trained
from attribug.contracts.pieces import Panel
from attribug.contracts.shapes import spatial
from attribug.contracts.subjects import Lacking, Subject
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported
from attribug.streams import global_states_restored, seed_globally

SEEDS = (0, 1)
SMALL = {"pictures": 6, "draws": 2}


def check_subjects_are_described(panel: Panel) -> str:
    """`Subject`s, or `Lacking` for those that cannot be asked; nothing is trained for it."""
    told = _told(panel)
    expect(told, "expected at least one subject, found none")
    for each in told:
        expect(isinstance(each, Subject | Lacking), f"expected a Subject or Lacking, found {type(each).__name__}")
        reason = each.reason if isinstance(each, Lacking) else "-"
        expect(reason, "a Lacking: expected a reason, found none")
    for subject in _subjects(told):
        known = isinstance(subject.side.model, Trained | Derived | Given)
        expect(known, f"expected a Trained, Derived or Given model, found {type(subject.side.model).__name__}")
    return _note(told)


def check_descriptions_repeat_themselves(panel: Panel) -> str:
    """Described twice, whatever the global seeds: the same subjects."""
    once, again = (_described(panel, seed) for seed in (1, 2))
    expect(_keys(once) == _keys(again), "described twice, found other subjects; use the seed and stream_seed")
    return _note(once)


def check_each_is_asked_once(panel: Panel) -> str:
    """No two subjects share model, data and unit."""
    told = _told(panel)
    names = [(subject.model, subject.data, subject.unit) for subject in _subjects(told)]
    twice = next((name for name in names if names.count(name) > 1), None)
    expect(twice is None, f"expected each model, data and unit once, found {twice} twice")
    return _note(told)


def check_alike_subjects_are_held_against_the_same_masks(panel: Panel) -> str:
    """Those of one model and data differ in the model's seed alone: examples and masks are the same."""
    told = _told(panel)
    known: dict[tuple[str, str], Any] = {}
    for subject in _subjects(told):
        place = subject.model, subject.data
        held = subject.side.examples.key, subject.regions.key
        expect(known.setdefault(place, held) == held, f"{place[0]} on {place[1]}: found other examples or masks")
    return _note(told)


def check_masks_fit_the_examples(panel: Panel) -> str:
    """Every named mask is (N, *spatial) bool, of the examples' number and size, and some example shows something."""
    told = _told(panel)
    seen: set[str] = set()
    for subject in _subjects(told):
        if subject.regions.key in seen:
            continue
        seen.add(subject.regions.key)
        inputs = subject.side.examples.load().inputs
        expected = (len(inputs), *spatial(inputs.shape))
        held = subject.regions.load()
        expect(subject.regions.names, "regions: expected a name at least, found none")
        for name in subject.regions.names:
            mask = held.get(name)
            found = None if mask is None else (tuple(mask.shape), mask.dtype)
            expect(found == (expected, torch.bool), f"mask {name}: expected {expected} of torch.bool, found {found}")
            expect(bool(mask is not None and mask.any()), f"mask {name}: expected something on an example, found none")
    return _note(told)


CHECKS: list[ConformanceCheck] = [
    check_subjects_are_described, check_descriptions_repeat_themselves, check_each_is_asked_once,
    check_alike_subjects_are_held_against_the_same_masks, check_masks_fit_the_examples,
]  # fmt: skip


def _ask(name: str, **options: Any) -> Task:
    """A task with few examples. Raises `Unsupported` where its data are not here."""
    from attribug import tasks

    if absent := tasks.get(name).absent_under(options):
        raise Unsupported(f"task {name}: data are missing: {absent}")
    return small(name)


def _told(panel: Panel) -> list[Subject | Lacking]:
    known = inspect.signature(panel.function).parameters
    options = {name: value for name, value in SMALL.items() if name in known}
    try:
        return list(panel.function(_ask, seed=0, seeds=SEEDS, **options))
    except Unsupported as reason:
        return [Lacking("", "", str(reason))]


def _subjects(told: list[Subject | Lacking]) -> list[Subject]:
    return [each for each in told if isinstance(each, Subject)]


def _note(told: list[Subject | Lacking]) -> str:
    """Why nothing was checked, where no subject could be asked; else nothing."""
    reasons = [each.reason for each in told if isinstance(each, Lacking)]
    return f"unsupported: {reasons[0]}" if reasons and not _subjects(told) else ""


def _described(panel: Panel, seed: int) -> list[Subject | Lacking]:
    with global_states_restored():
        seed_globally(seed)
        return _told(panel)


def _keys(told: list[Subject | Lacking]) -> list[str]:
    """One of everything that a table or a number hangs on, for each subject; the reason of each that lacks."""
    return [
        keys.digest(each.model, each.data, each.unit, each.target, each.side, each.regions, each.tested)
        if isinstance(each, Subject)
        else each.reason
        for each in told
    ]
