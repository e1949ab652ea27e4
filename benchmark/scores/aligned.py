"""One model's maps held against named masks: a metric's value for each, beside that of a map that knows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribug.contracts.shapes import KINDS, channel_axis
from attribug.errors import Unsupported
from attribug.metrics.grain import grain
from attribug.metrics.shared import is_ours
from attribug.metrics.shared_interest import case_of
from attribug.scores.measurement import Measurement

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.data import Data
    from attribug.contracts.pieces import Metric
    from attribug.contracts.subjects import Subject
    from attribug.models.lab import Lab
    from attribug.scores.measurement import Views

UNKNOWN = -1
"""Stands for a label that nobody says."""
COLUMNS = (
    "metric", "post", "mask", "seed", "example", "value", "random", "pixels", "total", "label", "predicted", "correct",
    "grain", "case",
)  # fmt: skip
OVERLAPS = ("iou", "ground_truth_coverage", "saliency_coverage")
"""Metrics that tell Shared Interest's cases, under one post."""
SHOWN = 2
"""Examples of a case that a gallery shows."""
UNSORTED = 6
"""Examples that it shows where nobody can tell cases."""


class Aligned(Measurement):
    """An alignment metric under a post, for every mask of a subject. Arrays (n,) are kept by role and mask: `value`,
    and `floor`, of Gaussian maps."""

    def __init__(
        self, contrast: Contrast, metric: Metric, post: str, *, count: int, masks: Mapping[str, Tensor]
    ) -> None:
        super().__init__(contrast, metric, post, count=count)
        self.masks = masks
        self.start = 0

    def begin(self, noise: Views, start: int) -> None:
        """What Gaussian maps say of the masks, or, where that is known, are expected to."""
        self.start = start
        if self.metric.chance is None:
            self._each("floor", noise)
            return
        for name, mask in self.masks.items():
            part = mask[start : start + self._size(noise)]
            self._fill(("floor", name), start, self.metric.chance(part))

    def compare_contaminated(self, draw: int, views: Views, start: int) -> None:
        """What the subject's maps say of them."""
        self.start = start
        self._each("value", views)

    def rows(self, ids: NDArray[np.int64]) -> pd.DataFrame:
        """One row an example and mask, in a fixed order."""
        frames = [
            pd.DataFrame({
                "mask": name, "example": ids, "value": self.values["value", name], "random": self.values["floor", name],
                "pixels": mask.flatten(1).sum(1).numpy(), "total": mask[0].numel(),
            })
            for name, mask in self.masks.items()
        ]  # fmt: skip
        whole = pd.concat(frames, ignore_index=True)
        return whole.assign(metric=self.metric.name, post=self.post, seed=self.contrast.contaminated.seed)

    def _each(self, role: str, views: Views) -> None:
        size = self._size(views)
        for name, mask in self.masks.items():
            part = mask[self.start : self.start + size]
            truth = part if is_ours(self.metric.function) else part.clone()
            beside = [self._form(views, self.metric.beside)] if self.metric.beside else []
            self._fill((role, name), self.start, self._met(size, self._form(views), truth, *beside))


def masks_of(subject: Subject, lab: Lab, positions: Tensor) -> dict[str, Tensor]:
    """The subject's masks of the examples at `positions`, (n, *spatial) bool each. Raises `Unsupported` for masks of
    other examples or another size."""
    data = lab.data(subject.side.examples)
    shape, axis = data.inputs.shape, channel_axis(data.inputs.shape)
    expected = tuple(size for place, size in enumerate(shape) if place != axis)
    found = {name: mask for name, mask in subject.regions.load().items() if name in subject.regions.names}
    for name in subject.regions.names:
        mask = found.get(name)
        if mask is None or tuple(mask.shape) != expected or mask.dtype != torch.bool:
            there = "none" if mask is None else f"{tuple(mask.shape)} of {mask.dtype}"
            raise Unsupported(f"mask {name}: expected {expected} of torch.bool, found {there}")
    return {name: found[name][positions] for name in subject.regions.names}


@dataclass
class Held:
    """What a method's maps of a subject are held against, and what is kept of them beside the metrics' values."""

    masks: Mapping[str, Tensor]
    """By name, (n, *spatial) bool each."""
    told: Mapping[str, NDArray[Any]]
    """Label, prediction, and whether they agree: see `told_of`."""
    grains: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    """Channel sums of maps, each over its largest absolute value, float16: what a gallery shows."""

    def remember(self, maps: Tensor) -> None:
        """Takes a chunk of maps."""
        self.grains.append(_grains(maps))
        self.sums.append(pictured(maps))

    def finished(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Scores with all that is known of their examples, columns `COLUMNS`."""
        examples = pd.DataFrame({"example": scores["example"].unique(), **self.told, "grain": torch.cat(self.grains)})
        return cased(scores.merge(examples, on="example", how="left", validate="many_to_one"))[list(COLUMNS)]

    def gallery(self, scores: pd.DataFrame, data: Data) -> dict[str, Tensor]:
        """Inputs, maps and masks of a few examples of each case of the main mask, with their `place`, (m,) int64."""
        main = scores[(scores["mask"] == next(iter(self.masks))) & (scores["metric"] == OVERLAPS[0])]
        main = main.reset_index(drop=True)
        sorted_ = main[main["case"] != ""].groupby("case", sort=False).head(SHOWN).index.tolist()
        chosen = torch.tensor(sorted_ or list(range(min(UNSORTED, len(data)))), dtype=torch.int64)
        inputs = data.inputs[chosen]
        return {
            "inputs": inputs.half() if KINDS.get(inputs.ndim) == "images" else inputs,
            "maps": torch.cat(self.sums)[chosen],
            "masks": torch.stack([mask[chosen] for mask in self.masks.values()], 1).to(torch.uint8),
            "place": chosen,
        }


def cased(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with a column `case`: on rows of IoU, Shared Interest's case; empty where it is none, or unknown."""
    keys = ["mask", "example"]
    overlaps = scores[scores["metric"].isin(OVERLAPS)]
    overlaps = overlaps[overlaps["post"] == overlaps["post"].iloc[0]] if len(overlaps) else overlaps
    wide = overlaps.pivot(index=keys, columns="metric", values="value").reindex(columns=list(OVERLAPS))
    correct = overlaps.drop_duplicates(keys).set_index(keys)["correct"].reindex(wide.index)
    found = [
        "" if np.isnan([*row, right]).any() else case_of(row[0], row[1], row[2], bool(right)) or ""
        for row, right in zip(wide.to_numpy(float), correct.to_numpy(float), strict=True)
    ]
    told = pd.Series(found, index=wide.index, name="case", dtype=object).reset_index()
    if not len(told):
        return scores.assign(case="")
    cased = scores.merge(told, on=keys, how="left")
    return cased.assign(case=cased["case"].where(cased["metric"] == OVERLAPS[0], "").fillna(""))


def told_of(subject: Subject, lab: Lab, positions: Tensor) -> dict[str, NDArray[Any]]:
    """Label, prediction, and whether they agree, of every example, (n,) each; `correct` is NaN where nobody says the
    label."""
    side = subject.side
    predicted = lab.outputs(side.model, side.examples)[positions].argmax(1)
    labels = lab.data(side.examples).labels[positions]
    if subject.tested is None:
        unknown = np.full(len(positions), UNKNOWN)
        return {"label": unknown, "predicted": predicted.numpy(), "correct": np.full(len(positions), np.nan)}
    return {"label": labels.numpy(), "predicted": predicted.numpy(), "correct": (predicted == labels).double().numpy()}


def pictured(maps: Tensor) -> Tensor:
    """Channel sums, each over its largest absolute value, float16: that ends at 65,504."""
    sums, axis = maps.double(), channel_axis(maps.shape)
    sums = sums if axis is None else sums.sum(axis)
    largest = sums.abs().flatten(1).amax(1).reshape(-1, *[1] * (sums.ndim - 1))
    return torch.where(largest > 0, sums / largest, sums).half()


def _grains(maps: Tensor) -> Tensor:
    """`grain` of maps of images, absolute values summed over channels, (N,); NaN of others."""
    if KINDS.get(maps.ndim) != "images":
        return torch.full((len(maps),), torch.nan, dtype=torch.float64)
    return grain(maps.double().abs().sum(1))
