"""The order of a map's values: ranks, and places from the highest down. Equal values share what they have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CACHED = 2**17  # numbers of a group of maps: a megabyte; 2¹³ to 2¹⁸ were tried


def groups(maps: Tensor) -> Iterator[slice]:
    """Slices of maps that stay in a core's cache while they are worked on."""
    step = max(1, CACHED * len(maps) // max(1, maps.numel()))
    yield from (slice(start, start + step) for start in range(0, len(maps), step))


def ascending(maps: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Each map's values, sorted, and where each value stood, both (N, D), the latter int64; equal ones in any order.

    NumPy sorts numbers faster than PyTorch sorts numbers, or integers that stand for them.
    """
    order = torch.from_numpy(np.argsort(maps, axis=1))
    return torch.from_numpy(maps).gather(1, order), order


def averaged_ranks(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 of each map's values, ties averaged, (N, D); a map with NaN becomes NaN."""
    ordered, order = ascending(maps)
    rises = np.ones(maps.shape, dtype=bool)
    rises[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    bounds = np.append(np.flatnonzero(rises), rises.size)  # of runs of equal values, counted over all maps
    averages = np.repeat((bounds[1:] + bounds[:-1] + 1) / 2, np.diff(bounds)).reshape(maps.shape)
    averages -= maps.shape[1] * np.arange(len(maps))[:, None]
    averages[np.isnan(maps).any(1)] = np.nan
    return torch.empty(maps.shape, dtype=torch.float64).scatter_(1, order, torch.from_numpy(averages)).numpy()


class Ordered:
    """The pixels of maps (N, *spatial) from the lowest up, each map's in a row of `order` (N, *spatial) int64.

    `first` (N, D) bool: whether the value at a place of that order occurs there for the first time. A map with NaN
    counts as constant.
    """

    def __init__(self, maps: Tensor) -> None:
        planes = maps.detach().cpu().double().flatten(1)
        order = torch.empty(planes.shape, dtype=torch.int64)
        self.first = torch.ones(planes.shape, dtype=torch.bool)
        for some in groups(planes):
            values, order[some] = ascending(planes[some].numpy())
            rises = values.numpy()[:, 1:] != values.numpy()[:, :-1]
            rises[values[:, -1].isnan().numpy()] = False
            self.first[some, 1:] = torch.from_numpy(rises)
        self.order = order.reshape(maps.shape)

    def __getitem__(self, index: Tensor | slice) -> Ordered:
        part = object.__new__(Ordered)
        part.order, part.first = self.order[index], self.first[index]
        return part

    @property
    def distinct(self) -> Tensor:
        """How many values a map has, (N,) int64."""
        return counted(self.first)

    def flags(self, masks: Tensor) -> Tensor:
        """Masks (N, *spatial) bool in the order of each map's values, (N, D)."""
        return masks.cpu().flatten(1).gather(1, self.order.flatten(1))

    def runs(self, row: int, flags: Tensor) -> tuple[Tensor, Tensor]:
        """Of a map, for its n distinct values from the lowest up: how many of its `flags` (D,) have the value, float64,
        and how many pixels have a lower one, int64, both (n,)."""
        lower = torch.from_numpy(np.flatnonzero(self.first[row].numpy()))
        below = torch.cat([flags.new_zeros(1, dtype=torch.float64), flags.double().cumsum(0)])
        return below.index_select(0, torch.cat([lower, lower.new_tensor([len(flags)])])).diff(), lower


def counted(flags: Tensor) -> Tensor:
    """How many of each example's flags (N, D) bool are true, (N,) int64."""
    return torch.from_numpy(np.fromiter(map(np.count_nonzero, flags.cpu().numpy()), np.int64, len(flags)))
