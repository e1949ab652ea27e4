"""Scoring: rows against direct measurements of direct explanations, slow loops, and methods that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import attribug
from attribug import methods, metrics
from attribug.bugs.label_flips import label_flips
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Recipe
from attribug.contracts.pieces import Method, Metric
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.query.query import Query
from attribug.scores.blocks import explained_positions, score_block
from attribug.scores.measurement import COLUMNS
from attribug.scores.records import SHOWN, Record, Settings
from attribug.streams import generator

PIXELS = 12
COUNT = 10
SETTINGS = Settings(seed=3, examples=COUNT, chunk=4, rows=64)
MEASURED = [pair for name in ("spearman@sum", "pearson@abs_sum", "ssim", "mass_accuracy", "total_variation")
            for pair in metrics.measured_as(name)]  # fmt: skip
NAMES = ("gradient", "input_x_gradient", "random", "predictions")
Chosen = Sequence[tuple[Method, Mapping[str, Any]]]
SEEDS = (0, 1, 2)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 4, 3, stride=3), nn.Tanh(), nn.Flatten(),
        nn.Linear(4 * 16, 16), nn.Tanh(), nn.Linear(16, 3),
    )  # fmt: skip


def bars(*, size: int, first: int = 0, masks: bool = True) -> Data:
    """A bar in one of three places on noise, two channels; the bar is the mask."""
    inputs = torch.rand((size, 2, PIXELS, PIXELS), generator=torch.Generator().manual_seed(first)) / 2
    labels = torch.arange(size) % 3
    objects = torch.zeros((size, PIXELS, PIXELS), dtype=torch.bool)
    for row, label in enumerate(labels.tolist()):
        objects[row, :, 4 * label : 4 * label + 2] = True
    inputs[:, 0][objects] += 0.3
    return Data(inputs, labels, torch.arange(first, first + size), objects if masks else None)


TRAIN = Examples.of(bars, size=60)
TEST = Examples.of(bars, size=15, first=100)
SPLITS = {"train": TRAIN, "test": TEST}
RECIPE = Recipe(network, epochs=8, batch=20)
TASK = Task("bars", ("0", "1", "2"), (2, PIXELS, PIXELS), RECIPE, SPLITS.__getitem__, None)  # type: ignore[arg-type]


def shaken(model: nn.Module, stream: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=stream), alpha=0.1)


def contrast_of(seed: int = 0, **changes: Any) -> Contrast:
    """A shaken model against clean ones, two draws, a second control set."""
    clean = [Side(TASK.clean(s), TEST) for s in SEEDS]
    bad = [Side(Derived(TASK.clean(seed), shaken, draw), TEST) for draw in (0, 1)]
    contrast = Contrast(
        bad[0], tuple(s for s in clean if s.seed != seed), tuple(clean), "clean", "label", truth="background",
        draws=(bad[1],), secondary={"first": (clean[seed],)},
    )  # fmt: skip
    return replace(contrast, **changes)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(Memory())


def chosen(*names: str) -> Chosen:
    return [(methods.get(name), {}) for name in names or NAMES]


def scored(lab: Lab, contrast: Contrast | None = None, work: Chosen | None = None, **changes: Any) -> dict[str, Record]:
    settings = replace(SETTINGS, **changes)
    return score_block(contrast or contrast_of(), chosen() if work is None else work, MEASURED, lab, settings)


@pytest.fixture(scope="module")
def usual(lab: Lab) -> dict[str, Record]:
    """The records of all methods for the plain contrast."""
    return scored(lab)


def maps_of(lab: Lab, side: Side, method: str, count: int = COUNT) -> Tensor:
    """The method's maps of a side, by the public function, all examples at once."""
    data = lab.data(side.examples).select(torch.arange(count))
    model = lab.model(side.model)
    return attribug.explain(method, model, data.inputs, data.labels, seed=SETTINGS.seed, ids=data.ids)


def select(scores: pd.DataFrame, **keys: Any) -> pd.DataFrame:
    for column, value in keys.items():
        scores = scores[scores[column] == value]
    return scores


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=float), np.asarray(expected, dtype=float), rtol=1e-4, atol=1e-5)


# What the rows say


@pytest.mark.parametrize("method", ["gradient", "random"])
@pytest.mark.parametrize("name", ["spearman@sum", "pearson@abs_sum", "ssim@sum_minmax"])
def test_similarities_are_direct_measurements(lab: Lab, usual: dict[str, Record], method: str, name: str) -> None:
    contrast = contrast_of()
    metric, _, post = name.partition("@")
    scores = select(usual[method].scores, metric=metric, post=post)
    maps = {side: maps_of(lab, side, method) for side in contrast.sides}
    seen = 0
    for draw, bad in enumerate(contrast.contaminated_sides):
        for reference, (control_set, controls) in product(contrast.references, contrast.control_sets.items()):
            value = attribug.measure(name, maps[reference], maps[bad])
            floor = attribug.measure(name, maps[reference], maps[reference].roll(-1, 0))
            for control in controls:
                rows = select(
                    scores, control=control_set, draw=draw, reference=reference.seed, control_seed=control.seed
                ).sort_values("example")
                if control == reference:
                    assert not len(rows)
                    continue
                seen += len(rows)
                assert rows["example"].tolist() == list(range(100, 100 + COUNT))
                close(rows["value"], value)
                close(rows["benign"], attribug.measure(name, maps[reference], maps[control]))
                close(rows["floor"], floor)
    assert seen == len(scores) == COUNT * 2 * (4 + 2)  # draws × (pairs of two references and three controls, and one)


@pytest.mark.parametrize("truth", ["background", "object"])
def test_alignments_are_direct_measurements(lab: Lab, truth: Any) -> None:
    contrast = contrast_of(truth=truth)
    scores = select(scored(lab, contrast, chosen("gradient"))["gradient"].scores, metric="mass_accuracy")
    data = lab.data(TEST).select(torch.arange(COUNT))
    assert data.masks is not None
    masks = ~data.masks if truth == "background" else data.masks
    streams = [generator("floor", SETTINGS.seed, int(example)) for example in data.ids]
    noise = torch.stack([torch.randn(data.inputs.shape[1:], generator=stream) for stream in streams])
    assert set(scores["reference"]) == {-1}
    for draw, bad in enumerate(contrast.contaminated_sides):
        for control_set, controls in contrast.control_sets.items():
            for control in controls:
                rows = select(scores, draw=draw, control=control_set, control_seed=control.seed)
                close(rows["value"], attribug.measure("mass_accuracy", maps_of(lab, bad, "gradient"), masks))
                close(rows["benign"], attribug.measure("mass_accuracy", maps_of(lab, control, "gradient"), masks))
                close(rows["floor"], attribug.measure("mass_accuracy", noise, masks))
    assert len(scores) == COUNT * 2 * (3 + 1)


def test_predictions_are_compared_as_probabilities(lab: Lab, usual: dict[str, Record]) -> None:
    contrast = contrast_of()
    scores = select(usual["predictions"].scores, control="first", draw=0, reference=1)
    data = lab.data(TEST).select(torch.arange(COUNT))
    bad, reference, control = (
        lab.model(side.model)(data.inputs).softmax(1).detach()
        for side in (contrast.contaminated, contrast.references[0], contrast.controls[0])
    )
    assert set(scores["metric"]) == {"total_variation"}
    close(scores["value"], [1 - sum(abs(float(a) - float(b)) for a, b in zip(p, q, strict=True)) / 2
                            for p, q in zip(reference, bad, strict=True)])  # fmt: skip
    close(scores["benign"], 1 - (reference - control).abs().sum(1) / 2)
    close(scores["floor"], 1 - (reference - reference.roll(-1, 0)).abs().sum(1) / 2)


def test_floors_against_a_slow_loop(lab: Lab) -> None:
    """The next example, in a circle: the last one meets the first, also where chunks end in between."""
    scores = select(scored(lab, chunk=3)["gradient"].scores, metric="spearman", control="clean", draw=0, reference=2)
    maps = maps_of(lab, contrast_of().references[1], "gradient").sum(1).double()
    expected = [stats.spearmanr(maps[i].flatten(), maps[(i + 1) % COUNT].flatten()).statistic for i in range(COUNT)]
    for _, rows in scores.groupby("control_seed"):
        close(rows["floor"], expected)
    assert len(set(np.round(expected, 6))) == COUNT


@pytest.mark.parametrize("chunk", [1, 3, 5, 9, 10, 32])
def test_the_chunk_size_changes_nothing(lab: Lab, usual: dict[str, Record], chunk: int) -> None:
    expected, found = usual, scored(lab, chunk=chunk)
    for name, record in expected.items():
        keys = [column for column in COLUMNS if column not in {"value", "benign", "floor"}]
        pd.testing.assert_frame_equal(found[name].scores[keys], record.scores[keys])
        for column in ("value", "benign", "floor"):
            close(found[name].scores[column], record.scores[column])
            assert found[name].scores[column].notna().all()


def test_methods_score_together_as_alone(lab: Lab, usual: dict[str, Record]) -> None:
    together = usual
    for name in NAMES:
        alone = scored(lab, work=chosen(name))[name]
        pd.testing.assert_frame_equal(alone.scores, together[name].scores, check_exact=True)
        assert (alone.cost.forward, alone.cost.backward) == (together[name].cost.forward, together[name].cost.backward)
    assert together["gradient"].cost.backward == COUNT * len(contrast_of().sides)
    assert together["input_x_gradient"].cost.backward == COUNT * len(contrast_of().sides)


def test_noise_is_the_same_on_every_side(usual: dict[str, Record]) -> None:
    scores = select(usual["random"].scores, metric="spearman")
    close(scores["value"], np.ones(len(scores)))
    close(scores["benign"], np.ones(len(scores)))
    assert (scores["floor"].abs() < 0.5).all()


def test_columns_and_limits(lab: Lab) -> None:
    records = scored(lab, examples=4)
    assert set(records) == set(NAMES)
    for record in records.values():
        assert list(record.scores.columns) == COLUMNS
        assert set(record.scores["example"]) == {100, 101, 102, 103}
        assert record.census.nonfinite == 0
        assert record.cost.seconds > 0
        assert record.scoring_seconds > 0
    everything = scored(lab, work=chosen("gradient"), examples=1000)["gradient"].scores
    assert set(everything["example"]) == set(range(100, 115))


def test_no_truth_no_alignment(lab: Lab, usual: dict[str, Record]) -> None:
    without = scored(lab, contrast_of(truth=None), chosen("gradient"))["gradient"]
    assert "mass_accuracy" not in set(without.scores["metric"])
    assert "mass_accuracy" in set(usual["gradient"].scores["metric"])


# Which class, which examples


def seen_targets(lab: Lab, contrast: Contrast, sides: Sequence[Side]) -> list[list[int]]:
    """The classes that a method is asked about on each side."""
    asked: dict[int, list[int]] = {}

    def spy(query: Query) -> Tensor:
        asked.setdefault(id(query.model), []).extend(query.targets.tolist())
        return query.inputs * 1

    scored(lab, contrast, [(Method("spy", spy), {})], examples=15)
    return [asked[id(lab.model(side.model))] for side in sides]


def test_the_explained_class(lab: Lab) -> None:
    contrast = contrast_of()
    sides = [contrast.contaminated, *contrast.references, *contrast.controls]
    predicted = [lab.outputs(side.model, TEST).argmax(1).tolist() for side in sides]
    labels = lab.data(TEST).labels.tolist()
    assert predicted[0] != predicted[1] != labels
    assert seen_targets(lab, contrast, sides) == [labels] * len(sides)
    assert seen_targets(lab, replace(contrast, target="own"), sides) == predicted
    assert seen_targets(lab, replace(contrast, target="reference"), sides) == [predicted[1]] * len(sides)


def test_an_unknown_target_is_told(lab: Lab) -> None:
    with pytest.raises(ValueError, match="target: expected label, reference or own, found 'none'"):
        scored(lab, contrast_of(target="none"))


def test_only_memorised_flips_are_explained(lab: Lab) -> None:
    task = replace(TASK, recipe=replace(RECIPE, epochs=12))
    contrast = label_flips(task, 0.2, 1, SEEDS)
    assert contrast.keep is not None
    flipped = lab.data(contrast.keep)
    given = lab.model(contrast.contaminated.model)(flipped.inputs).argmax(1)
    memorised = flipped.ids[given == flipped.labels].tolist()
    assert 1 < len(memorised) < len(flipped), "some, not all: else the filter shows nothing"
    assert explained_positions(contrast, lab, 100).tolist() == (given == flipped.labels).nonzero().flatten().tolist()
    rows = scored(lab, contrast, chosen("gradient"), chunk=2)["gradient"].scores
    assert set(rows["example"]) == set(memorised[:COUNT])
    assert explained_positions(replace(contrast, keep=None), lab, 100).tolist() == list(range(len(flipped)))
    assert len(explained_positions(contrast, lab, 2)) == 2


def test_no_example_left_is_a_failure_of_all(lab: Lab) -> None:
    contrast, data = contrast_of(), lab.data(TEST)
    given = lab.outputs(contrast.contaminated.model, TEST).argmax(1)
    wrong = Examples("wrong", lambda: Data(data.inputs, (given + 1) % 3, data.ids))
    records = scored(lab, replace(contrast, keep=wrong))
    reasons = {(record.verdict, record.reason, len(record.scores)) for record in records.values()}
    assert reasons == {("failed", "no example is left to explain", 0)}


# Methods and metrics that misbehave


def raising(query: Query) -> Tensor:
    raise KeyError("no such layer in /home/me/model.pt")


def raising_later(query: Query) -> Tensor:
    if 108 in query.ids.tolist():
        raise RuntimeError("late\nand long")
    return query.gradient()


def declining(query: Query) -> Tensor:
    raise Unsupported("needs a convolution")


def changing(query: Query) -> Tensor:
    with torch.no_grad():
        next(query.model.parameters()).add_(1)
    return query.gradient()


EXPECTED_MAPS = "MethodFault: expected maps (4, 2, 12, 12)"
FAULTY: dict[str, tuple[Callable[[Query], Any], str, str]] = {
    "raising": (raising, "failed", "KeyError: 'no such layer in model.pt'"),
    "raising_later": (raising_later, "failed", "RuntimeError: late"),
    "declining": (declining, "unsupported", "needs a convolution"),
    "changing": (changing, "failed", "MethodFault: changed the model's weights or buffers"),
    "summed": (lambda query: query.gradient().sum(1), "failed", f"{EXPECTED_MAPS}, found (4, 12, 12)"),
    "fewer": (lambda query: query.gradient()[1:], "failed", f"{EXPECTED_MAPS}, found (3, 2, 12, 12)"),
    "nothing": (lambda query: None, "failed", "MethodFault: expected a tensor, found NoneType"),
    "whole": (lambda query: query.ids, "failed", "MethodFault: expected floating-point maps, found torch.int64"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_costs_its_own_record_only(lab: Lab, usual: dict[str, Record], name: str) -> None:
    function, verdict, reason = FAULTY[name]
    work = [(Method(name, function), {}), *chosen()]
    records = scored(lab, work=work)
    assert (records[name].verdict, records[name].reason) == (verdict, reason)
    assert len(records[name].scores) == 0
    assert list(records[name].scores.columns) == COLUMNS
    assert records[name].gallery == {}
    for other in NAMES:
        assert records[other].verdict == ""
        pd.testing.assert_frame_equal(records[other].scores, usual[other].scores, check_exact=True)


def test_maps_that_are_not_finite_are_counted_and_undefined(lab: Lab) -> None:
    def holes(query: Query) -> Tensor:
        maps = query.gradient().clone()
        maps[query.ids % 5 == 0, :, 0, 0] = torch.nan
        return maps

    record = scored(lab, work=[(Method("holes", holes), {})])["holes"]
    assert record.verdict == ""
    assert record.census.nonfinite == 2 * len(contrast_of().sides)
    rows = select(record.scores, metric="spearman")
    undefined = rows["example"] % 5 == 0
    assert (rows["value"].isna() == undefined).all()
    assert (rows["benign"].isna() == undefined).all()
    assert (rows["floor"].isna() == undefined | (rows["example"] % 5 == 4)).all()


def test_no_masks_to_align_with_is_unsupported(lab: Lab) -> None:
    blind = Examples.of(bars, size=15, first=100, masks=False)
    contrast = contrast_of()
    sides = {side: Side(side.model, blind) for side in contrast.sides}
    bare = replace(
        contrast, contaminated=sides[contrast.contaminated], references=tuple(sides[s] for s in contrast.references),
        controls=tuple(sides[s] for s in contrast.controls), draws=(), secondary={},
    )  # fmt: skip
    record = scored(lab, bare, chosen("gradient"))["gradient"]
    assert record.verdict == ""
    assert record.lost == {"mass_accuracy@abs_sum": ("unsupported", "the examples have no masks to align with")}
    assert len(select(record.scores, metric="spearman"))


def constant(shape: Callable[[int], Any]) -> Callable[[Tensor, Tensor], Any]:
    return lambda a, b: shape(len(a))


@pytest.mark.parametrize(("function", "reason"), [
    (constant(lambda n: torch.ones(n, 1)), "MetricFault: odd: expected a number an example, (3,), found (3, 1)"),
    (constant(lambda n: torch.ones(n + 1)), "MetricFault: odd: expected a number an example, (3,), found (4,)"),
    (constant(lambda n: torch.ones(())), "MetricFault: odd: expected a number an example, (3,), found ()"),
    (constant(lambda n: [1.0] * n), "MetricFault: odd: expected a number an example, (3,), found list"),
    (constant(lambda n: {}["x"]), "KeyError: 'x'"),
])  # fmt: skip
def test_a_metric_that_misbehaves_is_told(lab: Lab, function: Any, reason: str) -> None:
    odd = Metric("odd", function)
    records = score_block(contrast_of(), chosen(), [(odd, "sum"), *MEASURED], lab, SETTINGS)
    failed = {name: record.failed_metrics for name, record in records.items() if record.failed_metrics}
    assert failed == {name: {"odd@sum": reason} for name in ("gradient", "input_x_gradient", "random")}
    assert not any(record.verdict for record in records.values())
    assert set(records["gradient"].scores["metric"]) == {metric.name for metric, _ in MEASURED} - {"total_variation"}


def test_a_metric_that_writes_into_what_it_gets_changes_no_other(lab: Lab, usual: dict[str, Record]) -> None:
    """Neither other metrics' rows nor those of methods that come later."""

    def similar(a: Tensor, b: Tensor) -> Tensor:
        value = (a * b).flatten(1).sum(1)
        a.zero_()
        b.fill_(3)
        return value

    def aligned(a: Tensor, masks: Tensor) -> Tensor:
        masks.logical_not_()
        return similar(a, masks.clone())

    vandals = [(Metric("similar", similar), post) for post in ("sum", "none")]
    vandals.append((Metric("aligned", aligned, kind="alignment", posts=("abs_sum",)), "abs_sum"))
    records = score_block(contrast_of(), chosen(), [*vandals, *MEASURED], lab, SETTINGS)
    for name, record in records.items():
        assert not record.lost
        others = ~record.scores["metric"].isin(["similar", "aligned"])
        assert others.all() == (name == "predictions")
        found = record.scores[others].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, usual[name].scores, check_exact=True)


def test_a_metric_that_raises_where_the_circle_closes_costs_its_rows_only(lab: Lab) -> None:
    """Single examples are compared only at the seams between chunks."""

    def for_many(a: Tensor, b: Tensor) -> Tensor:
        if len(a) == 1:
            raise RuntimeError("one is not enough")
        return (a * b).flatten(1).sum(1)

    measured = [(Metric("many", for_many), "sum")]
    records = score_block(contrast_of(), chosen(), measured, lab, replace(SETTINGS, chunk=32))
    assert records["gradient"].failed_metrics == {"many@sum": "RuntimeError: one is not enough"}
    assert records["gradient"].scores.empty
    assert records["predictions"].lost == {}


# Pictures and progress


def test_galleries_show_the_first_examples(lab: Lab) -> None:
    contrast = contrast_of(seed=1)
    records = score_block(contrast, chosen(), MEASURED, lab, SETTINGS)
    shown = records["gradient"].gallery
    assert set(shown) == {"inputs", "reference", "control", "contaminated"}
    assert torch.equal(shown["inputs"], lab.data(TEST).inputs[:SHOWN].half())
    assert contrast.references[0].seed == 0
    bad, reference, control = contrast.contaminated, contrast.references[0], contrast.controls[1]
    for role, side in {"reference": reference, "control": control, "contaminated": bad}.items():
        sums = maps_of(lab, side, "gradient")[:SHOWN].double().sum(1)
        assert torch.equal(shown[role], (sums / sums.abs().amax((1, 2), keepdim=True)).half())
    assert records["predictions"].gallery == {}


def test_galleries_show_maps_of_any_size(lab: Lab) -> None:
    """float16 ends at 65,504; a zero map stays one."""
    sizes: dict[str, Callable[[Query], Tensor]] = {
        "huge": lambda query: query.inputs * 1e9, "tiny": lambda query: query.inputs * 1e-12,
        "zero": lambda query: query.inputs * 0,
    }  # fmt: skip
    work = [(Method(name, function), {}) for name, function in sizes.items()]
    shown = {name: record.gallery["reference"] for name, record in scored(lab, work=work).items()}
    for name in ("huge", "tiny"):
        assert torch.equal(shown[name].abs().amax((1, 2)), torch.ones(SHOWN).half())
    assert not shown["zero"].any()


def test_progress_is_reported(lab: Lab) -> None:
    heard: dict[str, int] = {"explaining": 0, "scoring": 0}

    def report(stage: str, amount: int) -> None:
        heard[stage] += amount

    work = [(Method("raising", raising), {}), *chosen("gradient")]
    score_block(contrast_of(), work, MEASURED, lab, SETTINGS, report=report)
    chunks = -(-COUNT // SETTINGS.chunk)
    assert heard["explaining"] == chunks * len(contrast_of().sides)  # the failed one explained nothing
    assert heard["scoring"] == COUNT + SETTINGS.chunk  # and is given up after its first chunk
