"""The exact half at level 0, which every bug must keep, is no accident of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest

from attribug import bugs, methods, metrics
from attribug.conformance import level_zero
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import Trained
from attribug.contracts.tasks import Task
from attribug.models.lab import Lab
from attribug.scores.blocks import score_block
from attribug.scores.records import Settings

SEEDS = (0, 1, 2)
METHODS = [(methods.get(name), {}) for name in ("gradient", "random", "predictions")]
METRICS = ("spearman", "ssim", "mass_accuracy", "total_variation")
MEASURED = [pair for name in METRICS for pair in metrics.measured_as(name)]
SETTINGS = Settings(seed=0, examples=11, chunk=4, rows=64)
ASYMMETRY_SEEN = 1e-3


def table(contrasts: Sequence[Contrast], lab: Lab) -> pd.DataFrame:
    """The rows of the main control, with differences however small."""
    return level_zero.table(contrasts, METHODS, MEASURED, lab, SETTINGS, visible=0.0)


def uncontaminated(name: str, task: Task) -> list[Contrast]:
    return [bugs.get(name).function(task, 0, seed, SEEDS) for seed in SEEDS]


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
        results = table(asymmetric, lab)
        effects = results[results["method"] == "gradient"]["effect"]
        assert (effects - 0.5).abs().max() > ASYMMETRY_SEEN


@pytest.mark.slow
def test_damage_at_level_zero_is_none(digits: Task, lab: Lab) -> None:
    """The contaminated model of reinit is the reference under another name; one layer of damage is not."""
    results = table(uncontaminated("reinit", digits), lab)
    sure = results[results["metric"].isin(["spearman", "total_variation"])]
    assert (sure["value"] > 1 - 1e-9).all()
    assert (sure["benign"] > 1 - 1e-9).all()
    damaged = [bugs.get("reinit").function(digits, 1, seed, SEEDS) for seed in SEEDS]
    effects = table(damaged, lab)
    assert (effects[effects["method"] != "random"]["effect"] - 0.5).abs().max() > ASYMMETRY_SEEN
