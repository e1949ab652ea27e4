"""Subjects: models whose explanations are held against what people marked, without any bug: see `attribug.panels`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from attribug import keys
from attribug.contracts.data import DATA_LIBRARIES, Data, Examples

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.contrasts import Side, Target
    from attribug.contracts.tasks import Task


@dataclass(frozen=True)
class Regions:
    """A lazy handle to named masks of some examples; `key` tells them apart, nothing is read before `load()`."""

    key: str
    names: tuple[str, ...]
    """In the order in which tables show them; the first is the main one."""
    build: Callable[[], Mapping[str, Tensor]] = field(compare=False, repr=False)

    @staticmethod
    def of(names: Iterable[str], build: Callable[..., Mapping[str, Tensor]], **parameters: Any) -> Regions:
        """The masks that `build(**parameters)` makes, by name, (N, *spatial) bool each, in the examples' order; their
        key covers the function's code and the parameters."""
        key = keys.digest("regions", tuple(names), build, parameters, keys.versions(*DATA_LIBRARIES))
        return Regions(key, tuple(names), partial(build, **parameters))

    @staticmethod
    def told(examples: Examples, **kinds: str) -> Regions:
        """What the examples themselves tell: names with what each is of `Data.truth` (`object`, `background`,
        `annotated`)."""
        return Regions.of(kinds, _told, examples=examples, kinds=kinds)

    def __content_key__(self) -> str:
        return self.key

    def load(self) -> Mapping[str, Tensor]:
        """Reads or makes the masks. An empty one says that there is nothing to be seen on this example."""
        return self.build()


def _told(*, examples: Examples, kinds: Mapping[str, str]) -> dict[str, Tensor]:
    data: Data = examples.load()
    found = {name: data.truth(kind) for name, kind in kinds.items()}
    absent = [kind for name, kind in kinds.items() if found[name] is None]
    if absent:
        raise ValueError(f"regions: expected examples that tell {', '.join(absent)}, found none")
    return {name: mask for name, mask in found.items() if mask is not None}


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
