"""Parts of examples that panels ask about."""

from __future__ import annotations

import torch

from attribug.contracts.data import Data, Examples
from attribug.streams import generator


def first(*, base: Examples, count: int) -> Data:
    """The first so many examples; tasks give their labels in turn."""
    data = base.load()
    return data.select(torch.arange(min(count, len(data))))


def shots(*, base: Examples, count: int, draw: int) -> Data:
    """So many examples of each class, drawn; fewer where a class has no more."""
    data = base.load()
    order = torch.randperm(len(data), generator=generator("panels", "shots", draw))
    kept = [order[data.labels[order] == label][:count] for label in data.labels.unique()]
    return data.select(torch.cat(kept))
