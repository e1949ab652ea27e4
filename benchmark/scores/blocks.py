"""Maps → rows: explains every side of a contrast chunk by chunk, and scores each map as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from torch import Tensor

from attribug.contracts import outputs
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Data
from attribug.contracts.pieces import Metric
from attribug.contracts.shapes import KINDS
from attribug.errors import StorageError, Unsupported, one_line
from attribug.maps.asked import asked
from attribug.maps.kept import explained
from attribug.metrics.shared import Shared
from attribug.query.query import Query
from attribug.scores.aligned import Aligned, Held, masks_of, pictured, told_of
from attribug.scores.measurement import Measurement, gaussian_maps
from attribug.scores.records import SHOWN, Record

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.pieces import Method
    from attribug.contracts.subjects import Subject
    from attribug.maps.asked import Queries
    from attribug.maps.kept import KeptMaps
    from attribug.models.lab import Lab
    from attribug.scores.measurement import Views
    from attribug.scores.records import Settings

OnWork = Callable[[Literal["explaining", "scoring"], int], None]
MetricPost = tuple[Metric, str]


def explained_positions(contrast: Contrast, lab: Lab, limit: int) -> Tensor:
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
    measured: Sequence[MetricPost],
    lab: Lab,
    settings: Settings,
    *,
    kept: KeptMaps | None = None,
    subject: Subject | None = None,
    report: OnWork = lambda stage, amount: None,
) -> dict[str, Record]:
    """Explains and scores a contrast with several methods that share their passes; one record a method, by name.

    `subject`: whose contrast it is, where it is of a panel: maps are then held against its masks, and scores have the
    columns of `attribug.scores.aligned`.

    A method that raises fails alone. What `kept` holds is not explained again. `report` is told of every side explained
    and every method scored.
    """
    positions = explained_positions(contrast, lab, settings.examples)
    if not len(positions):
        return {method.name: Record(verdict="failed", reason="no example is left to explain") for method, _ in methods}
    try:
        held = None if subject is None else (masks_of(subject, lab, positions), told_of(subject, lab, positions))
    except Unsupported as reason:
        return {method.name: Record(verdict="unsupported", reason=str(reason)) for method, _ in methods}
    work = {
        method.name: _Work(contrast, method, measured, settings, len(positions), kept, held and Held(*held))
        for method, _ in methods
    }
    versions = sorted({version for job in work.values() for version in job.versions})
    for start in range(0, len(positions), settings.chunk):
        chunk = positions[start : start + settings.chunk]
        queries = asked(contrast, versions, lab, chunk, seed=settings.seed, rows=settings.rows)
        noise = _noise(contrast, versions, queries, settings) if any(job.aligns for job in work.values()) else {}
        for method, parameters in methods:
            job = work[method.name]
            if not job.record.verdict:
                started, explaining = time.perf_counter(), job.explaining_seconds
                _explain_chunk(job, parameters, queries, noise, start, report)
                explaining = job.explaining_seconds - explaining
                job.record.scoring_seconds += time.perf_counter() - started - explaining
                if job.record.verdict:  # passes that it shared may come from a model it had changed
                    queries = asked(contrast, versions, lab, chunk, seed=settings.seed, rows=settings.rows)
                report("scoring", len(chunk))
    data = lab.data(contrast.contaminated.examples).select(positions)
    return {name: job.finished(data) for name, job in work.items()}


def share_side(
    contrast: Contrast,
    side: Side,
    methods: Sequence[tuple[Method, Mapping[str, Any]]],
    lab: Lab,
    settings: Settings,
    kept: KeptMaps,
    report: OnWork = lambda stage, amount: None,
) -> bool:
    """Explains one side with several methods, for all contrasts that ask the same of it; whether no method failed.

    A method that fails leaves nothing behind: it will again where its maps are scored, and be told of there.
    """
    positions = explained_positions(contrast, lab, settings.examples)
    sound = True
    for chunk in positions.split(settings.chunk) if len(positions) else ():
        fresh = partial(asked, contrast, (), lab, chunk, seed=settings.seed, rows=settings.rows, about=(side,))
        query, _ = fresh()[side]
        for method, parameters in methods:
            explain = partial(explained, method, query, parameters)
            try:
                kept.explained(method, parameters, side, query, explain, share=True)
            except StorageError:
                raise
            except Exception:
                sound = False
                query, _ = fresh()[side]  # passes that it shared may come from a model it had changed
            report("explaining", 1)
    return sound


def _noise(contrast: Contrast, versions: Sequence[str], queries: Queries, settings: Settings) -> Views:
    """Gaussian maps of every version that some metric reads; the same for all methods and metrics."""
    data = {version: queries[contrast.seen(contrast.contaminated, version)][1] for version in versions}
    return {version: Shared(gaussian_maps(each, settings.seed, version), each) for version, each in data.items()}


def _explain_chunk(
    job: _Work, parameters: Mapping[str, Any], queries: Queries, noise: Views, start: int, report: OnWork
) -> None:
    """One method, one chunk: references and controls stay prepared, contaminated maps are scored on arrival."""
    contrast = job.contrast
    first = [*contrast.references, *(side for sides in contrast.control_sets.values() for side in sides)]
    try:
        job.each(Measurement.begin, noise, start)
        for side in dict.fromkeys(first):
            job.each(Measurement.keep, side, job.views(side, queries, parameters), start)
            report("explaining", 1)
        job.each(Measurement.compare_controls, len(queries[contrast.contaminated][1]), start)
        for draw, side in enumerate(contrast.contaminated_sides):
            job.each(Measurement.compare_contaminated, draw, job.views(side, queries, parameters), start)
            report("explaining", 1)
    except StorageError:
        raise  # of maps that are to be kept
    except Unsupported as reason:
        job.record = Record(verdict="unsupported", reason=str(reason))
    except Exception as error:  # foreign code: whatever it raises costs its own record only
        job.record = Record(verdict="failed", reason=one_line(error))
    finally:
        for measurement in job.measurements:
            measurement.forget()


class _Work:
    """One method's record in the making."""

    def __init__(
        self,
        contrast: Contrast,
        method: Method,
        measured: Sequence[MetricPost],
        settings: Settings,
        count: int,
        kept: KeptMaps | None,
        held: Held | None = None,
    ) -> None:
        self.held = held
        self.contrast = contrast
        self.method = method
        self.output = outputs.get(method.output)
        self.kept = kept
        self.rows = settings.rows
        self.measurements = [
            Measurement(contrast, metric, post, count=count)
            if held is None
            else Aligned(contrast, metric, post, count=count, masks=held.masks)
            for metric, post in measured
            if metric.reads == method.output and metric.applies(contrast)
        ]
        self.record = Record()
        self.explaining_seconds = 0.0
        self.shown: dict[Side, Tensor] = {}

    @property
    def aligns(self) -> bool:
        """Whether some metric meets a truth mask."""
        return any(measurement.metric.kind == "alignment" for measurement in self.measurements)

    @property
    def versions(self) -> list[str]:
        """Versions of the inputs that are explained: `""` always, others where a metric reads them."""
        alive = [measurement.metric for measurement in self.measurements if not measurement.verdict]
        read = {version for metric in alive for version in metric.versions}
        return ["", *sorted(read - {""})]

    def views(self, side: Side, queries: Queries, parameters: Mapping[str, Any]) -> Views:
        """The method's maps of a side and the examples, by version of the inputs.

        Where it fails on another version than the explained one, the metrics that read this one lose their rows.
        """
        seen_maps: dict[str, Shared] = {}
        for version in self.versions:
            seen = self.contrast.seen(side, version)
            query, data = queries[seen]
            try:
                seen_maps[version] = Shared(self.explain(seen, query, parameters), data)
            except Exception as error:
                if not version or isinstance(error, StorageError):
                    raise
                query.forget_passes()
                for measurement in self.measurements:
                    if version in measurement.metric.versions and not measurement.verdict:
                        measurement.lose(error)
        maps = seen_maps[""].maps
        self.remember(side, maps)
        if self.output.explains:
            promised = queries[side][0].promised if self.method.conserves else None
            self.record.census.count(maps, promised)
        return seen_maps

    def explain(self, side: Side, query: Query, parameters: Mapping[str, Any]) -> Tensor:
        """The method's maps of one query."""
        started = time.perf_counter()
        explain = partial(explained, self.method, query, parameters)
        kept = self.kept
        explanation = explain() if kept is None else kept.explained(self.method, parameters, side, query, explain)
        query.promised = explanation.promised
        self.record.cost.add(explanation.cost)
        self.explaining_seconds += time.perf_counter() - started
        if explanation.rows < self.rows:
            self.record.rows = min(explanation.rows, self.record.rows or explanation.rows)
        return explanation.maps

    def each(self, step: Callable[..., None], *arguments: Any) -> None:
        """Takes a step in every measurement."""
        for measurement in self.measurements:
            measurement.attempt(step, *arguments)

    def remember(self, side: Side, maps: Tensor) -> None:
        """Keeps what the gallery shows: of the first few examples, or what a subject's needs."""
        if self.held is not None:
            self.held.remember(maps)
            return
        if self.output.gallery and maps.ndim in KINDS:
            self.shown.setdefault(side, pictured(maps[:SHOWN]))

    def gallery(self, data: Data) -> dict[str, Tensor]:
        """Inputs and maps of one reference, another control and the contaminated model, as far as there are any."""
        references = self.contrast.references[:1]
        controls = tuple(side for side in self.contrast.controls if side not in references)[:1]
        roles = {"reference": references, "control": controls, "contaminated": (self.contrast.contaminated,)}
        pictures = {role: self.shown[side] for role, sides in roles.items() for side in sides if side in self.shown}
        inputs = data.inputs[:SHOWN]
        shown = inputs.half() if KINDS.get(inputs.ndim) == "images" else inputs  # other inputs have any range
        return {"inputs": shown, **pictures} if pictures else {}

    def finished(self, data: Data) -> Record:
        """The record of the explained examples."""
        if self.record.verdict:
            return self.record
        ids = data.ids.numpy()
        frames = [measurement.rows(ids) for measurement in self.measurements if not measurement.verdict]
        frames = [frame for frame in frames if len(frame)]
        if frames:
            scores = pd.concat(frames, ignore_index=True)
            self.record.scores = scores if self.held is None else self.held.finished(scores)
        lost = [measurement for measurement in self.measurements if measurement.verdict]
        self.record.lost = {f"{m.metric.name}@{m.post}": (m.verdict, m.reason) for m in lost}
        self.record.gallery = (
            self.gallery(data) if self.held is None else self.held.gallery(self.record.scores, data) if frames else {}
        )
        self.record.maps_kept = self.kept is not None and self.kept.keep
        return self.record
