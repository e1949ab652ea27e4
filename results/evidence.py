"""Effects that can be combined: differences and means of effects, with the interval that their common models allow.

Two effects of one suite are measured on the same models and images, so their errors go together. Here every effect
keeps what it would be without each model, and what each image contributes; a weighted sum of effects then has the
variance of that sum, not the sum of variances.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr, stdtrit
from scipy.stats import false_discovery_control

from attribug.results.schema import KEYS
from attribug.results.statistics import (
    CONFIDENCE,
    DETECTS,
    FEWEST_MODELS,
    Arranged,
    Flags,
    Floats,
    Integers,
    Kind,
    arrange,
    has_headroom,
    image_contributions,
    image_means,
    jackknife,
    leave_one_out,
    nested_mean,
    numbered,
)
from attribug.results.summary import grouped

ROUNDING = 1e-20
"""A variance of effects below it is last bits."""


@dataclass(frozen=True)
class Evidence:
    """G effects with what they rest on; U units (seeds in every role at once), X images (examples of a task)."""

    keys: pd.DataFrame
    """(G) rows: task, bug, level, control, method, metric, post."""
    effect: Floats  # (G,)
    left: Floats
    """(U, G): the effect without a unit; NaN where nothing is left."""
    occurs: Flags  # (U, G): whether the unit has a role in the effect
    image: Floats
    """(X, G): an image's mean score less the effect's mean over images, over n, times √(n/(n−1)): the squares of a
    column sum to the effect's variance over images; 0 where an effect does not rest on the image, NaN where it rests on
    no other."""
    images: pd.MultiIndex  # (X): task, example
    seeds: Integers  # (G,): contaminated models
    undefined: Floats  # (G,): share of undefined scores
    headroom: Flags  # (G,): whether the maps had something to lose
    own_images: Flags  # (G,): whether every contaminated model has images that no other has

    def select(self, wanted: npt.ArrayLike) -> Evidence:
        """The effects at a mask or at indices."""
        at = np.asarray(wanted)
        keys = self.keys[at] if at.dtype == bool else self.keys.iloc[at]
        return replace(
            self, keys=keys.reset_index(drop=True), effect=self.effect[at], left=self.left[:, at],
            occurs=self.occurs[:, at], image=self.image[:, at], seeds=self.seeds[at], undefined=self.undefined[at],
            headroom=self.headroom[at], own_images=self.own_images[at],
        )  # fmt: skip

    def combine(self, weights: Floats) -> Combined:
        """Weighted sums of effects, weights (G, K): each with its interval; degrees of freedom are the fewest of any
        effect that takes part."""
        used = weights != 0
        occurs = (self.occurs.astype(np.int64) @ used.astype(np.int64)) > 0  # (U, K)
        absent = np.isnan(self.left).astype(np.int64) @ used.astype(np.int64) > 0  # (U, K)
        left = np.where(absent, np.nan, np.nan_to_num(self.left) @ weights)  # (U, K)
        over_models, exists = jackknife(left, occurs)
        single = np.isnan(self.image).any(axis=0)  # (G,): a single image has no variance, which is its own affair
        over_images = np.square(np.nan_to_num(self.image) @ weights).sum(0)
        seeds = np.where(used, self.seeds[:, None], np.iinfo(np.int64).max).min(axis=0)
        exists &= (seeds >= FEWEST_MODELS) & ~used[single].any(axis=0)
        return Combined(self.effect @ weights, np.where(exists, over_models + over_images, np.nan), seeds)

    def less(self, rows: Integers, others: Integers) -> tuple[Floats, Floats, Floats, npt.NDArray[np.object_]]:
        """Effects less other ones, both by their indices (K,): the differences, both ends of their 95 % intervals,
        clipped to [−1, 1], and what these tell: `more`, `less`, or `undecided` where they contain 0 or do not exist."""
        pairs = np.arange(len(rows))
        weights = np.zeros((len(self.keys), len(rows)))
        weights[rows, pairs] = 1
        weights[others, pairs] = -1
        difference = self.combine(weights)
        low, high = (np.clip(bound, -1.0, 1.0) for bound in difference.interval())
        told = np.select([low > 0, high < 0], ["more", "less"], "undecided").astype(object)
        return difference.value, low, high, told


@dataclass(frozen=True)
class Combined:
    """K sums of effects; the variance is NaN where a sum has no interval."""

    value: Floats  # (K,)
    variance: Floats  # (K,)
    seeds: Integers  # (K,)

    def interval(self) -> tuple[Floats, Floats]:
        """value ± t(.975, S−1)·√V, not clipped; NaN where there is none."""
        half = stdtrit(np.maximum(self.seeds - 1, 1), (1 + CONFIDENCE) / 2) * np.sqrt(self.variance)
        return self.value - half, self.value + half

    def exceeds(self, bound: float) -> Floats:
        """One-sided p-value of "the value is at most `bound`", (K,): P(t(S−1) ≥ (value − bound)/√V)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (self.value - bound) / np.sqrt(self.variance)  # V = 0: ±∞, or NaN at the bound itself
        t = np.where((self.variance == 0) & np.isnan(t), 0.0, t)
        return np.asarray(stdtr(np.maximum(self.seeds - 1, 1), -t))  # not 1 − …, which loses small ones


def evidence(
    scores: pd.DataFrame, *, seeds_total: int, kinds: Mapping[str, Kind], visible: Mapping[str, float]
) -> Evidence:
    """What every combination of `KEYS` in scores (columns `SCORE_COLUMNS`) rests on; arguments as of `summarise`.

    Raises:
        TableError, ValueError: as `summarise`; also for an empty table.
    """
    keys, rows = grouped(scores, kinds, visible)
    arranged = arrange(rows, seeds_total)
    left, occurs = leave_one_out(arranged.means["tell"], arranged.units, arranged.nesting)
    effect = nested_mean(arranged.means["tell"], arranged.nesting)
    absent = seeds_total - len(left)  # units after the last that occurs: without them the effect is what it is
    left = np.concatenate([left, np.tile(effect, (absent, 1))])
    occurs = np.concatenate([occurs, np.zeros((absent, len(keys)), dtype=bool)])
    group, example, means = image_means(arranged.columns["tell"], arranged.ids["group"], arranged.ids["example"])
    tasks = pd.Index(keys["task"].unique())
    seen = np.stack([tasks.get_indexer(keys["task"])[group], example])
    distinct, place = np.unique(seen, axis=1, return_inverse=True)
    images = pd.MultiIndex.from_arrays([tasks[distinct[0]], distinct[1]], names=["task", "example"])
    image = np.zeros((len(images), len(keys)))
    image[place.ravel(), group] = image_contributions(group, means, len(keys))
    above, benign = (nested_mean(arranged.means[name], arranged.nesting) for name in ("above_floor", "benign"))
    told = zip(keys["metric"], above, benign, strict=True)
    headroom = np.array([has_headroom(kinds[m], share, mean, visible[m]) for m, share, mean in told], dtype=bool)
    own = _own_images(arranged, np.bincount(group, minlength=len(keys)))
    facts = (arranged.seeds, arranged.undefined, headroom, own)
    return Evidence(keys, effect, left, occurs, image, images, *facts)


def _own_images(arranged: Arranged, images: Integers) -> Flags:
    """Whether no image of a group is explained under two contaminated models, (G,); False for a single one.

    images: different ones, (G,).
    """
    ids, nesting = arranged.ids, arranged.nesting
    width = int(ids["example"].max()) + 1
    pairs = np.unique(numbered(ids["group"], ids["seed"]) * width + ids["example"])  # of a model and an image
    own: Flags = (np.bincount(nesting.group[pairs // width], minlength=nesting.groups) == images) & (arranged.seeds > 1)
    return own


def joined(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of scores that came in parts of the same suite, each with all rows of its keys: the same as of all
    scores at once."""
    keys = pd.concat([part.keys for part in parts], ignore_index=True)
    order = keys.sort_values(list(KEYS)).index.to_numpy()
    images = parts[0].images.append([part.images for part in parts[1:]]).unique().sort_values()
    image = np.zeros((len(images), len(keys)))
    first = 0
    for part in parts:
        image[images.get_indexer(part.images), first : first + len(part.keys)] = part.image
        first += len(part.keys)
    names = ("effect", "left", "occurs", "seeds", "undefined", "headroom", "own_images")
    columns = {name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names}
    return Evidence(keys, **columns, image=image, images=images).select(order)


def q_values(resting: Evidence, *, bare: Collection[str]) -> Floats:
    """Of the detections, (G,): Benjamini–Hochberg over the explanations of one task, bug and level, of "effect ≤ .6".

    An effect without an interval has none (NaN); nor has one whose scores all agree, for a few models that agree leave
    no spread to judge by; nor one of a `bare` method, which gives what models themselves say: often true
    by construction, it would loosen the bound for the others. All effects share their models, so errors come in
    clusters: a false detection is seldom alone.
    """
    each = resting.combine(np.eye(len(resting.keys)))
    p = each.exceeds(DETECTS)
    q = np.full(len(p), np.nan)
    tested = (each.variance > ROUNDING) & ~resting.keys["method"].isin(bare).to_numpy()
    family = resting.keys.groupby(["task", "bug", "level"], sort=False).ngroup().to_numpy()
    for number in np.unique(family[tested]):
        at = tested & (family == number)
        q[at] = false_discovery_control(p[at], method="bh")
    return q
