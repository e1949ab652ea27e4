"""Shared Interest: how a map's salient pixels S and a truth mask G overlap, and the eight cases that follow.

S is binarised by a rule: above the map's mean + one standard deviation (for gradients), or above one half after min–max
(for Grad-CAM); the metrics of the second rule end in `_half`. A rule that selects no pixel says nothing: NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from attribug import metrics
from attribug.errors import InputError
from attribug.metrics.alignment import defined, flat, varies

Rule = Callable[[Tensor], Tensor]
"""From maps (N, D) to their salient pixels (N, D) bool."""
Case = Literal[
    "human aligned", "sufficient subset", "sufficient context", "context dependent",
    "confuser", "insufficient subset", "distracted", "context confusion",
]  # fmt: skip

HALF = 0.5
LOW, HIGH = 0.2, 0.65
"""What counts as a low and a high coverage in Boggust et al.'s vision cases."""


def above_deviation(maps: Tensor) -> Tensor:
    """Pixels above the mean + one standard deviation (ddof 0); of Gaussian noise, 16 %."""
    maps = maps / maps.abs().amax(1, keepdim=True)  # so that squares of tiny and huge values keep their digits
    return maps > maps.mean(1, keepdim=True) + maps.std(1, correction=0, keepdim=True)


def above_half(maps: Tensor) -> Tensor:
    """Pixels above .5, of maps in [0, 1]."""
    return maps > HALF


@metrics.register(
    "iou", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def iou(a: Tensor, masks: Tensor) -> Tensor:
    """|S ∩ G| / |S ∪ G|, S the pixels above the map's mean + one standard deviation. Undefined: a constant map."""
    return coverages(a, masks, above_deviation)["iou"]


@metrics.register(
    "ground_truth_coverage", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def ground_truth_coverage(a: Tensor, masks: Tensor) -> Tensor:
    """|S ∩ G| / |G|, S the pixels above the map's mean + one standard deviation. Undefined: a constant map."""
    return coverages(a, masks, above_deviation)["ground_truth_coverage"]


@metrics.register(
    "saliency_coverage", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum",), symmetric=False,
    paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def saliency_coverage(a: Tensor, masks: Tensor) -> Tensor:
    """|S ∩ G| / |S|, S the pixels above the map's mean + one standard deviation. Undefined: a constant map."""
    return coverages(a, masks, above_deviation)["saliency_coverage"]


@metrics.register(
    "iou_half", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum_minmax",), domain=(0, 1),
    symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def iou_half(a: Tensor, masks: Tensor) -> Tensor:
    """|S ∩ G| / |S ∪ G|, S the pixels above one half. Undefined: a constant map."""
    return coverages(a, masks, above_half)["iou"]


@metrics.register(
    "ground_truth_coverage_half", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum_minmax",),
    domain=(0, 1), symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def ground_truth_coverage_half(a: Tensor, masks: Tensor) -> Tensor:
    """|S ∩ G| / |G|, S the pixels above one half. Undefined: a constant map."""
    return coverages(a, masks, above_half)["ground_truth_coverage"]


@metrics.register(
    "saliency_coverage_half", kind="alignment", bounds=(0, 1), visible=0.05, posts=("abs_sum_minmax",),
    domain=(0, 1), symmetric=False, paper="Boggust et al. 2022 (Shared Interest), section 3",
)  # fmt: skip
def saliency_coverage_half(a: Tensor, masks: Tensor) -> Tensor:
    """|S ∩ G| / |S|, S the pixels above one half. Undefined: a constant map."""
    return coverages(a, masks, above_half)["saliency_coverage"]


def coverages(maps: Tensor, masks: Tensor, rule: Rule = above_deviation) -> dict[str, Tensor]:
    """`iou`, `ground_truth_coverage`, `saliency_coverage` of maps and masks (N, *spatial) under a rule,
    (N,) float64 each.

    NaN for empty masks, constant maps, and where the rule selects nothing. Raises `Unsupported` for other shapes.
    """
    pixels, inside = flat(maps, masks)
    salient = rule(pixels)
    both = (salient & inside).sum(1)
    against = {"iou": salient | inside, "ground_truth_coverage": inside, "saliency_coverage": salient}
    meaningful = varies(pixels) & salient.any(1)
    return {name: defined(both / whole.sum(1).double(), inside, meaningful) for name, whole in against.items()}


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
    return [_case(*row) for row in numbers]


def _case(iou: float, covered: float, salient: float, correct: bool) -> Case | None:
    if iou >= HIGH:
        return "human aligned" if correct else "confuser"
    if covered <= LOW and salient >= HIGH:
        return "sufficient subset" if correct else "insufficient subset"
    if covered >= HIGH and salient <= LOW:
        return "context dependent" if correct else "context confusion"
    if iou <= LOW:
        return "sufficient context" if correct else "distracted"
    return None
