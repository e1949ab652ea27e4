"""Regions: named masks of what people marked on examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from attribug import keys
from attribug.contracts.data import DATA_LIBRARIES, Data, Examples

if TYPE_CHECKING:
    from torch import Tensor


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
