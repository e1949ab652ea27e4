"""Every method on networks of every make: its map is the truth's or it says why not, and the page tells so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from architectures import forms, layers
from architectures.comparison import Cell, answers, expect_one_function, explained, judged, needless
from architectures.page import COMMAND, GROUPS, INTRODUCTION, PAGE, declined, section, wrong
from architectures.specimens import Form, Group, Pair, beside, copied, network, seeded
from attribug import methods
from attribug.query.query import Query
from doubles.pieces import forgotten

EACH = [
    pytest.param(group, id=group.title.partition(",")[0], marks=pytest.mark.survival if group.slow else ())
    for group in GROUPS
]
PLANTED = "test_planted"


@pytest.mark.slow
@pytest.mark.parametrize("group", EACH)
def test_no_map_is_wrong_and_the_page_says_what_happens(group: Group) -> None:
    if group.library:
        pytest.importorskip(group.library)
    faults = [*wrong(group), *(declined(group) if group.always else ())]
    assert not faults, "\n".join(faults)
    shown = section(group) in PAGE.read_text(encoding="utf-8")
    assert shown, f"what happens is not what the page says: run {COMMAND}"


def test_the_page_has_no_other_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(INTRODUCTION), f"run {COMMAND}"
    assert re.findall(r"(?m)^## (.+)$", page) == [group.title for group in GROUPS]


# --- the comparison refuses what it is there for ---


@pytest.fixture
def planted() -> Iterator[Callable[..., Cell]]:
    """What a pair makes of a method, which is gone afterwards."""
    with forgotten():

        def judge(function: Callable[[Query], Tensor], pair: Pair) -> Cell:
            methods.register(PLANTED, paper="none")(function)
            return explained([PLANTED], pair)[PLANTED]

        yield judge


def scaling() -> Pair:
    """Convolutions that scale their input, beside plain ones."""
    with seeded():
        return layers.made(conv=layers.ScalingConv)


def sum_of_weights(query: Query) -> Tensor:
    """A map that trusts the weights that a layer stores."""
    first = next(module for module in query.model.modules() if isinstance(module, nn.Conv2d))
    return query.gradient() * first.weight.detach().abs().sum()


def spoils_the_model(query: Query) -> Tensor:
    """A map, and another model."""
    with torch.no_grad():
        next(query.model.parameters()).mul_(2)
    return query.gradient()


def fails(query: Query) -> Tensor:
    """No map."""
    raise KeyError("weight")


def test_a_map_of_the_wrong_weights_is_wrong(planted: Callable[..., Cell]) -> None:
    assert planted(sum_of_weights, scaling()) == Cell("wrong", "off by 5.0e-01")


def test_a_method_that_fails_is_wrong(planted: Callable[..., Cell]) -> None:
    found = planted(fails, scaling())
    assert found.kind == "wrong"
    assert found.text.startswith("CRASH: ")
    assert "KeyError" in found.text


def test_a_method_that_spoils_the_model_is_wrong(planted: Callable[..., Cell]) -> None:
    assert planted(spoils_the_model, scaling()).kind == "wrong"


def test_the_gradient_is_right_there() -> None:
    assert explained(["gradient"], scaling()) == {"gradient": Cell("right")}


@pytest.mark.parametrize(
    "wronged",
    [
        lambda maps: -maps,
        lambda maps: maps * 1.001,
        lambda maps: maps.flip(0),
        lambda maps: maps.roll(1, -1),
        lambda maps: maps.sum(1, keepdim=True),
        lambda maps: maps.index_fill(0, torch.tensor([1]), torch.nan),
        torch.zeros_like,
    ],
)
def test_a_map_that_is_not_the_truth_is_wrong(wronged: Callable[[Tensor], Tensor]) -> None:
    truth = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert judged(truth.clone(), truth, 1e-4) == Cell("right")
    assert judged(wronged(truth), truth, 1e-4).kind == "wrong"


def test_a_truth_of_zeros_is_none() -> None:
    assert judged(torch.zeros(2, 3), torch.zeros(2, 3), 1e-4).kind == "no truth"


def test_a_network_whose_plain_form_is_declined_is_not_to_be_explained() -> None:
    with seeded():
        pair = forms.steps(relu=nn.ReLU())
    swapped = replace(pair, model=pair.truth.model, truth=Form(pair.model))  # patterns decline a ReLU that runs thrice
    assert explained(["pattern_net"], swapped)["pattern_net"].text.startswith("explained, but not its truth: ")
    stranger = replace(swapped, truth=replace(swapped.truth, stranger=True))
    assert explained(["pattern_net"], stranger) == {"pattern_net": Cell("no truth")}


def test_declining_a_plain_network_is_wrong() -> None:
    with seeded():
        pair = forms.steps(relu=torch.relu)
    found = explained(["deconvnet", "gradient"], pair)
    assert found["deconvnet"].kind == "refused"
    assert {name: cell.kind for name, cell in needless(found, pair).items()} == {"deconvnet": "wrong"}


def test_a_truth_must_be_the_same_function() -> None:
    with seeded():
        truth = network()
        pair = beside(copied(truth), nn.Sequential(*truth, nn.Linear(3, 3).double()))
    with pytest.raises(AssertionError, match="the truth is another function"):
        expect_one_function("other", pair)


def test_methods_that_share_passes_say_the_same_as_alone() -> None:
    with seeded():
        pair = forms.steps(relu=torch.relu)
    names = ["deconvnet", "gradient", "lime", "smoothgrad", "vargrad"]
    together = answers(names, Form(pair.model), pair)
    alone: dict[str, Any] = {}
    for name in names:
        alone |= answers([name], Form(pair.model), pair)
    assert together["deconvnet"] == alone["deconvnet"]
    assert all(torch.equal(together[name], alone[name]) for name in names[1:])
