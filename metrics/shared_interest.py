"""Shared Interest: how a map's salient pixels S and a truth mask G overlap, and the eight cases that follow.

S is binarised by a rule: above the map's mean + one standard deviation (for gradients), or above one half after min–max
(for Grad-CAM); the metrics of the second rule end in `_half`. A rule that selects no pixel says nothing: NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attribug import metrics
from attribug.errors import InputError
from attribug.metrics.alignment import expect_masks, varies
from attribug.metrics.order import counted, groups

Rule = Callable[[Tensor], Tensor]
"""From maps (N, D) to their salient pixels (N, D) bool."""
Case = Literal[
    "human aligned", "sufficient subset", "sufficient context", "context dependent",
    "confuser", "insufficient subset", "distracted", "context confusion",
]  # fmt: skip

HALF = 0.5
ROUNDING = 16 * torch.finfo(torch.float64).eps
"""What the mean and the deviation of D numbers in [−1, 1] may be off, over D."""
LOW, HIGH = 0.2, 0.65
"""What counts as a low and a high coverage in Boggust et al.'s vision cases."""


def above_deviation(maps: Tensor) -> Tensor:
    """Pixels above the mean + one standard deviation (ddof 0); of Gaussian noise, 16 %, of a constant map, none."""
    above = torch.empty_like(maps, dtype=torch.bool)
    margin = ROUNDING * maps.shape[1]
    for some in groups(maps):
        scaled = _scaled(maps[some])
        centred = scaled.sub_(scaled.mean(1, keepdim=True))
        deviation = centred.norm(dim=1, keepdim=True) / maps.shape[1] ** 0.5
        surely = np.greater(centred.numpy(), (deviation + margin).numpy(), out=above[some].numpy())
        perhaps = centred.numpy() > (deviation - margin).numpy()
        if np.count_nonzero(perhaps) > np.count_nonzero(surely):  # last bits decide: torch's, which take their time
            scaled = _scaled(maps)
            return scaled > scaled.mean(1, keepdim=True) + scaled.std(1, correction=0, keepdim=True)
    return above


def _scaled(maps: Tensor) -> Tensor:
    """Maps over their largest absolute value, so that squares keep the digits of tiny and huge ones; constant: NaN."""
    low, high = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
    return maps / torch.maximum(high, -low).masked_fill_(high == low, torch.nan)


def above_half(maps: Tensor) -> Tensor:
    """Pixels above .5, of maps in [0, 1]."""
    return maps > HALF


def salient(maps: Tensor, rule: Rule) -> Tensor:
    """Salient pixels of maps (N, *spatial) under a rule, of the same shape, bool; of a constant map, none."""
    pixels = maps.detach().cpu().double().flatten(1)
    return (rule(pixels) & varies(pixels)[:, None]).reshape(maps.shape)


def deviating(maps: Tensor) -> Tensor:
    """Salient pixels of maps (N, *spatial) under `above_deviation`."""
    return above_deviation(maps.detach().cpu().double().flatten(1)).reshape(maps.shape)


def upper_half(maps: Tensor) -> Tensor:
    """Salient pixels of maps (N, *spatial) under `above_half`."""
    return salient(maps, above_half)


@metrics.register(
    "iou", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), prepare=deviating,
    symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def iou(a: Tensor, masks: Tensor) -> Tensor:
    """Do the map's outstanding pixels coincide with the mask? 1 the same pixels, 0 none in common.

    |S ∩ G| / |S ∪ G|, S the pixels above the map's mean + one standard deviation. Undefined: a constant map.

    a: `deviating`.
    """
    return _overlaps(a, masks)["iou"]


@metrics.register(
    "ground_truth_coverage", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), prepare=deviating,
    symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def ground_truth_coverage(a: Tensor, masks: Tensor) -> Tensor:
    """How much of the mask do the map's outstanding pixels cover? 1 all of it, 0 nothing.

    |S ∩ G| / |G|, S the pixels above the map's mean + one standard deviation. Undefined: a constant map.

    a: `deviating`.
    """
    return _overlaps(a, masks)["ground_truth_coverage"]


@metrics.register(
    "saliency_coverage", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), prepare=deviating,
    symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def saliency_coverage(a: Tensor, masks: Tensor) -> Tensor:
    """Which share of the map's outstanding pixels lies inside the mask? 1 all of them, 0 none.

    |S ∩ G| / |S|, S the pixels above the map's mean + one standard deviation. Undefined: a constant map.

    a: `deviating`.
    """
    return _overlaps(a, masks)["saliency_coverage"]


@metrics.register(
    "iou_half", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum_minmax",),
    domain=(0, 1), prepare=upper_half, symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def iou_half(a: Tensor, masks: Tensor) -> Tensor:
    """Do the pixels above one half coincide with the mask? 1 the same pixels, 0 none in common.

    |S ∩ G| / |S ∪ G|, S the pixels above one half. Undefined: a constant map.

    a: `upper_half`.
    """
    return _overlaps(a, masks)["iou"]


@metrics.register(
    "ground_truth_coverage_half", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum_minmax",),
    domain=(0, 1), prepare=upper_half, symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def ground_truth_coverage_half(a: Tensor, masks: Tensor) -> Tensor:
    """How much of the mask do the pixels above one half cover? 1 all of it, 0 nothing.

    |S ∩ G| / |G|, S the pixels above one half. Undefined: a constant map.

    a: `upper_half`.
    """
    return _overlaps(a, masks)["ground_truth_coverage"]


@metrics.register(
    "saliency_coverage_half", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum_minmax",),
    domain=(0, 1), prepare=upper_half, symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def saliency_coverage_half(a: Tensor, masks: Tensor) -> Tensor:
    """Which share of the pixels above one half lies inside the mask? 1 all of them, 0 none.

    |S ∩ G| / |S|, S the pixels above one half. Undefined: a constant map.

    a: `upper_half`.
    """
    return _overlaps(a, masks)["saliency_coverage"]


def coverages(maps: Tensor, masks: Tensor, rule: Rule = above_deviation) -> dict[str, Tensor]:
    """`iou`, `ground_truth_coverage`, `saliency_coverage` of maps and masks (N, *spatial) under a rule,
    (N,) float64 each.

    NaN for empty masks, constant maps, and where the rule selects nothing. Raises `Unsupported` for other shapes.
    """
    expect_masks(maps.shape, masks)
    return _overlaps(salient(maps, rule), masks)


def _overlaps(found: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """`coverages` of salient pixels."""
    expect_masks(found.shape, masks)
    pixels, inside = found.flatten(1), masks.cpu().flatten(1)
    both, selected, size = (counted(each) for each in (pixels & inside, pixels, inside))
    against = {"iou": selected + size - both, "ground_truth_coverage": size, "saliency_coverage": selected}
    meaningful = (size > 0) & (selected > 0)
    return {name: torch.where(meaningful, both / whole.double(), torch.nan) for name, whole in against.items()}


def cases(maps: Tensor, masks: Tensor, correct: Tensor, rule: Rule = above_deviation) -> list[Case | None]:
    """Which of Boggust et al.'s eight cases every example is; None where it is none of them, or undefined.

    With a correct prediction / an incorrect one: high IoU is human aligned / confuser; low ground-truth and high
    saliency coverage sufficient / insufficient subset; high ground-truth and low saliency coverage context dependent /
    context confusion; low IoU otherwise sufficient context / distracted. Low is at most .2, high at least .65.

    Args:
        maps: (N, *spatial).
        masks: (N, *spatial), bool.
        correct: (N,), bool: whether the model was right.
        rule: which pixels are salient.

    Raises:
        InputError: `correct` of another shape or type.
    """
    if correct.shape != (len(maps),) or correct.dtype != torch.bool:
        raise InputError(f"correct: expected ({len(maps)},) torch.bool, found {tuple(correct.shape)} {correct.dtype}")
    shares = coverages(maps, masks, rule)
    numbers = zip(*(values.tolist() for values in shares.values()), correct.tolist(), strict=True)
    return [case_of(*row) for row in numbers]


def case_of(iou: float, covered: float, salient: float, correct: bool) -> Case | None:
    """The case of an example by its IoU, ground-truth and saliency coverage, and whether the model was right: see
    `cases`; NaN is none."""
    if iou >= HIGH:
        return "human aligned" if correct else "confuser"
    if covered <= LOW and salient >= HIGH:
        return "sufficient subset" if correct else "insufficient subset"
    if covered >= HIGH and salient <= LOW:
        return "context dependent" if correct else "context confusion"
    if iou <= LOW:
        return "sufficient context" if correct else "distracted"
    return None
