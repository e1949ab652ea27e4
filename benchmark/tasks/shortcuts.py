"""What a shortcut says of examples: their label, another one, or anything."""

from __future__ import annotations

import torch
from torch import Tensor

from attribug.errors import InputError, Unsupported


def expect_share(task: str, share: float | None, scene: dict[str, object]) -> None:
    """Raises `InputError` for what is no share, `Unsupported` for a variant that is none of shortcuts."""
    if scene:
        raise Unsupported(f"task {task} has no background apart from its subject")
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"{task}: expected a share from 0 to 1, found {share:g}")


def named(
    label: int, classes: int, stream: torch.Generator, *, share: float, swapped: bool, instead: int | None = None
) -> int:
    """Which class an example's shortcut tells; as many draws in every variant.

    The example's turn, a number in [0, 1), lies below `share`: its label, or, `swapped`, the class `instead`, any other
    one where that is None. Elsewhere any class at all.
    """
    turn = float(torch.rand((), generator=stream, dtype=torch.float64))
    free = int(torch.randint(classes, (), generator=stream))
    lie = (label + 1 + int(torch.randint(classes - 1, (), generator=stream))) % classes
    if turn >= share:
        return free
    return label if not swapped else lie if instead is None else instead


def paired(labels: Tensor, said: Tensor, classes: int) -> Tensor:
    """A number for each pair of label and what the shortcut says, both (N,) int64."""
    return labels * classes + said
