"""A task: labelled examples with the recipe that trains a model on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from attribug.contracts.data import Examples
from attribug.contracts.models import Given, ModelSpec, Recipe, Trained
from attribug.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn

    from attribug.contracts.regions import Regions

Level = float | int | str
VALIDATION = "validation"
"""The split that neither trains models nor tests them."""


@dataclass(frozen=True)
class GivenModel:
    """A model that somebody brings: explained as it is, and compared with copies whose weights are a little other."""

    spec: Given
    sigma: float
    """Of the noise that makes a perturbed copy: see `attribug.models.perturbed`."""
    examples: Examples
    """Its inputs; labels are what it predicts where nobody says others."""
    looked: Examples
    """Some of them: σ was searched for on these, and checks look at these."""
    mean: tuple[float, ...] | None = None
    """Its inputs are (x − mean) / std of pictures x in [0, 1], by channel; None: nobody knows."""
    std: tuple[float, ...] | None = None
    classes: int = 0
    """Outputs it has."""
    layers: tuple[str, ...] = ()
    """Modules with weights of their own in the order in which they run: see `attribug.models.order`."""
    known: Examples | None = None
    """Examples whose labels somebody says: on these the model is right, or not; None: nobody says any."""
    resizes: bool = False
    """Whether it takes pictures of any size: other models' tasks may ask it about theirs."""
    called: str = ""
    """What people call it."""


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
    start: ModelSpec | None = None
    """What training goes on from; None: from the recipe's untrained network."""
    trainable: Callable[[nn.Module], Sequence[str]] | None = None
    """Which parts training changes, as of `Trained`; None: all."""
    given: GivenModel | None = None
    """The model that is asked about, where it is given: bugs of weights and of test inputs befall it as it is."""
    stranger: GivenModel | Task | None = None
    """Beside a given model: a second one that takes the same inputs, of another domain; or the task of another domain
    that such a model is trained on."""
    notes: tuple[str, ...] = ()
    """What was found about model and data that somebody brings, a line each."""
    splits: tuple[str, ...] = ("train", "test")
    """What `examples` can be asked for; some have `VALIDATION` as well."""
    clean_has_shortcut: bool = False
    """Whether the shortcut tells the label of clean examples, too: such a task knows none without it."""
    untrained: str = ""
    """Why nothing can be trained on this task, if so."""
    regions: Regions | None = None
    """What people marked on the given model's examples, in their order, by name; None: nothing."""

    def trained(self, examples: Examples, seed: int) -> Trained:
        """The model of a seed, trained on some examples as this task trains. Raises `Unsupported` where it cannot."""
        if self.untrained:
            raise Unsupported(self.untrained)
        return Trained(examples, self.recipe, seed, self.start, self.trainable)

    def clean(self, seed: int) -> Trained:
        """The clean model of a seed; raises as `trained`."""
        return self.trained(self.examples("train"), seed)

    def retrained(self, **changes: Any) -> Recipe:
        """The task's recipe with changes."""
        return replace(self.recipe, **changes)
