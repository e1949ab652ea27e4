"""What every metric must keep: checks of a registered metric, whatever it measures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attribug.conformance import Check, Nonconformant, expect
from attribug.contracts import Metric, Unsupported
from attribug.metrics import measure, measured_as, prepared

N, CLASSES = 6, 4
SIZES = ((13, 17), (64, 65))  # the second for metrics that decline small maps
ORDER = torch.tensor([4, 0, 5, 2, 1, 3])
INDICES = (slice(1, 4), slice(0, 1), torch.tensor([5, 0, 0, 2]))
ROUNDING = 1e-12  # of float64 sums in another order
AT_BOUND = 1e-9  # how near to its bound a metric must come at its best


def check_measures_ordinary_maps(metric: Metric) -> None:
    """Maps of Gaussian noise, in a size that the metric takes, under each of its default posts."""
    for name in _posts(metric):
        measure(name, *operands(metric))


def check_facts_fit_together(metric: Metric) -> None:
    """Bounds, visible difference and posts make sense, and posts are ones that the metric can read."""
    low, high = metric.bounds
    expect(low < high, f"bounds: expected a lower and a higher number, found {metric.bounds}")
    expect(0 < metric.visible < high - low, f"visible: expected 0 < δ < {high - low:g}, found {metric.visible:g}")
    measured_as(metric.name)


def check_one_float64_number_an_example(metric: Metric) -> None:
    """(N,) float64 and finite, for maps in single and double precision."""
    for name in _posts(metric):
        for dtype in (torch.float32, torch.float64):
            one, other = operands(metric)
            values: Any = measure(name, one.to(dtype), other if other.dtype == torch.bool else other.to(dtype))
            expect(isinstance(values, Tensor), f"expected a tensor, found {type(values).__name__}")
            form = f"{tuple(values.shape)} {values.dtype}"
            expect(form == f"({N},) torch.float64", f"expected ({N},) torch.float64, found {form} ({name}, {dtype})")
            broken = int((~values.isfinite()).sum())
            expect(not broken, f"expected a number for ordinary maps, found {broken} of {N} NaN or infinite ({name})")


def check_bounds(metric: Metric) -> None:
    """Within the declared bounds, or undefined, whatever the maps; and bounds are no wider than twice what occurs."""
    low, high = metric.bounds
    largest = -float("inf")
    for one in odd_maps(metric):
        for other in [masks_of(one.shape[2:])] if metric.kind == "alignment" else odd_maps(metric):
            for name in _posts(metric):
                values = measure(name, one, other)
                outside = values[~((values >= low) & (values <= high) | values.isnan())].tolist()
                expect(not outside, f"expected values in [{low:g}, {high:g}], found {outside[:1]} ({name})")
                largest = max([largest, *values[values.isfinite()].tolist()])
    near = largest > (low + high) / 2
    expect(near, f"bounds {metric.bounds}: values never come near the upper one; the largest is {largest:g}")


def check_symmetry(metric: Metric) -> None:
    """A similarity does not mind which map comes first, unless it says so."""
    if metric.kind == "similarity" and metric.symmetric:
        for name in _posts(metric):
            one, other = operands(metric)
            _expect_equal(measure(name, one, other), measure(name, other, one), f"with maps exchanged ({name})")


def check_best_is_the_upper_bound(metric: Metric) -> None:
    """A similarity is highest for equal maps; an alignment for the mask itself, and lowest for its complement."""
    low, high = metric.bounds
    for name in _posts(metric):
        one, other = operands(metric)
        if metric.kind == "alignment":
            planes = other[:, None].to(one).expand(N, 3, *other.shape[1:])
            best, worst = measure(name, planes, other), measure(name, 1 - planes, other)
            _expect_value(worst, low, f"for relevance exactly outside the mask ({name})")
            _expect_value(best, high, f"for relevance exactly on the mask ({name})")
        else:
            best, unlike = measure(name, one, one), measure(name, one, other)
            expect((unlike < best - 1e-6).all(), f"expected less for unlike maps than for equal ones ({name})")
            _expect_value(best, high, f"for equal maps ({name})")


def check_undefined_is_nan(metric: Metric) -> None:
    """Zero maps, empty masks and NaN give NaN, for that example alone."""
    one, other = operands(metric)
    plain = {name: measure(name, one, other) for name in _posts(metric)}
    one[3].view(-1)[1] = torch.nan
    undefined = {3: "a map with NaN"}
    if metric.reads == "attributions":
        one[0], undefined[0] = 0, "a zero map"
    if metric.kind == "alignment":
        other[2], undefined[2] = False, "an empty mask"
    for name in _posts(metric):
        values = measure(name, one, other)
        for row, value in enumerate(values.tolist()):
            if row in undefined:
                expect(math.isnan(value), f"expected NaN for {undefined[row]}, found {value:g} ({name})")
            else:
                same = value == float(plain[name][row])
                expect(same, f"another example's undefined value changes this one's to {value:g} ({name})")


def check_examples_are_independent(metric: Metric) -> None:
    """An example's value depends on neither the others nor their order."""
    for name in _posts(metric):
        one, other = operands(metric)
        together = measure(name, one, other)
        alone = torch.cat([measure(name, one[i : i + 1], other[i : i + 1]) for i in range(N)])
        _expect_equal(alone, together, f"one by one and together ({name})")
        _expect_equal(measure(name, one[ORDER], other[ORDER]), together[ORDER], f"in another order ({name})")


def check_forms_are_indexable(metric: Metric) -> None:
    """What `prepare` makes takes a slice and (M,) int64, and gives what the same examples alone give."""
    for post in metric.posts:
        form, second = _forms(metric, post)
        values = metric.function(form, second)
        for index in INDICES:
            try:
                some = form[index], second[index]
            except (TypeError, KeyError, IndexError, AttributeError) as error:
                raise Nonconformant(f"expected prepared maps that take {index}, found {error}") from error
            _expect_equal(metric.function(*some), values[index], f"for prepared maps at {index} and for all ({post})")


def check_operands_are_left_alone(metric: Metric) -> None:
    """Maps and masks are as they were, and the same ones give the same values again."""
    for name in _posts(metric):
        one, other = operands(metric)
        before = one.clone(), other.clone()
        first, again = measure(name, one, other), measure(name, one, other)
        untouched = torch.equal(one, before[0]) and torch.equal(other, before[1])
        expect(untouched, f"expected maps and masks to be left alone, found them changed ({name})")
        expect(torch.equal(first, again), f"the same maps twice gave values that differ ({name})")


def check_prepared_maps_serve_many(metric: Metric) -> None:
    """A prepared map meets one map after another: no meeting changes it."""
    for post in metric.posts:
        form, second = _forms(metric, post)
        first = metric.function(form, second)
        metric.function(form, second if metric.kind == "alignment" else form)
        expect(torch.equal(metric.function(form, second), first), f"measuring changes the prepared maps ({post})")


def check_default_is_the_first_post(metric: Metric) -> None:
    """Without `@post` the metric measures under its first one."""
    one, other = operands(metric)
    same = torch.equal(measure(metric.name, one, other), measure(_posts(metric)[0], one, other))
    expect(same, f"{metric.name} and {_posts(metric)[0]} gave values that differ")


CHECKS: list[Check] = [
    check_measures_ordinary_maps, check_facts_fit_together, check_one_float64_number_an_example, check_bounds,
    check_symmetry, check_best_is_the_upper_bound, check_undefined_is_nan, check_examples_are_independent,
    check_forms_are_indexable, check_operands_are_left_alone, check_prepared_maps_serve_many,
    check_default_is_the_first_post,
]  # fmt: skip


# --- what metrics are given ---


def operands(metric: Metric, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Ordinary maps, and others or masks."""
    size = _size(metric) if size is None else size
    return _maps(metric, 0, size), masks_of(size) if metric.kind == "alignment" else _maps(metric, 1, size)


def masks_of(size: tuple[int, ...]) -> Tensor:
    """One block a mask, a fifth of the image or less."""
    masks = torch.zeros(N, *size, dtype=torch.bool)
    for row in range(N):
        masks[row, 1 + row % 3 : 6, 2 : 7 + row] = True
    return masks


def odd_maps(metric: Metric) -> list[Tensor]:
    """Maps, or probabilities, of every awkward kind, each for all examples."""
    usual = operands(metric)[0]
    if metric.reads == "probabilities":
        certain = torch.eye(CLASSES, dtype=torch.float64)[torch.arange(N) % CLASSES]
        rounded = (certain.roll(1, 1) + 1e-7).float()  # sums to a little more than 1
        even, fewer = torch.full_like(usual, 1 / CLASSES), usual[:, :2].softmax(1)
        return [usual, certain, certain.roll(1, 1), rounded, even, fewer]
    sparse = usual * (usual > 2)
    spike = torch.zeros_like(usual)
    spike[:, 0, 4, 5] = 1
    nearly = 1 + 1e-15 * usual.round()
    best = masks_of(usual.shape[2:])[:, None].expand_as(usual).double()
    return [
        best, usual, -usual, usual.abs(), -usual.abs(), sparse, spike, -spike, usual.round(), usual**7, nearly,
        usual * 1e-30, usual * 1e30, torch.zeros_like(usual), torch.ones_like(usual), usual.float(),
        (usual * 1e-38).float(),
    ]  # fmt: skip


def _size(metric: Metric) -> tuple[int, int]:
    """The smallest size that the metric takes; raises `Nonconformant` when it declines all."""
    reasons = []
    for size in SIZES:
        try:
            measure(metric.name, *operands(metric, size))
        except Unsupported as reason:
            reasons.append(str(reason))
        else:
            return size
    raise Nonconformant(f"expected values for maps {SIZES[-1]}, found unsupported: {reasons[-1]}")


def _maps(metric: Metric, seed: int, size: tuple[int, int]) -> Tensor:
    """Ordinary maps (N, C, H, W), or probabilities (N, K)."""
    stream = torch.Generator().manual_seed(seed)
    if metric.reads == "probabilities":
        return torch.randn(N, CLASSES, generator=stream, dtype=torch.float64).softmax(1)
    return torch.randn(N, 3, *size, generator=stream, dtype=torch.float64)


def _forms(metric: Metric, post: str) -> tuple[Any, Any]:
    one, other = operands(metric)
    return prepared(metric, one, post), other if metric.kind == "alignment" else prepared(metric, other, post)


def _posts(metric: Metric) -> list[str]:
    return [f"{metric.name}@{post}" for post in metric.posts]


# --- what is expected ---


def _expect_equal(one: Any, other: Any, what: str) -> None:
    shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in (one, other)]
    expect(shapes[0] == shapes[1], f"expected equal values {what}, found {shapes[0]} and {shapes[1]}")
    largest = float((one - other).abs().max())
    expect(largest <= ROUNDING, f"expected equal values {what}, found a difference of up to {largest:.2g}")


def _expect_value(values: Tensor, bound: float, what: str) -> None:
    off = values[~torch.isclose(values, torch.full_like(values, bound), rtol=0, atol=AT_BOUND)].tolist()
    expect(not off, f"expected the bound {bound:g} {what}, found {off[:1]}")
