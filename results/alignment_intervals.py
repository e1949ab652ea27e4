"""Intervals of a mean over alike models (units) and images, and of differences of two such means.

Values are arrays (U, n), a row a unit, a column an image, NaN where undefined. Every mean is nested: over the images of
a unit, then over units. With three units or more its variance is s²/U of the units' means + s²/n of the images' means,
and the interval Student's with U − 1 degrees of freedom; with fewer it rests on images alone, n − 1, and holds for
these models only.

Values that are all 0 or 1 (hits) may have no spread at all, and still be uncertain: there no end of an interval lies
further in than that of Wilson (1927), of Agresti and Min (2005) for paired differences, or of Agresti and Caffo (2000)
for unpaired ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from attribug.results.statistics import CONFIDENCE, FEWEST_MODELS

Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]
NORMAL = float(ndtri((1 + CONFIDENCE) / 2))
"""Quantile of the normal distribution for two-sided intervals, 1.96."""
OPEN: Ends = (-math.inf, math.inf)
"""Ends of an interval of which nothing is known."""


@dataclass(frozen=True)
class Spread:
    """A nested mean, and what its variance is made of."""

    value: float
    units: int
    """Units with a defined value."""
    over_units: float
    """Variance of the units' means, ddof 1; NaN for a single one."""
    images: Floats
    """Means over units of each image that has a defined value."""

    @property
    def over_images(self) -> float:
        """Variance of the images' means, ddof 1; NaN for a single one."""
        return float(self.images.var(ddof=1)) if len(self.images) > 1 else math.nan


def spread(values: Floats) -> Spread:
    """Of values (U, n); NaN without a defined one."""
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    kept, seen = defined.any(axis=1), defined.any(axis=0)
    by_unit = filled.sum(axis=1)[kept] / defined.sum(axis=1)[kept]
    by_image = filled.sum(axis=0)[seen] / defined.sum(axis=0)[seen]
    over_units = float(by_unit.var(ddof=1)) if len(by_unit) > 1 else math.nan
    return Spread(float(by_unit.mean()) if len(by_unit) else math.nan, len(by_unit), over_units, by_image)


def interval(values: Floats) -> Ends:
    """The 95 % interval of a mean of shares, within [0, 1]; NaN for fewer than two images."""
    found = spread(values)
    low, high = _students(found)
    if math.isnan(low):
        return low, high
    if _hits(values):
        least, most = wilson(found.value, len(found.images))
        low, high = min(low, least), max(high, most)
    return max(low, 0.0), min(high, 1.0)


def wilson(share: float, n: int) -> Ends:
    """Wilson's interval of a share of `n` trials; of shares that are no whole number of trials as well."""
    if n < 1 or math.isnan(share):
        return math.nan, math.nan
    square = NORMAL**2 / n
    centre = (share + square / 2) / (1 + square)
    half = NORMAL / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def over_models(shares: Floats) -> Ends:
    """Student's interval of a mean over models (M,), within [0, 1]; NaN below two."""
    if len(shares) < 2:
        return math.nan, math.nan
    half = _half(float(shares.var(ddof=1)) / len(shares), len(shares) - 1)
    return max(0.0, float(shares.mean()) - half), min(1.0, float(shares.mean()) + half)


def paired(differences: Floats, reach: int = 1) -> Ends:
    """Ends for differences (U, n) of values of the same units and images; unbounded for fewer than two images.

    reach: the largest difference there can be of what hits are made of.
    """
    found = spread(differences)
    low, high = _students(found)
    if math.isnan(low):
        return OPEN
    if _whole(differences):
        least, most = _agresti_min(found.images, reach)
        low, high = min(low, least), max(high, most)
    return low, high


def between(one: Floats, other: Floats) -> Ends:
    """Ends for the difference of the means of two models, (U, n) and (U', n), on the same n images.

    Only images that are defined under both are compared; units are paired with none.
    """
    both = ~np.isnan(one).all(axis=0) & ~np.isnan(other).all(axis=0)
    if both.sum() < 2:
        return OPEN
    one, other = one[:, both], other[:, both]
    first, second = spread(one), spread(other)
    each = first.images - second.images
    over_units, freedom = _units_part(first, second)
    half = _half(over_units + float(each.var(ddof=1)) / len(each), freedom or len(each) - 1)
    middle = first.value - second.value
    low, high = middle - half, middle + half
    if _hits(one) and _hits(other):
        least, most = _agresti_min(each, 1)
        low, high = min(low, least), max(high, most)
    return low, high


def unpaired(one: Floats, other: Floats) -> Ends:
    """Ends for the difference of the means of two models on different images, (U, n) and (U', n'); without enough units
    Welch's."""
    first, second = spread(one), spread(other)
    n, m = len(first.images), len(second.images)
    if min(n, m) < 2:
        return OPEN
    parts = np.array([first.over_images / n, second.over_images / m])
    over_units, freedom = _units_part(first, second)
    total = float(parts.sum())
    welch = total**2 / float((parts**2 / np.array([n - 1, m - 1])).sum()) if total > 0 else n + m - 2
    half = _half(over_units + total, freedom or welch)
    middle = first.value - second.value
    low, high = middle - half, middle + half
    if _hits(one) and _hits(other):
        shares = [(each.value * count + 1) / (count + 2) for each, count in ((first, n), (second, m))]
        variances = [share * (1 - share) / (count + 2) for share, count in zip(shares, (n, m), strict=True)]
        half, middle = NORMAL * math.sqrt(sum(variances)), shares[0] - shares[1]
        low, high = min(low, middle - half), max(high, middle + half)
    return low, high


def sign(ends: Ends) -> int:
    """1 where an interval lies above 0, −1 below, 0 where it holds it."""
    return int(ends[0] > 0) - int(ends[1] < 0)


def rank_ranges(signs: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Best and worst possible rank of each of K, (K,), from the signs (K, K) of row less column; NaN for a single one.

    The best is 1 + the number of those that are higher for certain, the worst K less those that are lower for certain.
    """
    count = len(signs)
    if count < 2:
        return np.full(count, np.nan), np.full(count, np.nan)
    return 1.0 + (signs < 0).sum(axis=1), count - (signs > 0).sum(axis=1).astype(float)


def _students(found: Spread) -> Ends:
    n = len(found.images)
    if n < 2:
        return math.nan, math.nan
    variance, freedom = found.over_images / n, n - 1
    if found.units >= FEWEST_MODELS:
        variance, freedom = variance + found.over_units / found.units, found.units - 1
    half = _half(variance, freedom)
    return found.value - half, found.value + half


def _units_part(first: Spread, second: Spread) -> tuple[float, int]:
    """Variance of a difference over units, and the degrees of freedom; 0, 0 where neither side has enough of them."""
    enough = [each for each in (first, second) if each.units >= FEWEST_MODELS]
    return sum(each.over_units / each.units for each in enough), min((each.units - 1 for each in enough), default=0)


def _half(variance: float, freedom: float) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)


def _agresti_min(differences: Floats, reach: int) -> Ends:
    """Agresti and Min's interval of a mean of paired differences (n,): as if two further pairs had been seen, of sum 0
    and of sum of squares `reach`²."""
    n = len(differences) + 2
    middle = float(differences.sum()) / n
    square = (float((differences**2).sum()) + reach**2) / n
    half = NORMAL * math.sqrt((square - middle**2) / n)
    return middle - half, middle + half


def _hits(values: Floats) -> bool:
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())


def _whole(differences: Floats) -> bool:
    defined = differences[~np.isnan(differences)]
    return bool((defined == np.round(defined)).all())
