"""Methods across bugs: mean effects with intervals, and the ranks that these leave open."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from attribug.results.evidence import Evidence
from attribug.results.statistics import UNDEFINED, Flags, Floats, Integers

CELL = ["task", "bug", "level", "control"]
COLUMNS = ("method", "cells", "missing", "mean_effect", "ci_low", "ci_high", "rank_low", "rank_high", "reason")


def ranking(resting: Evidence, methods: tuple[str, ...] = (), *, bare: Collection[str]) -> pd.DataFrame:
    """One row a method, columns `COLUMNS`: best mean effect first, those without a mean last.

    Takes one effect a method and cell (task, bug, level, control): the bugs' primary metrics. A method's mean is over
    all cells that any explanation has; one that lacks a cell, or has more than 10 % undefined scores in it, gets
    neither mean nor rank, for the mean of what is left would compare it with others on easier or harder bugs.
    What is `bare` gets a mean and no rank, since it explains nothing; a cell that it alone has does not count.

    A rank is a range: `rank_low` is 1 + the number of methods whose mean is higher for certain (the 95 % interval of
    the difference, on the same models and images, lies above 0), `rank_high` the number of methods less those whose
    mean is lower for certain. The intervals hold pair by pair, not for all pairs at once.

    Args:
        resting: the effects.
        methods: further methods that belong to the table without an effect: refused, failed.
        bare: methods that give what models themselves say.

    Raises `ValueError` for two effects of one method and cell."""
    if resting.keys.duplicated([*CELL, "method"]).any():
        raise ValueError("expected one effect a method and cell, found two: choose one metric and post a bug")
    names = list(dict.fromkeys([*resting.keys["method"], *methods]))
    resting = _explained(resting, bare)
    cells = resting.keys.groupby(CELL, sort=False).ngroup().to_numpy()
    at = np.full((len(names), int(cells.max()) + 1), -1)  # (methods, cells): which effect
    at[[names.index(name) for name in resting.keys["method"]], cells] = np.arange(len(resting.keys))
    usable = (at >= 0) & (resting.undefined[at] <= UNDEFINED)
    complete = usable.all(axis=1)
    weights = _means(at[complete], len(resting.keys))
    mean = resting.combine(weights)
    low, high = (np.clip(bound, 0.0, 1.0) for bound in mean.interval())
    ranked = np.array([name not in bare for name in np.array(names)[complete]], dtype=bool)
    best, worst = _ranks(resting, weights, ranked)
    reasons = [_reason(row, here) for row, here in zip(at, usable, strict=True)]
    counts = {"cells": usable.sum(axis=1), "missing": (~usable).sum(axis=1)}
    table = pd.DataFrame({"method": names, **counts, "reason": reasons})
    columns = {"mean_effect": mean.value, "ci_low": low, "ci_high": high, "rank_low": best, "rank_high": worst}
    table = table.join(pd.DataFrame(columns, index=np.flatnonzero(complete)))
    order = table.sort_values(["mean_effect", "method"], ascending=[False, True], na_position="last", kind="stable")
    return order.reset_index(drop=True)[list(COLUMNS)]


def _explained(resting: Evidence, bare: Collection[str]) -> Evidence:
    """The effects in cells that some explanation has; all of them where there is no explanation at all."""
    cells = resting.keys.groupby(CELL, sort=False).ngroup()
    of_explanations = cells[~resting.keys["method"].isin(bare)]
    return resting.select(cells.isin(of_explanations).to_numpy()) if len(of_explanations) else resting


def _means(at: Integers, effects: int) -> Floats:
    """Weights of every method's mean over its cells, (G, methods)."""
    weights = np.zeros((effects, len(at)))
    for number, row in enumerate(at):
        weights[row, number] = 1 / len(row)
    return weights


def _ranks(resting: Evidence, weights: Floats, ranked: Flags) -> tuple[Floats, Floats]:
    """Best and worst possible rank among the ranked methods, (methods,) each; NaN for the others."""
    count = weights.shape[1]
    one, other = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    low, high = resting.combine(weights[:, one.ravel()] - weights[:, other.ravel()]).interval()
    counted = ranked[None, :] & (one != other)
    above = (high.reshape(count, count) < 0) & counted  # the other one is better for certain
    below = (low.reshape(count, count) > 0) & counted
    best, worst = 1.0 + above.sum(axis=1), ranked.sum() - below.sum(axis=1).astype(float)
    return np.where(ranked, best, np.nan), np.where(ranked, worst, np.nan)


def _reason(row: Integers, usable: Flags) -> str:
    """Why a method has no rank: what it lacks."""
    absent, undefined = int((row < 0).sum()), int(((row >= 0) & ~usable).sum())
    parts = [f"no effect in {absent} of {len(row)} cells"] if absent else []
    parts += [f"more than {UNDEFINED:.0%} undefined in {undefined} of {len(row)} cells"] if undefined else []
    return "; ".join(parts)
