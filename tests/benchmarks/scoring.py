"""Speed and memory of scoring maps against loops over pairs with SciPy, scikit-image, scikit-learn, NumPy, and Quantus.

    python tests/benchmarks/scoring.py [--rounds 5] [--only METRIC@POST,…] [--images 64] [--pixels 224]
    python tests/benchmarks/scoring.py --memory [--only METRIC@POST,…] [--pixels 224]
    python tests/benchmarks/scoring.py --planes [--rounds 5] [--images 32] [--pixels 224]

One method's maps (N, 3, H, W) float32 of three clean and three contaminated models, in all twelve triples (q, r, t)
with floors (nine pairs (q, t) for an alignment), scored as in a run: one `Measurement` a contaminated model, in chunks.
Against that, with the same values: a loop in which every triple computes its v, b and floor anew (`triples`), a loop
that computes each distinct pair once (`pairs`), and the same over Quantus' functions where it is installed and has one.
The loops' maps are post-processed once; all run with the allocator's settings of a run's workers. Seconds of processor
time, one thread each: the medians over the rounds, which take turns in one process, and the median ratio with its
smallest and largest. Methods cost the same each.

`--planes`: alignments alone, over planes (N, H, W) float64 that are ready: each against a few lines of vectorised NumPy
(which share neither ties nor undefined values as ours do), and all that read `abs_sum` together, as in a run, against
loops over images as localisation metrics are published.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from skimage.metrics import structural_similarity
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits
from torch import Tensor

from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe, Trained
from attribug.metrics import measured_as
from attribug.metrics.shared import Shared
from attribug.models.networks import bvd_cnn
from attribug.running.local_engine import KEPT_MEMORY
from attribug.scores.measurement import Measurement, gaussian_maps
from attribug.streams import generator

MODELS, CHUNK, METHODS, SEED = 3, 32, 15, 0
SIZES = (64, 256)  # images of which memory is compared
Floats = NDArray[np.float64]
Planes = Sequence[Any]
"""N arrays (H, W)."""
Pairwise = Callable[[Planes, Planes], Any]
"""What some library says of N pairs of maps, or of maps and masks: N numbers."""


def contrasts() -> list[Contrast]:
    """One contrast a contaminated model q: references r ≠ q, and all clean models as controls t ≠ r."""
    explained = Examples("explained", lambda: Data(*[torch.empty(0)] * 3))
    recipe = Recipe(bvd_cnn, epochs=1)
    clean, spoiled = (
        tuple(Side(Trained(Examples(name, explained.build), recipe, seed), explained) for seed in range(MODELS))
        for name in ("clean", "spoiled")
    )
    return [
        Contrast(q, tuple(r for r in clean if r.seed != q.seed), clean, "clean", target="label", truth="object")
        for q in spoiled
    ]


CONTRASTS = contrasts()
SIDES = tuple(dict.fromkeys(side for contrast in CONTRASTS for side in contrast.sides))


def examples(start: int, stop: int, pixels: int) -> Data:
    """Examples with a block of the image as mask; their inputs stand for a shape."""
    ids = torch.arange(start, stop)
    masks = torch.zeros(len(ids), pixels, pixels, dtype=torch.bool)
    for row, example in enumerate(ids.tolist()):
        masks[row, example % (pixels // 2) :, pixels // 3 : pixels // 3 * 2] = True
    return Data(torch.empty(1, 3, pixels, pixels).expand(len(ids), -1, -1, -1), ids, ids, masks)


def maps_of(side: Side, data: Data) -> Tensor:
    """Maps of one model: heavy-tailed, half of them shared with the other models."""
    maps = torch.empty(data.inputs.shape)
    for row, example in enumerate(data.ids.tolist()):
        shared, own = (generator(*name, example) for name in (("shared",), ("own", SIDES.index(side))))
        maps[row] = (torch.randn(maps.shape[1:], generator=shared) + torch.randn(maps.shape[1:], generator=own)) ** 3
    return maps


# --- ours ---


def ours(name: str, count: int, pixels: int, maps: Callable[[Side, Data], Tensor]) -> Floats:
    """Value, benign value and floor of every triple and example, (rows, 3), as a run computes them."""
    ((metric, post),) = measured_as(name)
    frames = []
    for contrast in CONTRASTS:
        measurement = Measurement(contrast, metric, post, count=count)
        for start in range(0, count, CHUNK):
            data = examples(start, min(start + CHUNK, count), pixels)
            measurement.begin({"": Shared(noise_of(start, len(data), pixels), data)}, start)
            for side in contrast.controls:
                measurement.keep(side, {"": Shared(maps(side, data), data)}, start)
            measurement.compare_controls(len(data), start)
            measurement.compare_contaminated(0, {"": Shared(maps(contrast.contaminated, data), data)}, start)
            measurement.forget()
        frames.append(measurement.rows(np.arange(count)))
    return pd.concat(frames)[["value", "benign", "floor"]].to_numpy()


# --- theirs ---


def looped(one: Callable[[Any, Any], float]) -> Pairwise:
    """A function of one pair, called for each."""
    return lambda a, b: [one(x, y) for x, y in zip(a, b, strict=True)]


def skimages(a: Floats, b: Floats) -> float:
    """SSIM as Wang et al. define it."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(structural_similarity(a, b, **options))


def mass(a: Floats, mask: NDArray[np.bool_]) -> float:
    """Share of the sum that lies in the mask."""
    return float(a[mask].sum() / a.sum())


def iou(a: Floats, mask: NDArray[np.bool_]) -> float:
    """Intersection over union of the mask and what is above mean + standard deviation."""
    salient = a > a.mean() + a.std()
    return float((salient & mask).sum() / (salient | mask).sum())


def pointing(a: Floats, mask: NDArray[np.bool_]) -> float:
    """Whether the highest value lies in the mask."""
    return float(mask.flat[a.argmax()])


def summed(maps: Tensor, post: str) -> list[Floats]:
    """`sum`, `abs_sum` or `sum_minmax` of every map, with NumPy."""
    planes = []
    for each in maps.numpy():
        values = each.astype(np.float64)
        plane = (np.abs(values) if "abs" in post else values).sum(0)
        planes.append((plane - plane.min()) / (plane.max() - plane.min()) if "minmax" in post else plane)
    return planes


@dataclass(frozen=True)
class Case:
    """The same numbers from another library; `quantus` gives theirs."""

    theirs: Pairwise
    quantus: Callable[[], Pairwise] | None = None
    aligns: bool = False


def batched(function: str) -> Callable[[], Pairwise]:
    """A similarity of Quantus over a batch of flattened maps."""

    def load() -> Pairwise:
        from quantus.functions import similarity_func

        rows = functools.partial(getattr(similarity_func, function), batched=True)
        return lambda a, b: rows(*(np.reshape(each, (len(each), -1)) for each in (a, b)))

    return load


def quantus_ssim() -> Pairwise:
    """Quantus' SSIM, map by map: even weights in 7 × 7 windows and each pair's own data range, so other values."""
    from quantus.functions import similarity_func

    return looped(similarity_func.ssim)


def localisation(name: str) -> Callable[[], Pairwise]:
    """A localisation metric of Quantus over a batch of maps and masks."""

    def load() -> Pairwise:
        import quantus

        metric = getattr(quantus, name)(disable_warnings=True)
        return lambda a, b: metric.evaluate_batch(a_batch=np.asarray(a)[:, None], s_batch=np.asarray(b)[:, None])

    return load


CASES = {
    "spearman@sum": Case(looped(lambda a, b: float(stats.spearmanr(a.ravel(), b.ravel())[0])),
                         batched("correlation_spearman")),
    "ssim@sum_minmax": Case(looped(skimages), quantus_ssim),
    "pearson@sum": Case(looped(lambda a, b: float(stats.pearsonr(a.ravel(), b.ravel())[0])),
                        batched("correlation_pearson")),
    "mass_accuracy@abs_sum": Case(looped(mass), localisation("RelevanceMassAccuracy"), aligns=True),
    "iou@abs_sum": Case(looped(iou), aligns=True),
    "pointing_game@abs_sum": Case(looped(pointing), localisation("PointingGame"), aligns=True),
    "auroc@abs_sum": Case(looped(lambda a, mask: float(roc_auc_score(mask.ravel(), a.ravel()))), localisation("AUC"),
                          aligns=True),
    "average_precision@abs_sum": Case(
        looped(lambda a, mask: float(average_precision_score(mask.ravel(), a.ravel()))), aligns=True
    ),
}  # fmt: skip


def loop(case: Case, function: Pairwise, post: str, maps: dict[Side, Tensor], data: Data, *, once: bool) -> Floats:
    """What `ours` returns, by loops: every triple anew, or each pair of models (and of model and mask) once."""
    planes: dict[Any, Planes] = {side: summed(maps[side], post) for side in SIDES}
    if case.aligns:
        planes["noise"] = summed(noise_of(0, len(data), data.inputs.shape[-1]), post)
    masks = list(torch.as_tensor(data.masks).numpy())
    known: dict[Any, Any] = {}

    def met(key: Any, operands: Callable[[], tuple[Planes, Planes]]) -> Any:
        if not once or key not in known:
            known[key] = function(*operands())
        return known[key]

    def aligned(who: Any) -> Any:
        return met(who, lambda: (planes[who], masks))

    def similar(a: Side, b: Side) -> Any:
        return met(frozenset((a, b)), lambda: (planes[a], planes[b]))

    def floor(a: Side) -> Any:
        return met(a, lambda: (planes[a], [*planes[a][1:], planes[a][0]]))

    columns = []
    for contrast in CONTRASTS:
        q = contrast.contaminated
        if case.aligns:
            columns += [(aligned(q), aligned(t), aligned("noise")) for t in contrast.controls]
        else:
            pairs = [(r, t) for r in contrast.references for t in contrast.controls if r != t]
            columns += [(similar(r, q), similar(r, t), floor(r)) for r, t in pairs]
    return np.concatenate([np.stack(each, axis=1) for each in columns]).astype(np.float64)


@functools.cache
def noise_of(start: int, count: int, pixels: int) -> Tensor:
    """Gaussian maps, which serve every method and metric: drawn once, before anything is timed twice."""
    return gaussian_maps(examples(start, start + count, pixels), SEED, "")


# --- comparison ---


def timed(run: Callable[[], Floats]) -> tuple[float, Floats]:
    """Seconds of processor time, and what came out."""
    started = time.process_time()
    found = run()
    return time.process_time() - started, found


def compare(name: str, images: int, pixels: int, rounds: int) -> Iterator[str]:
    """A line for each way to a metric's values."""
    case, post = CASES[name], name.partition("@")[2]
    data = examples(0, images, pixels)
    maps = {side: maps_of(side, data) for side in SIDES}
    whole = functools.partial(loop, case, post=post, maps=maps, data=data)
    runs: dict[str, Callable[[], Floats]] = {
        "ours": lambda: ours(name, images, pixels, lambda side, part: maps[side][part.ids[0] : part.ids[-1] + 1]),
        "triples": lambda: whole(case.theirs, once=False),
        "pairs": lambda: whole(case.theirs, once=True),
    }
    if case.quantus is not None and importlib.util.find_spec("quantus"):
        function = case.quantus()
        runs["Quantus, triples"] = lambda: whole(function, once=False)
        runs["Quantus, pairs"] = lambda: whole(function, once=True)
    times: dict[str, list[float]] = {way: [] for way in runs}
    found: dict[str, Floats] = {}
    for _ in range(rounds):
        for way, run in runs.items():
            seconds, found[way] = timed(run)
            times[way].append(seconds)
    mine = times.pop("ours")
    for way, theirs in times.items():
        ratios = [other / one for one, other in zip(mine, theirs, strict=True)]
        spread = f"{statistics.median(ratios):6.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        difference = float(np.abs(found["ours"] - found[way]).max())
        yield (
            f"{name:<26} {way:<17} {statistics.median(mine):8.3f} {statistics.median(theirs):9.3f} {spread:<26} "
            f"{difference:.0e}"
        )


# --- alignments over planes that are ready ---


def rows_of(a: Floats, m: Any) -> tuple[Floats, Any]:
    """Maps and masks as (N, D)."""
    return a.reshape(len(a), -1), m.reshape(len(m), -1)


def salient(a: Floats) -> Any:
    """Above mean + standard deviation, (N, D)."""
    return a > a.mean(1, keepdims=True) + a.std(1, keepdims=True)


def vector_rank(a: Floats, m: Any) -> Floats:
    """The share of the |G| highest pixels that lie inside."""
    size = m.sum(1)
    found = np.take_along_axis(m, np.argsort(-a, axis=1), 1).cumsum(1)
    return found[np.arange(len(a)), size - 1] / size


def vector_pointing(a: Floats, m: Any) -> Floats:
    """The share of the maxima that lie inside."""
    highest = a == a.max(1, keepdims=True)
    return (highest & m).sum(1) / highest.sum(1)


def vector_auroc(a: Floats, m: Any) -> Floats:
    """From the ranks."""
    size = m.sum(1)
    wins = (stats.rankdata(a, axis=1) * m).sum(1) - size * (size + 1) / 2
    return wins / (size * (a.shape[1] - size))


def vector_precision(a: Floats, m: Any) -> Floats:
    """Pixel by pixel from the highest down."""
    found = np.take_along_axis(m, np.argsort(-a, axis=1), 1)
    return (found * (found.cumsum(1) / np.arange(1, a.shape[1] + 1))).sum(1) / m.sum(1)


def rank(a: Floats, mask: NDArray[np.bool_]) -> float:
    """As `vector_rank`, of one map."""
    size = int(mask.sum())
    return float(np.intersect1d(np.argsort(a.ravel())[-size:], np.flatnonzero(mask)).size / size)


def overlap(whole: Callable[[Any, Any], Any]) -> Callable[[Floats, Any], float]:
    """|S ∩ G| over something, of one map."""

    def of_one(a: Floats, mask: Any) -> float:
        found = a > a.mean() + a.std()
        return float((found & mask).sum() / whole(found, mask).sum())

    return of_one


PLANES: dict[str, tuple[Callable[[Floats, Any], Any], Pairwise]] = {
    "mass_accuracy": (lambda a, m: (a * m).sum(1) / a.sum(1), looped(mass)),
    "rank_accuracy": (vector_rank, looped(rank)),
    "pointing_game": (vector_pointing, looped(pointing)),
    "auroc": (vector_auroc, CASES["auroc@abs_sum"].theirs),
    "average_precision": (vector_precision, CASES["average_precision@abs_sum"].theirs),
    "iou": (lambda a, m: ((s := salient(a)) & m).sum(1) / (s | m).sum(1), looped(iou)),
    "ground_truth_coverage": (lambda a, m: (salient(a) & m).sum(1) / m.sum(1), looped(overlap(lambda s, m: m))),
    "saliency_coverage": (lambda a, m: ((s := salient(a)) & m).sum(1) / s.sum(1), looped(overlap(lambda s, m: s))),
}
"""By metric: over a batch of flat maps and masks with NumPy, and image by image."""


def planes(images: int, pixels: int, rounds: int) -> Iterator[str]:
    """A line a metric, and one of all together."""
    data = examples(0, images, pixels)
    maps = torch.from_numpy(np.stack(summed(maps_of(SIDES[0], data), "abs_sum")))
    masks = torch.as_tensor(data.masks)
    chosen = {name: measured_as(f"{name}@abs_sum")[0][0] for name in PLANES}

    def together(names: Sequence[str]) -> Floats:
        seen = Shared(maps[:, None], data)
        seen.planes["abs_sum"] = maps
        return np.stack([chosen[name].function(seen.form(chosen[name], "abs_sum"), masks).numpy() for name in names])

    def batch(name: str) -> Floats:
        return np.asarray(PLANES[name][0](*rows_of(maps.numpy(), masks.numpy())), np.float64)[None]

    def loops(names: Sequence[str]) -> Floats:
        pairs = list(maps.numpy()), list(masks.numpy())
        return np.array([PLANES[name][1](*pairs) for name in names], dtype=np.float64)

    yield f"{images} images of {pixels} px, {rounds} rounds; ready planes; seconds"
    cases = {name: (functools.partial(together, [name]), functools.partial(batch, name)) for name in PLANES}
    cases["all together, against loops"] = functools.partial(together, list(PLANES)), lambda: loops(list(PLANES))
    for name, (mine, theirs) in cases.items():
        turns = [(timed(mine), timed(theirs)) for _ in range(rounds)]
        ratios = [other[0] / one[0] for one, other in turns]
        difference = float(np.abs(turns[0][0][1] - turns[0][1][1]).max())
        ours_seconds, their_seconds = (statistics.median(turn[side][0] for turn in turns) for side in (0, 1))
        yield (
            f"{name:<28} {ours_seconds:8.4f} {their_seconds:9.4f} "
            f"{statistics.median(ratios):6.2f}x ({min(ratios):.2f} to {max(ratios):.2f})  {difference:.0e}"
        )


def growth(name: str, images: int, pixels: int) -> int:
    """Megabytes by which measuring raises the largest resident size; maps are drawn when they are needed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours(name, images, pixels, maps_of)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def memory(names: Sequence[str], pixels: int) -> Iterator[str]:
    """A line for each metric: what measuring adds to a process of its own, by the number of images."""
    for name in names:
        grown = []
        for images in SIZES:
            command = [sys.executable, __file__, "--growth", "--only", name]
            options = ["--images", str(images), "--pixels", str(pixels)]
            grown.append(int(subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout))
        yield f"{name:<26} " + ", ".join(f"{size} images: {mb} MB" for size, mb in zip(SIZES, grown, strict=True))


def speed(names: Sequence[str], images: int, pixels: int, rounds: int) -> Iterator[str]:
    """The table's head and its lines."""
    quantus = "with" if importlib.util.find_spec("quantus") else "is not installed: without"
    yield f"{images} images of {pixels} px, {rounds} rounds; Quantus: {quantus} it"
    yield f"seconds of one method; {METHODS} methods take {METHODS} times as long"
    yield f"{'':<26} {'against':<17} {'ours s':>8} {'theirs s':>9}   ratio{'':<21}largest difference"
    for name in names:
        yield from compare(name, images, pixels, rounds)


def main() -> None:
    """Runs the cases and prints their lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="names of metric@post, separated by commas")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--memory", action="store_true", help=f"memory for {SIZES} images instead of speed")
    parser.add_argument("--planes", action="store_true", help="alignments over planes that are ready")
    parser.add_argument("--growth", action="store_true", help="megabytes that one metric takes in this process")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(CASES)
    if set(names) - set(CASES):
        sys.exit(f"--only: expected {', '.join(CASES)}, found {arguments.only}")
    if not set(KEPT_MEMORY) <= set(os.environ):  # memory is kept as in a run's workers, for both sides
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT_MEMORY})
    images, pixels = arguments.images, arguments.pixels
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if arguments.growth:
            print(growth(names[0], images, pixels))
            return
        if arguments.planes:
            for line in planes(images, pixels, arguments.rounds):
                print(line, flush=True)
            return
        for line in memory(names, pixels) if arguments.memory else speed(names, images, pixels, arguments.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
