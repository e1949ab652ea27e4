"""How a run tells of its progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Stage = str


class Reporter(Protocol):
    """Hears how a run gets on."""

    def note(self, line: str) -> None:
        """What is to be known before anything starts."""

    def begin(self, totals: Mapping[Stage, int]) -> None:
        """The amount of work by stage: training, explaining, scoring."""

    def advance(self, stage: Stage, amount: int) -> None:
        """Some of it is done."""

    def end(self) -> None:
        """No more will come."""


class Silent:
    """Says nothing."""

    def note(self, line: str) -> None:
        """Ignored."""

    def begin(self, totals: Mapping[Stage, int]) -> None:
        """Ignored."""

    def advance(self, stage: Stage, amount: int) -> None:
        """Ignored."""

    def end(self) -> None:
        """Ignored."""
