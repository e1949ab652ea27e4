"""How many models would decide a verdict that is open: the chance that an interval of S models falls where it decides.

A run of S models a side estimates the effect e with the variance V(S) = M·s/S + I. M is the variance over models that
the jackknife found with s models: the effect is a mean over models, so it falls as 1/S. I is the variance over images:
more models explain the same images, so it stays. Where every model has images of its own, I falls as 1/S as well, and
is a part of M already: the interval counts it twice, the estimate errs by M alone. The interval is read off the same
run: its model part scatters as χ²(S−1)/(S−1) about the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtri, ndtr, stdtrit

from attribug.results.evidence import Evidence
from attribug.results.schema import KEYS
from attribug.results.statistics import (
    CONFIDENCE,
    DETECTS,
    FEWEST_MODELS,
    INVERTED,
    UNDEFINED,
    Floats,
    Integers,
    jackknife,
)

CHANCE = 0.8
"""With which a run shall decide."""
MOST_MODELS = 50
"""Models a side beyond which nobody counts."""
STEPS = (5, 10, 20, MOST_MODELS)
"""Models a side that the sentence tells of."""
NODES = 256
"""Equally likely spreads that stand for their χ² law."""
COLUMNS = (*KEYS, "seeds", "effect", "ci_low", "ci_high", "se_models", "se_images", "toward", "models", "reason")
FAR = f"more than {MOST_MODELS} models"
FEW_IMAGES = f"{FAR}: the images alone leave it open"


@dataclass(frozen=True)
class Spread:
    """Variance of an effect, over the models of a run and over its images, and how many models these were."""

    over_models: float
    over_images: float
    seeds: int
    own_images: bool = False
    """Whether more models bring more images."""


def toward(effect: float) -> str:
    """The verdict of many models, were the effect exactly this."""
    return "detects" if effect > DETECTS else "inverted" if effect < INVERTED else "blind"


def chances(effect: float, spread: Spread) -> Floats:
    """Chance that a run of S models decides `toward(effect)`, for S = 3 … 50, (48,).

    Over the law of the interval's half-width h: P(ê − h > .6), P(.4 + h < ê < .6 − h) or P(ê + h < .4), with ê normal
    about the effect and h = t(.975, S−1)·√(V(S) as that run finds it).
    """
    models = _models()
    over_models = spread.over_models * spread.seeds / models  # (S,)
    over_images = spread.over_images * (spread.seeds / models if spread.own_images else np.ones(len(models)))  # (S,)
    deviation = np.sqrt(over_models + (0.0 if spread.own_images else over_images))[:, None]  # (S, 1)
    found = over_models[:, None] * _scatter() + over_images[:, None]  # (S, NODES)
    half = stdtrit(models - 1, (1 + CONFIDENCE) / 2)[:, None] * np.sqrt(found)
    verdict = toward(effect)
    low = -np.inf if verdict == "inverted" else (DETECTS if verdict == "detects" else INVERTED) + half
    high = np.inf if verdict == "detects" else (INVERTED if verdict == "inverted" else DETECTS) - half
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing scatters: ±∞, or 0/0 on the boundary itself
        inside = ndtr((high - effect) / deviation) - ndtr((low - effect) / deviation)
    chance: Floats = np.clip(np.nan_to_num(inside), 0.0, 1.0).mean(axis=1)
    return chance


def models_needed(effect: float, spread: Spread) -> int | None:
    """Fewest models a side that decide with 80 % chance, more than there were; None where 50 are not enough."""
    enough = (chances(effect, spread) >= CHANCE) & (_models() > spread.seeds)
    return int(_models()[enough.argmax()]) if enough.any() else None


def power(resting: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    """One row an open verdict, columns `COLUMNS`: what would decide it.

    `toward` is the verdict that the effect stands for; `models` how many a side would give it with 80 % chance, were
    effect and spread exactly as they were found; else `reason` says why no number of models would, or none up to 50.

    Args:
        resting: the effects that have scores.
        rows: of results, any verdicts; those that are inconclusive count.
    """
    opened = rows[rows["verdict"] == "inconclusive"].astype(dict.fromkeys(KEYS, str))
    found = opened.merge(_spreads(resting), on=list(KEYS), how="left", validate="one_to_one")
    told = [_needed(row) for row in found.itertuples()]
    answers = pd.DataFrame(told, columns=["toward", "models", "reason"], index=found.index)
    return found.drop(columns="reason").join(answers)[list(COLUMNS)]


def sentence(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """How many verdicts of the matrix are decided, and what would decide the others; empty for an empty matrix."""
    measured = rows[rows["verdict"].isin(["detects", "blind", "inverted", "inconclusive"])]
    if measured.empty:
        return ""
    decided = int((measured["verdict"] != "inconclusive").sum())
    text = f"{decided} of {len(measured)} verdicts are decided"
    if decided == len(measured):
        return f"{text}."
    opened = f"{text}. Of the {len(measured) - decided} open ones"
    counts = [int((table["models"] <= step).sum()) for step in STEPS]
    new = [count > before for count, before in zip(counts, [0, *counts], strict=False)]
    told = [(step, count) for step, count, more in zip(STEPS, counts, new, strict=True) if more]
    if not told:
        return f"{opened}, {MOST_MODELS} models a side would decide none with 80 % chance."
    (first, count), *rest = told
    more = "".join(f", {step} models {count}" for step, count in rest)
    return f"{opened}, {first} models a side would decide {count} with 80 % chance{more}."


def words(row: Any) -> dict[str, str]:
    """A row of `power` as the page shows it: a number, the verdict that it would give, and why there is no number."""
    if row.models == row.models:
        return {"models": f"{row.models:.0f}", "toward": row.toward, "why": ""}
    if row.toward:
        why = "the images alone leave it open" if row.reason == FEW_IMAGES else ""
        return {"models": f"> {MOST_MODELS}", "toward": row.toward, "why": why}
    return {"models": "", "toward": "", "why": row.reason}


def _needed(row: Any) -> dict[str, object]:
    """What would decide one open verdict."""
    se_models, se_images = row.se_models, row.se_images
    nothing = {"toward": "", "models": np.nan}
    known = row.seeds >= FEWEST_MODELS and np.isfinite([row.effect, se_models, se_images]).all()
    if not known or row.undefined > UNDEFINED:
        return nothing | {"reason": row.reason}
    verdict = toward(row.effect)
    if verdict == "blind" and not row.headroom:
        return nothing | {"reason": "no headroom"}
    spread = Spread(se_models**2, se_images**2, row.seeds, row.own_images)
    models = models_needed(row.effect, spread)
    if models is not None:
        return {"toward": verdict, "models": float(models), "reason": ""}
    images_alone = not row.own_images and models_needed(row.effect, replace(spread, over_models=0.0)) is None
    return {"toward": verdict, "models": np.nan, "reason": FEW_IMAGES if images_alone and se_images > 0 else FAR}


def _spreads(resting: Evidence) -> pd.DataFrame:
    """By `KEYS`: standard errors over models and over images, NaN where there is none; whether maps had headroom."""
    over_models, exists = jackknife(resting.left, resting.occurs)
    over_images = np.square(resting.image).sum(axis=0)
    columns = {"se_models": np.sqrt(np.where(exists, over_models, np.nan)), "se_images": np.sqrt(over_images)}
    return resting.keys.astype(str).assign(**columns, headroom=resting.headroom, own_images=resting.own_images)


@cache
def _models() -> Integers:
    """Numbers of models a side that are tried, (S,)."""
    return np.arange(FEWEST_MODELS, MOST_MODELS + 1)


@cache
def _scatter() -> Floats:
    """What S models find of a variance over models, over the truth: quantiles of χ²(S−1)/(S−1), (S, NODES)."""
    freedom = (_models() - 1)[:, None]
    scatter: Floats = chdtri(freedom, 1 - (np.arange(NODES) + 0.5) / NODES) / freedom
    return scatter
