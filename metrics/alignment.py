"""Alignment of a map (N, H, W) with a truth mask (N, H, W) bool: NaN for an empty mask or a map that says nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import metrics
from attribug.contracts import Unsupported


@metrics.register(
    "mass_accuracy", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), nonnegative=True,
    symmetric=False, paper="Arras et al. 2022, eq. 2 (relevance mass accuracy)",
)  # fmt: skip
def mass_accuracy(a: Tensor, masks: Tensor) -> Tensor:
    """Σ_G R / Σ R: the share of a non-negative map's relevance inside the mask. Undefined: no relevance at all."""
    maps, inside = _flat(a, masks)
    scale = maps.amax(1, keepdim=True)  # relative to the largest value, so that tiny maps keep their digits
    share = torch.where(inside, maps / scale, 0).sum(1) / (maps / scale).sum(1)
    return _defined(share, inside, maps.amax(1) > 0)


@metrics.register(
    "iou", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Boggust et al. 2022 (Shared Interest)",
)  # fmt: skip
def iou(a: Tensor, masks: Tensor) -> Tensor:
    """|S ∩ G| / |S ∪ G|, S the pixels above the map's mean + one standard deviation. Undefined: a constant map."""
    maps, inside = _flat(a, masks)
    threshold = maps.mean(1, keepdim=True) + maps.std(1, correction=0, keepdim=True)
    salient = maps > threshold
    overlap = (salient & inside).sum(1) / (salient | inside).sum(1).double()
    return _defined(overlap, inside, _varies(maps) & threshold[:, 0].isfinite())


@metrics.register(
    "pointing_game", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Zhang et al. 2018, section 4.2, without tolerance",
)  # fmt: skip
def pointing_game(a: Tensor, masks: Tensor) -> Tensor:
    """1 where the map's maximum lies in the mask, else 0; the share of hits among tied maxima. Undefined: constant."""
    maps, inside = _flat(a, masks)
    highest = maps == maps.amax(1, keepdim=True)
    hits = (highest & inside).sum(1) / highest.sum(1).double()
    return _defined(hits, inside, _varies(maps))


def _flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise Unsupported(
            f"alignment needs maps and masks (N, H, W), found {tuple(maps.shape)} and {tuple(masks.shape)}"
        )
    if masks.dtype != torch.bool:
        raise Unsupported(f"alignment needs masks of torch.bool, found {masks.dtype}")
    return maps.double().flatten(1), masks.flatten(1)


def _varies(maps: Tensor) -> Tensor:
    return maps.amax(1) > maps.amin(1)


def _defined(values: Tensor, inside: Tensor, meaningful: Tensor) -> Tensor:
    return torch.where(inside.any(1) & meaningful, values, torch.nan)
