"""Without a bug nothing is detected: clean models on both sides, explained for real."""

import itertools
from functools import partial

import numpy as np
import pandas as pd
import pytest

from attribug import metrics, tasks
from attribug.contracts.models import Recipe
from attribug.maps.explain import explain
from attribug.models.networks import bvd_cnn
from attribug.models.training import initialised, train
from attribug.results.schema import SCORE_COLUMNS
from attribug.results.summary import summarise

MODELS, SEEDS, EXAMPLES = 8, 3, 16
METHODS = ("gradient", "smoothgrad", "integrated_gradients", "guided_backprop", "grad_cam", "occlusion")
SIMILARITIES = ("spearman@sum", "spearman@abs_sum", "ssim@abs_sum_minmax")
ALIGNMENTS = ("mass_accuracy@abs_sum", "iou@abs_sum")


@pytest.fixture(scope="module")
def explained() -> dict[str, dict[str, np.ndarray]]:
    """Of clean models, by method and metric: similarities (MODELS, MODELS, EXAMPLES), alignments (MODELS, EXAMPLES)."""
    task = tasks.get("digits").function(seed=0, other=lambda name: None, train=300, test=EXAMPLES)
    recipe = Recipe(partial(bvd_cnn, width=6), epochs=16)
    training, test = task.examples("train").load(), task.examples("test", share=1.0).load()
    models = [train(initialised(recipe, seed), training, recipe, seed) for seed in range(MODELS)]
    found: dict[str, dict[str, np.ndarray]] = {}
    for method in METHODS:
        maps = [explain(method, model, test.inputs, test.labels, **_few(method)) for model in models]
        similar = {name: [[metrics.measure(name, a, b).numpy() for b in maps] for a in maps] for name in SIMILARITIES}
        aligned = {name: [metrics.measure(name, a, ~test.masks).numpy() for a in maps] for name in ALIGNMENTS}
        found[method] = {name: np.array(values) for name, values in {**similar, **aligned}.items()}
    return found


def _few(method: str) -> dict[str, int]:
    return {"smoothgrad": {"samples": 8}, "integrated_gradients": {"steps": 8}}.get(method, {})


def choices() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to call three of the models clean and three others contaminated, in a fixed order."""
    ways = []
    for clean in itertools.combinations(range(MODELS), SEEDS):
        rest = [model for model in range(MODELS) if model not in clean]
        ways += [(clean, bad) for bad in itertools.combinations(rest, SEEDS)]
    return ways


def table(values: np.ndarray, name: str, *, shift: float = 0.0) -> pd.DataFrame:
    """Scores of every choice, the choice's number as level; `shift` plants a bug."""
    metric, _, post = name.partition("@")
    rows = []
    for number, (clean, bad) in enumerate(choices()):
        for q, (r, t) in itertools.product(range(SEEDS), itertools.product(range(SEEDS), repeat=2)):
            if values.ndim == 3 and (r in {q, t}):
                continue
            if values.ndim == 2 and r:
                continue
            v = values[clean[r], bad[q]] if values.ndim == 3 else values[bad[q]]
            b = values[clean[r], clean[t]] if values.ndim == 3 else values[clean[t]]
            rows.append((number, q, r if values.ndim == 3 else -1, t, v + shift, b))
    frame = pd.DataFrame(rows, columns=["level", "seed", "reference", "control_seed", "value", "benign"])
    frame["example"] = [list(range(EXAMPLES))] * len(frame)
    frame = frame.explode(["value", "benign", "example"], ignore_index=True)
    frame = frame.astype({"value": float, "benign": float, "example": int, "level": str})
    constant = {"task": "t", "bug": "none", "control": "clean", "method": "m", "metric": metric, "post": post}
    return frame.assign(**constant, draw=0, floor=0.0)[list(SCORE_COLUMNS)]


def verdicts(scores: pd.DataFrame) -> pd.Series:
    kinds = {name: metrics.get(name).kind for name in scores["metric"].unique()}
    visible = {name: metrics.get(name).visible for name in kinds}
    return summarise(scores, suite="s", seeds_total=SEEDS, kinds=kinds, visible=visible)["verdict"]


@pytest.mark.slow
def test_clean_models_are_told_apart_in_at_most_two_percent(explained):
    rates = {}
    for method, by_metric in explained.items():
        for name, values in by_metric.items():
            found = verdicts(table(values, name))
            assert len(found) == len(choices())
            rates[method, name] = float((found == "detects").mean())
    print({f"{m} {n}": round(rate, 4) for (m, n), rate in rates.items()})
    assert np.mean(list(rates.values())) <= 0.02, rates


@pytest.mark.slow
def test_a_planted_fall_of_similarity_is_detected(explained):
    values = explained["gradient"]["spearman@sum"]
    assert (verdicts(table(values, "spearman@sum", shift=-1.0)) == "detects").mean() > 0.95
