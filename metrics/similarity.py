"""Similarity of two maps: one number an example, NaN where it is undefined."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from attribug import metrics
from attribug.contracts import Unsupported

SIGMA = 1.5  # Wang et al. 2004, section III-B: 11 × 11 circular Gaussian weights of this width
RADIUS = 5
K1, K2 = 0.01, 0.03


def standardised(maps: Tensor) -> Tensor:
    """Each map flattened, centred and scaled to length 1, (N, D): Pearson's r is then a dot product; constant: NaN."""
    flat = maps.double().flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)  # tiny maps keep digits
    constant = flat.amax(1, keepdim=True) == flat.amin(1, keepdim=True)
    centred = flat - flat.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True)
    return torch.where(constant, torch.nan, unit)


def ranks(maps: Tensor) -> Tensor:
    """Ranks of each map's values, ties averaged, standardised, (N, D); a map with NaN becomes NaN."""
    flat = maps.double().flatten(1).cpu().numpy()
    ranked = stats.rankdata(flat, axis=1, nan_policy="propagate")
    return standardised(torch.from_numpy(np.asarray(ranked, dtype=np.float64)))


@metrics.register(
    "pearson", bounds=(-1, 1), visible=0.1, posts=("sum", "abs_sum"), prepare=standardised, paper="Pearson 1895"
)
def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of two maps' values; a, b: `standardised`, (N, D). Undefined: a constant map."""
    return (a * b).sum(1).clamp(-1, 1)


@metrics.register(
    "spearman", bounds=(-1, 1), visible=0.1, posts=("sum", "abs_sum"), prepare=ranks, paper="Spearman 1904"
)
def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of two maps' ranks, ties averaged; a, b: `ranks`, (N, D). Undefined: a constant map."""
    return (a * b).sum(1).clamp(-1, 1)


class SSIMForm:
    """What SSIM needs of one map: values, local means and local variances, each (N, C, H', W')."""

    def __init__(self, maps: Tensor) -> None:
        maps = maps.double()
        planes = maps[:, None] if maps.ndim == 3 else maps
        if planes.ndim != 4 or min(planes.shape[2:]) <= 2 * RADIUS:
            raise Unsupported(f"ssim needs maps of more than {2 * RADIUS} pixels a side, found {tuple(maps.shape)}")
        self.values = planes
        self.mean = blurred(planes)
        self.variance = blurred(planes.square()) - self.mean.square()

    def __getitem__(self, index: Tensor | slice) -> SSIMForm:
        part = object.__new__(SSIMForm)
        part.values, part.mean, part.variance = self.values[index], self.mean[index], self.variance[index]
        return part


def blurred(planes: Tensor) -> Tensor:
    """Gaussian local means where the whole window fits, (N, C, H − 10, W − 10)."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=planes.dtype, device=planes.device)
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = window / window.sum()
    flat = planes.reshape(-1, 1, *planes.shape[2:])
    flat = functional.conv2d(functional.conv2d(flat, window.reshape(1, 1, -1, 1)), window.reshape(1, 1, 1, -1))
    return flat.reshape(*planes.shape[:2], *flat.shape[2:])


@metrics.register(
    "ssim",
    bounds=(-1, 1),
    visible=0.1,
    posts=("sum_minmax", "abs_sum_minmax"),
    prepare=SSIMForm,
    paper="Wang et al. 2004, eq. 13",
)
def ssim(a: SSIMForm, b: SSIMForm) -> Tensor:
    """Mean structural similarity with Wang et al.'s Gaussian window and constants, data range 1, mean over channels.

    Maps are expected in [0, 1] (a post that ends in `minmax`). Borders narrower than the window are left out, as in
    scikit-image. Beware: unrelated heavy-tailed maps of high resolution score near 1.
    """
    c1, c2 = K1**2, K2**2
    covariance = blurred(a.values * b.values) - a.mean * b.mean
    numerator = (2 * a.mean * b.mean + c1) * (2 * covariance + c2)
    denominator = (a.mean.square() + b.mean.square() + c1) * (a.variance + b.variance + c2)
    return (numerator / denominator).mean((1, 2, 3)).clamp(-1, 1)  # equal maps may round to a little more than 1


@metrics.register(
    "total_variation",
    bounds=(0, 1),
    visible=0.01,
    posts=("none",),
    reads="probabilities",
    paper="ours: 1 − total variation distance",
)
def total_variation(a: Tensor, b: Tensor) -> Tensor:
    """1 − ½ Σ_k |p_k − p'_k| of softmax outputs (N, K); with different class sets, of the sorted, zero-padded ones."""
    if a.shape[1] != b.shape[1]:
        classes = max(a.shape[1], b.shape[1])
        a, b = (_sorted_and_padded(p, classes) for p in (a, b))
    distance = (a.double() - b.double()).abs().sum(1) / 2
    return (1 - distance).clamp(0, 1)  # rounded probabilities may sum to a little more than 1


def _sorted_and_padded(probabilities: Tensor, classes: int) -> Tensor:
    ordered = probabilities.sort(dim=1, descending=True).values
    return functional.pad(ordered, (0, classes - ordered.shape[1]))
