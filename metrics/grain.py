"""How coarse a map is: the size of its specks, below which it tells nothing about places."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = 0.5


def grain(maps: Tensor) -> Tensor:
    """Width of a speck of each map's absolute values, (N, H, W), in pixels, (N,) float64; NaN of a constant map.

    The full width at half maximum of the autocorrelation of |map| − its mean, averaged over all directions: what
    speckle is measured by (Goodman 2007, section 4.4).
    """
    planes = maps.detach().cpu().double().abs()
    planes = planes - planes.mean((1, 2), keepdim=True)
    height, width = planes.shape[1:]
    spectrum = torch.fft.rfft2(planes, s=(2 * height, 2 * width)).abs().square()
    correlated = torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))  # a sum over the pixels that meet, by lag
    rings, lags = _rings(height, width)
    sums = torch.zeros(len(planes), len(lags), dtype=torch.float64)
    sums.index_add_(1, rings, correlated.flatten(1))
    counts = torch.bincount(rings, minlength=len(lags)).double()
    profile = sums / counts
    peak = profile[:, :1]
    return torch.where(peak[:, 0] > 0, 2 * _first_below(profile / peak, HALF), torch.nan)


def _rings(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Of every lag of a transform of twice the size the whole number of pixels that it is long, flat; and these."""
    down, across = (torch.fft.fftfreq(2 * side, 1 / (2 * side)).double() for side in (height, width))
    rings = torch.sqrt(down[:, None] ** 2 + across[None] ** 2).round().long().flatten()
    return rings, torch.arange(int(rings.max()) + 1)


def _first_below(profile: Tensor, level: float) -> Tensor:
    """Where a profile (N, R) that begins at 1 first falls to a level, interpolated between whole pixels, (N,)."""
    below = (profile <= level).double().argmax(1)  # the zero-padded end is below
    rows = torch.arange(len(profile))
    left, right = profile[rows, (below - 1).clamp(min=0)], profile[rows, below]
    return (below - 1).double() + (left - level) / (left - right).clamp(min=1e-12)
