"""Given models: loaded, recognised by their weights, explained and changed like any other, never trained."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from attribug import methods, metrics
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Given, Recipe, Trained, chain, training_examples, trainings
from attribug.errors import InputError
from attribug.models.given import digest_of, given, load
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.scores.blocks import score_block
from attribug.scores.records import Settings


def network(*, seed: int = 0, momentum: float = 0.1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=momentum), nn.Tanh(), nn.Flatten(), nn.Linear(2 * 36, 3)
        ).train()


def images(*, size: int, masks: bool = True) -> Data:
    stream = torch.Generator().manual_seed(size)
    inputs = torch.rand((size, 1, 8, 8), generator=stream)
    return Data(inputs, torch.arange(size) % 3, torch.arange(size), inputs[:, 0] > 0.5 if masks else None)


def halved(model: nn.Module, stream: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)


@pytest.fixture
def lab() -> Lab:
    return Lab(Memory())


def test_a_given_model_is_loaded_and_never_trained(lab: Lab) -> None:
    spec = given(network)
    model = lab.model(spec)
    assert not model.training
    assert lab.store == {}
    for name, value in network().state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert trainings(spec) == []
    assert training_examples(spec) is None
    assert lab.training_data(spec) is None
    assert Side(spec, Examples.of(images, size=2)).seed == 0


def test_its_key_is_code_and_weights() -> None:
    one, same, other = given(network), given(network), given(partial(network, seed=1))
    assert one == same
    assert len({one.key, other.key, Given(network, "another digest").key}) == 3
    with torch.no_grad():
        changed = network()
        changed[1].running_mean.add_(1)
    assert digest_of(changed) != one.digest, "buffers count"
    assert digest_of(network(momentum=0.5)) == one.digest, "what no state dict holds is told by the code"


def test_another_model_than_described_is_refused(lab: Lab) -> None:
    described = Given(partial(network, seed=1), given(network).digest)
    with pytest.raises(InputError, match=r"given model: expected weights and buffers of digest .*, found"):
        lab.model(described)


@pytest.mark.parametrize("source", [lambda: 3, lambda: network().state_dict()])
def test_what_is_no_model_is_refused(source: object) -> None:
    with pytest.raises(InputError, match=r"given model: expected a torch.nn.Module from its source, found"):
        given(source)  # type: ignore[arg-type]


def test_models_are_derived_and_trained_from_it(lab: Lab) -> None:
    """Each from a copy of its own: what was loaded stays as it was."""
    spec = given(network)
    before = digest_of(lab.model(spec))
    derived = Derived(spec, halved, 0)
    assert chain(derived) == [spec, derived]
    assert torch.equal(lab.model(derived)[4].weight, load(spec)[4].weight * 0.5)
    tuned = Trained(
        Examples.of(images, size=6), Recipe(network, epochs=4), 0, start=spec, trainable=lambda model: ["4"]
    )
    assert not torch.equal(lab.model(tuned)[4].weight, load(spec)[4].weight)
    assert torch.equal(lab.model(tuned)[0].weight, load(spec)[0].weight)
    assert digest_of(lab.model(spec)) == before


def test_it_is_explained_and_scored_beside_models_derived_from_it(lab: Lab) -> None:
    """And a method that needs training examples says that there are none."""
    examples, spec = Examples.of(images, size=4), given(network)
    sides = [Side(Derived(spec, halved, seed), examples) for seed in (1, 2)]
    contrast = Contrast(sides[0], (Side(spec, examples),), (sides[1],), "perturbed", "reference")
    names = ("gradient", "expected_gradients", "predictions")
    measured = [*metrics.measured_as("spearman@sum"), *metrics.measured_as("total_variation")]
    records = score_block(contrast, [(methods.get(n), {}) for n in names], measured, lab, Settings(0, 4, 4, 4))
    assert len(records["gradient"].scores) == len(records["predictions"].scores) == 4
    assert records["expected_gradients"].verdict == "unsupported"
    assert records["expected_gradients"].reason == "needs training examples, and none were given"
