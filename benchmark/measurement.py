"""One metric over one contrast: values, benign values and floors, filled chunk by chunk, then laid out as rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribug.contracts import Contrast, Data, Metric, Side, Unsupported
from attribug.metrics import prepared
from attribug.registry import one_line
from attribug.streams import generator

COLUMNS = [
    "metric", "post", "control", "seed", "draw", "reference", "control_seed", "example", "value", "benign", "floor",
]  # fmt: skip
Floats = NDArray[np.float64]


class MetricFault(Exception):
    """A metric broke its contract: it did not give one number an example."""


class Measurement:
    """A metric under a post. Reference and control maps are prepared once, contaminated ones met on arrival.

    Arrays (n,) are kept by role: `value` by reference (None for an alignment) and draw, `benign` by reference and
    control, `floor` by reference. A metric that raises loses its own rows: `verdict` and `reason` then say why.
    """

    def __init__(self, contrast: Contrast, metric: Metric, post: str, *, seed: int, count: int) -> None:
        self.contrast = contrast
        self.metric = metric
        self.post = post
        self.seed = seed
        self.count = count
        self.verdict: Literal["", "unsupported", "failed"] = ""
        self.reason = ""
        self.values: dict[tuple[Any, ...], Floats] = {}
        self.forms: dict[Side, Any] = {}
        self.ends: dict[Side, tuple[Any, Any]] = {}

    @property
    def aligns(self) -> bool:
        """Whether maps meet a mask, not each other."""
        return self.metric.kind == "alignment"

    def attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Takes one of the steps below, unless an earlier one failed."""
        if self.verdict:
            return
        try:
            step(self, *arguments)
        except Unsupported as reason:
            self.verdict, self.reason = "unsupported", str(reason)
        except Exception as error:  # foreign code: whatever it raises costs its own rows only
            self.verdict, self.reason = "failed", one_line(error)

    def begin(self, data: Data, start: int) -> None:
        """Floor of an alignment: Gaussian maps from the examples' own streams."""
        if self.aligns:
            streams = [generator("floor", self.seed, int(example)) for example in data.ids]
            noise = torch.stack([torch.randn(data.inputs.shape[1:], generator=stream) for stream in streams])
            self._fill(("floor", None), start, self._aligned(noise, data))

    def keep(self, side: Side, maps: Tensor, data: Data, start: int) -> None:
        """Takes a reference's or control's maps."""
        if self.aligns:
            self._fill(("benign", None, side), start, self._aligned(maps, data))
            return
        self.forms[side] = self._prepared(maps)
        if side in self.contrast.references:
            self._floor(side, len(maps), start)

    def compare_controls(self, size: int, start: int) -> None:
        """b = s(reference, control) for every pair that is not the same side."""
        if not self.aligns:
            for controls in self.contrast.control_sets.values():
                for reference, control in self._pairs(controls):
                    if reference is not None:
                        similar = self._met(self.forms[reference], self.forms[control], size)
                        self._fill(("benign", reference, control), start, similar)

    def compare_contaminated(self, draw: int, maps: Tensor, data: Data, start: int) -> None:
        """v = s(reference, contaminated), or the alignment of the contaminated model's maps."""
        if self.aligns:
            self._fill(("value", None, draw), start, self._aligned(maps, data))
            return
        form = self._prepared(maps)
        for reference in self.contrast.references:
            self._fill(("value", reference, draw), start, self._met(self.forms[reference], form, len(maps)))

    def forget(self) -> None:
        """Drops the chunk's maps."""
        self.forms.clear()

    def rows(self, ids: NDArray[np.int64]) -> pd.DataFrame:
        """One row an example and triple, in a fixed order."""
        frames = []
        for name, controls in self.contrast.control_sets.items():
            for draw in range(len(self.contrast.contaminated_sides)):
                for reference, control in self._pairs(controls):
                    frames.append(pd.DataFrame({
                        "control": name, "seed": self.contrast.contaminated.seed, "draw": draw,
                        "reference": -1 if reference is None else reference.seed, "control_seed": control.seed,
                        "example": ids, "value": self.values["value", reference, draw],
                        "benign": self.values["benign", reference, control], "floor": self.values["floor", reference],
                    }))  # fmt: skip
        if not frames:
            return pd.DataFrame(columns=COLUMNS)
        return pd.concat(frames, ignore_index=True).assign(metric=self.metric.name, post=self.post)[COLUMNS]

    def _pairs(self, controls: tuple[Side, ...]) -> list[tuple[Side | None, Side]]:
        """References and controls that meet; an alignment needs no reference."""
        if self.aligns:
            return [(None, control) for control in controls]
        return [(r, control) for r in self.contrast.references for control in controls if control != r]

    def _floor(self, side: Side, size: int, start: int) -> None:
        """Floor of a similarity: the same model's map of the next example, in a circle; chunks join at their ends."""
        form = self.forms[side]
        first, last = self.ends[side] if start else (form[:1], None)
        if size > 1:
            self._fill(("floor", side), start, self._met(form[: size - 1], form[1:size], size - 1))
        if start:
            self._fill(("floor", side), start - 1, self._met(last, form[:1], 1))
        last = form[size - 1 : size]
        if start + size == self.count:
            self._fill(("floor", side), self.count - 1, self._met(last, first, 1))
        self.ends[side] = (first, last)

    def _prepared(self, maps: Tensor) -> Any:
        return maps if self.metric.reads == "probabilities" else prepared(self.metric, maps, self.post)

    def _aligned(self, maps: Tensor, data: Data) -> Tensor:
        if data.masks is None:
            raise Unsupported("the examples have no masks to align with")
        truth = ~data.masks if self.contrast.truth == "background" else data.masks
        return self._met(self._prepared(maps), truth, len(maps))

    def _met(self, a: Any, b: Any, count: int) -> Tensor:
        """What the metric says of `count` examples, (count,); raises `MetricFault` for anything else."""
        values: Any = self.metric.function(a, b)
        if not isinstance(values, Tensor) or values.shape != (count,):
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise MetricFault(f"{self.metric.name}: expected a number an example, ({count},), found {found}")
        return values

    def _fill(self, key: tuple[Any, ...], start: int, values: Tensor) -> None:
        row = self.values.setdefault(key, np.full(self.count, np.nan))
        row[start : start + len(values)] = values.double().numpy()
