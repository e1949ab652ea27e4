"""Inputs are images (N, C, H, W), sequences (N, C, L) or vectors (N, D): which axis holds their channels, and what is
left of a map without them. Shapes are those of whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attribug.errors import Unsupported

Kind = Literal["images", "sequences", "vectors"]
KINDS: dict[int, Kind] = {4: "images", 3: "sequences", 2: "vectors"}
"""By number of axes."""
EXPECTED = "images (N, C, H, W), sequences (N, C, L) or vectors (N, D)"


def kind(shape: Sequence[int]) -> Kind:
    """What inputs or maps of a shape are; raises `Unsupported` for anything else."""
    if len(shape) not in KINDS:
        raise Unsupported(f"expected {EXPECTED}, found {tuple(shape)}")
    return KINDS[len(shape)]


def channel_axis(shape: Sequence[int]) -> int | None:
    """The axis of the channels, None where there are none; raises `Unsupported` for an unknown kind."""
    return None if kind(shape) == "vectors" else 1


def spatial(shape: Sequence[int]) -> tuple[int, ...]:
    """An example's shape without channels, (H, W), (L,) or (D,); raises `Unsupported` for an unknown kind."""
    return tuple(shape[1:] if channel_axis(shape) is None else shape[2:])


def expect_images(shape: Sequence[int]) -> None:
    """Raises `Unsupported` unless a shape is that of images."""
    if KINDS.get(len(shape)) != "images":
        raise Unsupported(f"expected images (N, C, H, W), found {tuple(shape)}")
