"""Maps → rows: explains every side of a contrast chunk by chunk, and scores each map as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribug.attribution import attributions, safe_copy
from attribug.contracts import Contrast, Data, Method, Metric, Side, Unsupported, trainings
from attribug.metrics import prepared
from attribug.query import Cost, Query
from attribug.registry import one_line
from attribug.streams import generator
from attribug.training import Lab

SHOWN = 3  # examples that a gallery shows
Floats = NDArray[np.float64]
Report = Callable[[Literal["explaining", "scoring"], int], None]
Measured = tuple[Metric, str]
COLUMNS = [
    "metric",
    "post",
    "control",
    "seed",
    "draw",
    "reference",
    "control_seed",
    "example",
    "value",
    "benign",
    "floor",
]


@dataclass(frozen=True)
class Settings:
    """What a suite fixes for every record."""

    seed: int
    examples: int
    chunk: int
    """Examples explained at a time."""
    rows: int
    """Examples of a single pass through a model."""


@dataclass
class Record:
    """Contrast × method: scores, or why there are none."""

    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    verdict: Literal["", "unsupported", "failed"] = ""
    reason: str = ""
    cost: Cost = field(default_factory=Cost)
    """Of the method on all sides, as if it had run alone."""
    scoring_seconds: float = 0.0
    peak_megabytes: float = 0.0
    """Largest resident size of the worker when the record was done."""
    nonfinite: int = 0
    """Maps with NaN or infinite values, over all sides."""
    gallery: dict[str, Tensor] = field(default_factory=dict)
    """inputs (n, C, H, W); reference, control, contaminated: channel sums (n, H, W)."""


def explained(contrast: Contrast, lab: Lab, limit: int) -> Tensor:
    """Positions of the explained examples: the first `limit` of those that are kept, (n,) int64."""
    count = len(lab.data(contrast.contaminated.examples))
    positions = torch.arange(count)
    if contrast.keep is not None:
        given = lab.outputs(contrast.contaminated.model, contrast.keep).argmax(1)
        positions = positions[given == lab.data(contrast.keep).labels]
    return positions[:limit]


def score_block(
    contrast: Contrast,
    methods: Sequence[tuple[Method, Mapping[str, Any]]],
    measured: Sequence[Measured],
    lab: Lab,
    settings: Settings,
    *,
    gallery: bool = False,
    report: Report = lambda stage, amount: None,
) -> dict[str, Record]:
    """Explains and scores a contrast with several methods that share their passes; one record a method, by name.

    A method that raises fails alone. `report` is told of every side explained and every method scored.
    """
    positions = explained(contrast, lab, settings.examples)
    if not len(positions):
        return {method.name: Record(verdict="failed", reason="no example is left to explain") for method, _ in methods}
    work = {method.name: _Work(contrast, method, measured, settings, len(positions)) for method, _ in methods}
    for start in range(0, len(positions), settings.chunk):
        queries = _queries(contrast, lab, positions[start : start + settings.chunk], settings)
        for method, parameters in methods:
            job = work[method.name]
            if not job.record.verdict:
                started, explaining = time.perf_counter(), job.explaining_seconds
                _explain_chunk(job, parameters, queries, start, report, gallery and start == 0)
                explaining = job.explaining_seconds - explaining
                job.record.scoring_seconds += time.perf_counter() - started - explaining
                if job.record.verdict:  # passes that it shared may come from a model it had changed
                    queries = _queries(contrast, lab, positions[start : start + settings.chunk], settings)
                report("scoring", min(settings.chunk, len(positions) - start))
    ids = lab.data(contrast.contaminated.examples).ids[positions]
    return {name: job.finished(ids.numpy()) for name, job in work.items()}


def _queries(contrast: Contrast, lab: Lab, positions: Tensor, settings: Settings) -> dict[Side, tuple[Query, Data]]:
    chunks = {side: lab.data(side.examples).select(positions) for side in contrast.sides}
    targets: Tensor | None = None
    if contrast.target == "reference":
        reference = contrast.references[0]
        targets = _predicted(lab, reference, chunks[reference])
    queries = {}
    for side, data in chunks.items():
        if contrast.target == "label":
            targets = data.labels
        elif contrast.target == "own":
            targets = _predicted(lab, side, data)
        model = safe_copy(lab.model(side.model))
        inputs, device = data.inputs.to(lab.device), lab.device
        if targets is None:
            raise ValueError(f"target: expected label, reference or own, found {contrast.target!r}")
        train = partial(lab.data, trainings(side.model)[-1].examples)
        query = Query(
            model, inputs, targets.to(device), ids=data.ids, seed=settings.seed, rows=settings.rows, train=train
        )
        queries[side] = (query, data)
    return queries


def _predicted(lab: Lab, side: Side, data: Data) -> Tensor:
    with torch.no_grad():
        predicted: Tensor = lab.model(side.model)(data.inputs.to(lab.device)).argmax(1)
    return predicted


def _explain_chunk(
    job: _Work,
    parameters: Mapping[str, Any],
    queries: dict[Side, tuple[Query, Data]],
    start: int,
    report: Report,
    gallery: bool,
) -> None:
    """One method, one chunk: references and controls stay prepared, contaminated maps are scored on arrival."""
    contrast = job.contrast
    first = [*contrast.references, *(side for sides in contrast.control_sets.values() for side in sides)]
    try:
        job.align_noise(queries[contrast.contaminated][1], start)
        for side in dict.fromkeys(first):
            job.keep(side, job.explain(queries[side][0], parameters), queries[side][1], start)
            report("explaining", 1)
        job.compare_controls(start)
        for draw, side in enumerate(contrast.contaminated_sides):
            query, data = queries[side]
            job.compare_contaminated(draw, job.explain(query, parameters), data, start)
            report("explaining", 1)
        if gallery:
            job.show(queries[contrast.contaminated][1])
    except Unsupported as reason:
        job.record = Record(verdict="unsupported", reason=str(reason))
    except Exception as error:  # foreign code: whatever it raises costs its own record only
        job.record = Record(verdict="failed", reason=one_line(error))
    finally:
        job.forget()


class MetricFault(Exception):
    """A metric broke its contract: it did not give one number an example."""


class _Work:
    """One method's record in the making: arrays (n,) by role, filled chunk by chunk."""

    def __init__(
        self, contrast: Contrast, method: Method, measured: Sequence[Measured], settings: Settings, count: int
    ) -> None:
        fits = [(m, post) for m, post in measured if m.reads == method.output]
        self.contrast = contrast
        self.method = method
        self.settings = settings
        self.count = count
        self.similarities = [(m, post) for m, post in fits if m.kind == "similarity"]
        self.alignments = [(m, post) for m, post in fits if m.kind == "alignment" and contrast.truth is not None]
        self.record = Record()
        self.explaining_seconds = 0.0
        self.values: dict[tuple[Any, ...], Floats] = {}
        self.maps: dict[Side, Tensor] = {}
        self.forms: dict[tuple[str, str, Side], Any] = {}
        self.ends: dict[tuple[str, str, Side], tuple[Any, Any]] = {}

    def explain(self, query: Query, parameters: Mapping[str, Any]) -> Tensor:
        """The method's maps of one side."""
        started = time.perf_counter()
        with query.costing() as costing:
            maps = attributions(self.method, query, parameters)
        self.record.cost.add(costing.cost)
        self.explaining_seconds += time.perf_counter() - started
        self.record.nonfinite += int((~maps.flatten(1).isfinite().all(1)).sum())
        return maps.cpu()

    def align_noise(self, data: Data, start: int) -> None:
        """Floor of alignment: a Gaussian map from the example's own stream."""
        streams = [generator("floor", self.settings.seed, int(example)) for example in data.ids]
        noise = torch.stack([torch.randn(data.inputs.shape[1:], generator=stream) for stream in streams])
        for metric, post in self.alignments:
            form = self._prepared(metric, post, noise)
            self._fill(("floor", metric.name, post, None), start, _values(metric, form, self._truth(data), len(data)))

    def keep(self, side: Side, maps: Tensor, data: Data, start: int) -> None:
        """Prepares a reference's or control's maps once; measures floors and a control's alignment."""
        self.maps[side] = maps
        for metric, post in self.similarities:
            form = self._prepared(metric, post, maps)
            self.forms[metric.name, post, side] = form
            if side in self.contrast.references:
                self._floors(metric, post, side, form, len(maps), start)
        for metric, post in self.alignments:
            values = _values(metric, self._prepared(metric, post, maps), self._truth(data), len(maps))
            self._fill(("benign", metric.name, post, None, side), start, values)

    def compare_controls(self, start: int) -> None:
        """b = s(reference, control) for every pair that is not the same side."""
        for metric, post in self.similarities:
            for sides in self.contrast.control_sets.values():
                for reference in self.contrast.references:
                    for control in sides:
                        key = ("benign", metric.name, post, reference, control)
                        if reference != control:
                            a, b = (self.forms[metric.name, post, side] for side in (reference, control))
                            self._fill(key, start, _values(metric, a, b, len(self.maps[control])))

    def compare_contaminated(self, draw: int, maps: Tensor, data: Data, start: int) -> None:
        """v = s(reference, contaminated), or the alignment of the contaminated model's maps."""
        if draw == 0:
            self.maps[self.contrast.contaminated] = maps
        for metric, post in self.similarities:
            form = self._prepared(metric, post, maps)
            for reference in self.contrast.references:
                values = _values(metric, self.forms[metric.name, post, reference], form, len(maps))
                self._fill(("value", metric.name, post, reference, draw), start, values)
        for metric, post in self.alignments:
            values = _values(metric, self._prepared(metric, post, maps), self._truth(data), len(maps))
            self._fill(("value", metric.name, post, None, draw), start, values)

    def show(self, data: Data) -> None:
        """Keeps the first few examples' channel sums for the gallery."""
        if self.method.output != "attributions" or not self.contrast.references:
            return
        reference = self.contrast.references[0]
        control = next((side for side in self.contrast.controls if side != reference), None)
        sides = {"reference": reference, "control": control, "contaminated": self.contrast.contaminated}
        self.record.gallery = {"inputs": data.inputs[:SHOWN].clone()}
        for role, side in sides.items():
            if side is not None:
                self.record.gallery[role] = self.maps[side][:SHOWN].sum(1).clone()

    def forget(self) -> None:
        """Drops the chunk's maps."""
        self.maps.clear()
        self.forms.clear()

    def finished(self, ids: NDArray[np.int64]) -> Record:
        """The record, its rows in a fixed order."""
        if self.record.verdict:
            return self.record
        frames = [self._similarity_rows(m.name, post, ids) for m, post in self.similarities]
        frames += [self._alignment_rows(m.name, post, ids) for m, post in self.alignments]
        frames = [frame for frame in frames if len(frame)]
        if frames:
            self.record.scores = pd.concat(frames, ignore_index=True)[COLUMNS]
        return self.record

    def _prepared(self, metric: Metric, post: str, maps: Tensor) -> Any:
        return maps if metric.reads == "probabilities" else prepared(metric, maps, post)

    def _truth(self, data: Data) -> Tensor:
        if data.masks is None:
            raise Unsupported("the examples have no masks to align with")
        return ~data.masks if self.contrast.truth == "background" else data.masks

    def _floors(self, metric: Metric, post: str, side: Side, form: Any, size: int, start: int) -> None:
        """Floor of similarity: the same model's map of the next example, in a circle; chunks join at their ends."""
        key = (metric.name, post, side)
        first, last = self.ends[key] if start else (form[:1], None)
        if size > 1:
            self._fill(("floor", *key), start, _values(metric, form[: size - 1], form[1:size], size - 1))
        if start:
            self._fill(("floor", *key), start - 1, _values(metric, last, form[:1], 1))
        last = form[size - 1 : size]
        if start + size == self.count:
            self._fill(("floor", *key), self.count - 1, _values(metric, last, first, 1))
        self.ends[key] = (first, last)

    def _fill(self, key: tuple[Any, ...], start: int, values: Tensor) -> None:
        row = self.values.setdefault(key, np.full(self.count, np.nan))
        row[start : start + len(values)] = values.double().numpy()

    def _similarity_rows(self, metric: str, post: str, ids: NDArray[np.int64]) -> pd.DataFrame:
        rows = []
        for name, controls in self.contrast.control_sets.items():
            for draw in range(len(self.contrast.contaminated_sides)):
                for reference in self.contrast.references:
                    value = self.values["value", metric, post, reference, draw]
                    floor = self.values["floor", metric, post, reference]
                    for control in controls:
                        if control != reference:
                            benign = self.values["benign", metric, post, reference, control]
                            rows.append(self._rows(name, draw, reference.seed, control, ids, value, benign, floor))
        return _joined(rows, metric, post)

    def _alignment_rows(self, metric: str, post: str, ids: NDArray[np.int64]) -> pd.DataFrame:
        floor = self.values["floor", metric, post, None]
        rows = []
        for name, controls in self.contrast.control_sets.items():
            for draw in range(len(self.contrast.contaminated_sides)):
                value = self.values["value", metric, post, None, draw]
                for control in controls:
                    benign = self.values["benign", metric, post, None, control]
                    rows.append(self._rows(name, draw, -1, control, ids, value, benign, floor))
        return _joined(rows, metric, post)

    def _rows(
        self,
        name: str,
        draw: int,
        reference: int,
        control: Side,
        ids: NDArray[np.int64],
        value: Floats,
        benign: Floats,
        floor: Floats,
    ) -> pd.DataFrame:
        constant = {"control": name, "seed": self.contrast.contaminated.seed, "draw": draw, "reference": reference}
        columns = {"control_seed": control.seed, "example": ids, "value": value, "benign": benign, "floor": floor}
        return pd.DataFrame({**columns, **constant})


def _values(metric: Metric, a: Any, b: Any, count: int) -> Tensor:
    """What a metric says of `count` examples, (count,); raises `MetricFault` for anything else."""
    values: Any = metric.function(a, b)
    if not isinstance(values, Tensor) or values.shape != (count,):
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise MetricFault(f"{metric.name}: expected a number an example, ({count},), found {found}")
    return values


def _joined(rows: list[pd.DataFrame], metric: str, post: str) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(rows, ignore_index=True).assign(metric=metric, post=post)
