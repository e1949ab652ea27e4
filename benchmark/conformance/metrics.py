"""What every metric must keep: checks of a registered metric, whatever it measures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attribug.conformance.checks import ConformanceCheck, Nonconformant, expect, tries
from attribug.contracts import outputs
from attribug.contracts.shapes import channel_axis, spatial
from attribug.errors import Unsupported, one_line
from attribug.metrics import measure, measured_as, prepared

if TYPE_CHECKING:
    from attribug.contracts.pieces import Metric

N = 6
Shape = tuple[int, ...]
IMAGES: tuple[Shape, ...] = ((3, 13, 17), (3, 64, 65))  # the second for metrics that decline small maps
NO_IMAGES: tuple[Shape, ...] = ((3, 23), (23,))  # sequences, vectors
ORDER = torch.tensor([4, 0, 5, 2, 1, 3])
INDICES = (slice(1, 4), slice(0, 1), torch.tensor([5, 0, 0, 2]))
ROUNDING = 1e-12  # of float64 sums in another order
AT_BOUND = 1e-9  # how near to its bound a metric must come at its best


@tries(lambda metric: f"inputs {(N, *_shape(metric))}")
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
            given = [each if each.dtype == torch.bool else each.to(dtype) for each in operands(metric)]
            values: Any = measure(name, *given)
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
        for other in odd_maps(metric) if metric.kind != "alignment" or metric.beside else [one]:
            for name in _posts(metric) if other.shape == one.shape or metric.kind == "similarity" else []:
                values = measure(name, one, *_others(metric, other))
                outside = values[~((values >= low) & (values <= high) | values.isnan())].tolist()
                expect(not outside, f"expected values in [{low:g}, {high:g}], found {outside[:1]} ({name})")
                largest = max([largest, *values[values.isfinite()].tolist()])
    near = largest > (low + high) / 2
    expect(near, f"bounds {metric.bounds}: values never come near the upper one; the largest is {largest:g}")


def check_symmetry(metric: Metric) -> None:
    """A similarity or a response does not mind which map comes first, unless it says so."""
    if metric.kind != "alignment" and metric.symmetric:
        for name in _posts(metric):
            one, other = operands(metric)
            _expect_equal(measure(name, one, other), measure(name, other, one), f"with maps exchanged ({name})")


def check_best_is_the_upper_bound(metric: Metric) -> None:
    """A similarity is highest for equal maps, a response lowest; an alignment is highest for the mask itself, and less
    for the same pattern elsewhere."""
    for name in _posts(metric):
        _expect_best(metric, name, *operands(metric))


def check_undefined_is_nan(metric: Metric) -> None:
    """Zero maps, empty masks and NaN give NaN, for that example alone."""
    one, *others = operands(metric)
    plain = {name: measure(name, one, *others) for name in _posts(metric)}
    one[3].view(-1)[1] = torch.nan
    undefined = {3: "a map with NaN"}
    if outputs.get(metric.reads).explains:
        one[0], undefined[0] = 0, "a zero map"
    if metric.kind == "alignment":
        others[0][2], undefined[2] = False, "an empty mask"
    for name in _posts(metric):
        values = measure(name, one, *others)
        for row, value in enumerate(values.tolist()):
            if row in undefined:
                expect(math.isnan(value), f"expected NaN for {undefined[row]}, found {value:g} ({name})")
            else:
                same = value == float(plain[name][row])
                expect(same, f"another example's undefined value changes this one's to {value:g} ({name})")


def check_examples_are_independent(metric: Metric) -> None:
    """An example's value depends on neither the others nor their order."""
    for name in _posts(metric):
        _expect_independent(name, operands(metric))


def check_forms_are_indexable(metric: Metric) -> None:
    """What `prepare` makes takes a slice and (M,) int64, and gives what the same examples alone give."""
    for post in metric.posts:
        forms = _forms(metric, post)
        values = metric.function(*forms)
        for index in INDICES:
            try:
                some = [form[index] for form in forms]
            except (TypeError, KeyError, IndexError, AttributeError) as error:
                raise Nonconformant(f"expected prepared maps that take {index}, found {error}") from error
            _expect_equal(metric.function(*some), values[index], f"for prepared maps at {index} and for all ({post})")


def check_operands_are_left_alone(metric: Metric) -> None:
    """Maps and masks are as they were, and the same ones give the same values again."""
    for name in _posts(metric):
        given = operands(metric)
        before = [each.clone() for each in given]
        first, again = measure(name, *given), measure(name, *given)
        untouched = all(map(torch.equal, given, before))
        expect(untouched, f"expected maps and masks to be left alone, found them changed ({name})")
        expect(torch.equal(first, again), f"the same maps twice gave values that differ ({name})")


def check_prepared_maps_serve_many(metric: Metric) -> None:
    """A prepared map meets one map after another: no meeting changes it."""
    for post in metric.posts:
        forms = _forms(metric, post)
        first = metric.function(*forms)
        metric.function(*forms if metric.kind == "alignment" else (forms[0], forms[0]))
        expect(torch.equal(metric.function(*forms), first), f"measuring changes the prepared maps ({post})")


def check_default_is_the_first_post(metric: Metric) -> None:
    """Without `@post` the metric measures under its first one."""
    given = operands(metric)
    same = torch.equal(measure(metric.name, *given), measure(_posts(metric)[0], *given))
    expect(same, f"{metric.name} and {_posts(metric)[0]} gave values that differ")


def check_vectors_and_sequences(metric: Metric) -> str:
    """Of maps of sequences (N, C, L) and vectors (N, D) it says what it says of images: a number an example, within its
    bounds, best where it should be. It may decline."""
    refused = []
    for shape in NO_IMAGES if metric.reads == "attributions" else ():
        for name in _posts(metric):
            given = operands(metric, shape)
            try:
                _expect_numbers(metric, name, measure(name, *given))
                _expect_best(metric, name, *given)
                _expect_independent(name, given)
            except Unsupported as reason:
                refused.append(str(reason))
            except Exception as error:  # foreign code may raise anything
                found = str(error) if isinstance(error, Nonconformant) else one_line(error)
                expected = "expected numbers, or images=True where it needs images"
                raise Nonconformant(f"maps {(N, *shape)}: {expected}, found {found}") from error
    return f"unsupported: {refused[0]}" if refused else ""


CHECKS: list[ConformanceCheck] = [
    check_measures_ordinary_maps, check_facts_fit_together, check_one_float64_number_an_example, check_bounds,
    check_symmetry, check_best_is_the_upper_bound, check_undefined_is_nan, check_examples_are_independent,
    check_forms_are_indexable, check_operands_are_left_alone, check_prepared_maps_serve_many,
    check_default_is_the_first_post, check_vectors_and_sequences,
]  # fmt: skip


def operands(metric: Metric, shape: Shape | None = None) -> list[Tensor]:
    """Ordinary maps (N, *shape), of images by default, and others; or masks, and others where the metric reads a second
    version."""
    shape = _shape(metric) if shape is None else shape
    return [_maps(metric, 0, shape), *_others(metric, _maps(metric, 1, shape))]


def _others(metric: Metric, maps: Tensor) -> list[Tensor]:
    """What stands beside the first maps: masks or nothing for an alignment, and maps where they are read."""
    masks = [masks_of(spatial(maps.shape))] if metric.kind == "alignment" else []
    return [*masks, *([] if masks and not metric.beside else [maps])]


def masks_of(size: Shape) -> Tensor:
    """One block a mask, a fifth of the image or less, or less than a half of a row (L,) or (D,)."""
    masks = torch.zeros(N, *size, dtype=torch.bool)
    for row in range(N):
        if len(size) == 1:
            masks[row, 2 : 7 + row] = True
        else:
            masks[row, 1 + row % 3 : 6, 2 : 7 + row] = True
    return masks


def planes_of(masks: Tensor, like: Tensor) -> Tensor:
    """Masks (N, *spatial) as maps, of the shape and type of others."""
    axis = channel_axis(like.shape)
    return masks.to(like) if axis is None else masks.unsqueeze(axis).to(like).expand_as(like)


def odd_maps(metric: Metric) -> list[Tensor]:
    """Maps, or another kind of output, of every awkward sort, each for all examples; first maps that are the masks."""
    usual, output = operands(metric)[0], outputs.get(metric.reads)
    best = [planes_of(masks_of(spatial(usual.shape)), usual)] if output.maps else []
    return [*best, *output.awkward(usual)]


def _shape(metric: Metric) -> Shape:
    """The smallest images that the metric takes; raises `Nonconformant` when it declines all."""
    reasons = []
    for shape in IMAGES:
        try:
            measure(metric.name, *operands(metric, shape))
        except Unsupported as reason:
            reasons.append(str(reason))
        else:
            return shape
    raise Nonconformant(f"expected values for maps {IMAGES[-1][1:]}, found unsupported: {reasons[-1]}")


def _maps(metric: Metric, seed: int, shape: Shape) -> Tensor:
    """Ordinary maps (N, *shape), or another kind of output, (N, …)."""
    return outputs.get(metric.reads).ordinary(torch.Generator().manual_seed(seed), N, shape)


def _forms(metric: Metric, post: str) -> list[Any]:
    """Operands as the metric receives them."""
    return [each if each.dtype == torch.bool else prepared(metric, each, post) for each in operands(metric)]


def _posts(metric: Metric) -> list[str]:
    return [f"{metric.name}@{post}" for post in metric.posts]


def _expect_numbers(metric: Metric, name: str, values: Any) -> None:
    """(N,) float64 within the bounds, none undefined."""
    form = f"{tuple(values.shape)} {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
    expect(form == f"({N},) torch.float64", f"expected ({N},) torch.float64, found {form} ({name})")
    low, high = metric.bounds
    outside = values[~((values >= low) & (values <= high))].tolist()
    expect(not outside, f"expected values in [{low:g}, {high:g}], found {outside[:1]} ({name})")


def _expect_best(metric: Metric, name: str, one: Tensor, *others: Tensor) -> None:
    """A similarity is highest for equal maps, a response lowest; an alignment is highest for the mask itself."""
    if metric.kind == "alignment":
        planes, down = planes_of(others[0], one), one.ndim - others[0].ndim + 1  # the first spatial axis
        beside = [planes] if metric.beside else []
        best, elsewhere = (measure(name, each, others[0], *beside) for each in (planes, planes.roll(7, down)))
        expect((elsewhere < best - 1e-6).all(), f"expected less for relevance elsewhere than on the mask ({name})")
        _expect_value(best, metric.bounds[1], f"for relevance exactly on the mask ({name})")
    elif metric.kind == "response":
        still, moved = measure(name, one, one), measure(name, one, *others)
        expect((moved > still + 1e-6).all(), f"expected more for unlike versions than for equal ones ({name})")
        _expect_value(still, metric.bounds[0], f"for equal versions ({name})")
    else:
        best, unlike = measure(name, one, one), measure(name, one, *others)
        expect((unlike < best - 1e-6).all(), f"expected less for unlike maps than for equal ones ({name})")
        _expect_value(best, metric.bounds[1], f"for equal maps ({name})")


def _expect_independent(name: str, given: list[Tensor]) -> None:
    """An example's value is the same one by one and in another order."""
    together = measure(name, *given)
    alone = torch.cat([measure(name, *(each[i : i + 1] for each in given)) for i in range(N)])
    _expect_equal(alone, together, f"one by one and together ({name})")
    _expect_equal(measure(name, *(each[ORDER] for each in given)), together[ORDER], f"in another order ({name})")


def _expect_equal(one: Any, other: Any, what: str) -> None:
    shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in (one, other)]
    expect(shapes[0] == shapes[1], f"expected equal values {what}, found {shapes[0]} and {shapes[1]}")
    largest = float((one - other).abs().max())
    expect(largest <= ROUNDING, f"expected equal values {what}, found a difference of up to {largest:.2g}")


def _expect_value(values: Tensor, bound: float, what: str) -> None:
    off = values[~torch.isclose(values, torch.full_like(values, bound), rtol=0, atol=AT_BOUND)].tolist()
    expect(not off, f"expected the bound {bound:g} {what}, found {off[:1]}")
