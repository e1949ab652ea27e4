"""What bare outputs tell, without any explanation: metrics that read probabilities (N, K)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from attribug import metrics


@metrics.register(
    "total_variation",
    bounds=(0, 1),
    visible=0.01,
    posts=("none",),
    reads="probabilities",
    paper="ours: 1 − total variation distance",
)
def total_variation(a: Tensor, b: Tensor) -> Tensor:
    """Do two models say the same? 1 the same probabilities, 0 no class in common.

    1 − ½ Σ_k |p_k − p'_k| of softmax outputs (N, K); with different class sets, of the sorted, zero-padded ones.
    """
    if a.shape[1] != b.shape[1]:
        classes = max(a.shape[1], b.shape[1])
        a, b = (_sorted_and_padded(p, classes) for p in (a, b))
    return (1 - _distance(a, b)).clamp(0, 1)  # rounded probabilities may sum to a little more than 1


@metrics.register(
    "background_swap",
    kind="response",
    bounds=(0, 1),
    visible=0.01,
    posts=("none",),
    reads="probabilities",
    beside="swapped_background",
    paper="ours: the direct query beside which explanations of a spurious background must be read",
)
def background_swap(a: Tensor, beside: Tensor) -> Tensor:
    """How far do predictions move when the background becomes another class's? 0 not at all, 1 entirely.

    ½ Σ_k |p_k − p'_k| of softmax outputs (N, K) before and after.
    """
    return _distance(a, beside).clamp(0, 1)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Total variation distance, (N,) float64."""
    return (a.double() - b.double()).abs().sum(1) / 2


def _sorted_and_padded(probabilities: Tensor, classes: int) -> Tensor:
    ordered = probabilities.sort(dim=1, descending=True).values
    return functional.pad(ordered, (0, classes - ordered.shape[1]))
