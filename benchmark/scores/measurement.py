"""One metric over one contrast: values, benign values and floors, filled chunk by chunk, then laid out as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribug.contracts.contrasts import Side
from attribug.errors import Unsupported, one_line
from attribug.metrics.shared import Shared
from attribug.query.settings import settings_restored
from attribug.streams import generator

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.data import Data
    from attribug.contracts.pieces import Metric

COLUMNS = [
    "metric", "post", "control", "seed", "draw", "reference", "control_seed", "example", "value", "benign", "floor",
]  # fmt: skip
Floats = NDArray[np.float64]


class MetricFault(Exception):
    """A metric broke its contract: it did not give one number an example."""


Views = Mapping[str, Shared]
"""One side's maps and examples by version of its inputs; `""`: as explained."""


class Measurement:
    """A metric under a post. Reference and control maps are prepared once, contaminated ones met on arrival.

    Arrays (n,) are kept by role: `value` by reference (None unless a similarity) and draw, `benign` by reference and
    control, `floor` by reference, of a response by control. A metric that raises loses its own rows: `verdict` and
    `reason` then say why.
    """

    def __init__(self, contrast: Contrast, metric: Metric, post: str, *, count: int) -> None:
        self.contrast = contrast
        self.metric = metric
        self.post = post
        self.count = count
        self.verdict: Literal["", "unsupported", "failed"] = ""
        self.reason = ""
        self.values: dict[tuple[Any, ...], Floats] = {}
        self.forms: dict[Side, Any] = {}
        self.ends: dict[Side, tuple[Any, Any]] = {}

    @property
    def pairs_models(self) -> bool:
        """Whether two models' maps meet; otherwise a value belongs to one model."""
        return self.metric.kind == "similarity"

    def attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Takes one of the steps below, unless an earlier one failed."""
        if self.verdict:
            return
        try:
            with settings_restored():
                getattr(self, step.__name__)(*arguments)  # as a kind of measurement takes it
        except Exception as error:  # foreign code: whatever it raises costs its own rows only
            self.lose(error)

    def lose(self, error: Exception) -> None:
        """Gives up: there will be no rows, and this is why."""
        declined = isinstance(error, Unsupported)
        self.verdict, self.reason = ("unsupported", str(error)) if declined else ("failed", one_line(error))

    def begin(self, noise: Views, start: int) -> None:
        """Floor of an alignment: what it says of `gaussian_maps`."""
        if self.metric.kind == "alignment":
            self._fill(("floor", None), start, self._of_one_model(noise))

    def keep(self, side: Side, views: Views, start: int) -> None:
        """Takes a reference's or control's maps."""
        if self.pairs_models:
            self.forms[side] = self._form(views)
            if side in self.contrast.references:
                self._floor(side, self._size(views), start)
            return
        self._fill(("benign", None, side), start, self._of_one_model(views))
        if self.metric.kind == "response":
            self.forms[side] = self._form(views)
            self._floor(side, self._size(views), start)

    def compare_controls(self, size: int, start: int) -> None:
        """b = s(reference, control) for every pair that is not the same side."""
        if self.pairs_models:
            for controls in self.contrast.control_sets.values():
                for reference, control in self._pairs(controls):
                    if reference is not None:
                        similar = self._met(size, self.forms[reference], self.forms[control])
                        self._fill(("benign", reference, control), start, similar)

    def compare_contaminated(self, draw: int, views: Views, start: int) -> None:
        """v = s(reference, contaminated), or what the contaminated model's maps alone say."""
        if not self.pairs_models:
            self._fill(("value", None, draw), start, self._of_one_model(views))
            return
        form = self._form(views)
        for reference in self.contrast.references:
            similar = self._met(self._size(views), self.forms[reference], form)
            self._fill(("value", reference, draw), start, similar)

    def forget(self) -> None:
        """Drops the chunk's maps."""
        self.forms.clear()

    def rows(self, ids: NDArray[np.int64]) -> pd.DataFrame:
        """One row an example and triple, in a fixed order."""
        frames = []
        for name, controls in self.contrast.control_sets.items():
            for draw in range(len(self.contrast.contaminated_sides)):
                for reference, control in self._pairs(controls):
                    yardstick = control if self.metric.kind == "response" else reference
                    frames.append(pd.DataFrame({
                        "control": name, "seed": self.contrast.contaminated.seed, "draw": draw,
                        "reference": -1 if reference is None else reference.seed, "control_seed": control.seed,
                        "example": ids, "value": self.values["value", reference, draw],
                        "benign": self.values["benign", reference, control], "floor": self.values["floor", yardstick],
                    }))  # fmt: skip
        if not frames:
            return pd.DataFrame(columns=COLUMNS)
        return pd.concat(frames, ignore_index=True).assign(metric=self.metric.name, post=self.post)[COLUMNS]

    def _pairs(self, controls: tuple[Side, ...]) -> list[tuple[Side | None, Side]]:
        """References and controls that meet; where models are not compared there is no reference."""
        if not self.pairs_models:
            return [(None, control) for control in controls]
        return [(r, control) for r in self.contrast.references for control in controls if control != r]

    def _floor(self, side: Side, size: int, start: int) -> None:
        """The same model's map of the next example, in a circle; chunks join at their ends."""
        form = self.forms[side]
        place = torch.tensor([0])  # not a slice, which may hold on to the chunk that it is a view of
        first, last = self.ends[side] if start else (form[place], None)
        if size > 1:
            self._fill(("floor", side), start, self._met(size - 1, form[: size - 1], form[1:size]))
        if start:
            self._fill(("floor", side), start - 1, self._met(1, last, form[:1]))
        last = form[place + size - 1]
        if start + size == self.count:
            self._fill(("floor", side), self.count - 1, self._met(1, last, first))
        self.ends[side] = (first, last)

    def _size(self, views: Views) -> int:
        return len(views[self.metric.inputs])

    def _form(self, views: Views, version: str | None = None) -> Any:
        """The prepared maps of a version, by default the one that the metric reads."""
        return views[self.metric.inputs if version is None else version].form(self.metric, self.post)

    def _of_one_model(self, views: Views) -> Tensor:
        """Alignment with the mask, or response to the other version of the input."""
        size = self._size(views)
        beside = [self._form(views, self.metric.beside)] if self.metric.beside else []
        if self.metric.kind == "response":
            return self._met(size, self._form(views), *beside)
        truth = views[self.metric.inputs].truth(self.metric, self.contrast.truth or "object")
        if truth is None:
            raise Unsupported("the examples have no masks to align with")
        return self._met(size, self._form(views), truth, *beside)

    def _met(self, count: int, *operands: Any) -> Tensor:
        """What the metric says of `count` examples, (count,); raises `MetricFault` for anything else."""
        values: Any = self.metric.function(*operands)
        if not isinstance(values, Tensor) or values.shape != (count,):
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise MetricFault(f"{self.metric.name}: expected a number an example, ({count},), found {found}")
        if values.is_complex():
            raise MetricFault(f"{self.metric.name}: expected real numbers, found {values.dtype}")
        return values

    def _fill(self, key: tuple[Any, ...], start: int, values: Tensor) -> None:
        row = self.values.setdefault(key, np.full(self.count, np.nan))
        row[start : start + len(values)] = values.double().numpy()


def gaussian_maps(data: Data, seed: int, version: str) -> Tensor:
    """Maps that know nothing: Gaussian, (N, *shape), from the examples' own streams."""
    place = ("floor", version) if version else ("floor",)
    streams = [generator(*place, seed, int(example)) for example in data.ids]
    return torch.stack([torch.randn(data.inputs.shape[1:], generator=stream) for stream in streams])
