"""Scores in every layout that a run gives, and what the definitions say of them, in plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attribug.results.schema import KEYS, SCORE_COLUMNS, TRIPLE

Row = dict[str, Any]
Rows = list[Row]
Score = Callable[[Row], float]
KEY = {"task": "digits", "bug": "reinit", "level": "1", "control": "clean", "method": "lime", "post": "sum"}
METRICS = {"similarity": "spearman", "alignment": "iou", "flips": "spearman", "draws": "spearman"}
DRAWS = 3
VISIBLE = 0.125
KINDS = {"spearman": "similarity", "iou": "alignment", "total_variation": "similarity", "background_swap": "response"}


def tell(row: Row) -> float:
    """Does the metric tell contaminated from control by more than `VISIBLE`?"""
    v, b = row["value"], row["benign"]
    if math.isnan(v) or math.isnan(b):
        return 0.5
    if KINDS[row["metric"]] == "similarity":
        return float(v < b - VISIBLE) + 0.5 * float(abs(v - b) <= VISIBLE)
    return float(v > b + VISIBLE) + 0.5 * float(abs(v - b) <= VISIBLE)


def mean(numbers: Sequence[float]) -> float:
    """Of what is defined; nothing left: NaN."""
    defined = [number for number in numbers if not math.isnan(number)]
    return sum(defined) / len(defined) if defined else math.nan


def models_means(rows: Rows, score: Score) -> list[float]:
    """For every q: the mean over its triples of the mean over their examples."""
    means = []
    for q in sorted({row["seed"] for row in rows}):
        triples: dict[tuple[int, ...], list[float]] = {}
        for row in rows:
            if row["seed"] == q:
                triples.setdefault(tuple(row[name] for name in TRIPLE), []).append(score(row))
        means.append(mean([mean(scores) for scores in triples.values()]))
    return means


def units(rows: Rows, seeds_total: int) -> set[int]:
    """Seeds in every role at once that take part in any of the rows."""
    roles = ("seed", "reference", "control_seed")
    return {row[role] % seeds_total for row in rows for role in roles if row[role] >= 0}


def without(rows: Rows, unit: int, seeds_total: int) -> Rows:
    """The rows in which a unit has no role."""
    return [row for row in rows if unit not in units([row], seeds_total)]


def image_means(rows: Rows, score: Score) -> dict[int, float]:
    """By example: its mean score, whatever the triple."""
    examples = sorted({row["example"] for row in rows})
    return {example: mean([score(row) for row in rows if row["example"] == example]) for example in examples}


def spread(left: Sequence[float]) -> float:
    """The jackknife's variance."""
    return (len(left) - 1) / len(left) * sum((each - mean(left)) ** 2 for each in left)


def combined(groups: Sequence[tuple[float, Rows]], seeds_total: int, score: Score) -> tuple[float, float, int]:
    """Weighted sum of groups' effects, its variance (NaN: no interval) and the fewest models of a group.

    Without a unit, every group loses the rows in which it has a role. Images count by the products of their deviations:
    of two groups, those that both rest on.
    """
    effects = [mean(models_means(rows, score)) for _, rows in groups]
    value = sum(weight * effect for (weight, _), effect in zip(groups, effects, strict=True))
    seeds = min(len({row["seed"] for row in rows}) for _, rows in groups)
    everyone = sorted(set().union(*(units(rows, seeds_total) for _, rows in groups)))
    left = []
    for unit in everyone:
        kept = [(weight, without(rows, unit, seeds_total)) for weight, rows in groups]
        if not all(rows for _, rows in kept):
            return value, math.nan, seeds
        left.append(sum(weight * mean(models_means(rows, score)) for weight, rows in kept))
    images = [image_means(rows, score) for _, rows in groups]
    if seeds < 3 or min(map(len, images)) < 2:
        return value, math.nan, seeds
    variance = spread(left)
    for (one, a), (other, b) in product(zip(groups, images, strict=True), repeat=2):
        if one[1][0]["task"] == other[1][0]["task"]:
            products = [(a[x] - mean(list(a.values()))) * (b[x] - mean(list(b.values()))) for x in a if x in b]
            scale = math.sqrt(len(a) * (len(a) - 1) * len(b) * (len(b) - 1))
            variance += one[0] * other[0] * sum(products) / scale
    return value, variance, seeds


def interval(rows: Rows, seeds_total: int, score: Score) -> tuple[float, float]:
    """Of a single effect, from the formula: not clipped."""
    value, variance, seeds = combined([(1.0, rows)], seeds_total, score)
    if math.isnan(variance):
        return math.nan, math.nan
    half = stats.t.ppf(0.975, seeds - 1) * math.sqrt(max(variance, 0.0))
    return value - half, value + half


def triples(layout: str, seeds: int) -> list[tuple[int, int, int, int]]:
    """(q, draw, r, t) of a layout: similarities, alignments, label flips, draws of one model's damage."""
    every = range(seeds)
    if layout == "similarity":
        return [(q, 0, r, t) for q, r, t in product(every, repeat=3) if r not in {q, t}]
    if layout == "alignment":
        return [(q, 0, -1, t) for q, t in product(every, repeat=2)]
    if layout == "flips":
        return [(q + seeds, 0, r, t + seeds) for q, r, t in product(every, repeat=3) if t != q]
    return [(s, draw, s, s) for s, draw in product(every, range(DRAWS))]


def scores(
    random: np.random.Generator, layout: str, seeds: int, images: int, *, undefined: float = 0.0, fall: float = 0.0,
    keys: Mapping[str, str] = {},
) -> Rows:  # fmt: skip
    """One row of results, in multiples of 1/16: ties and differences of exactly δ occur.

    Of label flips every model has images of its own. `benign` is one number a reference, control and image, as in a
    run; `fall` is by how much a bug moves the value in the direction that is expected of it.
    """
    sign = 1 if layout == "alignment" else -1
    drawn: dict[tuple[str, tuple[int, ...]], float] = {}

    def number(what: str, *place: int) -> float:
        if (what, place) not in drawn:
            defined = random.random() >= undefined
            drawn[what, place] = int(random.integers(0, 17)) / 16 if defined else math.nan
        return drawn[what, place]

    rows = []
    for q, draw, r, t in triples(layout, seeds):
        for example in range(100 * q if layout == "flips" else 0, (100 * q if layout == "flips" else 0) + images):
            rows.append({
                **KEY, "metric": METRICS[layout], **keys,
                **dict(zip(TRIPLE, (q, draw, r, t), strict=True)), "example": example,
                "value": number("value", q, draw, r, example) + sign * fall,
                "benign": number("benign", r, t, example), "floor": number("floor", r, example),
            })  # fmt: skip
    return rows


def frame(rows: Rows) -> pd.DataFrame:
    """As a table of scores."""
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def settings(seeds_total: int) -> dict[str, Any]:
    """What `evidence` is told of a suite."""
    return {"seeds_total": seeds_total, "kinds": KINDS, "visible": dict.fromkeys(KINDS, VISIBLE)}


def by_key(rows: Rows) -> dict[tuple[str, ...], Rows]:
    """Rows by what names a row of results, in the order of tables."""
    found: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in KEYS), []).append(row)
    return dict(sorted(found.items()))


@pytest.fixture(scope="session")
def plain() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        tell=tell, mean=mean, models_means=models_means, units=units, without=without, image_means=image_means,
        spread=spread, combined=combined, interval=interval, triples=triples, scores=scores, frame=frame, by_key=by_key,
        key=KEY, settings=settings,
    )  # fmt: skip
