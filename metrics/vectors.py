"""Similarity of two maps taken as vectors: their direction, and their highest values."""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import metrics
from attribug.metrics.alignment import among_highest, varies

TOP = 0.1
"""Share of the pixels that are the highest ones; our choice. Ghorbani et al. take 1,000 of 224 × 224."""


def unit(maps: Tensor) -> Tensor:
    """Each map flattened and scaled to length 1, (N, D); a zero map: NaN."""
    flat = maps.double().flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True)  # so that tiny and huge maps keep their digits
    length: Tensor = flat.norm(dim=1, keepdim=True)
    return flat / length


def highest(maps: Tensor) -> Tensor:
    """Which values are among the highest tenth, at least one, (N, D), ties sharing the last places; constant: NaN."""
    flat = maps.detach().cpu().double().flatten(1)
    count = torch.full((len(flat),), max(1, round(TOP * flat.shape[1])))
    return torch.where(varies(flat)[:, None], among_highest(flat, count), torch.nan)


@metrics.register(
    "cosine", bounds=(-1, 1), visible=0.1, posts=("sum", "abs_sum"), prepare=unit, paper="the angle between two vectors"
)
def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Do two maps point the same way, as vectors? 1 the same way, 0 at right angles, −1 opposite ways.

    a·b / (‖a‖‖b‖); a, b: `unit`, (N, D). Undefined: a zero map. Maps without negative values are never far apart.
    """
    return (a * b).sum(1).clamp(-1, 1)


@metrics.register(
    "top_k_intersection", bounds=(0, 1), visible=0.1, posts=("abs_sum", "sum"), prepare=highest,
    paper="Ghorbani, Abid, Zou 2019 (Interpretation of neural networks is fragile), section 2",
)  # fmt: skip
def top_k_intersection(a: Tensor, b: Tensor) -> Tensor:
    """Do two maps have their highest tenth of pixels in common? 1 all of them, 0 none, .1 by chance.

    |A ∩ B| / k, A and B the k = 10 % highest values; a, b: `highest`, (N, D). Undefined: a constant map.

    Values that tie for the last places share them, and two maps share the smaller of what each gives a pixel. Two
    unrelated maps share 10 %.
    """
    return torch.minimum(a, b).sum(1) / a.sum(1)
