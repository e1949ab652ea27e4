"""Fold studies: do explanations of models that saw an example differ from those that did not (MeGe, ReCo)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attribug import metrics
from attribug.contracts.data import Data
from attribug.contracts.models import Trained
from attribug.query.settings import one_thread
from attribug.results import study_measures
from attribug.results.statistics import Flags, Floats, Integers
from attribug.studies import folds as parts
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
from attribug.studies.randomisation import CORRELATIONS

if TYPE_CHECKING:
    from attribug.contracts.models import ModelSpec
    from attribug.contracts.pieces import Method
    from attribug.contracts.tasks import Task
    from attribug.models.lab import Lab
    from attribug.studies.explaining import Options

FOLD_COLUMNS = (
    "task", "method", "mege", "mege_signed", "mege_floor", "reco", "reco_signed", "reco_chance", "same", "different",
    "undefined", "accuracy", "reason",
)  # fmt: skip
"""mege and reco as published, …_signed without the absolute value; mege_floor, MeGe of maps of two different images
(maps that are alike anyway have a high one); reco_chance, the ReCo of maps that know nothing of the models; same and
different, pairs in S⁼ and S≠; undefined, the share of these without a similarity; accuracy on held-out images; reason,
why numbers are missing (`unsupported: …`, `failed: …`) or doubtful."""


def fold_study(
    task: str | Task = "digits",
    methods: Sequence[str | Method] = STUDIED_METHODS,
    *,
    folds: int = 5,
    examples: int = 32,
    seed: int = 0,
    metric: str = STUDIED_METRIC,
    task_options: Mapping[str, Any] | None = None,
    method_options: Options | None = None,
    lab: Lab | None = None,
) -> pd.DataFrame:
    """MeGe and ReCo, one row a method (Fel et al. 2022): are maps stable where models are, and only there?
    `folds` models with initialisations of their own are trained, each without one fold of the task's training examples;
    a training image is explained, for its label, by the model that never saw it and by each of the others. S⁼ holds the
    pairs on `examples` random images. Images on which exactly one of two models is right are few, so S≠ is drawn from
    up to `examples` of these. Chance alone gives a higher ReCo the fewer pairs there are: read it beside reco_chance.

    Columns: see `FOLD_COLUMNS`.

    Args:
        task: a registered name, made with `seed` and `task_options`, or a task.
        methods: registered names, or methods; `method_options` by name.
        seed: of the folds, the first model and the methods' random streams.
        metric: `metric@post`, a correlation.
        lab: trains and keeps the models; by default in the cache.

    Raises `InputError` for unknown names and options, another metric, too few folds or examples."""
    expect_whole(examples=examples, folds=folds)
    refuse_single_images(examples)
    similarity_post(metric, CORRELATIONS)
    made, chosen = made_task(task, seed, task_options or {}), chosen_methods(methods, method_options or {})
    with one_thread():
        lab = lab or lab_of_the_cache()
        models = _fold_models(made, lab, folds, seed)
        shown = _Shown.of(made, lab, models, examples, seed)
        facts = {"same": int(shown.same.sum()), "different": int(shown.different.sum()), "accuracy": shown.accuracy}

        measured = partial(_judged, lab=lab, models=models, shown=shown, metric=metric, seed=seed)
        return study_table(made, chosen, FOLD_COLUMNS, measured, lab).assign(**facts)[list(FOLD_COLUMNS)]


def _judged(
    method: Method, options: Mapping[str, Any], *, lab: Lab, models: Sequence[Trained], shown: _Shown, metric: str,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """A method's row: MeGe and ReCo of its maps under all models."""
    asked = [study_query(lab, model, shown.data, shown.data.labels, seed) for model in models]
    maps = [maps_of(method, options, query) for query in asked]
    similarity, floor = (shown.of_pairs(maps, metric, shift) for shift in (0, 1))
    stable = study_measures.stability(similarity, shown.same, shown.different)
    return {**asdict(stable), "mege_floor": study_measures.mege(floor[shown.same])}


@dataclass(frozen=True)
class _Shown:
    """The images that fold-models explain, and the pairs of models that count on each."""

    data: Data
    fold: Integers
    """(n,) the model that has not seen an image."""
    same: Flags
    """(n, K − 1) pairs in S⁼; see `studies.fold_pairs`."""
    different: Flags
    accuracy: float

    @staticmethod
    def of(task: Task, lab: Lab, models: Sequence[ModelSpec], examples: int, seed: int) -> _Shown:
        """Chooses the images: the first of a random order, and the first that models disagree on."""
        train = task.examples("train")
        data = lab.data(train)
        fold = parts.folds_of(len(data), len(models), seed)
        correct = torch.stack([lab.outputs(model, train).argmax(1) == data.labels for model in models])  # (K, N)
        same, different = study_measures.fold_pairs(correct.numpy(), fold.numpy())
        order = parts.order(len(data), seed).numpy()
        sampled = order[:examples]
        contradicted = order[different[order].any(1)][:examples]
        rows = order[np.isin(order, np.concatenate([sampled, contradicted]))]
        index = torch.from_numpy(rows)
        return _Shown(
            data.select(index),
            fold[index].numpy(),
            same[rows] & np.isin(rows, sampled)[:, None],
            different[rows],
            float(correct[fold, torch.arange(len(data))].double().mean()),
        )

    def of_pairs(self, maps: Sequence[Tensor], metric: str, shift: int) -> Floats:
        """Similarity of each pair's maps, (n, K − 1); `shift`: of the second model's map of a later image."""
        count = len(maps)
        matrix = np.full((count, count, len(self.fold)), np.nan)
        for a, b in combinations(range(count), 2):
            matrix[a, b] = matrix[b, a] = metrics.measure(metric, maps[a], maps[b].roll(shift, 0)).numpy()
        images = np.arange(len(self.fold))[:, None]
        pairs: Floats = matrix[self.fold[:, None], study_measures.other_models(self.fold, count), images]
        return pairs


def _fold_models(task: Task, lab: Lab, folds: int, seed: int) -> list[Trained]:
    train = task.examples("train")
    parts.folds_of(len(lab.data(train)), folds, seed)  # refuses before anything is trained
    cut = [parts.without(train, fold=fold, folds=folds, seed=seed) for fold in range(folds)]
    return [Trained(examples, task.recipe, seed + fold) for fold, examples in enumerate(cut)]
