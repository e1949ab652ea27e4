"""Specimens of what alignment is told from: scores, accuracies, and what is lacking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attribug.results.alignment import ACCURACY, CASES, LACKING, SCORES

PLACE = {
    "panel": "p", "model": "m", "data": "d", "mask": "digit", "method": "gradient", "metric": "iou", "post": "abs_sum",
}  # fmt: skip
TOTAL = 784


def scores(values: Sequence[Sequence[float]], **told: Any) -> pd.DataFrame:
    """One row of the table: values (units, examples). `random`, `correct`, `case`, `pixels` and `grain` may be told,
    one for all or (units, examples); `first` is the first example's id."""
    grid = np.asarray(values, float)
    units, count = grid.shape
    first = told.pop("first", 0)
    place = PLACE | {name: told.pop(name) for name in PLACE if name in told}
    facts = {"label": 1, "predicted": 1, "correct": 1.0, "random": 0.1, "pixels": 100, "grain": 3.0, "case": ""} | told
    columns = {name: np.broadcast_to(np.asarray(value), grid.shape).ravel() for name, value in facts.items()}
    unit, example = (each.ravel() for each in np.mgrid[0:units, first : first + count])
    rows = {**place, "unit": unit, "example": example, "value": grid.ravel(), "total": TOTAL, **columns}
    return pd.DataFrame(rows)[list(SCORES)]


def together(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def accuracy(*rows: tuple[str, str, str, int, float, int]) -> pd.DataFrame:
    """Panel, model, data, unit, accuracy, tested."""
    return pd.DataFrame(rows, columns=list(ACCURACY)).assign(chance=0.1)


def lacking(*rows: tuple[str, str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(LACKING))


MODELS = {
    ("mnist_block", "normal"): ("decorrelated", 3, 0.97, {"digit": 0.3, "block": 0.01}),
    ("mnist_block", "spurious"): ("decorrelated", 3, 0.42, {"digit": 0.08, "block": 0.34}),
    ("models", "squeezenet"): ("photographs", 1, 0.62, {"object": 0.35}),
    ("models", "efficientnet_lite0"): ("photographs", 1, 0.81, {"object": 0.42}),
    ("models", "efficientnet_lite2"): ("photographs", 1, 0.85, {"object": 0.47}),
}
METHODS = {"gradient": (1.0, 2.0), "integrated_gradients": (0.9, 2.2), "grad_cam": (0.3, 19.0), "random": (0.0, 1.4)}
"""How much of a model's alignment a method shows, and its grain."""
SIZES = {"digit": 105, "block": 25, "object": 140}


def study(seed: int = 0, examples: int = 40) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Scores, accuracies and what is lacking of two panels, with made-up values."""
    draw = np.random.default_rng(seed)
    parts, accuracies = [], []
    for (panel, model), (data, units, right, masks) in MODELS.items():
        accuracies += [(panel, model, data, unit, right + 0.01 * unit, 500) for unit in range(units)]
        correct = (draw.random((units, examples)) < right).astype(float)
        for mask, level in masks.items():
            for method, (share, grain) in METHODS.items():
                area = SIZES[mask] / TOTAL
                mean = share * level + (1 - share) * area / 1.5
                place = {"panel": panel, "model": model, "data": data, "mask": mask, "method": method}
                facts = {"correct": correct, "pixels": SIZES[mask], "grain": grain}
                iou = np.clip(draw.normal(mean, 0.08, (units, examples)), 0, 1)
                hits = (draw.random((units, examples)) < min(1.0, 2.2 * mean)).astype(float)
                guess = np.clip(draw.normal(area / 1.5, 0.03, iou.shape), 0, 1)
                case = _cases(iou, correct, draw)
                parts.append(scores(iou.tolist(), **place, metric="iou", random=guess, case=case, **facts))
                guess = (draw.random(iou.shape) < area).astype(float)
                parts.append(scores(hits.tolist(), **place, metric="pointing_game", random=guess, **facts))
    absent = ("models", "squeezenet", "photographs", "lrp_epsilon", "no rule for this layer")
    return together(*parts), accuracy(*accuracies), lacking(absent, ("models", "own", "photographs", "", "no weights"))


def _cases(iou: np.ndarray, correct: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A case of the right side for each example, none for some."""
    sides: list[list[str]] = [[name for name, right in CASES.items() if right == side] for side in (0, 1)]
    number = np.where(iou >= 0.4, 0, draw.integers(1, 6, iou.shape))
    return np.array([
        [sides[int(right)][each] if each < 4 else "" for each, right in zip(row, rights, strict=True)]
        for row, rights in zip(number, correct, strict=True)
    ])  # fmt: skip


def rows(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    """Rows of a table by some columns."""
    return table[np.logical_and.reduce([table[name] == value for name, value in where.items()])]


def finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
