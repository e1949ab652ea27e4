"""Cosine against scikit-learn and SciPy; the overlap of the highest tenth against sets and a plain loop."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance
from sklearn.metrics.pairwise import cosine_similarity

import attribug

POSTS = {
    "sum": lambda v: v.sum(0), "abs_sum": lambda v: np.abs(v).sum(0), "max": lambda v: v.max(0), "none": lambda v: v,
}  # fmt: skip


def vector(maps, post="abs_sum"):
    """The map's values after a post, relative to the largest: the oracles square them, which must not overflow."""
    values = POSTS[post](maps[0].double().numpy()).ravel()
    return values / np.abs(values).max() if values.any() else values


# --- cosine ---


def cosine(a, b):
    return float(cosine_similarity(a[None], b[None]).item()) if a.any() and b.any() else math.nan


@pytest.mark.parametrize("post", POSTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_cosine_is_scikit_learns_and_scipys(post, data, drawn_maps, same):
    pair = data.draw(drawn_maps(1, 9, 2))
    a, b = (vector(each, post) for each in pair)
    found = attribug.measure(f"cosine@{post}", *pair).item()
    same(found, cosine(a, b))
    if not math.isnan(found):
        same(found, 1 - distance.cosine(a, b))


def pearson(a, b):
    return cosine(a - a.mean(), b - b.mean())


def without_signs(a, b):
    return abs(cosine(a, b))


def zero_for_zero(a, b):
    return cosine(a, b) if a.any() and b.any() else 0.0


@pytest.mark.parametrize("wrong", [pearson, without_signs, zero_for_zero])
def test_another_cosine_is_found_out(wrong, drawn_maps, is_found_out):
    def of_pair(function):
        return lambda pair: function(*(vector(each, "sum") for each in pair))

    assert is_found_out(drawn_maps(1, 9, 2), of_pair(wrong), of_pair(cosine))


def pair_of(kind=torch.Tensor.clone):
    stream = torch.Generator().manual_seed(3)
    return [kind(torch.randn(30, 3, 9, 8, generator=stream, dtype=torch.float64)) for _ in range(2)]


@pytest.mark.parametrize("factor", [1e-300, 3e-5, 7.0, 1e300])
def test_cosine_ignores_positive_scale_and_turns_with_the_sign(factor):
    one, other = pair_of()
    plain = attribug.measure("cosine", one, other)
    for found in (attribug.measure("cosine", factor * one, other), attribug.measure("cosine", one, factor * other)):
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(attribug.measure("cosine", -factor * one, other), -plain, rtol=0, atol=1e-12)
    assert (attribug.measure("cosine", one + 1, other) - plain).abs().max() > 0.01  # an offset does matter


def test_cosine_by_hand():
    one, other = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert attribug.measure("cosine@none", one, other).item() == pytest.approx(24 / 25, abs=1e-15)
    assert attribug.measure("cosine@none", one, torch.tensor([[-4.0, 3.0]])).item() == pytest.approx(0, abs=1e-15)
    assert attribug.measure("cosine@none", one, -one).item() == -1


def test_maps_without_negative_values_are_never_far_apart():
    """As its docstring warns: of absolute Gaussian values 2/π, whatever the maps."""
    values = attribug.measure("cosine@abs", *pair_of())
    assert values.mean().item() == pytest.approx(2 / math.pi, abs=0.02)


# --- the highest tenth ---


def members(values):
    """What share of each pixel is among the k highest: places are given out from the highest value on."""
    places, found = Fraction(max(1, round(0.1 * values.size))), [Fraction(0)] * values.size
    for value in sorted(set(values.tolist()), reverse=True):
        equal = [i for i, v in enumerate(values.tolist()) if v == value]
        given_out = min(places, len(equal))
        for i in equal:
            found[i] = Fraction(given_out, len(equal))
        places -= given_out
    return found


def top_k_intersection(a, b):
    if a.min() == a.max() or b.min() == b.max():
        return math.nan
    shared = sum(min(x, y) for x, y in zip(members(a), members(b), strict=True))
    return float(shared / max(1, round(0.1 * a.size)))


@pytest.mark.parametrize("post", POSTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_top_k_is_a_plain_loop(post, data, drawn_maps, same):
    pair = data.draw(drawn_maps(1, 9, 2))
    a, b = (vector(each, post) for each in pair)
    same(attribug.measure(f"top_k_intersection@{post}", *pair).item(), top_k_intersection(a, b))


def of_sets(a, b):
    """Ghorbani et al.'s: which k come first; equal pixels in their order."""
    if a.min() == a.max() or b.min() == b.max():
        return math.nan
    k = max(1, round(0.1 * a.size))
    first = [set(np.argsort(-each, kind="stable")[:k].tolist()) for each in (a, b)]
    return len(first[0] & first[1]) / k


def test_without_ties_it_is_the_intersection_of_two_sets(same):
    one, other = pair_of()
    found = attribug.measure("top_k_intersection@none", one, other).tolist()
    for row in range(len(one)):
        same(found[row], of_sets(one[row].numpy().ravel(), other[row].numpy().ravel()), 1e-15)
    assert len(set(found)) > 3


def lowest(a, b):
    return top_k_intersection(-a, -b)


def jaccard(a, b):
    shared = top_k_intersection(a, b)
    return shared / (2 - shared)


@pytest.mark.parametrize("wrong", [of_sets, lowest, jaccard])
def test_another_top_k_is_found_out(wrong, drawn_maps, is_found_out):
    def of_pair(function):
        return lambda pair: function(*(vector(each, "sum") for each in pair))

    assert is_found_out(drawn_maps(1, 9, 2), of_pair(wrong), of_pair(top_k_intersection))


def measured(one, other, name="top_k_intersection@none"):
    return attribug.measure(name, *(torch.tensor([each], dtype=torch.float64) for each in (one, other))).item()


def test_top_k_by_hand():
    """Of 20 values, two; of 9, one; of 4, at least one."""
    rest = [0.0] * 17
    assert measured([9, 8, 0, *rest], [9, 0, 8, *rest]) == 0.5
    assert measured([9, 8, 0, *rest], [8, 9, 1, *rest]) == 1
    assert measured([9, 8, 7, *rest], [9, 7, 7, *rest]) == 0.75  # the second place is shared by two
    assert measured([7, 7, 7, *rest], [7, 7, 7, *rest]) == pytest.approx(1, abs=1e-15)
    assert measured([0, 0, 3, 0], [0, 0, 1, 0]) == 1
    assert measured([0, 0, 3, 0], [1, 0, 0, 0]) == 0
    assert measured([9, 8] + [0.0] * 7, [8, 9] + [0.0] * 7) == 0


def test_two_unrelated_maps_share_a_tenth():
    stream = torch.Generator().manual_seed(4)
    one, other = torch.randn(2, 2000, 1, 20, 20, generator=stream)
    for name in ("top_k_intersection@sum", "top_k_intersection@abs_sum"):
        assert attribug.measure(name, one, other).mean().item() == pytest.approx(0.1, abs=0.005)
        assert attribug.measure(name, one, one).eq(1).all()


@pytest.mark.parametrize("monotone", [lambda x: x**3, lambda x: 5 * x - 200, lambda x: 1e-300 * x, torch.exp])
def test_only_the_order_matters_to_top_k(monotone):
    one, other = pair_of(torch.round)
    plain = attribug.measure("top_k_intersection@none", one, other)
    assert torch.equal(attribug.measure("top_k_intersection@none", monotone(one), other), plain)
    assert torch.equal(attribug.measure("top_k_intersection@none", monotone(one), monotone(other)), plain)
    assert not torch.equal(attribug.measure("top_k_intersection@none", -monotone(one), other), plain)


# --- both ---


@pytest.mark.parametrize("name", ["cosine@none", "top_k_intersection@none"])
def test_undefined_is_nan(name):
    some = [1.0, 2, 3]
    for nothing in ([0.0, 0, 0], [math.nan, 1, 2]):
        assert math.isnan(measured(nothing, some, name))
        assert math.isnan(measured(some, nothing, name))
    constant = measured([5.0, 5, 5], some, name)
    assert constant == pytest.approx(6 / math.sqrt(3 * 14)) if "cosine" in name else math.isnan(constant)


@pytest.mark.parametrize("name", ["cosine", "top_k_intersection"])
def test_maps_can_be_exchanged(name):
    one, other = pair_of(torch.round)
    found = attribug.measure(name, one, other)
    torch.testing.assert_close(attribug.measure(name, other, one), found, rtol=0, atol=1e-15)
    torch.testing.assert_close(attribug.measure(name, one.flip(2), other.flip(2)), found, rtol=0, atol=1e-15)
