"""What the options of a run come to: its plan, its places, and what its workers are told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attribug import opened
from attribug.errors import InputError
from attribug.models.brought import Brought, shipped
from attribug.plans import planning
from attribug.plans.plan import Plan
from attribug.plugins import load_plugin
from attribug.running.admitting import declined, impossible
from attribug.running.bringing import bring, from_python
from attribug.running.functions import handed_over
from attribug.running.held_metrics import with_held
from attribug.running.jobs import Setup
from attribug.running.options import OF_A_GIVEN_MODEL, OF_THE_SUITE, RunOptions
from attribug.running.resources import default_workers, expect_posix
from attribug.storage import locations, shared_models
from attribug.storage.tensors import Tensors

DEFAULT, OWN = "quick", "own"
"""Suites, where nobody names one: the latter where somebody brings a model."""


@dataclass(frozen=True)
class Request:
    """A run that is asked for: everything is named, nothing is done."""

    plan: Plan
    options: RunOptions
    """As workers are told them: with this machine's device, absolute paths of plugins and models, and no changes of the
    suite, which the plan's has already."""
    place: locations.Location
    """Of the results."""
    given: locations.Location | None
    """Of trained models."""
    functions: bytes
    """Plain functions among the methods, pickled."""
    brought: Brought | None = None
    """The user's own model and data."""
    held: tuple[str, ...] = ()
    """What there is to say of scores that the folder holds already."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What becomes of scores that are there already, what was found about the user's own model and data, and what
        of the plan these do not admit, a line each."""
        if self.brought is None:
            return self.held
        return (*self.held, *self.brought.lines, *declined(self.plan, self.brought), *impossible(self.plan))

    @property
    def workers(self) -> int:
        """Processes at once."""
        return self.options.workers or (1 if self.plan.device == "cuda" else default_workers())

    def setup(self, out: Path, cache: Path) -> Setup:
        """What workers are told."""
        suite, files = self.plan.suite.model_dump(), opened.noted()
        own = b"" if self.brought is None else shipped(self.brought)
        return Setup(suite, self.plan.key, str(out), str(cache), self.functions, self.options, files, own)

    @contextlib.contextmanager
    def used(self, cache: locations.Location) -> Iterator[None]:
        """Messages name the URLs that the user gave; their copies are kept from being pruned."""
        places = (self.place, cache, *([] if self.given is None else [self.given]))
        with locations.named(*places), contextlib.ExitStack() as held:
            for place in places:
                held.enter_context(place.used())
            yield

    def fetch_given(self) -> None:
        """Fetches the given models from their URL."""
        if self.given is not None:
            shared_models.fetch_models(self.given, Tensors(self.given.folder), self.plan.trainings)


def requested(suite: str | None, options: RunOptions) -> Request:
    """Resolves a suite, a shipped name or a YAML path, with options; None: the one for what is asked. Raises
    `InputError` for wrong input."""
    expect_posix()
    loaded = _load(options.plugins)
    names, functions = handed_over(options.methods)
    options, objects = from_python(replace(options, methods=names))
    name = suite or (OWN if options.model or options.data else DEFAULT)
    chosen = planning.load_suite(name, options.of_the_suite(), loaded)
    if chosen.panels and options.of_a_given_model:  # what somebody brings is asked in the place of the suite's models
        chosen = planning.with_own_panel(chosen)
    if OWN not in {*chosen.tasks, *chosen.panels} and options.of_a_given_model:
        flag = next(iter(options.of_a_given_model))
        expected = (
            "expected a suite with the task own, as `attribug run own`, or with panels, as `attribug run alignment`"
        )
        raise InputError(f"--{flag}: {expected}, found {name}")
    own = bring(chosen, objects)
    place = locations.at(Path("runs") / chosen.name if options.out is None else options.out, "--out ")
    known = not options.fresh and place.remote is None  # what lies at a URL is fetched later
    chosen, kept, held = with_held(chosen, place.folder, place.name) if known else (chosen, False, [])
    plan = planning.resolved(chosen, options.device)
    given = None if options.models is None else locations.at(options.models, "--models ")
    if given is not None and given.remote is None and not given.folder.is_dir():
        raise InputError(f"--models {given.name}: expected a folder of trained models, found none")
    if given is not None and options.fresh:
        found = f"--models {given.name} none: expected one of them, found both"
        raise InputError(f"--fresh trains every model anew, {found}")
    suites: dict[str, Any] = dict.fromkeys((*OF_THE_SUITE, *OF_A_GIVEN_MODEL))  # told by the plan's suite
    resolved = replace(
        options,
        **suites,
        changes=None,
        keep_maps=options.keep_maps or kept,
        plugins=tuple(str(Path(plugin).absolute()) if plugin.endswith(".py") else plugin for plugin in options.plugins),
        device=plan.device,
        models=None if given is None else given.folder.resolve(),
    )
    return Request(plan, resolved, place, given, functions, own, tuple(held))


def _load(plugins: Sequence[str]) -> dict[str, list[str]]:
    """Names that plugins register, by kind."""
    registered: dict[str, list[str]] = {}
    for plugin in plugins:
        for kind, names in load_plugin(plugin).items():
            registered.setdefault(kind, []).extend(names)
    return registered
