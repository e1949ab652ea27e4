"""Effect, interval and verdict: what the scores of some models say about a bug.

A *triple* is a contaminated model q (and its draw), a reference r and a control t. Every quantity is a nested mean:
examples within a triple, triples within q, then over q, for models are the unit of evidence, not images.
A *unit* is a seed in every role at once; leaving one out drops each triple it takes part in.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from attribug.results.schema import TRIPLE, TableError

Kind = Literal["similarity", "alignment", "response"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DETECTS = 0.6
"""An effect above it is a detection; as much below one half is an inversion; between the two lies blindness."""
INVERTED = 0.4
HEADROOM = 0.6
"""P(benign > floor) that maps need before missing a bug counts against their method."""
ROUNDING = 1e-9
"""A difference this near to δ is δ: rank correlations of maps with few segments often differ by exactly that, and last
bits must not decide for one machine what they do not for another."""
UNDEFINED = 0.1
"""The share of undefined scores above which nothing is decided."""
CONFIDENCE = 0.95
FEWEST_MODELS = 3
"""Contaminated models from which on there is an interval."""
NEEDED = f"an interval needs {FEWEST_MODELS}"
ONE_EXAMPLE = "only 1 example; an interval needs 2"
IN_EVERY_TRIPLE = "one model takes part in every comparison; without it nothing is left to take an interval from"
"""Reasons of rows without an interval: few models (after how many there are), one example, one model in all triples."""


def tells(value: npt.ArrayLike, benign: npt.ArrayLike, visible: float, kind: Kind) -> Floats:
    """Does the metric tell contaminated from control? 1 yes, 0 the wrong way round, ½ no visible difference.

    similarity: [v < b − δ] + ½[|v − b| ≤ δ]; alignment, response: [v > b + δ] + ½[|v − b| ≤ δ]; ½ where v or b is NaN.

    Args:
        value: v, the metric under the contaminated model, any shape.
        benign: b, the metric under the control, the same shape.
        visible: δ ≥ 0, in the metric's units.
        kind: which side of the control a bug is expected on.

    Raises:
        ValueError: an unknown kind, or δ negative or NaN.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"expected a kind ({', '.join(get_args(Kind))}), found {kind!r}")
    if not visible >= 0:
        raise ValueError(f"expected a visible difference of at least 0, found {visible}")
    v, b = np.asarray(value, np.float64), np.asarray(benign, np.float64)
    # One subtraction decides every case, so that rounding never makes two of them true, or none.
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        expected = b - v if kind == "similarity" else v - b
    least = visible + ROUNDING
    return np.select([expected > least, expected < -least], [1.0, 0.0], 0.5)


def above_floor(benign: npt.ArrayLike, floor: npt.ArrayLike) -> Floats:
    """Are two models' maps of one image more similar than one model's maps of two? [b > f] + ½[b = f]; NaN: ½."""
    b, f = np.asarray(benign, np.float64), np.asarray(floor, np.float64)
    return np.select([b > f, b < f], [1.0, 0.0], 0.5)


@dataclass(frozen=True)
class Nesting:
    """T triples within M contaminated models within G groups (a group becomes a row of the results)."""

    model: Integers  # (T,) the triple's contaminated model, 0 … M−1
    group: Integers  # (M,) the model's group, 0 … G−1
    groups: int  # G

    def within_models(self, column: Floats) -> Floats:
        """Means over a model's triples, (T,) → (M,); NaN is skipped, nothing left is NaN."""
        return _means(column, self.model, len(self.group))

    def over_models(self, column: Floats) -> Floats:
        """Means over a group's models, (M,) → (G,); NaN is skipped, nothing left is NaN."""
        return _means(column, self.group, self.groups)


def nested_mean(column: Floats, nesting: Nesting) -> Floats:
    """mean_q(mean over the triples of q), of triples' means (T,) → (G,); NaN is absent at either step."""
    return nesting.over_models(nesting.within_models(column))


def leave_one_out(score: Floats, units: Integers, nesting: Nesting) -> tuple[Floats, Flags]:
    """Effects without the triples in which a unit has a role, (U, G), and which groups the unit occurs in, (U, G).

    Where nothing is left the effect is NaN; where the unit does not occur it is the group's own.

    Args:
        score: triples' mean scores (T,), never NaN.
        units: units by role (T, 3), −1 where a role is vacant.
        nesting: of the T triples.
    """
    triple_group = nesting.group[nesting.model]  # (T,)
    occurs: list[Flags] = []
    left: list[Floats] = []
    for unit in range(int(units.max()) + 1):
        takes_part = (units == unit).any(axis=1)  # (T,)
        occurs.append(np.bincount(triple_group[takes_part], minlength=nesting.groups) > 0)
        left.append(nested_mean(np.where(takes_part, np.nan, score), nesting))
    return np.stack(left), np.stack(occurs)


def jackknife(left: Floats, occurs: Flags) -> tuple[Floats, Flags]:
    """Variance of the effect over models: (U−1)/U · Σ_u (e₋ᵤ − mean of the e₋ᵤ)², (G,).

    U counts the units that occur in a group (all seeds of the suite, unless some were left out). Second, whether it
    exists: no e₋ᵤ may be empty. Takes what `leave_one_out` gives.
    """
    count = np.maximum(occurs.sum(axis=0), 1)  # U ≥ 1: contaminated models are units
    exists: Flags = ~np.logical_or.reduce(occurs & np.isnan(left))
    left = np.where(occurs & exists, left, 0.0)
    spread = np.where(occurs, left - left.sum(axis=0) / count, 0.0)
    return (count - 1) / count * (spread**2).sum(axis=0), exists


def image_means(score: Floats, group: Integers, example: Integers) -> tuple[Integers, Integers, Floats]:
    """An example's mean score over a group's rows of its id, whatever the triple: group, id, mean, (images,) each."""
    order = np.lexsort((example, group))
    image = numbered(group[order], example[order])  # (rows,) which image, over all groups
    first = _firsts(image)
    return group[order][first], example[order][first], _means(score[order], image, len(first))


def image_variance(group: Integers, means: Floats, groups: int) -> tuple[Floats, Integers]:
    """Variance of the effect over images: s²/n, s² the variance (ddof 1) of the n examples' mean scores; and n.

    Of what `image_means` gives, (images,) → (G,), (G,); n < 2: NaN.
    """
    squares = np.square(image_contributions(group, means, groups))
    variance = np.zeros(groups)
    np.add.at(variance, group, squares)
    return variance, np.bincount(group, minlength=groups)


def image_contributions(group: Integers, means: Floats, groups: int) -> Floats:
    """What each image's mean adds to its group's effect, (images,), scaled so that squares sum to the variance over
    images: (mean − the means' mean) / n · √(n/(n − 1)); NaN for a single image."""
    n = np.bincount(group, minlength=groups)
    scale = np.sqrt(n / np.where(n > 1, n - 1, np.nan)) / np.maximum(n, 1)
    contributions: Floats = (means - _means(means, group, groups)[group]) * scale[group]
    return contributions


def standard_error(value: Floats, nesting: Nesting) -> Floats:
    """SD (ddof 1) over q of its mean v, / √S, of triples' mean values (T,) → (G,); NaN below two models with one."""
    means = nesting.within_models(value)  # (M,)
    squares = (means - nesting.over_models(means)[nesting.group]) ** 2
    variance = nesting.over_models(squares)  # ddof 0
    count = np.bincount(nesting.group[~np.isnan(means)], minlength=nesting.groups)
    squared: Floats = np.divide(variance, count - 1, out=np.full(nesting.groups, np.nan), where=count > 1)
    return np.sqrt(squared)


def interval(effect: Floats, variance: Floats, seeds: Integers) -> tuple[Floats, Floats]:
    """e ± t(.975, S−1)·√V, clipped to [0, 1]; NaN where V is NaN or S < 3."""
    enough = seeds >= FEWEST_MODELS
    quantile = stdtrit(np.where(enough, seeds - 1, 1), (1 + CONFIDENCE) / 2)
    half = np.where(enough, quantile * np.sqrt(variance), np.nan)
    return np.clip(effect - half, 0.0, 1.0), np.clip(effect + half, 0.0, 1.0)


@dataclass(frozen=True)
class Arranged:
    """Rows of scores in their one order, with the triples they belong to."""

    ids: dict[str, Integers]  # group, seed, draw, reference, control_seed, example, (rows,) each
    columns: dict[str, Floats]  # tell, above_floor, value, benign, floor, (rows,) each
    means: dict[str, Floats]  # of the columns over a triple's examples, (T,) each
    nesting: Nesting
    units: Integers  # by role (T, 3): contaminated model, reference, control; −1 where a role is vacant

    @property
    def undefined(self) -> Floats:
        """Share of rows whose value or benign is NaN, (G,)."""
        missing = np.isnan(self.columns["value"]) | np.isnan(self.columns["benign"])
        return _means(missing.astype(np.float64), self.ids["group"], self.nesting.groups)

    @property
    def seeds(self) -> Integers:
        """Contaminated models of a group, (G,)."""
        return np.bincount(self.nesting.group, minlength=self.nesting.groups)


def arrange(rows: pd.DataFrame, units: int) -> Arranged:
    """Sorts rows (see `estimate`) and finds their triples; `units` is how many seeds the suite has.

    Raises:
        TableError: an example twice in a triple, or a contaminated model without a seed.
    """
    ids, columns = _sorted(rows)
    triple = numbered(*(ids[name] for name in ("group", *TRIPLE)))  # (rows,) which triple, 0 … T−1
    first = _firsts(triple)
    model = numbered(ids["group"][first], ids["seed"][first])  # (T,)
    nesting = Nesting(model, ids["group"][first][_firsts(model)], int(ids["group"][-1]) + 1)
    means = {name: _means(column, triple, len(first)) for name, column in columns.items()}
    roles = np.stack([ids[name][first] for name in ("seed", "reference", "control_seed")], axis=1)  # (T, 3)
    return Arranged(ids, columns, means, nesting, np.where(roles < 0, -1, roles % units))


def variation(arranged: Arranged, column: str) -> tuple[Floats, Integers, Flags]:
    """Variance of a column's nested mean over models and over images, (G,); the images, n; whether it exists."""
    over_models, exists = jackknife(*leave_one_out(arranged.means[column], arranged.units, arranged.nesting))
    group, _, means = image_means(arranged.columns[column], arranged.ids["group"], arranged.ids["example"])
    defined = ~np.isnan(means)
    over_images, n = image_variance(group[defined], means[defined], arranged.nesting.groups)
    return over_models + over_images, n, exists


def estimate(rows: pd.DataFrame, units: int) -> pd.DataFrame:
    """One row a group: counts, nested means, effect and interval.

    Args:
        rows: one row an example and triple, columns `group` (integers 0 … G−1, each used), seed, draw, reference,
            control_seed, example, value, benign, floor, and the scores tell and above_floor (never NaN).
        units: how many seeds the suite has; seed modulo `units` is the unit, a negative seed is none.

    Returns:
        columns seeds (S, contaminated models), n (distinct examples), undefined (share of rows with NaN value or
        benign), value, benign, floor (nested means), sem (SD of the models' mean values / √S), effect, ci_low, ci_high,
        above_floor (nested mean), no_interval (why there is none, else "").

    Raises:
        TableError: an example twice in a triple, or a contaminated model without a seed.
    """
    arranged = arrange(rows, units)
    nesting, means, seeds = arranged.nesting, arranged.means, arranged.seeds
    nested = {name: nested_mean(column, nesting) for name, column in means.items()}  # (G,) each
    variance, n, exists = variation(arranged, "tell")
    low, high = interval(nested["tell"], np.where(exists, variance, np.nan), seeds)
    return pd.DataFrame({
        "seeds": seeds, "n": n, "undefined": arranged.undefined,
        "value": nested["value"], "sem": standard_error(means["value"], nesting),
        "benign": nested["benign"], "floor": nested["floor"],
        "effect": nested["tell"], "ci_low": low, "ci_high": high, "above_floor": nested["above_floor"],
        "no_interval": [_no_interval(*each, units) for each in zip(seeds, n, exists, strict=True)],
    })  # fmt: skip


def too_few(models: int, asked: int, noun: str = "model") -> str:
    """Why so few contaminated models give no interval, in a sentence; `asked` is how many the suite wanted."""
    if models < asked:
        return f"only {models} of {asked} {noun}s {'has' if models == 1 else 'have'} the bug; {NEEDED}"
    return f"{models} {noun}{'' if models == 1 else 's'}; {NEEDED}"


def _no_interval(models: int, examples: int, exists: bool, asked: int) -> str:
    """Why a group has no interval, in a sentence; empty where it has one."""
    if models < FEWEST_MODELS:
        return too_few(models, asked)
    if examples < 2:
        return ONE_EXAMPLE
    return "" if exists else IN_EVERY_TRIPLE


def has_headroom(kind: Kind, share_above: float, benign: float, visible: float) -> bool:
    """Could the maps have shown a bug? similarity: P(b > floor) > .6; alignment, response: mean b < 1 − δ.

    Maps that do not agree with themselves across models, or fill the mask anyway, have nothing to lose.
    """
    return share_above > HEADROOM if kind == "similarity" else benign < 1 - visible


def verdict(
    effect: float, ci_low: float, ci_high: float, headroom: bool, *, undefined: float = 0.0, no_interval: str = ""
) -> tuple[str, str]:
    """What the interval decides, and the reason where it decides nothing ("" else).

    detects: ci_low > .6; blind: .4 < ci_low, ci_high < .6 and headroom; inverted: ci_high < .4; else inconclusive.
    Without an interval, or with more than 10 % undefined scores, always inconclusive.
    """
    if math.isnan(ci_low) or math.isnan(ci_high):
        return "inconclusive", no_interval or "no interval"
    if undefined > UNDEFINED:
        return "inconclusive", f"undefined {100 * undefined:.3g} %"
    if ci_low > DETECTS:
        return "detects", ""
    if ci_high < INVERTED:
        return "inverted", ""
    if ci_low > INVERTED and ci_high < DETECTS:
        return ("blind", "") if headroom else ("inconclusive", "no headroom")
    return "inconclusive", f"effect {_short(effect)}, interval [{_short(ci_low)}, {_short(ci_high)}] undecided"


def _short(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


def _means(column: Floats, index: Integers, size: int) -> Floats:
    """Mean of `column` by `index`, (…,) → (size,); NaN is skipped, nothing left is NaN."""
    defined = ~np.isnan(column)
    total = np.bincount(index[defined], weights=column[defined], minlength=size)
    count = np.bincount(index[defined], minlength=size)
    means: Floats = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return means


def _sorted(rows: pd.DataFrame) -> tuple[dict[str, Integers], dict[str, Floats]]:
    """Identifiers and scores in one order, so that sums have the same last bits however the rows arrived."""
    names = ("group", *TRIPLE, "example")
    ids = {name: rows[name].to_numpy(np.int64) for name in names}
    scores = ("tell", "above_floor", "value", "benign", "floor")
    columns = {name: rows[name].to_numpy(np.float64) for name in scores}
    order = np.lexsort([ids[name] for name in reversed(names)])
    if (order[1:] < order[:-1]).any():  # else they are as they should be, and many
        ids, columns = ({name: column[order] for name, column in each.items()} for each in (ids, columns))
    if int(ids["seed"].min()) < 0:
        raise TableError(f"expected a contaminated model's seed of at least 0, found {ids['seed'].min()}")
    if int(numbered(*ids.values())[-1]) + 1 < len(order):
        raise TableError("expected every example once in a triple, found one twice")
    return ids, columns


def numbered(*columns: npt.NDArray[Any]) -> Integers:
    """Number the combinations of sorted columns, 0, 1, … in their order."""
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(changes, dtype=np.int64)])


def _firsts(index: Integers) -> Integers:
    """Where each number of `numbered` occurs first."""
    return np.flatnonzero(np.diff(index, prepend=-1))
