"""Alignment of a map (N, *spatial) with a truth mask (N, *spatial) bool: NaN for an empty mask or a map that says
nothing. `spatial`: pixels (H, W), places (L,) or features (D,), all called pixels here.

Ties never depend on an order of pixels: a value that several pixels share counts as if it were drawn among them.
"""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

from attribug import metrics
from attribug.errors import Unsupported
from attribug.metrics.similarity import ascending, averaged_ranks, groups

TOLERANCE = 15 / 224
"""Zhang et al. allow 15 pixels, on images of a few hundred; ours is that share of the shorter side."""


@metrics.register(
    "mass_accuracy", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), domain=(0, None),
    symmetric=False, paper="Arras et al. 2022, eq. 2 (relevance mass accuracy)",
)  # fmt: skip
def mass_accuracy(a: Tensor, masks: Tensor) -> Tensor:
    """Σ_G R / Σ R: the share of a non-negative map's relevance inside the mask. Undefined: no relevance at all."""
    maps, inside = flat(a, masks)
    return defined(_mass(maps, inside), inside, maps.amax(1) > 0)


@metrics.register(
    "energy_pointing_game", kind="alignment", bounds=(0, 1), visible=0.05, posts=("sum",), symmetric=False,
    paper="Wang et al. 2020 (Score-CAM), section 4.3",
)  # fmt: skip
def energy_pointing_game(a: Tensor, masks: Tensor) -> Tensor:
    """Σ_G max(R, 0) / Σ max(R, 0): the share of positive relevance inside the mask. Undefined: none is positive."""
    maps, inside = flat(a, masks)
    positive = maps.clamp(min=0)
    return defined(_mass(positive, inside), inside, positive.amax(1) > 0)


@metrics.register(
    "rank_accuracy", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Arras et al. 2022, eq. 3 (relevance rank accuracy)",
)  # fmt: skip
def rank_accuracy(a: Tensor, masks: Tensor) -> Tensor:
    """|top-K ∩ G| / K with K = |G|: the share of the K highest pixels that lie inside. Undefined: a constant map."""
    maps, inside = flat(a, masks)
    size = inside.sum(1, keepdim=True)
    return defined((among_highest(maps, size) * inside).sum(1) / size[:, 0], inside, varies(maps))


@metrics.register(
    "pointing_game", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Zhang et al. 2018, section 4.2, without tolerance",
)  # fmt: skip
def pointing_game(a: Tensor, masks: Tensor) -> Tensor:
    """1 where the map's maximum lies in the mask, else 0; the share of hits among tied maxima. Undefined: constant."""
    return _hits(*flat(a, masks), masks.flatten(1))


@metrics.register(
    "pointing_game_tolerant", kind="alignment", images=True, bounds=(0, 1), visible=0.05, posts=("abs_sum",),
    symmetric=False, paper="Zhang et al. 2018, section 4.2; tolerance scaled with the image",
)  # fmt: skip
def pointing_game_tolerant(a: Tensor, masks: Tensor) -> Tensor:
    """`pointing_game` with a hit up to 15/224 of the shorter side away from the mask, rounded to whole pixels.

    Zhang et al. allow 15 pixels whatever the size; that would reach over half of a 32-pixel image.
    """
    maps, inside = flat(a, masks)
    reach = round(TOLERANCE * min(masks.shape[1:]))
    far = [torch.from_numpy(ndimage.distance_transform_edt(~mask.cpu().numpy())) for mask in masks]
    near = torch.stack(far).to(masks.device) <= reach
    return _hits(maps, inside, near.flatten(1))


@metrics.register(
    "auroc", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Fawcett 2006, section 7",
)  # fmt: skip
def auroc(a: Tensor, masks: Tensor) -> Tensor:
    """P(a pixel inside is higher than one outside) + ½ P(equally high). Undefined: constant map, full mask.

    From the ranks ρ, ties averaged: (Σ_G ρ − |G|(|G| + 1)/2) / (|G|·(D − |G|)), the Mann–Whitney statistic.
    """
    maps, inside = flat(a, masks)
    size = inside.sum(1).double()
    wins = -size * (size + 1) / 2
    for some in groups(maps):
        ranks = torch.from_numpy(averaged_ranks(maps[some].cpu().numpy())).to(maps.device)
        wins[some] += (ranks * inside[some]).sum(1)
    return defined(wins / (size * (maps.shape[1] - size)), inside, varies(maps) & ~inside.all(1))


@metrics.register(
    "average_precision", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Zhu 2004; steps as in scikit-learn",
)  # fmt: skip
def average_precision(a: Tensor, masks: Tensor) -> Tensor:
    """Σₙ (recallₙ − recallₙ₋₁)·precisionₙ over the map's distinct values as thresholds. Undefined: a constant map.

    Not interpolated. A map that knows nothing scores about the mask's share of the image, not one half.
    """
    maps, inside = flat(a, masks)
    precisions = [_precision_by_recall(*row) for row in zip(maps.cpu(), inside.cpu(), strict=True)]
    precision = torch.tensor(precisions, dtype=torch.float64, device=maps.device)
    return defined(precision / inside.sum(1), inside, varies(maps))


def _precision_by_recall(values: Tensor, inside: Tensor) -> float:
    """Σₙ hitsₙ·precisionₙ of one map (D,), hitsₙ the pixels inside that share the n-th highest value."""
    ordered, order = (each[0].flip(0) for each in ascending(values[None].numpy()))
    last = torch.ones_like(inside)
    last[:-1] = ordered[1:] != ordered[:-1]  # where a value occurs for the last time
    hits = inside[order].cumsum(0)[last]
    above = torch.arange(1, len(values) + 1, dtype=torch.float64)[last]
    return float((hits.diff(prepend=hits.new_zeros(1)) * (hits / above)).sum())


def among_highest(maps: Tensor, count: Tensor) -> Tensor:
    """Share of each pixel in the `count` (N, 1) highest ones, (N, D): 1 or 0, between where values tie at the end."""
    places = (maps.shape[1] + 1 - count[:, 0]).clamp(1, maps.shape[1]).tolist()  # of the last value that is in
    least = torch.stack([row.kthvalue(place).values for row, place in zip(maps, places, strict=True)])[:, None]
    above, tied = maps > least, maps == least
    share = (count - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True).double()
    return torch.where(above, 1.0, torch.where(tied, share, 0.0))


def flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and masks as (N, D), float64 and bool; raises `Unsupported` unless both are (N, *spatial) and masks bool."""
    if maps.ndim not in {2, 3} or maps.shape != masks.shape:
        found = f"found {tuple(maps.shape)} and {tuple(masks.shape)}"
        raise Unsupported(f"alignment needs maps and masks (N, H, W), (N, L) or (N, D), {found}")
    if masks.dtype != torch.bool:
        raise Unsupported(f"alignment needs masks of torch.bool, found {masks.dtype}")
    return maps.double().flatten(1), masks.flatten(1)


def varies(maps: Tensor) -> Tensor:
    """Whether a map (N, D) has two values, (N,); one with NaN has not."""
    return maps.amax(1) > maps.amin(1)


def defined(values: Tensor, inside: Tensor, meaningful: Tensor) -> Tensor:
    """Values (N,) with NaN for empty masks, and where maps are not meaningful."""
    return torch.where(inside.any(1) & meaningful, values, torch.nan)


def _mass(maps: Tensor, inside: Tensor) -> Tensor:
    """Share of a non-negative map's sum inside a mask."""
    relative = maps / maps.amax(1, keepdim=True)  # to the largest value, so that tiny maps keep their digits
    return torch.where(inside, relative, 0).sum(1) / relative.sum(1)


def _hits(maps: Tensor, inside: Tensor, near: Tensor) -> Tensor:
    highest = maps == maps.amax(1, keepdim=True)
    return defined((highest & near).sum(1) / highest.sum(1).double(), inside, varies(maps))
