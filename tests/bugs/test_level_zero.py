"""At level 0 nothing is contaminated: the whole pipeline, from training to table, must say exactly one half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest

from attribug import bugs, methods, metrics
from attribug.contracts import Contrast, Task, Trained
from attribug.results.schema import SCORE_COLUMNS
from attribug.results.summary import summarise
from attribug.scoring import Settings, score_block
from attribug.training import Lab

SEEDS = (0, 1, 2)
METHODS = [(methods.get(name), {}) for name in ("gradient", "random", "predictions")]
METRICS = ("spearman", "ssim", "mass_accuracy", "total_variation")
MEASURED = [pair for name in METRICS for pair in metrics.measured_as(name)]
SETTINGS = Settings(seed=0, examples=11, chunk=4, rows=64)
ASYMMETRY_SEEN = 1e-3


def table(contrasts: Sequence[Contrast], lab: Lab, visible: float | None = None) -> pd.DataFrame:
    """The rows of results that the contrasts' main control gives; `visible`: instead of every metric's own δ."""
    frames = []
    for contrast in contrasts:
        for name, record in score_block(contrast, METHODS, MEASURED, lab, SETTINGS).items():
            assert record.verdict == "", record.reason
            frames.append(record.scores.assign(task="digits", bug="b", level="0", method=name))
    facts = {metric.name: metric for metric, _ in MEASURED}
    results = summarise(
        pd.concat([frame for frame in frames if len(frame)], ignore_index=True)[list(SCORE_COLUMNS)],
        suite="test",
        seeds_total=len(SEEDS),
        kinds={name: metric.kind for name, metric in facts.items()},
        visible={name: metric.visible if visible is None else visible for name, metric in facts.items()},
    )
    return results[results["control"] == contrasts[0].control]


def uncontaminated(name: str, task: Task) -> list[Contrast]:
    return [bugs.get(name).function(task, 0, seed, SEEDS) for seed in SEEDS]


@pytest.mark.slow
@pytest.mark.parametrize("name", bugs.names())
def test_effect_is_exactly_one_half(name: str, digits: Task, lab: Lab) -> None:
    contrasts = uncontaminated(name, digits)
    for visible in (None, 0.0):
        results = table(contrasts, lab, visible)
        read = METRICS[:3] if contrasts[0].truth is not None else METRICS[:2]
        expected = {("predictions", "total_variation"), *product(("gradient", "random"), read)}
        assert set(zip(results["method"], results["metric"], strict=True)) == expected
        assert (results["seeds"] == len(SEEDS)).all()
        assert (results["n"] == SETTINGS.examples).all()
        assert (results["effect"] - 0.5).abs().max() <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spurious_background", "ood", "label_flips"])
def test_one_half_is_no_accident(name: str, digits: Task, lab: Lab) -> None:
    """Single comparisons do differ, and a control set that is not the contaminated set shows in the effect."""
    contrasts = uncontaminated(name, digits)
    gradient = score_block(contrasts[0], METHODS[:1], MEASURED, lab, SETTINGS)["gradient"].scores
    assert (gradient["value"] != gradient["benign"]).any()
    lopsided = [replace(contrast, controls=contrast.controls[:1]) for contrast in contrasts]
    longer = replace(digits.recipe, epochs=3)
    other = [Trained(digits.examples("train"), longer, seed) for seed in SEEDS]
    retrained = [
        replace(contrast, contaminated=replace(contrast.contaminated, model=model))
        for contrast, model in zip(contrasts, other, strict=True)
    ]
    for asymmetric in (lopsided, retrained):
        results = table(asymmetric, lab, visible=0.0)
        effects = results[results["method"] == "gradient"]["effect"]
        assert (effects - 0.5).abs().max() > ASYMMETRY_SEEN


@pytest.mark.slow
def test_damage_at_level_zero_is_none(digits: Task, lab: Lab) -> None:
    """The contaminated model of reinit is the reference under another name; one layer of damage is not."""
    results = table(uncontaminated("reinit", digits), lab, visible=0.0)
    sure = results[results["metric"].isin(["spearman", "total_variation"])]
    assert (sure["value"] > 1 - 1e-9).all()
    assert (sure["benign"] > 1 - 1e-9).all()
    damaged = [bugs.get("reinit").function(digits, 1, seed, SEEDS) for seed in SEEDS]
    effects = table(damaged, lab, visible=0.0)
    assert (effects[effects["method"] != "random"]["effect"] - 0.5).abs().max() > ASYMMETRY_SEEN
