"""Similarity of two maps: one number an example, NaN where it is undefined."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribug import metrics
from attribug.errors import Unsupported
from attribug.metrics.order import averaged_ranks, groups

SIGMA = 1.5  # Wang et al. 2004, section III-B: 11 × 11 circular Gaussian weights of this width
RADIUS = 5
WINDOW = (2 * RADIUS + 1) ** 2  # pixels
K1, K2 = 0.01, 0.03
BLOCK = 8  # rows of local means at a time: 4 to 32 were tried at 224 × 224


def standardised(maps: Tensor) -> Tensor:
    """Each map flattened, centred and scaled to length 1, (N, D): Pearson's r is then a dot product; constant: NaN."""
    flat = maps.detach().double().flatten(1)
    units = torch.empty_like(flat)
    for some in groups(flat):
        low, high = flat[some].amin(1, keepdim=True), flat[some].amax(1, keepdim=True)
        scale = torch.maximum(high, -low).clamp(min=torch.finfo(torch.float64).tiny)  # tiny maps keep their digits
        scale.masked_fill_(high / scale == low / scale, torch.nan)
        unit = torch.div(flat[some], scale, out=units[some])
        unit.sub_(unit.mean(1, keepdim=True))
        unit.div_(unit.norm(dim=1, keepdim=True))
    return units


def ranks(maps: Tensor) -> Tensor:
    """Ranks of each map's values, ties averaged, standardised, (N, D); a map with NaN becomes NaN."""
    flat = maps.detach().double().flatten(1).cpu()
    units = torch.empty_like(flat)
    for some in groups(flat):
        centred = torch.from_numpy(averaged_ranks(flat[some].numpy())).sub_((flat.shape[1] + 1) / 2)
        torch.div(centred, centred.norm(dim=1, keepdim=True), out=units[some])  # constant: 0 / 0
    return units


@metrics.register(
    "pearson", bounds=(-1, 1), visible=0.1, posts=("sum", "abs_sum"), prepare=standardised, paper="Pearson 1895"
)
def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Do two maps' values rise and fall together? 1 in a straight line, 0 unrelated, −1 the other way round.

    Pearson's correlation of two maps' values; a, b: `standardised`, (N, D). Undefined: a constant map.
    """
    return (a * b).sum(1).clamp(-1, 1)


@metrics.register(
    "spearman", bounds=(-1, 1), visible=0.1, posts=("sum", "abs_sum"), prepare=ranks, paper="Spearman 1904"
)
def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Do two maps order the pixels alike? 1 the same order, 0 unrelated, −1 the reverse order.

    Pearson's correlation of two maps' ranks, ties averaged; a, b: `ranks`, (N, D). Undefined: a constant map.
    """
    return (a * b).sum(1).clamp(-1, 1)


class SSIMForm:
    """What SSIM needs of one map: values, local means and local variances, each (N, C, H', W')."""

    def __init__(self, maps: Tensor) -> None:
        maps = maps.double()
        planes = maps[:, None] if maps.ndim == 3 else maps
        if planes.ndim != 4 or min(planes.shape[2:]) <= 2 * RADIUS:
            raise Unsupported(f"ssim needs maps of more than {2 * RADIUS} pixels a side, found {tuple(maps.shape)}")
        self.values = planes.detach().cpu()
        self.mean = planes.new_empty(*planes.shape[:2], *(size - 2 * RADIUS for size in planes.shape[2:]), device="cpu")
        self.variance = torch.empty_like(self.mean)
        for some in groups(self.values):
            values = self.values[some]
            mean = self.mean[some] = blurred(values)
            self.variance[some] = blurred(values.square()).sub_(mean.square())

    def __getitem__(self, index: Tensor | slice) -> SSIMForm:
        part = object.__new__(SSIMForm)
        part.values, part.mean, part.variance = self.values[index], self.mean[index], self.variance[index]
        return part


def blurred(planes: Tensor) -> Tensor:
    """Gaussian local means where the whole window fits, (N, C, H − 10, W − 10)."""
    height, width = (size - 2 * RADIUS for size in planes.shape[2:])
    down = planes.new_empty(*planes.shape[:2], height, planes.shape[3])
    means = planes.new_empty(*planes.shape[:2], height, width)
    _blur_columns(planes, down)
    _blur_columns(down.mT, means.mT)
    return means


def _blur_columns(planes: Tensor, means: Tensor) -> None:
    """Local means of each column, written to `means`: rows by the block times a banded matrix beat a convolution."""
    rows = means.shape[2]
    rest = rows % BLOCK
    for start, stop, block in ((0, rows - rest, BLOCK), (rows - rest, rows, rest)):
        if start < stop:
            windows = planes[:, :, start : stop + 2 * RADIUS].unfold(2, block + 2 * RADIUS, block).mT
            blocks = means[:, :, start:stop].unflatten(2, (-1, block))  # (N, C, blocks, block, W)
            np.matmul(_band(block), windows.numpy(), out=blocks.numpy())


@functools.cache
def _band(rows: int) -> NDArray[np.float64]:
    """Each row the window, one further to the right than the row before, (rows, rows + 10)."""
    window = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
    band = np.zeros((rows, rows + 2 * RADIUS), order="F")  # BLAS takes transposed planes faster in this order
    for row in range(rows):
        band[row, row : row + 2 * RADIUS + 1] = window / window.sum()
    return band


@metrics.register(
    "ssim",
    images=True,
    bounds=(-1, 1),
    visible=0.1,
    posts=("sum_minmax", "abs_sum_minmax"),
    prepare=SSIMForm,
    domain=(0, 1),
    paper="Wang et al. 2004, eq. 13",
)
def ssim(a: SSIMForm, b: SSIMForm) -> Tensor:
    """Do two maps look alike, window by window? 1 the same, 0 unlike; mostly empty maps are alike anyhow.

    Mean structural similarity with Wang et al.'s Gaussian window and constants, data range 1, mean over channels.

    Borders narrower than the window are left out, as in scikit-image. Undefined: a map without a range.
    Beware: unrelated maps with heavy tails score high, the more so the larger they are (.46 at 224 pixels).
    """
    return structural_similarity(a, b, data_range=1.0)


def structural_similarity(a: SSIMForm, b: SSIMForm, *, data_range: float, unbiased: bool = False) -> Tensor:
    """Wang et al.'s mean SSIM, (N,): K₁ = .01 and K₂ = .03 times the data range; `unbiased`: sample covariances."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    if unbiased:
        c2 *= (WINDOW - 1) / WINDOW  # instead of the covariances, above and below the line
    means = a.mean.new_empty(len(a.mean))
    for some in groups(a.values):
        means[some] = _local_ssim(a[some], b[some], c1, c2).mean((1, 2, 3))
    return means.clamp(-1, 1)  # equal maps may round to a little more than 1


def _local_ssim(a: SSIMForm, b: SSIMForm, c1: float, c2: float) -> Tensor:
    """SSIM of every window, (N, C, H', W'), in place and with few operations: memory is what takes the time.

    Wang et al.'s equation 13 as 2·p·(cov + c₂/2) / ((p + (μ − μ')²/2)·(σ² + σ'² + c₂)) with p = μ·μ' + c₁/2.
    """
    product = a.mean * b.mean
    covariance = blurred(a.values * b.values).sub_(product)
    product.add_(c1 / 2)
    numerator = covariance.add_(c2 / 2).mul_(product)
    denominator = product.add_((a.mean - b.mean).square_(), alpha=0.5)
    denominator.mul_((a.variance + b.variance).add_(c2))
    return numerator.div_(denominator).mul_(2)
