"""Studies over many models: trains models that differ on purpose, explains them, and tells what that says of a method.

`fold_study`: models that were trained without one fold each. `randomisation_study`: models with random layers. The
numbers and their sources stand in `attribug.results.studies`. Everything runs in this process, with one torch thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attribug import folds as parts
from attribug import methods as registered
from attribug import metrics, tasks
from attribug.attribution import attributions, safe_copy
from attribug.bugs.reinit import bottom, layers, reinitialise
from attribug.conformance import one_thread
from attribug.contracts import Data, Derived, Method, ModelSpec, Task, Trained, Unsupported, trainings
from attribug.keys import stream_seed
from attribug.metrics.postprocessing import postprocess
from attribug.plan import check_options
from attribug.query import Query, at_least_one
from attribug.registry import InputError, near_misses, one_line
from attribug.results import studies
from attribug.results.statistics import Flags, Floats, Integers
from attribug.store import Models, cache_folder, storing
from attribug.streams import generator
from attribug.training import Lab, logits

METHODS = ("gradient", "guided_backprop", "grad_cam", "random", "edges")
"""Of one pass each, or none; `smoothgrad` takes 50."""
METRIC = "spearman@sum"
CORRELATIONS = ("spearman", "pearson")
Options = Mapping[str, Mapping[str, Any]]
FOLD_COLUMNS = (
    "task", "method", "mege", "mege_signed", "mege_floor", "reco", "reco_signed", "reco_chance", "same", "different",
    "undefined", "accuracy", "reason",
)  # fmt: skip
RANDOMISATION_COLUMNS = (
    "task", "method", "smprt", "smprt_sem", "smprt_floor", "smprt_undefined", "emprt", "emprt_se", "emprt_sem",
    "emprt_undefined",
)  # fmt: skip


def fold_study(
    task: str | Task = "digits",
    methods: Sequence[str | Method] = METHODS,
    *,
    folds: int = 5,
    examples: int = 32,
    seed: int = 0,
    metric: str = METRIC,
    task_options: Mapping[str, Any] | None = None,
    method_options: Options | None = None,
    lab: Lab | None = None,
) -> pd.DataFrame:
    """MeGe and ReCo, one row a method (Fel et al. 2022): are maps stable where models are, and only there?

    `folds` models with initialisations of their own are trained, each without one fold of the task's training examples;
    a training image is explained, for its label, by the model that never saw it and by each of the others. S⁼ holds the
    pairs on `examples` random images. Images on which exactly one of two models is right are few, so S≠ is drawn from
    up to `examples` of these. Chance alone gives a higher ReCo the fewer pairs there are: read it beside reco_chance.

    Columns: mege and reco as published, …_signed without the absolute value; mege_floor, MeGe of maps of two different
    images (maps that are alike anyway have a high one); reco_chance, the ReCo of maps that know nothing of the models;
    same and different, pairs in S⁼ and S≠; undefined, the share of these without a similarity; accuracy on held-out
    images; reason, why numbers are missing (`unsupported: …`, `failed: …`) or doubtful.

    Args:
        task: a registered task's name, made with `seed` and `task_options`, or a task.
        methods: registered names, or methods; `method_options` by name.
        seed: of the folds, the first model and the methods' random streams.
        metric: `metric@post`, a correlation.
        lab: trains and keeps the models; by default in the cache.

    Raises:
        InputError: unknown names and options, a metric that is no correlation, too few folds or examples.
    """
    _whole(examples=examples, folds=folds)
    _refuse_single_images(examples)
    _similarity(metric, CORRELATIONS)
    made, chosen = _task(task, seed, task_options or {}), _methods(methods, method_options or {})
    with one_thread():
        lab = lab or _lab_of_the_cache()
        models = _fold_models(made, lab, folds, seed)
        shown = _Shown.of(made, lab, models, examples, seed)
        facts = {"same": int(shown.same.sum()), "different": int(shown.different.sum()), "accuracy": shown.accuracy}

        def measured(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
            maps = [_maps(method, options, _query(lab, model, shown.data, shown.data.labels, seed)) for model in models]
            similarity, floor = (shown.of_pairs(maps, metric, shift) for shift in (0, 1))
            stable = studies.stability(similarity, shown.same, shown.different)
            return {**asdict(stable), "mege_floor": studies.mege(floor[shown.same])}

        return _table(made, chosen, FOLD_COLUMNS, measured, lab).assign(**facts)[list(FOLD_COLUMNS)]


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
        same, different = studies.fold_pairs(correct.numpy(), fold.numpy())
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
        pairs: Floats = matrix[self.fold[:, None], studies.other_models(self.fold, count), images]
        return pairs


def _fold_models(task: Task, lab: Lab, folds: int, seed: int) -> list[Trained]:
    train = task.examples("train")
    parts.folds_of(len(lab.data(train)), folds, seed)  # refuses before anything is trained
    cut = [parts.without(train, fold=fold, folds=folds, seed=seed) for fold in range(folds)]
    return [Trained(examples, task.recipe, seed + fold) for fold, examples in enumerate(cut)]


def randomisation_study(
    task: str | Task = "digits",
    methods: Sequence[str | Method] = METHODS,
    *,
    seeds: int = 3,
    examples: int = 32,
    samples: int = 10,
    noise: float = 0.1,
    seed: int = 0,
    metric: str = METRIC,
    task_options: Mapping[str, Any] | None = None,
    method_options: Options | None = None,
    lab: Lab | None = None,
) -> pd.DataFrame:
    """sMPRT and eMPRT, one row a method (Hedström et al. 2023): do maps notice that parameters are random?

    Each of `seeds` clean models is re-initialised from the input on, one layer more at a time, and the original model's
    class is explained. For sMPRT maps are means over `samples` copies of an image with Gaussian noise of `noise` ·
    (max − min), the same for all models (the paper: 50 samples; here 10, for time); for eMPRT, maps of the image.

    Columns: smprt, its standard error over models, its floor (similarity of the averaged maps of two different images)
    and the undefined share; emprt with its standard errors over images (se) and over models (sem) and the undefined
    share; bottom_1 …, the similarity with that many layers re-initialised; reason, as in `fold_study`. Neither is a
    verdict: noise that depends on parameters has the best sMPRT, and eMPRT rewards whatever is sparse before and dense
    after; `random` and `edges` know no parameters.

    Args and errors as in `fold_study`; metric: any similarity of maps.
    """
    _whole(examples=examples, seeds=seeds, samples=samples)
    _refuse_single_images(examples)
    at_least_one("seeds", seeds)
    at_least_one("samples", samples)
    if not isinstance(noise, int | float) or not noise >= 0:
        raise InputError(f"noise: expected at least 0, found {noise}")
    post = _similarity(metric)
    made, chosen = _task(task, seed, task_options or {}), _methods(methods, method_options or {})
    with one_thread():
        lab = lab or _lab_of_the_cache()
        setting = _Setting.of(made, lab, examples, samples, noise, seed)
        models = [_randomised(made, lab, seed + number) for number in range(seeds)]
        columns = [f"bottom_{number}" for number in range(1, len(models[0]))]

        def measured(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
            maps = [setting.maps(method, options, lab, chain) for chain in models]
            found = [_compared(smooth, plain, metric, post) for smooth, plain in maps]
            similarity, floor, rises = (np.stack(values) for values in zip(*found, strict=True))
            smprt, emprt = studies.smprt(similarity), studies.rise(rises)
            reasons = {"smprt": smprt.reason, "emprt": emprt.reason}
            return {
                "smprt": smprt.smprt, "smprt_sem": smprt.sem, "smprt_floor": studies.mean(floor),
                "smprt_undefined": smprt.undefined, "emprt": emprt.emprt, "emprt_se": emprt.se,
                "emprt_sem": emprt.sem, "emprt_undefined": emprt.undefined,
                **dict(zip(columns, smprt.layers, strict=True)),
                "reason": "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason),
            }  # fmt: skip

        return _table(made, chosen, (*RANDOMISATION_COLUMNS, *columns, "reason"), measured, lab)


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
            return _maps(method, options, _query(lab, model, data, targets, self.seed))

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
    return similarity.numpy(), floor.numpy(), studies.emprt(before, after)


def _lab_of_the_cache() -> Lab:
    cache = cache_folder()
    with storing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    return Lab(Models(cache))


def _whole(**numbers: object) -> None:
    """Raises `InputError` for what is no whole number."""
    for name, number in numbers.items():
        if not isinstance(number, int):
            raise InputError(f"{name}: expected a whole number, found {number!r}")


def _refuse_single_images(examples: int) -> None:
    if examples < 2:
        raise InputError(f"examples: expected at least 2, so that maps of different images meet, found {examples}")


def _task(task: str | Task, seed: int, options: Mapping[str, Any]) -> Task:
    if isinstance(task, Task):
        if options:
            raise InputError("task_options: expected none beside a task that is made already")
        return task
    source = tasks.get(task)
    if source.absent:
        raise InputError(f"missing data: {task}: {source.absent}")
    check_options("task_options", source.function, options, skip={"seed", "other"})
    made: Task = source.function(seed=seed, other=lambda name: _task(name, seed, {}), **options)
    return made


def _methods(methods: Sequence[str | Method], options: Options) -> list[tuple[Method, Mapping[str, Any]]]:
    for method in methods:
        if not isinstance(method, str | Method):
            raise InputError(f"methods: expected registered names or methods, found {type(method).__name__}")
    chosen = {each.name: each for each in (registered.get(m) if isinstance(m, str) else m for m in methods)}
    if len(chosen) < len(methods):
        raise InputError("methods: expected every method once, found one twice")
    for name, given in options.items():
        if name not in chosen:
            raise InputError(f"method_options: unknown name {name!r}{near_misses(name, chosen)}")
        check_options(f"method_options.{name}", chosen[name].function, given)
    return [(method, options.get(name, {})) for name, method in chosen.items()]


def _similarity(name: str, only: Sequence[str] = ()) -> str:
    """The post of a similarity of maps; raises `InputError` for another metric, or for one that is not among `only`."""
    metric, post = metrics.measured_as(name)[0]
    if metric.kind != "similarity" or metric.reads != "attributions":
        raise InputError(f"metric: expected a similarity of maps, found {name!r}")
    if only and metric.name not in only:
        raise InputError(f"metric: expected {' or '.join(only)}, found {name!r}")
    return post


def _maps(method: Method, options: Mapping[str, Any], query: Query) -> Tensor:
    if method.output != "attributions":
        raise Unsupported("it gives probabilities, not maps")
    return attributions(method, query, options).cpu()


def _query(lab: Lab, model: ModelSpec, data: Data, targets: Tensor, seed: int) -> Query:
    """A query of its own for every method, so that none can spoil what another gets."""
    train = partial(lab.data, trainings(model)[-1].examples)
    inputs, targets = data.inputs.to(lab.device), targets.to(lab.device)
    return Query(safe_copy(lab.model(model)), inputs, targets, ids=data.ids, seed=seed, train=train)


def _table(
    task: Task,
    methods: Sequence[tuple[Method, Mapping[str, Any]]],
    columns: Sequence[str],
    measured: Callable[[Method, Mapping[str, Any]], dict[str, Any]],
    lab: Lab,
) -> pd.DataFrame:
    """One row a method: what `measured` tells, or the reason why it cannot."""
    rows = []
    for method, options in methods:
        try:
            numbers = measured(method, options)
        except Unsupported as reason:
            numbers = {"reason": f"unsupported: {reason}"}
        except Exception as error:  # foreign code: whatever it raises costs its own row only
            numbers = {"reason": f"failed: {one_line(error)}"}
            lab.forget_models()  # it may have changed one
        rows.append({"task": task.name, "method": method.name, **numbers})
    texts = {"task", "method", "reason"}
    table = pd.DataFrame(rows, columns=list(columns))
    return table.astype({name: str if name in texts else np.float64 for name in columns})
