"""Planes that metrics share: made once, with the values of planes of one's own, and safe from metrics that write."""

import functools
from collections import Counter

import pytest
import torch

from attribug import metrics
from attribug.conformance.metrics import masks_of, operands
from attribug.contracts import outputs
from attribug.contracts.data import Data
from attribug.contracts.pieces import Metric
from attribug.metrics import order, prepared, shared
from attribug.metrics.shared import Shared, is_ours

NAMES = metrics.names()
SHAPE = (3, 64, 65)
ALIGNED = {"kind": "alignment", "posts": ("abs_sum",), "symmetric": False}
REGISTERED = [(metrics.get(name), post) for name in NAMES for post in metrics.get(name).posts]


def of_maps(maps):
    """Shared maps whose examples have masks."""
    ids = torch.arange(len(maps))
    return Shared(maps, Data(maps, ids, ids, masks_of(maps.shape[2:]) if maps.ndim == 4 else None))


def drawn(metric, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return outputs.get(metric.reads).ordinary(stream, 6, SHAPE)


def told(metric, post, one, other):
    """What a metric says of shared maps, as a measurement asks it."""
    form = functools.partial(Shared.form, metric=metric, post=post)
    beside = [form(other)] if metric.beside else []
    if metric.kind == "similarity":
        return metric.function(form(one), form(other))
    return metric.function(form(one), *([one.truth(metric, "object")] if metric.kind == "alignment" else []),
                           *beside)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_shared_planes_give_the_values_of_own_ones(name):
    """To the last bit, whatever read them before."""
    metric = metrics.get(name)
    one, other = of_maps(drawn(metric)), of_maps(drawn(metric, 1))
    for each, post in REGISTERED:
        if each.reads == metric.reads:
            told(each, post, one, other)
    for post in metric.posts:
        forms = [prepared(metric, each.maps, post) for each in (one, other)]
        masks = [one.data.masks] if metric.kind == "alignment" else []
        own = metric.function(forms[0], *masks, *(forms[1:] if not masks or metric.beside else []))
        assert torch.equal(told(metric, post, one, other), own)
        assert not own.isnan().any()
        if metric.kind == "alignment" and "pointing_game" not in name:  # few of whose values differ
            assert not torch.equal(own, told(metric, post, other, one))


def test_a_plane_is_made_once_a_post(monkeypatch):
    """And sorted once, whichever metrics read the order."""
    made, sorted_ = Counter(), Counter()
    postprocess, ascending = shared.postprocess, order.ascending

    def counting(maps, post):
        made[id(maps), post] += 1
        return postprocess(maps, post)

    def sorting(maps):
        sorted_[maps.shape] += 1
        return ascending(maps)

    monkeypatch.setattr(shared, "postprocess", counting)
    monkeypatch.setattr(order, "ascending", sorting)
    one, other = (of_maps(drawn(metrics.get("iou"), seed)) for seed in (0, 1))
    mapped = [(metric, post) for metric, post in REGISTERED if metric.reads == "attributions"]
    for _ in range(2):
        for metric, post in mapped:
            told(metric, post, one, other)
    assert made == {(id(each.maps), post): 1 for each in (one, other) for post in {post for _, post in mapped}}
    assert sum(sorted_.values()) == 1 + 2 * len(metrics.get("spearman").posts)  # for auroc and average_precision: one
    assert sum(1 for _, post in mapped if post == "abs_sum") > 8  # else nothing is shared

    foreign = Metric("foreign", lambda a, masks: a.sum((1, 2)), **ALIGNED)
    assert torch.equal(told(foreign, "abs_sum", one, other), one.maps.abs().sum(1).sum((1, 2)))
    assert set(made.values()) == {1}  # a copy of the same plane


def halving(a, masks):
    a *= 0.5
    masks.logical_not_()
    return a.flatten(1).mean(1)


def overwriting(a, b):
    a.zero_()
    b.fill_(7)
    return a.flatten(1).mean(1)


def smearing(maps):
    maps.zero_()
    return maps + 1


VANDALS = {
    "alignment": Metric("vandal", halving, **ALIGNED),
    "similarity": Metric("vandal", overwriting, posts=("abs_sum",)),
    "no post": Metric("vandal", overwriting, posts=("none",)),
    "prepare": Metric("vandal", metrics.get("cosine").function, posts=("abs_sum",), prepare=smearing),
    "our form": Metric("vandal", overwriting, posts=("abs_sum",), prepare=metrics.get("pearson").prepare),
}


def harmed(vandal):
    """Whether what others read afterwards, of shared maps, is another thing."""
    one, other = (of_maps(drawn(metrics.get("iou"), seed)) for seed in (0, 1))
    before = [each.clone() for each in (one.maps, other.maps, one.data.masks)]
    others = [metrics.get(name) for name in ("mass_accuracy", "pearson", "cosine", "spearman", "iou")]
    ranked = [told(metric, "abs_sum", one, other) for metric in others]
    told(vandal, vandal.posts[0], one, other)
    again = [told(metric, "abs_sum", one, other) for metric in others]
    after = [one.maps, other.maps, one.data.masks]
    return not all(map(torch.equal, [*before, *ranked], [*after, *again]))


@pytest.mark.parametrize("name", VANDALS)
def test_a_metric_that_writes_into_its_operands_harms_nobody(name, monkeypatch):
    assert not harmed(VANDALS[name])
    monkeypatch.setattr(shared, "is_ours", lambda function: True)
    assert harmed(VANDALS[name])  # were it trusted


def test_vectors_under_a_post_that_does_nothing_are_left_alone():
    """Here a post gives the maps themselves."""
    maps = operands(metrics.get("cosine"), (40,))[0]
    before, one = maps.clone(), of_maps(maps)
    told(Metric("vandal", overwriting, posts=("sum",)), "sum", one, one)
    assert torch.equal(maps, before)


@pytest.mark.parametrize("name", NAMES)
def test_registered_metrics_are_ours(name):
    metric = metrics.get(name)
    assert is_ours(metric.function)
    assert is_ours(metric.prepare)


class Form(order.Ordered):
    """Somebody's form, with the constructor of ours."""


@pytest.mark.parametrize(
    "function", [halving, lambda a, b: a, functools.partial(halving), Form, torch.abs, masks_of, "text"]
)
def test_whatever_is_written_elsewhere_is_not(function):
    assert not is_ours(function)


def test_truth_or_background():
    one, iou = of_maps(drawn(metrics.get("iou"))), metrics.get("iou")
    assert one.truth(iou, "object") is one.data.masks
    assert torch.equal(one.truth(iou, "background"), ~one.data.masks)
    bare = Shared(one.maps, Data(one.maps, one.data.ids, one.data.ids, None))
    assert bare.truth(iou, "object") is bare.truth(iou, "background") is None
