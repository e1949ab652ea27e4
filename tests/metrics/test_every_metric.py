"""What every registered metric must keep: the package's checks, and broken metrics that each check refuses."""

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attribug
from attribug import metrics
from attribug.conformance.checks import check, run_check
from attribug.conformance.metrics import (  # fmt: skip
    CHECKS,
    check_best_is_the_upper_bound,
    check_bounds,
    check_default_is_the_first_post,
    check_examples_are_independent,
    check_facts_fit_together,
    check_forms_are_indexable,
    check_measures_ordinary_maps,
    check_one_float64_number_an_example,
    check_operands_are_left_alone,
    check_prepared_maps_serve_many,
    check_symmetry,
    check_undefined_is_nan,
    check_vectors_and_sequences,
)
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Examples
from attribug.contracts.pieces import Metric

NAMES = metrics.names()
BROKEN = "test_broken"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS)
def test_metric(check: Callable[..., str | None], name: str) -> None:
    result = run_check(check, "metric", metrics.get(name))
    assert result.passed, str(result)


@pytest.mark.parametrize("name", NAMES)
def test_facts(name: str) -> None:
    metric = metrics.get(name)
    assert metric.paper
    assert metric.function.__doc__
    expected = {"similarity": ["a", "b"], "alignment": ["a", "masks"], "response": ["a", "beside"]}[metric.kind]
    expected += ["beside"] if metric.kind == "alignment" and metric.beside else []
    assert list(inspect.signature(metric.function).parameters) == expected
    assert metrics.measured_as(name) == [(metric, post) for post in metric.posts]
    assert not (metric.kind == "alignment" and metric.symmetric)
    assert metric.required <= {"truth", "clean_inputs", "background_only", "swapped_background"}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "response"}, "beside: a response compares two versions of an input, expected the second's name"),
        ({"beside": "clean_inputs"}, "beside: a similarity compares two models, expected none, found 'clean_inputs'"),
        ({"kind": "answer"}, "kind: expected one of similarity, alignment, response, found 'answer'"),
        ({"reads": "logits"}, "reads: expected one of attributions, probabilities, found 'logits'"),
        ({"posts": ()}, "posts: expected at least one post, found none"),
    ],
)
def test_facts_that_mean_nothing_are_refused(facts, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Metric("odd", cosine, **facts)


@pytest.mark.parametrize(
    ("facts", "required"),
    [
        ({}, set()), ({"kind": "alignment"}, {"truth"}), ({"inputs": "clean_inputs"}, {"clean_inputs"}),
        ({"kind": "alignment", "beside": "b", "inputs": "a"}, {"truth", "a", "b"}),
        ({"kind": "response", "beside": "b"}, {"b"}), ({"needs": ("truth", "c")}, {"truth", "c"}),
    ],
)  # fmt: skip
def test_what_a_contrast_must_offer(facts, required) -> None:
    metric, side = Metric("odd", cosine, **facts), Side(None, Examples("e", dict))
    assert metric.required == required
    assert metric.applies(None) == (not required)
    for offered in itertools.chain.from_iterable(itertools.combinations("abc", n) for n in range(4)):
        for truth in (None, "object"):
            extra = dict.fromkeys(offered, side.examples)
            contrast = Contrast(side, (side,), (side,), "clean", "label", truth=truth, extra=extra)
            assert contrast.offers == {*offered, *(["truth"] if truth else [])}
            assert metric.applies(contrast) == (required <= contrast.offers)


# --- broken metrics: each check refuses what it is there for, with its reason ---


@pytest.fixture
def register():
    """Registers a broken metric, whose name is free again afterwards."""

    def enter(function: Callable[..., Tensor], **facts: Any) -> Metric:
        metrics.register(BROKEN, **{"posts": ("sum",), **facts})(function)
        return metrics.get(BROKEN)

    yield enter
    metrics._registry._entries.pop(BROKEN, None)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """A sound similarity: NaN for zero maps."""
    a, b = a.flatten(1), b.flatten(1)
    largest = [each.abs().amax(1, keepdim=True) for each in (a, b)]
    a, b = a / largest[0], b / largest[1]
    return ((a / a.norm(dim=1, keepdim=True)) * (b / b.norm(dim=1, keepdim=True))).sum(1).clamp(-1, 1)


def share(a: Tensor, masks: Tensor) -> Tensor:
    """A sound alignment of non-negative maps: NaN for zero maps and empty masks."""
    flat = a.flatten(1) / a.flatten(1).amax(1, keepdim=True)
    value = (flat * masks.flatten(1)).sum(1) / flat.sum(1)
    return torch.where(masks.flatten(1).any(1), value, torch.nan)


def both_shares(a: Tensor, masks: Tensor, beside: Tensor) -> Tensor:
    """A sound alignment that reads a second version of the input."""
    return (share(a, masks) + share(beside, masks)) / 2


def turned(a: Tensor, beside: Tensor) -> Tensor:
    """A sound response of attributions: how far a map turns."""
    return (1 - cosine(a, beside)) / 2


def moved(a: Tensor, beside: Tensor) -> Tensor:
    """A sound response of probabilities."""
    return (a - beside).double().abs().sum(1).clamp(0, 2) / 2


ALIGNED = {"kind": "alignment", "bounds": (0, 1), "posts": ("abs_sum",), "symmetric": False}
BESIDE = {**ALIGNED, "beside": "background_only"}
TURNED = {"kind": "response", "bounds": (0, 1), "beside": "swapped_background"}
MOVED = {**TURNED, "posts": ("none",), "reads": "probabilities"}


def ones(a: Tensor, b: Tensor) -> Tensor:
    return torch.ones(len(a), dtype=torch.float64)


def centres_the_batch(a: Tensor, b: Tensor) -> Tensor:
    return cosine(a - a.mean(0), b - b.mean(0))


def halves_in_place(a: Tensor, b: Tensor) -> Tensor:
    value = cosine(a, b)
    a[:, 0] *= 0.5
    return value


def halves_what_is_beside(a: Tensor, masks: Tensor, beside: Tensor) -> Tensor:
    value = both_shares(*(each.abs().sum(1) if each.ndim == 4 else each for each in (a, masks, beside)))
    beside[:, 0] *= 0.5
    return value


def centres_what_is_beside(a: Tensor, masks: Tensor, beside: Tensor) -> Tensor:
    return both_shares(a, masks, (beside - beside.mean(0)).abs())


def stays(a: Tensor, beside: Tensor) -> Tensor:
    return torch.zeros(len(a), dtype=torch.float64)


def declines(a: Tensor, b: Tensor) -> Tensor:
    raise attribug.Unsupported("measures nothing")


def knows_what_came_before(a: Tensor, b: Tensor) -> Tensor:
    CALLS[0] += 1
    return cosine(a, b) / CALLS[0]


CALLS = [0]


class Unindexable:
    """A prepared form without examples."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps


class Reversing:
    """A prepared form that gives other examples than asked for."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps

    def __getitem__(self, index: Any) -> "Reversing":
        return Reversing(self.maps.flip(0)[index])


BROKEN_METRICS = [
    (check_measures_ordinary_maps, declines, {}, r"maps \(64, 65\), found unsupported: measures nothing"),
    (check_measures_ordinary_maps, lambda a, b: 1 / 0, {}, "ZeroDivisionError"),
    (check_measures_ordinary_maps, lambda a, b: a + b, {"posts": ("summ",)}, "post 'summ': unknown step 'summ'"),
    (check_facts_fit_together, cosine, {"bounds": (1, -1)}, r"bounds: expected a lower and .* found \(1, -1\)"),
    (check_facts_fit_together, cosine, {"visible": 0.0}, "visible: expected 0 < δ < 2, found 0"),
    (check_facts_fit_together, cosine, {"domain": (0, None)}, "a map without negative values; post 'sum' cannot"),
    (check_facts_fit_together, cosine, {"domain": (0, 1), "posts": ("abs",)}, r"a map in \[0, 1\]; post 'abs' cannot"),
    (check_facts_fit_together, share, {**ALIGNED, "posts": ("abs",)}, "one value a pixel; post 'abs' keeps the chan"),
    (check_facts_fit_together, moved, {**MOVED, "posts": ("sum",)}, "the only post is 'none', found 'sum'"),
    (check_facts_fit_together, cosine, {"visible": 3.0}, "visible: expected 0 < δ < 2, found 3"),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b).float(), {}, "float64, found .*torch.float32"),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b).mean(), {}, r"expected \(6,\) .*, found \(\) "),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b)[:, None], {}, r"found \(6, 1\) torch.float64"),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b).tolist(), {}, "expected a tensor, found list"),
    (check_one_float64_number_an_example, lambda a, b: moved(a, b).float(), MOVED, "float64, found .*torch.float32"),
    (check_one_float64_number_an_example, lambda a, m, b: both_shares(a, m, b).sum(), BESIDE, r"found \(\) torch"),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b) / 0, {}, "found 6 of 6 NaN or infinite"),
    (check_bounds, lambda a, b: cosine(a, b) * (1 + 1e-12), {}, r"expected values in \[-1, 1\], found \[1\.0000000"),
    (check_bounds, cosine, {"bounds": (0, 1)}, r"expected values in \[0, 1\], found \[-"),
    (check_bounds, lambda a, b: 2 * turned(a, b), TURNED, r"expected values in \[0, 1\], found \[1\."),
    (check_bounds, lambda a, b: (a - b).abs().sum(1) / 2, MOVED, r"expected values in \[0, 1\], found \[1\.000000"),
    (check_bounds, lambda a, m, b: 2 * share(b, m), BESIDE, r"expected values in \[0, 1\], found \[[12]"),
    (check_bounds, moved, {**MOVED, "bounds": (0, 4)}, "never come near the upper one; the largest is 1"),
    (check_bounds, cosine, {"bounds": (-1, 4)}, "never come near the upper one; the largest is 1"),
    (check_symmetry, lambda a, b: cosine(a, b) * a.flatten(1)[:, 0], {}, "with maps exchanged .*, found a difference"),
    (check_symmetry, lambda a, b: moved(a, b) * a[:, 0], MOVED, "with maps exchanged .*, found a difference"),
    (check_best_is_the_upper_bound, lambda a, b: cosine(a, b) / 2, {}, r"expected the bound 1 for equal maps"),
    (check_best_is_the_upper_bound, ones, {}, "expected less for unlike maps than for equal ones"),
    (check_best_is_the_upper_bound, lambda a, m: 1 - share(a, m), ALIGNED, "expected less for relevance elsewhere"),
    (check_best_is_the_upper_bound, ones, ALIGNED, "expected less for relevance elsewhere than on the mask"),
    (check_best_is_the_upper_bound, lambda a, m: share(a, m) / 2, ALIGNED, "the bound 1 for relevance exactly on the"),
    (check_best_is_the_upper_bound, lambda a, m, b: share(b, m), BESIDE, "expected less for relevance elsewhere"),
    (check_best_is_the_upper_bound, stays, MOVED, "expected more for unlike versions than for equal ones"),
    (check_best_is_the_upper_bound, lambda a, b: 1 - turned(a, b), TURNED, "expected more for unlike versions"),
    (check_best_is_the_upper_bound, lambda a, b: (1 + moved(a, b)) / 2, MOVED, "the bound 0 for equal versions"),
    (check_undefined_is_nan, lambda a, b: cosine(a, b).nan_to_num(0), {}, "expected NaN for a zero map, found 0"),
    (check_undefined_is_nan, lambda a, m: share(a, m).nan_to_num(0), ALIGNED, "expected NaN for a zero map, found 0"),
    (
        check_undefined_is_nan, lambda a, m: (a * m).flatten(1).sum(1) / a.flatten(1).sum(1), ALIGNED,
        "expected NaN for an empty mask, found 0",
    ),
    (check_undefined_is_nan, lambda a, b: moved(a, b).nan_to_num(1), MOVED, "expected NaN for a map with NaN, found 1"),
    (check_undefined_is_nan, lambda a, b: turned(a, b).nan_to_num(0), TURNED, "expected NaN for a zero map, found 0"),
    (check_undefined_is_nan, lambda a, m, b: share(b, m), BESIDE, "expected NaN for a zero map, found 0"),
    (check_undefined_is_nan, lambda a, b: cosine(a, b) + 0 * a.sum(), {}, "another example's undefined value"),
    (check_examples_are_independent, centres_the_batch, {}, "one by one and together"),
    (check_examples_are_independent, centres_what_is_beside, BESIDE, "one by one and together"),
    (check_examples_are_independent, lambda a, b: turned(a - a.mean(0), b), TURNED, "one by one and together"),
    (check_forms_are_indexable, lambda a, b: cosine(a.maps, b.maps), {"prepare": Unindexable}, "not subscriptable"),
    (
        check_forms_are_indexable, lambda a, m, b: both_shares(a.maps, m, b.maps), {**BESIDE, "prepare": Unindexable},
        "not subscriptable",
    ),
    (check_forms_are_indexable, lambda a, b: turned(a.maps, b.maps), {**TURNED, "prepare": Reversing}, r"at slice\("),
    (check_forms_are_indexable, lambda a, b: cosine(a.maps, b.maps), {"prepare": Reversing}, r"at slice\(1, 4, None\)"),
    (check_operands_are_left_alone, halves_in_place, {"posts": ("none",)}, "maps and masks to be left alone"),
    (
        check_operands_are_left_alone, halves_what_is_beside, {**BESIDE, "channels": True, "posts": ("none",)},
        "maps and masks to be left alone",
    ),
    (check_operands_are_left_alone, knows_what_came_before, {}, "the same maps twice gave values that differ"),
    (check_prepared_maps_serve_many, halves_in_place, {}, r"measuring changes the prepared maps \(sum\)"),
    (check_prepared_maps_serve_many, halves_what_is_beside, BESIDE, r"measuring changes the prepared maps \(abs_sum\)"),
    (check_default_is_the_first_post, knows_what_came_before, {}, "test_broken and test_broken@sum gave values"),
    (check_vectors_and_sequences, lambda a, b: cosine(a, b[:, :, 0:]), {}, r"maps \(6, 3, 23\): .*found IndexError"),
    (
        check_vectors_and_sequences, lambda a, b: cosine(a, b) + 1e-3 * (a.ndim < 3), {},
        r"maps \(6, 3, 23\): expected numbers, or images=True where .*, found expected the bound 1 for equal maps",
    ),
    (
        check_vectors_and_sequences, lambda a, b: (cosine if a.ndim > 2 else centres_the_batch)(a, b), {},
        r"maps \(6, 3, 23\): .* one by one and together",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("check", "function", "facts", "reason"), BROKEN_METRICS)
def test_broken_metric_is_refused(check, function, facts, reason, register) -> None:
    CALLS[0] = 0
    result = run_check(check, "metric", register(function, **facts))
    assert not result.passed
    assert re.search(reason, result.reason), result.reason
    assert "\n" not in result.reason


def test_every_check_refuses_something() -> None:
    assert {check for check, *_ in BROKEN_METRICS} == set(CHECKS)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("function", "facts"), [
    (cosine, {}), (share, ALIGNED), (cosine, {"prepare": torch.clone}), (both_shares, BESIDE), (turned, TURNED),
    (moved, MOVED),
])  # fmt: skip
def test_checks_refuse_only_what_is_broken(check, function, facts, register) -> None:
    result = run_check(check, "metric", register(function, **facts))
    assert result.passed, str(result)


def test_a_metric_that_declines_everything_fails_in_one_line(register) -> None:
    register(declines)
    (result,) = check("metric", BROKEN)
    assert (result.check, result.passed) == ("measures ordinary maps", False)


def test_a_metric_may_decline_small_maps(register) -> None:
    def large_only(a: Tensor, b: Tensor) -> Tensor:
        if a.shape[-1] < 60:
            raise attribug.Unsupported("needs 60 pixels")
        return cosine(a, b)

    register(large_only)
    assert all(result.passed for result in check("metric", BROKEN))
