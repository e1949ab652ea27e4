"""Jobs: what a worker is told to do. A worker makes the plan itself, so jobs are a few names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribug.running.options import RunOptions
from attribug.storage.models import Models

if TYPE_CHECKING:
    from attribug.running.outcome import Outcome

Event = Callable[[str, int], None]


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know once; plain values only."""

    suite: dict[str, Any]
    plan: str
    """Content key of the plan; a worker that comes to another one refuses to work."""
    out: str
    cache: str
    functions: bytes
    """Functions given from Python, pickled by cloudpickle: {name: function}."""
    options: RunOptions
    """As they were resolved: see `attribug.running.request`."""
    opened: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Files that plugins read while they are loaded, by module."""
    brought: bytes = b""
    """The user's own model and data, as `attribug.models.brought` ships them."""

    def models(self) -> Models:
        """Where trained models are."""
        given = self.options.models
        return Models(Path(self.cache), None if given is None else Path(given), self.options.device)


@dataclass(frozen=True)
class Train:
    """Trains the model of a content key."""

    key: str


@dataclass(frozen=True)
class MeasureChecks:
    """Measures the checks of a cell, by its number in the plan."""

    cell: int


@dataclass(frozen=True)
class Block:
    """Explains and scores a cell with a bundle of methods."""

    cell: int
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Explain:
    """Explains one side of a cell, by their numbers, with a bundle of methods: for the blocks that ask the same."""

    cell: int
    side: int
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Try:
    """Measures a mended model, by the numbers of its cell and of its trial there."""

    cell: int
    trial: int


Job = Train | MeasureChecks | Try | Explain | Block


Write = Callable[["Outcome", Path], object]
"""Makes tables of an outcome in a folder; a module-level function, so that a worker can import it."""


@dataclass(frozen=True)
class Calibrate:
    """Times a little of what waits, on untrained models; also the making of tables, where `write` makes them."""

    waiting: tuple[Job, ...]
    write: Write | None


@dataclass(frozen=True)
class Done:
    """What a job reports: seconds, reasons of methods that failed, figures of checks or of a calibration, files that it
    found damaged."""

    seconds: float
    failures: dict[str, str]
    figures: dict[str, float] | None = None
    damaged: tuple[str, ...] = ()
