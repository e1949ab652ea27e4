"""Alignment of a map (N, *spatial) with a truth mask (N, *spatial) bool: NaN for an empty mask or a map that says
nothing. `spatial`: pixels (H, W), places (L,) or features (D,), all called pixels here.

Ties never depend on an order of pixels: a value that several pixels share counts as if it were drawn among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from attribug import metrics
from attribug.errors import Unsupported
from attribug.metrics.order import Ordered, counted, groups

TOLERANCE = 15 / 224
"""Zhang et al. allow 15 pixels, on images of a few hundred; ours is that share of the shorter side."""


@metrics.register(
    "mass_accuracy", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), domain=(0, None),
    symmetric=False, paper="Arras et al. 2022, eq. 2 (relevance mass accuracy)",
)  # fmt: skip
def mass_accuracy(a: Tensor, masks: Tensor) -> Tensor:
    """Which share of the map's relevance, signs dropped, lies inside the mask? 1 all of it, 0 none.

    Σ_G R / Σ R: the share of a non-negative map's relevance inside the mask. Undefined: no relevance at all.
    """
    maps, inside = flat(a, masks)
    return _mass(maps, inside)


@metrics.register(
    "energy_pointing_game", kind="alignment", bounds=(0, 1), visible=0.05, posts=("sum",), symmetric=False,
    paper="Wang et al. 2020 (Score-CAM), section 4.3",
)  # fmt: skip
def energy_pointing_game(a: Tensor, masks: Tensor) -> Tensor:
    """Which share of the map's positive relevance lies inside the mask? 1 all of it, 0 none.

    Σ_G max(R, 0) / Σ max(R, 0). Undefined: none is positive.
    """
    maps, inside = flat(a, masks)
    return _mass(maps.clamp(min=0), inside)


@metrics.register(
    "rank_accuracy", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Arras et al. 2022, eq. 3 (relevance rank accuracy)",
)  # fmt: skip
def rank_accuracy(a: Tensor, masks: Tensor) -> Tensor:
    """Of the highest pixels, as many as the mask has, which share lies inside it? 1 all, 0 none.

    |top-K ∩ G| / K with K = |G|: the share of the K highest pixels that lie inside. Undefined: a constant map.
    """
    maps, inside = flat(a, masks)
    size = counted(inside)
    least = _least(maps, size)[:, None]
    highest = torch.from_numpy(maps.numpy() >= least.numpy())
    found = counted(highest & inside).double()
    for row in (counted(highest) != size).nonzero()[:, 0].tolist():  # values tie for the last places
        found[row] = (_shares(maps[row, None], least[row], size[row]) * inside[row]).sum(1)
    return defined(found / size, inside, varies(maps))


def _area(masks: Tensor) -> Tensor:
    """The share of an image that a mask has, (N,): the highest pixel of noise may be any. NaN of an empty mask."""
    share = masks.flatten(1).double().mean(1)
    return torch.where(share > 0, share, torch.nan)


def _near_area(masks: Tensor) -> Tensor:
    """The same of the mask and what lies within the tolerance."""
    return torch.where(masks.flatten(1).any(1), _near(masks).double().mean(1), torch.nan)


def _near(masks: Tensor) -> Tensor:
    """Pixels that are at most the tolerance away from masks (N, H, W), (N, D) bool."""
    reach = round(TOLERANCE * min(masks.shape[1:]))
    far = [torch.from_numpy(ndimage.distance_transform_edt(~mask.cpu().numpy())) for mask in masks]
    return (torch.stack(far) <= reach).flatten(1)


@metrics.register(
    "pointing_game", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), chance=_area, symmetric=False,
    paper="Zhang et al. 2018, section 4.2, without tolerance",
)  # fmt: skip
def pointing_game(a: Tensor, masks: Tensor) -> Tensor:
    """Does the map's highest pixel lie in the mask? 1 yes, 0 no; in between where several are highest.

    1 where the map's maximum lies in the mask, else 0; the share of hits among tied maxima. Undefined: a constant map.
    """
    maps, inside = flat(a, masks)
    return _hits(maps, inside, inside)


@metrics.register(
    "pointing_game_tolerant", kind="alignment", images=True, bounds=(0, 1), visible=0.05, posts=("abs_sum",),
    chance=_near_area, symmetric=False, paper="Zhang et al. 2018, section 4.2; tolerance scaled with the image",
)  # fmt: skip
def pointing_game_tolerant(a: Tensor, masks: Tensor) -> Tensor:
    """Does the map's highest pixel lie in the mask or just beside it? 1 yes, 0 no.

    `pointing_game` with a hit up to 15/224 of the shorter side away from the mask, rounded to whole pixels.

    Zhang et al. allow 15 pixels whatever the size; that would reach over half of a 32-pixel image.
    """
    maps, inside = flat(a, masks)
    return _hits(maps, inside, _near(masks))


@metrics.register(
    "auroc", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), prepare=Ordered, symmetric=False,
    paper="Fawcett 2006, section 7",
)  # fmt: skip
def auroc(a: Ordered, masks: Tensor) -> Tensor:
    """Is the map higher inside the mask than outside? 1 everywhere, .5 as often as not, 0 nowhere.

    P(a pixel inside is higher than one outside) + ½ P(equally high). Undefined: constant map, full mask.

    From the ranks ρ, ties averaged: (Σ_G ρ − |G|(|G| + 1)/2) / (|G|·(D − |G|)), the Mann–Whitney statistic.
    """
    expect_masks(a.order.shape, masks)
    inside, distinct = a.flags(masks), a.distinct
    size, pixels = counted(inside).double(), inside.shape[1]
    ranks, places = torch.empty_like(size), torch.arange(1.0, pixels + 1, dtype=torch.float64)
    untied = distinct == pixels
    ranks[untied] = _in_parts(inside[untied], lambda flags: (flags * places).sum(1))
    for row in (~untied).nonzero()[:, 0].tolist():
        hits, lower = a.runs(row, inside[row])
        upto = torch.cat([lower[1:], lower.new_tensor([pixels])])
        ranks[row] = (hits * (lower + 1 + upto)).sum() / 2
    wins = ranks - size * (size + 1) / 2
    return defined(wins / (size * (pixels - size)), inside, (distinct > 1) & (size < pixels))


@metrics.register(
    "average_precision", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), prepare=Ordered,
    symmetric=False, paper="Zhu 2004; steps as in scikit-learn",
)  # fmt: skip
def average_precision(a: Ordered, masks: Tensor) -> Tensor:
    """Do the map's highest pixels lie in the mask, at every cut? 1 all do; near 0 the lowest ones do instead.

    Σₙ (recallₙ − recallₙ₋₁)·precisionₙ over the map's distinct values as thresholds. Undefined: a constant map.

    Not interpolated. A map that knows nothing scores about the mask's share of the image, not one half.
    """
    expect_masks(a.order.shape, masks)
    inside, distinct = a.flags(masks), a.distinct
    size, pixels = counted(inside).double(), inside.shape[1]
    weighed, places = torch.empty_like(size), torch.arange(1.0, pixels + 1, dtype=torch.float64)
    untied = distinct == pixels
    weighed[untied] = _in_parts(inside[untied].flip(1), lambda flags: _weighed(flags, places))
    for row in (~untied).nonzero()[:, 0].tolist():
        hits, lower = a.runs(row, inside[row])
        weighed[row] = _weighed(hits.flip(0), pixels - lower.flip(0))
    return defined(weighed / size, inside, distinct > 1)


def _in_parts(flags: Tensor, measured: Callable[[Tensor], Tensor]) -> Tensor:
    """A number of each map's flags (N, D), given as float64, some maps at a time, (N,)."""
    numbers = torch.empty(len(flags), dtype=torch.float64)
    for some in groups(flags):
        numbers[some] = measured(flags[some].double())
    return numbers


def _weighed(hits: Tensor, counts: Tensor) -> Tensor:
    """Σₙ hitsₙ·precisionₙ, (…,); hits (…, n): pixels inside that have the n-th highest value; counts: pixels that have
    it or a higher one."""
    return hits.cumsum(-1).div_(counts).mul_(hits).sum(-1)


def among_highest(maps: Tensor, count: Tensor) -> Tensor:
    """Share of each pixel in the `count` (N,) highest ones, (N, D): 1 or 0, between where values tie at the end."""
    return _shares(maps, _least(maps, count)[:, None], count[:, None])


def _least(maps: Tensor, count: Tensor) -> Tensor:
    """The `count`-th (N,) highest value of each map (N, D), (N,); of no value at all: the highest."""
    pixels = maps.shape[1]
    places = (pixels - count).clamp(0, pixels - 1).tolist()
    found = [np.partition(row, place)[place] for row, place in zip(maps.numpy(), places, strict=True)]
    return torch.tensor(found, dtype=torch.float64)


def _shares(maps: Tensor, least: Tensor, count: Tensor) -> Tensor:
    """Share of each pixel in the `count` highest ones, of which `least` is the lowest, (N, D)."""
    above, tied = maps > least, maps == least
    share = (count - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True).double()
    return torch.where(above, 1.0, torch.where(tied, share, 0.0))


def flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and masks as (N, D), float64 and bool, on the CPU; raises `Unsupported` unless both are (N, *spatial) and
    masks bool."""
    expect_masks(maps.shape, masks)
    return maps.detach().cpu().double().flatten(1), masks.cpu().flatten(1)


def expect_masks(shape: Sequence[int], masks: Tensor) -> None:
    """Raises `Unsupported` unless masks (N, *spatial) are bool and of the maps' shape."""
    if len(shape) not in {2, 3} or tuple(shape) != masks.shape:
        found = f"found {tuple(shape)} and {tuple(masks.shape)}"
        raise Unsupported(f"alignment needs maps and masks (N, H, W), (N, L) or (N, D), {found}")
    if masks.dtype != torch.bool:
        raise Unsupported(f"alignment needs masks of torch.bool, found {masks.dtype}")


def varies(maps: Tensor) -> Tensor:
    """Whether a map (N, D) has two values, (N,); one with NaN has not."""
    return maps.amax(1) > maps.amin(1)


def defined(values: Tensor, inside: Tensor, meaningful: Tensor) -> Tensor:
    """Values (N,) with NaN for empty masks (N, D) bool, and where maps are not meaningful."""
    return torch.where(torch.from_numpy(inside.numpy().any(1)) & meaningful, values, torch.nan)


def _mass(maps: Tensor, inside: Tensor) -> Tensor:
    """Share of a non-negative map's sum that lies inside a mask; NaN where it is 0."""
    shares, largest = torch.empty(2, len(maps), dtype=torch.float64)
    for some in groups(maps):
        largest[some] = maps[some].amax(1)
        relative = maps[some] / largest[some, None]  # so that tiny maps keep their digits
        total = relative.sum(1)
        np.multiply(relative.numpy(), inside[some].numpy(), out=relative.numpy())
        shares[some] = relative.sum(1) / total
    return defined(shares, inside, largest > 0)


def _hits(maps: Tensor, inside: Tensor, near: Tensor) -> Tensor:
    """Share of the highest pixels that are near the mask; one that has all pixels, or none for NaN, says nothing."""
    highest = torch.empty_like(inside)
    for some in groups(maps):
        np.equal(maps[some].numpy(), maps[some].amax(1, keepdim=True).numpy(), out=highest[some].numpy())
    count = counted(highest)
    meaningful = (count > 0) & (count < maps.shape[1])
    return defined(counted(highest & near) / count.double(), inside, meaningful)
