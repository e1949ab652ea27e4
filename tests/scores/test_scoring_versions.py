"""Scoring with other versions of the explained examples: which maps a metric meets, what they cost, who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import attribug
from attribug import methods, metrics
from attribug.conformance.level_zero import expect_one_half, table
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Recipe
from attribug.contracts.pieces import Method, Metric
from attribug.contracts.tasks import Task
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.query.query import Query
from attribug.scores.blocks import score_block
from attribug.scores.measurement import COLUMNS
from attribug.scores.records import Record, Settings
from attribug.streams import generator

PIXELS, COUNT = 12, 7
SETTINGS = Settings(seed=3, examples=COUNT, chunk=3, rows=64)
SEEDS = (0, 1, 2)
VERSIONS = ("background_only", "clean_inputs", "swapped_background")
Measured = Sequence[tuple[Metric, str]]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Softplus(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4 * 16, 3)
    )


def bars(*, size: int, first: int = 0, version: str = "") -> Data:
    """A bar in one of three places on noise; other noise in every version, and no bar on the background alone."""
    stream = torch.Generator().manual_seed(10 * first + ("", *VERSIONS).index(version))
    inputs = torch.rand((size, 2, PIXELS, PIXELS), generator=stream) / 2
    labels = torch.arange(size) % 3
    objects = torch.zeros((size, PIXELS, PIXELS), dtype=torch.bool)
    for row, label in enumerate(labels.tolist()):
        objects[row, version == "clean_inputs" :, 4 * label : 4 * label + 2] = True
    if version == "background_only":
        return Data(inputs, labels, torch.arange(first, first + size))
    inputs[:, 0][objects] += 0.3
    return Data(inputs, labels, torch.arange(first, first + size), objects)


SPLITS = {"train": Examples.of(bars, size=60), "test": Examples.of(bars, size=9, first=100)}
EXTRA = {version: Examples.of(bars, size=9, first=100, version=version) for version in VERSIONS}
TASK = Task("bars", ("0", "1", "2"), (2, PIXELS, PIXELS), Recipe(network, epochs=4, batch=20), SPLITS.__getitem__, None)  # type: ignore[arg-type]


def shaken(model: nn.Module, stream: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=stream), alpha=0.2)


def contrast_of(**changes: Any) -> Contrast:
    """A shaken model against clean ones, two draws, a second control set, and all three versions."""
    clean = [Side(TASK.clean(s), SPLITS["test"]) for s in SEEDS]
    bad = [Side(Derived(TASK.clean(0), shaken, draw), SPLITS["test"]) for draw in (0, 1)]
    contrast = Contrast(
        bad[0], tuple(clean[1:]), tuple(clean), "clean", "label", truth="background", draws=(bad[1],),
        secondary={"first": (clean[0],)}, extra=EXTRA,
    )  # fmt: skip
    return replace(contrast, **changes)


def beside_mass(a: Tensor, masks: Tensor, beside: Tensor) -> Tensor:
    """Relevance inside, and at the mask's pixels of the other version; not symmetric in the two."""
    inside = masks.flatten(1)
    return ((a.flatten(1) - 2 * beside.flatten(1)) * inside).sum(1) / (a + 3 * beside).flatten(1).sum(1)


def turn(a: Tensor, beside: Tensor) -> Tensor:
    """How far a map turns when the input changes: a response of attributions."""
    return 1 - torch.nn.functional.cosine_similarity(a.flatten(1), beside.flatten(1))


ALIGNED = {"kind": "alignment", "posts": ("abs_sum",), "symmetric": False}
BESIDE = Metric("beside_mass", beside_mass, beside="background_only", **ALIGNED)
ELSEWHERE = Metric("mass_elsewhere", metrics.get("mass_accuracy").function, inputs="clean_inputs", **ALIGNED)
TURN = Metric("turn", turn, kind="response", bounds=(0, 2), beside="swapped_background", posts=("sum",))
ALL = {
    "ccm": (metrics.get("ccm"), "abs_sum_minmax"), "fam": (metrics.get("fam"), "abs_sum_minmax"),
    "spearman": (metrics.get("spearman"), "sum"), "beside_mass": (BESIDE, "abs_sum"), "turn": (TURN, "sum"),
    "mass_elsewhere": (ELSEWHERE, "abs_sum"), "total_variation": (metrics.get("total_variation"), "none"),
    "background_swap": (metrics.get("background_swap"), "none"),
}  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(Memory())


def scored(lab: Lab, contrast: Contrast | None = None, *names: str, **changes: Any) -> dict[str, Record]:
    chosen = [(methods.get(name), {}) for name in ("gradient", "predictions")]
    measured = [ALL[name] for name in names or ALL]
    return score_block(contrast or contrast_of(), chosen, measured, lab, replace(SETTINGS, **changes))


@pytest.fixture(scope="module")
def usual(lab: Lab) -> dict[str, Record]:
    return scored(lab)


def maps_of(lab: Lab, side: Side, version: str = "") -> Tensor:
    """Gradients of a side's model on a version of the examples, by the public function, all at once."""
    data = lab.data(EXTRA[version] if version else side.examples).select(torch.arange(COUNT))
    return attribug.explain("gradient", lab.model(side.model), data.inputs, data.labels, seed=3, ids=data.ids)


def outputs_of(lab: Lab, side: Side, version: str = "") -> Tensor:
    examples = EXTRA[version] if version else side.examples
    return lab.model(side.model)(lab.data(examples).inputs[:COUNT]).softmax(1).detach().double()


def select(scores: pd.DataFrame, **keys: Any) -> pd.DataFrame:
    for column, value in keys.items():
        scores = scores[scores[column] == value]
    return scores


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=float), np.asarray(expected, dtype=float), rtol=1e-4, atol=1e-5)


# --- what the rows say ---


@pytest.mark.parametrize(("name", "version"), [("ccm", "clean_inputs"), ("fam", "")])
def test_a_similarity_reads_both_models_on_its_version(
    lab: Lab, usual: dict[str, Record], name: str, version: str
) -> None:
    contrast, seen = contrast_of(), 0
    scores = select(usual["gradient"].scores, metric=name)
    maps = {side: maps_of(lab, side, version) for side in contrast.sides}
    for draw, bad in enumerate(contrast.contaminated_sides):
        for reference in contrast.references:
            for control_set, controls in contrast.control_sets.items():
                for control in (each for each in controls if each != reference):
                    keys = {"draw": draw, "reference": reference.seed, "control_seed": control.seed}
                    rows = select(scores, control=control_set, **keys)
                    close(rows["value"], attribug.measure(name, maps[reference], maps[bad]))
                    close(rows["benign"], attribug.measure(name, maps[reference], maps[control]))
                    close(rows["floor"], attribug.measure(name, maps[reference], maps[reference].roll(-1, 0)))
                    seen += len(rows)
    assert seen == len(scores) == COUNT * 2 * (4 + 2)


def test_versions_are_told_apart(usual: dict[str, Record]) -> None:
    """The same SSIM of the same models: only the inputs differ, and so does every number."""
    ccm, fam = (select(usual["gradient"].scores, metric=name).reset_index() for name in ("ccm", "fam"))
    for column in ("value", "benign", "floor"):
        differs = (ccm[column] - fam[column]).abs() > 1e-4
        assert differs[ccm["benign"] < 1].all()


def noise(version: str) -> Tensor:
    place = ("floor", version) if version else ("floor",)
    streams = [generator(*place, SETTINGS.seed, 100 + i) for i in range(COUNT)]
    return torch.stack([torch.randn((2, PIXELS, PIXELS), generator=stream) for stream in streams])


def truth(lab: Lab, version: str = "") -> Tensor:
    masks = lab.data(EXTRA[version] if version else SPLITS["test"]).masks
    assert masks is not None
    return ~masks[:COUNT]


def processed(maps: Tensor) -> Tensor:
    return maps.double().abs().sum(1)


def test_an_alignment_reads_the_same_models_map_beside(lab: Lab, usual: dict[str, Record]) -> None:
    contrast = contrast_of()
    scores = select(usual["gradient"].scores, metric="beside_mass")

    def of(side: Side) -> Tensor:
        maps = (processed(maps_of(lab, side, version)) for version in ("", "background_only"))
        first, beside = maps
        return beside_mass(first, truth(lab), beside)

    for draw, bad in enumerate(contrast.contaminated_sides):
        for control in contrast.controls:
            rows = select(scores, control="clean", draw=draw, control_seed=control.seed)
            close(rows["value"], of(bad))
            close(rows["benign"], of(control))
            close(rows["floor"], beside_mass(processed(noise("")), truth(lab), processed(noise("background_only"))))
    assert not torch.equal(noise(""), noise("background_only"))  # else it would be compared with itself
    assert len(scores) == COUNT * 2 * (3 + 1)
    assert set(scores["reference"]) == {-1}


def test_an_alignment_on_another_version_has_that_versions_masks(lab: Lab, usual: dict[str, Record]) -> None:
    contrast = contrast_of()
    scores = select(usual["gradient"].scores, metric="mass_elsewhere", control="first", draw=1)
    elsewhere = truth(lab, "clean_inputs")
    assert not torch.equal(elsewhere, truth(lab))
    bad, control = contrast.draws[0], contrast.controls[0]
    close(scores["value"], attribug.measure("mass_accuracy", maps_of(lab, bad, "clean_inputs"), elsewhere))
    close(scores["benign"], attribug.measure("mass_accuracy", maps_of(lab, control, "clean_inputs"), elsewhere))
    close(scores["floor"], attribug.measure("mass_accuracy", noise("clean_inputs"), elsewhere))


def moved(one: Tensor, other: Tensor) -> list[float]:
    pairs = zip(one.tolist(), other.tolist(), strict=True)
    return [sum(abs(p - q) for p, q in zip(*rows, strict=True)) / 2 for rows in pairs]


@pytest.mark.parametrize("method", ["gradient", "predictions"])
def test_a_response_reads_one_model_twice(lab: Lab, usual: dict[str, Record], method: str) -> None:
    """v: the contaminated model, x and its other version; b: a control, likewise; floor: that control, x and x'."""
    contrast, seen = contrast_of(), 0
    scores = select(usual[method].scores, metric={"gradient": "turn", "predictions": "background_swap"}[method])

    def answers(side: Side, version: str = "") -> Tensor:
        return maps_of(lab, side, version).double().sum(1) if method == "gradient" else outputs_of(lab, side, version)

    respond = turn if method == "gradient" else moved
    for draw, bad in enumerate(contrast.contaminated_sides):
        for control_set, controls in contrast.control_sets.items():
            for control in controls:
                rows = select(scores, control=control_set, draw=draw, control_seed=control.seed)
                close(rows["value"], respond(answers(bad), answers(bad, "swapped_background")))
                close(rows["benign"], respond(answers(control), answers(control, "swapped_background")))
                close(rows["floor"], respond(answers(control), answers(control).roll(-1, 0)))
                assert rows["example"].tolist() == list(range(100, 100 + COUNT))
                seen += len(rows)
    assert seen == len(scores) == COUNT * 2 * (3 + 1)
    assert set(scores["reference"]) == {-1}
    assert len(set(scores["floor"].round(6))) == COUNT * 3  # each control's own


@pytest.mark.parametrize("chunk", [1, 2, 6, 7, 32])
def test_the_chunk_size_changes_nothing(lab: Lab, usual: dict[str, Record], chunk: int) -> None:
    found = scored(lab, chunk=chunk)
    for name, record in usual.items():
        keys = [column for column in COLUMNS if column not in {"value", "benign", "floor"}]
        pd.testing.assert_frame_equal(found[name].scores[keys], record.scores[keys])
        for column in ("value", "benign", "floor"):
            assert record.scores[column].notna().all()
            close(found[name].scores[column], record.scores[column])


# --- who has rows, and what is explained for them ---


def test_metrics_have_rows_where_the_contrast_has_their_version(lab: Lab) -> None:
    needs = {name: metric.required for name, (metric, _) in ALL.items()}
    for kept in ((), ("clean_inputs",), ("swapped_background",), ("background_only", "clean_inputs")):
        for said in ("background", None):
            contrast = contrast_of(extra={version: EXTRA[version] for version in kept}, truth=said)
            records = scored(lab, contrast, examples=3)
            found = {name for record in records.values() for name in record.scores["metric"]}
            offered = {*kept, *(["truth"] if said else [])}
            assert found == {name for name, needed in needs.items() if needed <= offered}
            assert all(record.lost == {} and record.verdict == "" for record in records.values())


SIDES = len(contrast_of().sides)
COSTS = [
    (("spearman",), 1, 0), (("spearman", "fam"), 1, 0), (("ccm",), 2, 0), (("ccm", "mass_elsewhere"), 2, 0),
    (("ccm", "beside_mass"), 3, 0), (tuple(ALL), 4, 2), (("total_variation",), 1, 1), (("background_swap",), 1, 2),
    (("spearman", "background_swap"), 1, 2),
]  # fmt: skip


@pytest.mark.parametrize(("names", "explained", "answered"), COSTS)
def test_a_version_is_explained_only_where_a_metric_reads_it(
    lab: Lab, names: tuple[str, ...], explained: int, answered: int
) -> None:
    """How often gradient explains an example, and predictions answers, as multiples of examples × sides."""
    records = scored(lab, None, *names)
    cost = records["gradient"].cost
    assert (cost.forward, cost.backward) == (COUNT * SIDES * explained,) * 2
    assert records["gradient"].census.maps == COUNT * SIDES, "what else is measured changes no other row's warning"
    assert records["predictions"].cost.forward == COUNT * SIDES * max(answered, 1)
    assert records["predictions"].cost.backward == 0


def test_a_version_changes_no_other_metrics_rows(lab: Lab, usual: dict[str, Record]) -> None:
    alone = scored(lab, contrast_of(extra={}), "spearman", "fam", "total_variation")
    for name, record in alone.items():
        same = usual[name].scores[usual[name].scores["metric"].isin(set(record.scores["metric"]))]
        kept = record.scores.sort_values(COLUMNS[:8], ignore_index=True)
        pd.testing.assert_frame_equal(kept, same.sort_values(COLUMNS[:8], ignore_index=True), check_exact=True)
    assert set(alone["gradient"].gallery) == set(usual["gradient"].gallery)
    for role, picture in alone["gradient"].gallery.items():
        assert torch.equal(picture, usual["gradient"].gallery[role]), "pictures show the explained inputs"


def seen_targets(lab: Lab, contrast: Contrast) -> dict[tuple[int, float], list[int]]:
    """The classes that a method is asked about, by model and by the sum of the inputs, which tells versions apart."""
    asked: dict[tuple[int, float], list[int]] = {}

    def spy(query: Query) -> Tensor:
        asked[id(query.model), round(float(query.inputs.sum()), 3)] = query.targets.tolist()
        return query.inputs * 1

    whole, measured = replace(SETTINGS, chunk=32), [ALL["ccm"], ALL["beside_mass"]]
    score_block(contrast, [(Method("spy", spy), {})], measured, lab, whole)
    return asked


@pytest.mark.parametrize("target", ["label", "reference", "own"])
def test_the_class_explained_on_another_version(lab: Lab, target: Any) -> None:
    """The label's and the reference's stay what they are for the explained input; a model's own is what it now says."""
    contrast = contrast_of(target=target)
    asked = seen_targets(lab, contrast)
    assert len(asked) == SIDES * 3
    for side in contrast.sides:
        for version in ("", "clean_inputs", "background_only"):
            examples = EXTRA[version] if version else side.examples
            expected = {
                "label": lab.data(examples).labels,
                "reference": lab.outputs(contrast.references[0].model, SPLITS["test"]).argmax(1),
                "own": lab.outputs(side.model, examples).argmax(1),
            }[target][:COUNT]
            place = id(lab.model(side.model)), round(float(lab.data(examples).inputs[:COUNT].sum()), 3)
            assert asked[place] == expected.tolist()


# --- faults ---


def test_a_version_of_other_examples_is_told(lab: Lab) -> None:
    later = Examples.of(bars, size=9, first=101, version="clean_inputs")
    with pytest.raises(ValueError, match="expected the same examples in the same order, each once"):
        scored(lab, contrast_of(extra={**EXTRA, "clean_inputs": later}), "ccm")
    assert len(scored(lab, contrast_of(extra={**EXTRA, "clean_inputs": later}), "fam")["gradient"].scores)


def test_a_metric_that_declines_or_fails_on_its_version_costs_its_own_rows(lab: Lab, usual: dict[str, Record]) -> None:
    def broken(a: Tensor, masks: Tensor, beside: Tensor) -> Tensor:
        return torch.ones(len(a), 2)

    bare = replace(ELSEWHERE, name="bare", inputs="background_only")
    measured = [
        (metrics.get("gt2_ssim"), "minmax"), (bare, "abs_sum"),
        (replace(BESIDE, name="odd", function=broken), "abs_sum"), *ALL.values(),
    ]  # fmt: skip
    record = score_block(contrast_of(), [(methods.get("gradient"), {})], measured, lab, SETTINGS)["gradient"]
    assert record.lost == {
        "gt2_ssim@minmax": ("unsupported", "not computed below 64 pixels a side, found (12, 12)"),
        "bare@abs_sum": ("unsupported", "the examples have no masks to align with"),
        "odd@abs_sum": ("failed", "MetricFault: odd: expected a number an example, (3,), found (3, 2)"),
    }
    pd.testing.assert_frame_equal(record.scores, usual["gradient"].scores, check_exact=True)


def test_where_nothing_is_contaminated_every_kind_says_one_half(lab: Lab) -> None:
    """The contaminated model is the clean one of its seed: also what reads other versions tells nothing."""
    clean = contrast_of().controls
    contrasts = [
        replace(contrast_of(), contaminated=clean[s], draws=(), references=tuple(c for c in clean if c.seed != s))
        for s in SEEDS
    ]  # fmt: skip
    chosen = [(methods.get(name), {}) for name in ("gradient", "random", "predictions")]
    results = table(contrasts, chosen, list(ALL.values()), lab, SETTINGS, 0.0)
    assert set(results["metric"]) == set(ALL)
    expect_one_half(results)


def unready_for(first: float, *, decline: bool) -> Method:
    """The gradient, for every version of the inputs but the one whose first pixel is given."""

    def explain(query: Query) -> Tensor:
        if float(query.inputs[0, 0, 0, 0]) == first:
            raise attribug.Unsupported("not these") if decline else RuntimeError("not these")
        return query.gradient()

    return Method("picky", explain)


@pytest.mark.parametrize("decline", [True, False])
def test_a_version_that_cannot_be_explained_costs_its_own_metrics_alone(lab: Lab, decline: bool) -> None:
    contrast, settings = contrast_of(), replace(SETTINGS, chunk=COUNT)
    first = float(lab.data(EXTRA["clean_inputs"]).inputs[0, 0, 0, 0])
    measured = [ALL[name] for name in ("spearman", "ccm", "beside_mass", "mass_elsewhere")]
    picky = [(unready_for(first, decline=decline), {})]
    record = score_block(contrast, picky, measured, lab, settings)["picky"]
    verdict = ("unsupported", "not these") if decline else ("failed", "RuntimeError: not these")
    assert record.lost == {"ccm@abs_sum_minmax": verdict, "mass_elsewhere@abs_sum": verdict}
    assert not record.verdict
    expected = scored(lab, contrast, "spearman", "beside_mass", chunk=COUNT)["gradient"].scores
    pd.testing.assert_frame_equal(record.scores, expected, check_exact=True)
