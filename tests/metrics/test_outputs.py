"""What bare outputs tell, against plain loops over classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance

import attribug
from attribug import metrics

ROWS, MOST = 3, 6


@st.composite
def outputs(draw, alike=False):
    """Two models' softmax outputs of the same inputs, or one model's of two versions: as many classes."""
    classes = [draw(st.integers(1, MOST)) for _ in range(2)]
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    sharpness = draw(st.sampled_from([0.0, 1.0, 30.0, 1000.0]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    sizes = classes[:1] * 2 if alike else classes
    return [torch.from_numpy(rng.standard_normal((ROWS, k)) * sharpness).to(dtype).softmax(1) for k in sizes]


def total_variation(p, q):
    if len(p) != len(q):
        p, q = (sorted(each, reverse=True) + [0.0] * (MOST - len(each)) for each in (p, q))
    return 1 - sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2


def loop(pair):
    return [total_variation(p, q) for p, q in zip(*(each.tolist() for each in pair), strict=True)]


@settings(max_examples=100, deadline=None)
@given(pair=outputs())
def test_total_variation_is_a_plain_loop(pair):
    found = attribug.measure("total_variation", *pair)
    np.testing.assert_allclose(found, np.clip(loop(pair), 0, 1), rtol=0, atol=1e-12)
    assert torch.equal(attribug.measure("total_variation", *pair[::-1]), found)


@settings(max_examples=100, deadline=None)
@given(pair=outputs(alike=True))
def test_background_swap_is_scipys_and_what_total_variation_lacks(pair):
    found = attribug.measure("background_swap", *pair)
    expected = [distance.cityblock(*rows) / 2 for rows in zip(*(each.double().numpy() for each in pair), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # rounded probabilities may sum to more than 1
    np.testing.assert_allclose(found + attribug.measure("total_variation", *pair), 1, rtol=0, atol=1e-12)


def first_row(pair, function):
    return function(*(each[0].tolist() for each in pair))


MISTAKES = {
    "padded without sorting": lambda p, q: total_variation(*(each + [0.0] * (MOST - len(each)) for each in (p, q))),
    "not halved": lambda p, q: max(0, 2 * total_variation(p, q) - 1),
    "Euclidean": lambda p, q: 1 - distance.euclidean(*(each + [0.0] * (MOST - len(each)) for each in (p, q))),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_out(mistake, is_found_out):
    wrong = MISTAKES[mistake]
    assert is_found_out(outputs(), lambda p: first_row(p, wrong), lambda p: first_row(p, total_variation))


def measured(name, p, q):
    return attribug.measure(name, torch.tensor([p]), torch.tensor([q])).item()


def test_by_hand():
    assert measured("total_variation", [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]) == pytest.approx(0.7)
    assert measured("background_swap", [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]) == pytest.approx(0.3)
    assert measured("total_variation", [0.5, 0.3, 0.2], [0.1, 0.9]) == pytest.approx(0.6)  # .9 .1 0 beside .5 .3 .2
    assert measured("total_variation", [1.0, 0.0], [0.0, 1.0]) == 0
    assert measured("background_swap", [1.0, 0.0], [0.0, 1.0]) == 1
    assert measured("background_swap", [0.25, 0.75], [0.25, 0.75]) == 0


def test_rounded_probabilities_keep_the_bounds():
    assert measured("total_variation", [1.0000001, 0.0], [0.0, 1.0000001]) == 0
    assert measured("background_swap", [1.0000001, 0.0], [0.0, 1.0000001]) == 1


@pytest.mark.parametrize("name", ["total_variation", "background_swap"])
def test_nan_stays_nan_and_costs_no_other_example(name):
    p, q = torch.tensor([[0.5, 0.5], [torch.nan, 0.5]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    assert attribug.measure(name, p, q).isnan().tolist() == [False, True]
    assert attribug.measure(name, q, p).isnan().tolist() == [False, True]


def test_facts():
    swap, similarity = metrics.get("background_swap"), metrics.get("total_variation")
    assert (swap.kind, swap.reads, swap.required) == ("response", "probabilities", {"swapped_background"})
    assert (similarity.kind, similarity.reads, similarity.required) == ("similarity", "probabilities", frozenset())


def test_one_models_outputs_have_one_number_of_classes():
    """Two models' may differ; a single column would otherwise be spread over the other's classes in silence."""
    for classes in (1, 3):
        with pytest.raises(attribug.InputError) as error:
            attribug.measure("background_swap", torch.rand(2, 4), torch.rand(2, classes))
        assert str(error.value) == (
            f"background_swap: expected two versions' outputs of one shape, found (2, 4) and (2, {classes})"
        )
    assert attribug.measure("total_variation", torch.rand(2, 4), torch.rand(2, 3)).shape == (2,)
