"""Kept maps: explanations stored by what determines them, so that nothing is explained again for a new metric, or for
another contrast of the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from attribug import keys
from attribug.contracts import outputs
from attribug.errors import StorageError
from attribug.maps.attribution import attributions
from attribug.maps.guard import MethodFault
from attribug.query.passes import Cost

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Side
    from attribug.contracts.pieces import Method
    from attribug.query.query import Query

Precision = Literal["float32", "float16"]


@dataclass(frozen=True)
class Explained:
    """What a method says of one query, and what this has cost."""

    maps: Tensor
    """(N, *shape), or another kind of output, on the CPU."""
    promised: Tensor | None
    """What each map ought to sum to, (N,): see `Query.promise`."""
    cost: Cost
    rows: int
    """Examples of a single pass: fewer than the suite's where memory ran out."""


def explained(method: Method, query: Query, parameters: Mapping[str, Any]) -> Explained:
    """What a method makes of a query."""
    try:
        with query.costing() as costing:
            maps = attributions(method, query, parameters)
    except StorageError as error:  # its own files, not ours
        raise MethodFault(str(error)) from error
    promised = None if query.promised is None else query.promised.cpu()
    return Explained(maps.cpu(), promised, costing.cost, query.rows)


class MapStore(Protocol):
    """Where maps are kept by content key."""

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors, or None when they are absent or damaged."""

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keeps tensors."""


class KeptMaps:
    """Reads the maps that a folder holds, unless all is to be `fresh`; `keep`: what is explained goes there too. Maps
    that several contrasts of a run ask for lie in `shared` while it goes on. Under another precision than float32
    outputs that bear it are rounded before anybody sees them, kept or not, so that both give the same scores."""

    def __init__(
        self,
        store: MapStore,
        *,
        place: str,
        precision: Precision = "float32",
        keep: bool = False,
        fresh: bool = False,
        shared: MapStore | None = None,
    ) -> None:
        """`place`: content key of what all explanations of a run rest on, device, code and library versions."""
        self.store = store
        self.shared = shared
        self.keep = keep
        self.fresh = fresh
        self.precision = precision
        self.place = place

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
        """What the folder holds of this method, model, inputs and classes, else what `explain` gives; `share`: other
        contrasts will ask for it."""
        output = outputs.get(method.output)
        key = keys.digest(
            "maps", method.name, method.function, output.content, method.needs, dict(parameters), side.model,
            side.examples.key, query.ids, query.targets, query.seed, query.rows, self.precision, self.place,
        )  # fmt: skip
        known = None if self.fresh else self.store.load(key)
        if known is None and self.shared is not None:
            known = self.shared.load(key)
        if known is not None:
            return _unpacked(known)
        explanation = explain()
        packed = _packed(explanation, half=self.precision == "float16" and output.halved)
        if self.keep:
            self.store.save(key, packed)
        if share and self.shared is not None:
            self.shared.save(key, packed)
        return _unpacked(packed)


def maps_of(tensors: Mapping[str, Tensor]) -> Tensor:
    """The maps among tensors that a store has kept, (N, *shape) float32."""
    return _unpacked(dict(tensors)).maps.float()


def _packed(explanation: Explained, *, half: bool) -> dict[str, Tensor]:
    cost = torch.tensor(
        [explanation.cost.seconds, explanation.cost.forward, explanation.cost.backward], dtype=torch.float64
    )
    tensors = {"maps": explanation.maps, "cost": cost, "rows": torch.tensor(explanation.rows)}
    if half:
        tensors |= _halved(explanation.maps)
    return tensors if explanation.promised is None else {**tensors, "promised": explanation.promised.cpu()}


def _halved(maps: Tensor) -> dict[str, Tensor]:
    """Each map over its largest finite absolute value, float16, whose own range ends at 65,504; and these values."""
    flat = maps.flatten(1)
    largest = torch.where(flat.isfinite(), flat.abs(), torch.zeros_like(flat)).amax(1)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))  # (N,)
    return {"maps": (flat / scale[:, None]).half().reshape(maps.shape), "scale": scale}


def _unpacked(tensors: dict[str, Tensor]) -> Explained:
    maps, (seconds, forward, backward) = tensors["maps"], tensors["cost"].tolist()
    if "scale" in tensors:
        scale = tensors["scale"]
        maps = maps.to(scale.dtype) * scale.reshape(-1, *[1] * (maps.ndim - 1))
    return Explained(maps, tensors.get("promised"), Cost(seconds, int(forward), int(backward)), int(tensors["rows"]))
