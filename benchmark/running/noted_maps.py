"""Kept maps of which a worker notes which file is which; imported by workers only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attribug.maps.kept import KeptMaps
from attribug.storage.records import MapFile

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.contrasts import Side
    from attribug.contracts.pieces import Method
    from attribug.maps.kept import Explained
    from attribug.query.query import Query
    from attribug.storage.tensors import Tensors


class _Watched:
    """A store that knows which file it read or wrote last."""

    def __init__(self, store: Tensors) -> None:
        self.store = store
        self.last = ""

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors, or None when they are absent or damaged."""
        tensors = self.store.load(key)
        if tensors is not None:
            self.last = self.store.path(key).name
        return tensors

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keeps tensors."""
        self.store.save(key, tensors)
        self.last = self.store.path(key).name


class NotedMaps(KeptMaps):
    """Kept maps that note by method which files were found or made, of which model, examples and classes: only whoever
    asks knows that, since a file's name is a digest."""

    def __init__(self, store: Tensors, **options: Any) -> None:
        """`options`: those of `KeptMaps`."""
        self._watched = _Watched(store)
        super().__init__(self._watched, **options)
        self.noted: dict[str, list[MapFile]] = {}

    def explained(
        self,
        method: Method,
        parameters: Mapping[str, Any],
        side: Side,
        query: Query,
        explain: Callable[[], Explained],
        *,
        share: bool = False,
    ) -> Explained:
        """As `KeptMaps.explained`."""
        self._watched.last = ""
        found = super().explained(method, parameters, side, query, explain, share=share)
        if self._watched.last:
            asked = tuple(query.ids.tolist()), tuple(query.targets.tolist())
            file = MapFile(str(side.model.key), side.examples.key, *asked, self._watched.last)
            self.noted.setdefault(method.name, []).append(file)
        return found
