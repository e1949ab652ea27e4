"""What every registered metric must keep, in checks of its name alone; and broken metrics that each check refuses."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attribug
from attribug import metrics
from attribug.contracts import Metric
from attribug.metrics import prepared

torch.set_num_threads(1)
NAMES = metrics.names()
N, CLASSES, BROKEN = 6, 4, "test_broken"
SIZES = [(13, 17), (64, 65)]  # the second for metrics that decline small maps


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def size_for(metric: Metric) -> tuple[int, int]:
    """The smallest size that the metric takes."""
    for size in SIZES:
        try:
            pair = operands(metric, size=size)
            attribug.measure(metric.name, *pair)
        except attribug.Unsupported:
            continue
        return size
    raise AssertionError(f"{metric.name} takes none of {SIZES}")


def maps_like(metric: Metric, seed: int = 0, size: tuple[int, int] | None = None) -> Tensor:
    """Ordinary maps (N, C, H, W), or probabilities (N, K)."""
    if metric.reads == "probabilities":
        return torch.randn(N, CLASSES, generator=stream(seed), dtype=torch.float64).softmax(1)
    return torch.randn(N, 3, *(size or size_for(metric)), generator=stream(seed), dtype=torch.float64)


def masks_of(size: tuple[int, int]) -> Tensor:
    """One block a mask, a fifth of the image or less."""
    masks = torch.zeros(N, *size, dtype=torch.bool)
    for row in range(N):
        masks[row, 1 + row % 3 : 6, 2 : 7 + row] = True
    return masks


def operands(metric: Metric, *, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    size = size or size_for(metric)
    second = masks_of(size) if metric.kind == "alignment" else maps_like(metric, 1, size)
    return maps_like(metric, 0, size), second


def posts(metric: Metric) -> list[str]:
    return [f"{metric.name}@{post}" for post in metric.posts]


# --- the checks ---


def check_one_float64_number_an_example(metric: Metric) -> None:
    for name in posts(metric):
        for dtype in (torch.float32, torch.float64):
            one, other = operands(metric)
            values = attribug.measure(name, one.to(dtype), other if other.dtype == torch.bool else other.to(dtype))
            assert (values.shape, values.dtype) == ((N,), torch.float64)
            assert values.isfinite().all()


def check_bounds(metric: Metric) -> None:
    """Within the declared bounds, or undefined, whatever the maps; and bounds are no wider than twice what occurs."""
    low, high = metric.bounds
    seen = []
    for one in odd_maps(metric):
        for other in [masks_of(one.shape[2:])] if metric.kind == "alignment" else odd_maps(metric):
            for name in posts(metric):
                values = attribug.measure(name, one, other)
                assert ((values >= low) & (values <= high) | values.isnan()).all()
                seen += values[values.isfinite()].tolist()
    assert max(seen) > (low + high) / 2


def check_symmetric(metric: Metric) -> None:
    if metric.kind == "similarity":
        for name in posts(metric):
            one, other = operands(metric)
            forth, back = attribug.measure(name, one, other), attribug.measure(name, other, one)
            assert torch.allclose(forth, back, rtol=0, atol=1e-12) or not metric.symmetric


def check_best(metric: Metric) -> None:
    """A similarity is highest for equal maps; an alignment for the mask itself, and lowest for its complement."""
    for name in posts(metric):
        one, other = operands(metric)
        if metric.kind == "alignment":
            planes = other[:, None].to(one).expand(N, 3, *other.shape[1:])
            best, worst = attribug.measure(name, planes, other), attribug.measure(name, 1 - planes, other)
            assert torch.allclose(worst, torch.full_like(worst, metric.bounds[0]), atol=1e-9)
        else:
            best = attribug.measure(name, one, one)
            assert (attribug.measure(name, one, other) < best - 1e-6).all()
        assert torch.allclose(best, torch.full_like(best, metric.bounds[1]), atol=1e-9)


def check_undefined(metric: Metric) -> None:
    """Zero maps, empty masks and NaN give NaN, for that example alone."""
    one, other = operands(metric)
    plain = {name: attribug.measure(name, one, other) for name in posts(metric)}
    one[3].view(-1)[1] = torch.nan
    if metric.reads == "attributions":
        one[0] = 0
    if metric.kind == "alignment":
        other[2] = False
    undefined = torch.tensor([metric.reads == "attributions", False, metric.kind == "alignment", True, False, False])
    for name in posts(metric):
        values = attribug.measure(name, one, other)
        assert torch.equal(values.isnan(), undefined)
        assert torch.equal(values[~undefined], plain[name][~undefined])


def check_examples_are_independent(metric: Metric) -> None:
    for name in posts(metric):
        one, other = operands(metric)
        together, order = attribug.measure(name, one, other), torch.tensor([4, 0, 5, 2, 1, 3])
        alone = torch.cat([attribug.measure(name, one[i : i + 1], other[i : i + 1]) for i in range(N)])
        assert torch.allclose(alone, together, rtol=0, atol=1e-12)
        assert torch.allclose(attribug.measure(name, one[order], other[order]), together[order], rtol=0, atol=1e-12)


def check_forms_are_indexable(metric: Metric) -> None:
    """What `prepare` makes takes a slice and (M,) int64, and gives what the same examples alone give."""
    for post in metric.posts:
        one, other = operands(metric)
        form = prepared(metric, one, post)
        second = other if metric.kind == "alignment" else prepared(metric, other, post)
        values = metric.function(form, second)
        for index in (slice(1, 4), slice(0, 1), torch.tensor([5, 0, 0, 2])):
            assert torch.allclose(metric.function(form[index], second[index]), values[index], rtol=0, atol=1e-12)


def check_leaves_its_operands(metric: Metric) -> None:
    for name in posts(metric):
        one, other = operands(metric)
        before = one.clone(), other.clone()
        first, again = attribug.measure(name, one, other), attribug.measure(name, one, other)
        assert torch.equal(first, again)
        assert torch.equal(one, before[0])
        assert torch.equal(other, before[1])


def check_prepared_maps_serve_many(metric: Metric) -> None:
    """A prepared map meets one map after another: no meeting changes it."""
    for post in metric.posts:
        one, other = operands(metric)
        form = prepared(metric, one, post)
        second = other if metric.kind == "alignment" else prepared(metric, other, post)
        first = metric.function(form, second)
        metric.function(form, second if metric.kind == "alignment" else form)
        assert torch.equal(metric.function(form, second), first)


def check_default_is_the_first_post(metric: Metric) -> None:
    one, other = operands(metric)
    assert torch.equal(attribug.measure(metric.name, one, other), attribug.measure(posts(metric)[0], one, other))


CHECKS = [
    check_one_float64_number_an_example, check_bounds, check_symmetric, check_best, check_undefined,
    check_examples_are_independent, check_forms_are_indexable, check_leaves_its_operands,
    check_prepared_maps_serve_many, check_default_is_the_first_post,
]  # fmt: skip


def odd_maps(metric: Metric) -> list[Tensor]:
    """Maps, or probabilities, of every awkward kind, each for all examples."""
    usual = maps_like(metric)
    if metric.reads == "probabilities":
        certain = torch.eye(CLASSES, dtype=torch.float64)[torch.arange(N) % CLASSES]
        rounded = (certain.roll(1, 1) + 1e-7).float()  # sums to a little more than 1
        return [
            usual,
            certain,
            certain.roll(1, 1),
            rounded,
            torch.full_like(usual, 1 / CLASSES),
            usual[:, :2].softmax(1),
        ]
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


# --- the registered metrics ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS)
def test_metric(check: Callable[[Metric], None], name: str) -> None:
    check(metrics.get(name))


@pytest.mark.parametrize("name", NAMES)
def test_facts(name: str) -> None:
    metric = metrics.get(name)
    assert metric.bounds[0] < metric.bounds[1]
    assert 0 < metric.visible < metric.bounds[1] - metric.bounds[0]
    assert metric.paper
    assert metric.function.__doc__
    assert list(inspect.signature(metric.function).parameters)[1] == ("masks" if metric.kind == "alignment" else "b")
    assert metrics.measured_as(name) == [(metric, post) for post in metric.posts]
    if metric.kind == "alignment":
        assert not metric.symmetric


# --- broken metrics: each check refuses what it is there for ---


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


ALIGNED = {"kind": "alignment", "bounds": (0, 1), "posts": ("abs_sum",), "symmetric": False}


def centres_the_batch(a: Tensor, b: Tensor) -> Tensor:
    return cosine(a - a.mean(0), b - b.mean(0))


def halves_in_place(a: Tensor, b: Tensor) -> Tensor:
    value = cosine(a, b)
    a[:, 0] *= 0.5
    return value


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
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b).float(), {}),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b).mean(), {}),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b)[:, None], {}),
    (check_one_float64_number_an_example, lambda a, b: cosine(a, b) / 0, {}),
    (check_bounds, lambda a, b: cosine(a, b) * (1 + 1e-12), {}),
    (check_bounds, cosine, {"bounds": (0, 1)}),
    (check_bounds, cosine, {"bounds": (-1, 4)}),
    (check_symmetric, lambda a, b: cosine(a, b) * a.flatten(1)[:, 0], {}),
    (check_best, lambda a, b: cosine(a, b) / 2, {}),
    (check_best, lambda a, b: torch.ones(len(a), dtype=torch.float64), {}),
    (check_best, lambda a, m: 1 - share(a, m), ALIGNED),
    (check_best, lambda a, m: torch.ones(len(a), dtype=torch.float64), ALIGNED),
    (check_undefined, lambda a, b: cosine(a, b).nan_to_num(0), {}),
    (check_undefined, lambda a, m: share(a, m).nan_to_num(0), ALIGNED),
    (check_undefined, lambda a, m: (a * m).flatten(1).sum(1) / a.flatten(1).sum(1), ALIGNED),
    (check_undefined, lambda a, b: cosine(a, b) + 0 * a.sum(), {}),
    (check_examples_are_independent, centres_the_batch, {}),
    (check_forms_are_indexable, lambda a, b: cosine(a.maps, b.maps), {"prepare": Unindexable}),
    (check_forms_are_indexable, lambda a, b: cosine(a.maps, b.maps), {"prepare": Reversing}),
    (check_leaves_its_operands, halves_in_place, {"posts": ("none",)}),
    (check_prepared_maps_serve_many, halves_in_place, {}),
]


@pytest.mark.parametrize(("check", "function", "facts"), BROKEN_METRICS)
def test_broken_metric_is_refused(check, function, facts, register) -> None:
    metric = register(function, **facts)
    with pytest.raises((AssertionError, TypeError)):  # TypeError: what cannot be indexed
        check(metric)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("function", "facts"), [(cosine, {}), (share, ALIGNED), (cosine, {"prepare": torch.clone})])
def test_checks_refuse_only_what_is_broken(check, function, facts, register) -> None:
    check(register(function, **facts))
