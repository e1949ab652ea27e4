"""A task: labelled examples with the recipe that trains a model on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from attribug.contracts.data import Examples
from attribug.contracts.models import Recipe, Trained

Level = float | int | str


@dataclass(frozen=True)
class Task:
    """A labelled example set, with object masks where they exist, and the recipe that trains a model on it."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    recipe: Recipe
    examples: Callable[..., Examples]
    """`examples("train" | "test")`: clean data. A task with separable backgrounds also takes `share` (of the images
    whose background gives the label away), `swapped` (backgrounds of another class), `foreground=False` (backgrounds
    alone); others raise `Unsupported` for these."""
    other: Callable[[str], Task] = field(compare=False, repr=False)
    """Another task of the same run, by name."""
    features: tuple[str, ...] = ()
    """Names of a vector's entries, where they have any: galleries tell them."""

    def clean(self, seed: int) -> Trained:
        """The clean model of a seed."""
        return Trained(self.examples("train"), self.recipe, seed)

    def retrained(self, **changes: Any) -> Recipe:
        """The task's recipe with changes."""
        return replace(self.recipe, **changes)
