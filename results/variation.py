"""How much of a difference between two runs is chance: variances, of paired differences too, and a bound for tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from attribug.results.schema import KEYS, TRIPLE
from attribug.results.statistics import CONFIDENCE, Flags, Floats, arrange, variation

EXAMPLE = [*KEYS, *TRIPLE, "example"]


def value_variances(scores: pd.DataFrame, seeds_total: int) -> pd.Series:
    """Variance of each mean value over models and images, indexed by `KEYS`; NaN where there is none."""
    return _variances(scores, scores["value"], seeds_total)


def paired_variances(old: pd.DataFrame, new: pd.DataFrame, wanted: pd.MultiIndex, seeds_total: int) -> pd.Series:
    """Of scores of the same models on the same images: variance of the value's mean difference, indexed by `KEYS`.

    wanted: the keys that have such scores.
    """
    sides = [side[pd.MultiIndex.from_frame(side[list(KEYS)].astype(str)).isin(wanted)] for side in (old, new)]
    sides = [side.astype(dict.fromkeys(KEYS, str)) for side in sides]
    both = sides[0].merge(sides[1][[*EXAMPLE, "value"]], on=EXAMPLE, suffixes=("", "_new"))
    return _variances(both, both["value_new"] - both["value"], seeds_total)


def _variances(scores: pd.DataFrame, column: pd.Series, seeds_total: int) -> pd.Series:
    """Variance of a column's nested mean over models and images."""
    if scores.empty:
        return pd.Series([], pd.MultiIndex.from_arrays([[]] * len(KEYS), names=KEYS), dtype=np.float64)
    group = scores.groupby(list(KEYS), observed=True, sort=True).ngroup().to_numpy(np.int64)
    _, first = np.unique(group, return_index=True)
    keys = scores[list(KEYS)].iloc[first].astype(str)
    columns = dict.fromkeys(("tell", "above_floor", "value", "benign", "floor"), column)
    arranged = arrange(scores[[*TRIPLE, "example"]].assign(group=group, **columns), seeds_total)
    over, _, exists = variation(arranged, "value")
    return pd.Series(np.where(exists, over, np.nan), pd.MultiIndex.from_frame(keys))


def beyond_chance(difference: Floats, variance: Floats, family: pd.Series, freedom: Floats | float) -> Flags:
    """Which differences between runs of unlike models exceed what chance does to *any* of them, 5 % of the time.

    A few models may agree by luck, so a row's variance counts as at least the mean of its family's (R,).

    Args:
        difference: of R rows, NaN where there is none.
        variance: of each difference, (R,).
        family: of each row, (R,): rows whose differences vary alike.
        freedom: degrees of freedom of the variance, ∞ where the family has many.
    """
    pooled = pd.Series(variance).groupby(family.to_numpy()).transform("mean").to_numpy()
    spread = np.sqrt(np.fmax(variance, pooled))
    compared = max(int(np.isfinite(spread).sum()), 1)
    bound = stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / compared)  # Bonferroni's
    return np.asarray(np.abs(difference) > bound * spread)
