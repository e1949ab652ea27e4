"""Folds cut a training set into parts, each of which one model does without."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribug.contracts.data import Data, Examples
from attribug.errors import InputError
from attribug.studies import folds


def numbered(*, size: int) -> Data:
    numbers = torch.arange(size)
    return Data(numbers[:, None].float(), numbers % 2, numbers + 100, (numbers % 3 == 0)[:, None, None])


@given(st.integers(2, 40), st.integers(0, 5), st.data())
def test_every_example_has_one_fold_and_folds_one_size(count, seed, data):
    number = data.draw(st.integers(2, count))
    found = folds.folds_of(count, number, seed)
    sizes = torch.bincount(found, minlength=number)
    assert (len(found), len(sizes)) == (count, number)
    assert sizes.max() - sizes.min() <= 1
    order = folds.order(count, seed)
    assert (found[order[:number]].sort().values == torch.arange(number)).all(), "the first ones are from every fold"
    assert torch.equal(folds.folds_of(count, number, seed), found)


def test_a_seed_deals_its_own_folds():
    assert not torch.equal(folds.folds_of(50, 5, 0), folds.folds_of(50, 5, 1))


def test_parts_without_a_fold_leave_out_every_example_once():
    whole = Examples.of(numbered, size=23)
    parts = [folds.without(whole, fold=fold, folds=4, seed=3) for fold in range(4)]
    missing = [set(whole.load().ids.tolist()) - set(part.load().ids.tolist()) for part in parts]
    assert sorted(number for each in missing for number in each) == whole.load().ids.tolist()
    fold = folds.folds_of(23, 4, 3)
    for number, part in enumerate(parts):
        data = part.load()
        expected = whole.load().select((fold != number).nonzero()[:, 0])
        assert torch.equal(data.ids, expected.ids)
        assert torch.equal(data.inputs[:, 0].long(), data.ids - 100)
        assert torch.equal(data.labels, data.ids % 2)
        assert data.masks is not None
        assert torch.equal(data.masks[:, 0, 0], (data.ids - 100) % 3 == 0)


def test_a_key_tells_examples_fold_number_and_seed():
    whole, other = Examples.of(numbered, size=23), Examples.of(numbered, size=24)
    choices = [(whole, 0, 4, 3), (other, 0, 4, 3), (whole, 1, 4, 3), (whole, 0, 5, 3), (whole, 0, 4, 2)]
    keys = [folds.without(e, fold=fold, folds=number, seed=seed).key for e, fold, number, seed in choices]
    assert len(set(keys)) == len(keys)
    assert folds.without(Examples.of(numbered, size=23), fold=0, folds=4, seed=3).key == keys[0]


@pytest.mark.parametrize("number", [-1, 0, 1, 8])
def test_folds_that_cannot_be(number):
    message = f"^folds: expected 2 to 7, the number of training examples, found {number}$"
    with pytest.raises(InputError, match=message):
        folds.folds_of(7, number, 0)
