"""Tasks of a plan: each made once, under the suite's options, or told why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribug import keys, tasks
from attribug.contracts.options import check_options
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported, one_line
from attribug.suites.suite import Suite


class Tasks:
    """Gives a suite's tasks by name, under its `task_options`, and further options of whoever asks."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.made: dict[tuple[str, str], Task] = {}

    def __call__(self, name: str, **options: Any) -> Task:
        """The task of a name. Raises `Unsupported` where its data are not on this machine, `InputError` for names and
        options that do not exist."""
        chosen = self.options(name) | options
        place = name, keys.digest(chosen)
        if place not in self.made:
            if absent := self.missing(name, chosen):
                raise Unsupported(f"task {name}: data are missing: {absent}")
            self.made[place] = self._made(name, chosen)
        return self.made[place]

    def options(self, name: str) -> dict[str, Any]:
        """The suite's options of a task."""
        return dict(self.suite.task_options.get(name, {}))

    def missing(self, name: str, options: Mapping[str, Any] | None = None) -> str:
        """How to get a task's data under the suite's options, or others, or an empty text; raises `InputError` for
        options that do not exist."""
        source, chosen = tasks.get(name), self.options(name) if options is None else options
        check_options(f"task_options.{name}", source.function, chosen, skip={"seed", "other"})
        try:
            return source.absent_under(chosen)
        except InputError:
            raise
        except Exception as error:  # a plugin's fault
            raise InputError(f"task {name!r}: missing: {one_line(error)}") from error

    def _made(self, name: str, options: Mapping[str, Any]) -> Task:
        try:
            task: Task = tasks.get(name).function(seed=self.suite.seed, other=self, **options)
        except TypeError as error:
            raise InputError(f"task_options.{name}: {one_line(error)}") from error
        except InputError:
            raise
        except Exception as error:  # a plugin's fault; without a task there is nothing to plan
            raise InputError(f"task {name!r}: {one_line(error)}") from error
        return task
