"""How similar maps are that have nothing in common: noise of every law and size, and maps of networks beside noise.

python docs/calibration.py        # writes the table and the figures beside this file: about two minutes on two cores
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor, nn

import attribug
from attribug import metrics, tasks
from attribug.api import default_workers
from attribug.contracts import Data, Recipe
from attribug.metrics.postprocessing import postprocess
from attribug.metrics.surrogates import LAWS, iaaft
from attribug.models.training import initialised, train
from attribug.networks import bvd_cnn
from attribug.streams import generator

DOCS = Path(__file__).parent
TABLE = DOCS / "calibration.csv"
COLUMNS = ["maps", "pair", "pixels", "metric", "pairs", "mean", "p5", "p95"]
METRICS = {
    "ssim_range2@minmax": "SSIM, channels kept, data range 2",
    "ssim@sum_minmax": "SSIM of channel sums",
    "ssim@abs_sum_minmax": "SSIM of sums of absolute values",
    "spearman@sum": "rank correlation of channel sums",
    "pearson@sum": "correlation of channel sums",
}
CHANNELS = 3
SIZES = (28, 32, 64, 128, 224)
PAIRS = 64  # of maps of noise, for each law and size

MAP_SIZES = (32, 128)
IMAGES = 24
SEEDS = (0, 1)  # of the two networks
TRAINING = {"train": 1000, "epochs": 8, "width": 6}  # small: half a minute a network at 128 pixels
GRADIENTS = ("gradient", "smoothgrad_squared", "vargrad", "guided_backprop", "integrated_gradients")
METHODS = (*GRADIENTS, "lime")
UNCORRELATED = {"spearman": 0.05, "pearson": 0.1}  # absolute values below which the example's maps must lie

STYLE = {
    "svg.hashsalt": "attribug", "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 9, "axes.linewidth": 0.6,
    "figure.titlesize": 10.5, "lines.linewidth": 1.4, "lines.markersize": 4,
}  # fmt: skip
LINES = {  # colours of Okabe and Ito, which the colour-blind can tell apart
    "sparse": ("#000000", "s"), "student t3": ("#D55E00", "o"), "laplace": ("#0072B2", "^"),
    "gaussian squared": ("#CC79A7", "D"), "gaussian 1/f": ("#009E73", "v"), "gaussian": ("#56B4E9", "P"),
}  # fmt: skip
BARS = {
    "floor": ("#0072B2", "floor: one network, two images"),
    "matched noise": ("#B0B0B0", "noise matched to the floor"),
    "benign": ("#E69F00", "benign: two networks, one image"),
}

Row = dict[str, Any]
Maps = dict[str, Tensor]
"""Attributions (N, C, H, W) by method."""


def noise(law: str, pixels: int) -> list[Row]:
    """Similarities of independent maps of noise, a row a metric."""
    shape = (CHANNELS, pixels, pixels)
    a, b = (
        torch.stack([LAWS[law](shape, generator("calibration", law, pixels, pair, side)) for pair in range(PAIRS)])
        for side in range(2)
    )  # (N, C, H, W)
    return [summary(law, "noise", pixels, metric, attribug.measure(metric, a, b)) for metric in METRICS]


def summary(maps: str, pair: str, pixels: int, metric: str, values: Tensor) -> Row:
    """A row of the table: mean and quantiles of similarities (N,), the undefined ones left out and not counted."""
    defined = values[values.isfinite()]
    low, high = defined.quantile(torch.tensor([0.05, 0.95], dtype=values.dtype)).tolist()
    return dict(zip(COLUMNS, (maps, pair, pixels, metric, len(defined), float(defined.mean()), low, high), strict=True))


def enlarged(split: str, pixels: int) -> Data:
    """Examples of `digits`, enlarged to a size."""
    data = tasks.get("digits").function(seed=0, other=None, train=TRAINING["train"]).examples(split).load()
    inputs = nn.functional.interpolate(data.inputs, size=(pixels, pixels), mode="bilinear")
    return Data(inputs, data.labels, data.ids)


def explained(pixels: int, seed: int) -> Maps:
    """Every method's maps of a network trained at a size, for the first test images and their labels."""
    network = partial(bvd_cnn, channels=CHANNELS, classes=2, pixels=pixels, width=TRAINING["width"])
    recipe = Recipe(network, epochs=TRAINING["epochs"])
    untrained = initialised(recipe, seed).to(memory_format=torch.channels_last)  # trains in half the time
    model = train(untrained, enlarged("train", pixels), recipe, seed)
    data = enlarged("test", pixels).select(torch.arange(IMAGES))
    asked = (model, data.inputs, data.labels)
    lime = attribug.explain("lime", *asked, ids=data.ids, samples=100, segments=4)
    return {**attribug.explain(list(GRADIENTS), *asked, ids=data.ids, samples=25, steps=25), "lime": lime}


def compared(method: str, pixels: int, one: Tensor, other: Tensor) -> list[Row]:
    """Similarities of a network's maps of different images, of noise matched to these, and of two networks' maps."""
    made = {post: matched(one, post, method, pixels) for post in ("none", "sum", "abs_sum")}
    rows = []
    for metric in METRICS:
        alike = made[metric.partition("@")[2].removesuffix("minmax").removesuffix("_") or "none"]
        pairs = {"floor": (one, one.roll(-1, 0)), "matched noise": (alike, alike.roll(-1, 0)), "benign": (one, other)}
        rows += [summary(method, pair, pixels, metric, attribug.measure(metric, *both)) for pair, both in pairs.items()]
    return rows


def matched(maps: Tensor, post: str, *name: object) -> Tensor:
    """Surrogates, (N, C, H, W), of what a post makes of maps; scaling to [0, 1] may follow as well as precede."""
    read = postprocess(maps, post)
    streams = [generator("calibration", "surrogate", post, *name, example) for example in range(len(maps))]
    return iaaft(read if read.ndim == 4 else read[:, None], streams)


class Example(NamedTuple):
    """Two maps of different images and different networks: which ones, and how similar they are."""

    method: str
    images: tuple[int, int]
    scores: dict[str, float]
    """By `metric@post`."""


def striking(one: Maps, other: Maps) -> Example:
    """Of all pairs of different images, methods' maps that do not correlate: the one with the highest SSIM of sums."""
    found = []
    for method in METHODS:
        unlike = ~torch.eye(IMAGES, dtype=torch.bool)
        for name, bound in UNCORRELATED.items():
            a, b = (metrics.prepared(metrics.get(name), maps[method], "sum") for maps in (one, other))
            unlike &= (a @ b.T).abs() < bound  # type: ignore[attr-defined]
        pairs = unlike.nonzero()
        similar = attribug.measure("ssim@sum_minmax", one[method][pairs[:, 0]], other[method][pairs[:, 1]])
        found += [(value, method, *pair) for value, pair in zip(similar.tolist(), pairs.tolist(), strict=True)]
    _, method, i, j = max(found)
    scores = {name: float(attribug.measure(name, one[method][[i]], other[method][[j]])) for name in METRICS}
    return Example(method, (i, j), scores)


def draw_noise(table: pd.DataFrame) -> Figure:
    """Similarity of noise against its size: a panel a metric, a line a law."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for panel, (metric, meaning) in zip(panels, METRICS.items(), strict=False):  # one panel is left for the legend
        for law, (colour, marker) in LINES.items():
            line = table[(table["maps"] == law) & (table["metric"] == metric)]
            panel.fill_between(line["pixels"], line["p5"], line["p95"], color=colour, alpha=0.15, linewidth=0)
            panel.plot(line["pixels"], line["mean"], color=colour, marker=marker, label=law)
        panel.set_xscale("log")
        panel.set_xticks(SIZES, [str(size) if size != 32 else "" for size in SIZES])  # no room beside 28
        panel.set_xticks([], minor=True)
        panel.set_ylim(-0.25, 1)
        panel.grid(color="#DDDDDD", linewidth=0.5)
        panel.set_title(f"{metric}\n{meaning}")
    for panel in (panels[0], panels[3]):
        panel.set_ylabel("similarity")
    for panel in panels[2:5]:
        panel.set_xlabel("pixels a side")
        panel.tick_params(labelbottom=True)
    panels[5].axis("off")
    legend = panels[5].legend(*panels[0].get_legend_handles_labels(), loc="lower center", frameon=False)
    legend.set_title(f"three channels of noise,\nmean of {PAIRS} pairs (shade:\n5th to 95th percentile)")
    figure.suptitle("Unrelated maps of noise: SSIM grows with heavy tails and resolution, correlation does not")
    return figure


def draw_maps(table: pd.DataFrame) -> Figure:
    """Similarity of networks' maps beside noise matched to them: a row of panels a size, a column a metric."""
    shown = ["ssim_range2@minmax", "ssim@sum_minmax", "spearman@sum"]
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    panels = figure.subplots(len(MAP_SIZES), len(shown), sharex=True, sharey=True)
    height = 0.26
    for (row, pixels), (column, metric) in product(enumerate(MAP_SIZES), enumerate(shown)):
        panel = panels[row][column]
        for place, (pair, (colour, label)) in enumerate(BARS.items()):
            bars = table[(table["pair"] == pair) & (table["metric"] == metric) & (table["pixels"] == pixels)]
            rows = [number + (place - 1) * height for number in range(len(bars))]
            panel.barh(rows, bars["mean"], height, color=colour, label=label)
            panel.hlines(rows, bars["p5"], bars["p95"], color="#444444", linewidth=0.7)
        panel.set_yticks(range(len(METHODS)), METHODS)
        panel.set_xticks([-0.5, 0, 0.5, 1], ["−.5", "0", ".5", "1"])
        panel.grid(axis="x", color="#DDDDDD", linewidth=0.5)
        panel.set_axisbelow(True)
        panel.set_title(f"{metric}, {pixels} px")
    panels[0][0].invert_yaxis()
    panels[-1][1].set_xlabel(f"similarity: mean and 5th to 95th percentile of {IMAGES} pairs")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("By SSIM, gradient maps of different images are as alike as noise with their values and spectrum")
    return figure


def draw_example(example: Example, inputs: Tensor, one: Tensor, other: Tensor) -> Figure:
    """The pair of maps (C, H, W) between its images (2, C, H, W), with its numbers below."""
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    pictures = {
        "first image": inputs[0], "first network, first image": one,
        "second network, second image": other, "second image": inputs[1],
    }  # fmt: skip
    for panel, (title, picture) in zip(figure.subplots(1, 4), pictures.items(), strict=True):
        if "network" not in title:
            panel.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        else:
            sums = picture.sum(0).numpy()
            panel.imshow(sums, cmap="RdBu_r", vmin=-abs(sums).max(), vmax=abs(sums).max(), interpolation="nearest")
        panel.set_title(title)
        panel.set_xticks([])
        panel.set_yticks([])
    numbers = [f"{metric} {example.scores[metric]:.2f}" for metric in METRICS if "abs" not in metric]
    figure.supxlabel(", ".join(numbers), fontsize=9)
    figure.suptitle(f"Two maps of {example.method} that have nothing in common but a high SSIM")
    return figure


def main() -> None:
    """Measures everything and writes it."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(default_workers(), spawned, torch.set_num_threads, (1,)) as pool:
        networks = {px: [pool.submit(explained, px, seed) for seed in SEEDS] for px in sorted(MAP_SIZES, reverse=True)}
        jobs = [pool.submit(noise, law, pixels) for law, pixels in product(LAWS, SIZES)]
        maps = {pixels: [network.result() for network in networks[pixels]] for pixels in MAP_SIZES}
        jobs += [
            pool.submit(compared, method, pixels, *(each[method] for each in maps[pixels]))
            for pixels, method in product(MAP_SIZES, METHODS)
        ]
        rows = [row for job in jobs for row in job.result()]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(TABLE, index=False, float_format="%.4g", lineterminator="\n")
    largest = maps[max(MAP_SIZES)]
    example = striking(*largest)
    inputs = enlarged("test", max(MAP_SIZES)).inputs[list(example.images)]
    one, other = (each[example.method][image] for each, image in zip(largest, example.images, strict=True))
    write_figures(DOCS, pd.read_csv(TABLE), example, inputs, one, other)


def write_figures(
    folder: Path, table: pd.DataFrame, example: Example, inputs: Tensor, one: Tensor, other: Tensor
) -> None:
    """Writes every figure, the same bytes each time."""
    with rc_context(STYLE):
        figures = {
            "calibration": draw_noise(table), "calibration_maps": draw_maps(table),
            "high_ssim": draw_example(example, inputs, one, other),
        }  # fmt: skip
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
