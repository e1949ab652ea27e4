"""Subjects: models whose explanations are held against what people marked, without any bug: see `attribug.panels`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from attribug.contracts.regions import Regions

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Side, Target
    from attribug.contracts.tasks import Task

__all__ = ["Ask", "Lacking", "Regions", "Subject"]


@dataclass(frozen=True)
class Subject:
    """One model, asked about one set of examples, and the masks that its explanations are held against.

    Subjects of one `model` and `data` that differ in the seed of their side are alike: tables give their mean, with an
    interval over them.
    """

    model: str
    """What tables call it: `normal`, `squeezenet`."""
    data: str
    """What tables call the examples: `decorrelated`, `swapped: birds`."""
    side: Side
    """The model, and the examples that are explained."""
    regions: Regions
    tested: Side | None
    """The model that answers, and labelled examples on which it is right or not; None: nobody knows the labels."""
    target: Target = "own"
    """Which class is explained: the model's `own` prediction, or the `label`."""
    draw: int | None = None
    """Which of several that are alike, where they share the explained model and differ in the one that is tested; None:
    its seed tells them apart."""

    classes: tuple[str, ...] = ()
    """Names of its outputs, where galleries shall tell them."""

    @property
    def unit(self) -> int:
        """What tells alike subjects apart."""
        return self.side.seed if self.draw is None else self.draw


@dataclass(frozen=True)
class Lacking:
    """A subject that cannot be asked, and why."""

    model: str
    data: str
    reason: str


class Ask(Protocol):
    """What a panel gets tasks from."""

    def __call__(self, name: str, **options: Any) -> Task:
        """The task of a name, under the suite's options for it and these. Raises `Unsupported` where its data are not
        on this machine."""
