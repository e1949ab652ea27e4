"""Randomisation studies: how maps fall as layer after layer is randomised (sMPRT, eMPRT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attribug import metrics
from attribug.bugs.reinit import bottom, layers, reinitialise
from attribug.contracts.data import Data
from attribug.contracts.models import Derived
from attribug.errors import InputError
from attribug.keys import stream_seed
from attribug.metrics.postprocessing import postprocess
from attribug.models.lab import logits
from attribug.query.query import at_least_one
from attribug.query.settings import one_thread
from attribug.results import study_measures
from attribug.streams import generator
from attribug.studies.explaining import (
    STUDIED_METHODS,
    STUDIED_METRIC,
    chosen_methods,
    expect_whole,
    lab_of_the_cache,
    made_task,
    maps_of,
    refuse_single_images,
    similarity_post,
    study_query,
    study_table,
)

if TYPE_CHECKING:
    from attribug.contracts.models import ModelSpec
    from attribug.contracts.pieces import Method
    from attribug.contracts.tasks import Task
    from attribug.models.lab import Lab
    from attribug.results.statistics import Floats
    from attribug.studies.explaining import Options

CORRELATIONS = ("spearman", "pearson")
RANDOMISATION_COLUMNS = (
    "task", "method", "smprt", "smprt_sem", "smprt_floor", "smprt_undefined", "emprt", "emprt_se", "emprt_sem",
    "emprt_undefined",
)  # fmt: skip
"""smprt, its standard error over models, its floor (similarity of the averaged maps of two different images) and the
undefined share; emprt with its standard errors over images (se) and over models (sem) and the undefined share."""


def randomisation_study(
    task: str | Task = "digits",
    methods: Sequence[str | Method] = STUDIED_METHODS,
    *,
    seeds: int = 3,
    examples: int = 32,
    samples: int = 10,
    noise: float = 0.1,
    seed: int = 0,
    metric: str = STUDIED_METRIC,
    task_options: Mapping[str, Any] | None = None,
    method_options: Options | None = None,
    lab: Lab | None = None,
) -> pd.DataFrame:
    """sMPRT and eMPRT, one row a method (Hedström et al. 2023): do maps notice that parameters are random?

    Each of `seeds` clean models is re-initialised from the input on, one layer more at a time, and the original model's
    class is explained. For sMPRT maps are means over `samples` copies of an image with Gaussian noise of `noise` ·
    (max − min), the same for all models (the paper: 50 samples; here 10, for time); for eMPRT, maps of the image.

    Columns: see `RANDOMISATION_COLUMNS`; bottom_1 …, the similarity with that many layers re-initialised; reason, as in
    `fold_study`. Neither is a verdict: noise that depends on parameters has the best sMPRT, and eMPRT rewards whatever
    is sparse before and dense after; `random` and `edges` know no parameters.

    Args and errors as in `fold_study`; metric: any similarity of maps.
    """
    _expect_numbers(examples, seeds, samples, noise)
    post = similarity_post(metric)
    made, chosen = made_task(task, seed, task_options or {}), chosen_methods(methods, method_options or {})
    with one_thread():
        lab = lab or lab_of_the_cache()
        setting = _Setting.of(made, lab, examples, samples, noise, seed)
        models = [_randomised(made, lab, seed + number) for number in range(seeds)]
        columns = [f"bottom_{number}" for number in range(1, len(models[0]))]

        def measured(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
            maps = [setting.maps(method, options, lab, chain) for chain in models]
            return _judged([_compared(smooth, plain, metric, post) for smooth, plain in maps], columns)

        return study_table(made, chosen, (*RANDOMISATION_COLUMNS, *columns, "reason"), measured, lab)


def _expect_numbers(examples: int, seeds: int, samples: int, noise: float) -> None:
    expect_whole(examples=examples, seeds=seeds, samples=samples)
    refuse_single_images(examples)
    at_least_one("seeds", seeds)
    at_least_one("samples", samples)
    if not isinstance(noise, int | float) or not noise >= 0:
        raise InputError(f"noise: expected at least 0, found {noise}")


def _judged(compared: Sequence[tuple[Floats, Floats, Floats]], columns: Sequence[str]) -> dict[str, Any]:
    """A method's row from what `_compared` gives of every chain of models."""
    similarity, floor, rises = (np.stack(values) for values in zip(*compared, strict=True))
    smprt, emprt = study_measures.smprt(similarity), study_measures.rise(rises)
    reasons = {"smprt": smprt.reason, "emprt": emprt.reason}
    return {
        "smprt": smprt.smprt, "smprt_sem": smprt.sem, "smprt_floor": study_measures.mean(floor),
        "smprt_undefined": smprt.undefined, "emprt": emprt.emprt, "emprt_se": emprt.se,
        "emprt_sem": emprt.sem, "emprt_undefined": emprt.undefined,
        **dict(zip(columns, smprt.layers, strict=True)),
        "reason": "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason),
    }  # fmt: skip


def _randomised(task: Task, lab: Lab, seed: int) -> list[ModelSpec]:
    """A clean model, then the same with its bottom 1, 2, … layers re-initialised; a layer keeps its draw throughout."""
    clean = task.clean(seed)
    draw = stream_seed("randomisation study", seed)
    choices = [partial(bottom, number=number + 1) for number in range(len(layers(lab.model(clean))))]
    return [clean, *(Derived(clean, partial(reinitialise, choice=choice), draw) for choice in choices)]


@dataclass(frozen=True)
class _Setting:
    """What is explained: test images (n, *shape), and copies of them with noise (n · samples, *shape)."""

    data: Data
    noisy: Data
    samples: int
    seed: int

    @staticmethod
    def of(task: Task, lab: Lab, examples: int, samples: int, noise: float, seed: int) -> _Setting:
        """The first test images; noise comes from each example's own stream, every copy has an id of its own."""
        data = lab.data(task.examples("test"))
        data = data.select(torch.arange(min(examples, len(data))))
        copies = data.select(torch.arange(len(data)).repeat_interleave(samples))
        streams = [generator("example", seed, "smprt", int(example)) for example in data.ids]
        draws = torch.cat([torch.randn((samples, *data.inputs.shape[1:]), generator=stream) for stream in streams])
        flat = copies.inputs.flatten(1)
        spread = (noise * (flat.amax(1) - flat.amin(1))).reshape(-1, *[1] * (copies.inputs.ndim - 1))
        ids = copies.ids * samples + torch.arange(samples).repeat(len(data))
        return _Setting(data, replace(copies, inputs=copies.inputs + spread * draws, ids=ids), samples, seed)

    def maps(
        self, method: Method, options: Mapping[str, Any], lab: Lab, models: Sequence[ModelSpec]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Averaged maps of the original and every randomised model; maps of the images, of the first and the last."""
        original, *_, last = models
        targets = logits(lab.model(original), self.data.inputs).argmax(1)

        def explained(model: ModelSpec, data: Data, targets: Tensor) -> Tensor:
            return maps_of(method, options, study_query(lab, model, data, targets, self.seed))

        often = targets.repeat_interleave(self.samples)
        smooth = [explained(model, self.noisy, often).unflatten(0, (-1, self.samples)).mean(1) for model in models]
        return smooth, [explained(model, self.data, targets) for model in (original, last)]


def _compared(
    smooth: Sequence[Tensor], plain: Sequence[Tensor], metric: str, post: str
) -> tuple[Floats, Floats, Floats]:
    """Similarity by layer (layers, n), floor (n,) and rise (n,) of one chain of models."""
    original, *randomised = smooth
    similarity = torch.stack([metrics.measure(metric, original, maps) for maps in randomised])
    floor = metrics.measure(metric, original, original.roll(1, 0))
    before, after = (postprocess(maps, post).numpy() for maps in plain)
    return similarity.numpy(), floor.numpy(), study_measures.emprt(before, after)
