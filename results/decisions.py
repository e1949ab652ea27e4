"""What somebody could decide with a metric: raise an alarm at a fixed rate of false ones, or pick the buggy model.

The effect asks which of two numbers is lower; a practitioner has one number and a threshold, or a few models of which
one is broken. Raw scores are compared, whatever difference is visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import binom, stdtrit

from attribug.results.schema import KEYS, SCORE_COLUMNS, TRIPLE, expect_columns
from attribug.results.statistics import (
    CONFIDENCE,
    FEWEST_MODELS,
    UNDEFINED,
    Flags,
    Floats,
    Integers,
    Kind,
    jackknife,
    numbered,
)

FALSE_ALARMS = 0.05
"""Share of controls that may raise an alarm."""
ROUNDING = 1e-9
"""By which a share of alarms may differ from `FALSE_ALARMS` and still be it."""
MOST_MODELS = 3
"""k: models to pick from, fewer where there are not two controls."""
COLUMNS = (
    *KEYS, "detection_rate", "detection_low", "detection_high", "pick_k", "pick_one_image", "pick_all_images",
)  # fmt: skip
SEEDS = ["seed", "reference", "control_seed"]
IMAGE = ["seed", "draw", "reference"]
"""What meets all controls: with an example, one image under one contaminated model."""


def decisions(scores: pd.DataFrame, *, seeds_total: int, kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """One row a combination of `KEYS`, columns `COLUMNS`.

    `detection_rate`: the share of contaminated scores beyond the threshold that 5 % of the control scores pass, with
    its 95 % interval (jackknife over models plus jackknife over images; empty below three models or two images). Scores
    that tie at the threshold pass it in the share that makes 5 %; so a method that cannot tell gets exactly .05.

    `pick_one_image`: how often the contaminated model is picked out of `pick_k` models, itself and k − 1 controls, by
    the metric on one image; `pick_all_images`: by the mean over images. Ties share the pick; chance is 1/k. k is 3, or
    2 where a reference meets a single control.

    Where a score is undefined, its image is left out of both sides for that contaminated model, draw and reference;
    with more than 10 % undefined scores nothing is decided: `pick_k` is 0, the shares are NaN.

    Raises:
        TableError: columns missing in `scores`.
        ValueError: a metric without kind.
    """
    expect_columns(scores.columns, SCORE_COLUMNS)
    rows = []
    for key, part in _parts(scores):
        metric = str(key[KEYS.index("metric")])
        if metric not in kinds:
            raise ValueError(f"expected a kind of every metric, found none of {metric}")
        sign = -1.0 if kinds[metric] == "similarity" else 1.0  # so that high is suspicious
        triples = part.drop(columns=list(KEYS)).sort_values([*TRIPLE, "example"], kind="stable")
        suspicious = triples.assign(value=sign * triples["value"], benign=sign * triples["benign"])
        undefined = suspicious[["value", "benign"]].isna().any(axis=1)
        defined = suspicious
        if undefined.any():
            images = [suspicious[name] for name in (*IMAGE, "example")]
            defined = suspicious[~undefined.groupby(images).transform("any")]
        if undefined.mean() > UNDEFINED or defined.empty:
            rows.append((*map(str, key), np.nan, np.nan, np.nan, 0, np.nan, np.nan))
        else:
            rows.append((*map(str, key), *_detection(defined, seeds_total), *_picks(defined)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _parts(scores: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    """Rows by their keys; those of a single key are many, and not copied."""
    groups = scores.groupby(list(KEYS), observed=True, sort=True)
    if groups.ngroups == 1:
        return [(tuple(scores[list(KEYS)].iloc[0]), scores)]
    return groups


def _detection(part: pd.DataFrame, seeds_total: int) -> tuple[float, float, float]:
    """Detection rate, low and high end of its interval."""
    place = _places(*(part[name].to_numpy(np.float64) for name in ("value", "benign")))
    triple, model = _numbered(part, TRIPLE), _numbered(part, ["seed"])
    image = np.unique(part["example"], return_inverse=True)[1]
    roles = (part[name].to_numpy(np.int64) for name in SEEDS)
    units = np.stack([np.where(role < 0, -1, role % seeds_total) for role in roles], axis=1)  # (rows, 3)

    def rate(kept: Flags) -> float:
        return _passed(place, _weights(triple, model, kept))

    detected, seeds = rate(np.ones(len(part), dtype=bool)), int(model.max()) + 1
    models = [~(units == unit).any(axis=1) for unit in np.unique(units[units >= 0])]
    images = range(int(image.max()) + 1)
    if seeds < FEWEST_MODELS or len(images) < 2 or not all(kept.any() for kept in models):
        return detected, np.nan, np.nan
    variance = _variance([rate(kept) for kept in models]) + _variance([rate(image != number) for number in images])
    half = float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2) * np.sqrt(variance))
    return detected, max(detected - half, 0.0), min(detected + half, 1.0)


def _variance(left: list[float]) -> float:
    """The jackknife's, of rates without one model or image each."""
    rates = np.array(left)[:, None]
    return float(jackknife(rates, np.ones_like(rates, dtype=bool))[0][0])


def detection_rate(value: Floats, benign: Floats, weight: Floats, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of `value` above the threshold that the share `false_alarms` of `benign` passes, high being suspicious.

    The receiver operating characteristic at one point, straight lines between its steps. All (n,), weights of 0 or
    more, not all of them 0.
    """
    return _passed(_places(value, benign), weight, false_alarms)


def _places(value: Floats, benign: Floats) -> Integers:
    """Places of all scores (2n,), values first: 0 for the most suspicious ones, equal scores together."""
    scores = np.concatenate([value, benign])
    order = np.argsort(np.negative(scores, out=scores))
    ordered = scores[order]
    places = np.empty(len(order), np.int64)
    places[order] = numbered(ordered)
    return places


def _passed(place: Integers, weight: Floats, false_alarms: float = FALSE_ALARMS) -> float:
    """`detection_rate` of scores that are in their `_places`, (2n,), weights (n,)."""
    hits, alarms = (np.bincount(part, weight, int(place.max()) + 1).cumsum() for part in np.split(place, 2))
    at, found = np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])
    # The last step that raises no more alarms; its share is a sum of weights, whose rounding must not decide.
    last = int(np.searchsorted(at, false_alarms + ROUNDING, side="right")) - 1
    if at[last] >= false_alarms or last + 1 == len(at):
        return float(found[last])
    share = (false_alarms - at[last]) / (at[last + 1] - at[last])
    return float(found[last] + share * (found[last + 1] - found[last]))


def pick_probability(value: Floats, benign: Floats, k: int) -> Floats:
    """How often the highest of a value and k − 1 of the controls is the value, over all choices of controls, (n,).

    value (n,); benign (n, m), m ≥ k − 1; never NaN. Ties share the pick.
    """
    lower, equal = ((benign < value[:, None]).sum(axis=1), (benign == value[:, None]).sum(axis=1))
    among_ties = [binom(equal, j) * binom(lower, k - 1 - j) / (j + 1) for j in range(k)]  # j controls tie with it
    shares: Floats = np.sum(among_ties, axis=0) / binom(benign.shape[1], k - 1)
    return shares


def _picks(part: pd.DataFrame) -> tuple[int, float, float]:
    """k, and how often the contaminated model is picked: by one image, by the mean over images."""
    which, model = _numbered(part, IMAGE), _numbered(part, ["seed"])
    values, benign = (part[name].to_numpy(np.float64) for name in ("value", "benign"))
    control = part["control_seed"].to_numpy(np.int64)
    places = [np.flatnonzero(which == number) for number in range(int(which.max()) + 1)]
    k = min(MOST_MODELS, min(len(np.unique(control[place])) for place in places) + 1)
    one, every = np.empty(len(places)), np.empty(len(places))
    for number, place in enumerate(places):
        triples = len(np.unique(control[place]))  # each with the same images, in one order
        controls = benign[place].reshape(triples, -1).T  # (images, m)
        value = values[place].reshape(triples, -1)[0]
        one[number] = pick_probability(value, controls, k).mean()
        every[number] = pick_probability(value.mean(keepdims=True), controls.mean(axis=0)[None], k)[0]
    of_model = model[[place[0] for place in places]]
    return k, _nested(one, of_model), _nested(every, of_model)


def _nested(column: Floats, model: Integers) -> float:
    """Mean over models of the means within a model."""
    return float(np.mean(np.bincount(model, weights=column) / np.bincount(model)))


def _numbered(part: pd.DataFrame, columns: Sequence[str]) -> Integers:
    """Numbers of the combinations of columns that occur, (rows,); rows are sorted by these columns."""
    return numbered(*(part[name].to_numpy(np.int64) for name in columns))


def _weights(triple: Integers, model: Integers, kept: Flags) -> Floats:
    """What a row counts: examples alike within a triple, triples within a model, models alike; 0 unless `kept`."""
    examples = np.bincount(triple, kept)  # (T,)
    of_triple = np.zeros(len(examples), np.int64)
    of_triple[triple] = model
    triples = np.bincount(of_triple, examples > 0)  # (M,)
    share = np.divide(1.0, examples * triples[of_triple], out=np.zeros(len(examples)), where=examples > 0)  # (T,)
    weights: Floats = share[triple] * kept
    return weights
