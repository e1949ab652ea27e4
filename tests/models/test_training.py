"""Training by seed, and the Lab: every kind of model, the store, checks against hand computation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attribug.contracts.contrasts import Check
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, ModelSpec, Recipe, Trained, trainings
from attribug.models.checks import accuracy, figure
from attribug.models.lab import Lab, logits
from attribug.models.memory import Memory
from attribug.models.training import initialised, seeded, train
from attribug.streams import generator

PIXELS = 8


class Counting(Memory):
    """A store that counts what is written."""

    writes = 0

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        self.writes += 1
        super().save_weights(key, weights)


class Noise(nn.Module):
    """Fixed noise that no state dict holds: a network must be built the same way again."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fixed", torch.randn(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.fixed[:, None, None]


def network(*, classes: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), Noise(), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(3 * 36, 8),
        nn.ReLU(), nn.Linear(8, classes),
    )  # fmt: skip


def blobs(*, size: int, first: int = 0) -> Data:
    stream = torch.Generator().manual_seed(first)
    labels = torch.arange(size) % 3
    inputs = torch.rand((size, 1, PIXELS, PIXELS), generator=stream) / 2
    for row, label in enumerate(labels.tolist()):
        inputs[row, :, 2 * label + 1] += 0.5
    return Data(inputs, labels, torch.arange(first, first + size))


RECIPE = Recipe(network, epochs=3, batch=16)
TRAIN = Examples.of(blobs, size=60)
TEST = Examples.of(blobs, size=24, first=100)


def last(model: nn.Module) -> Sequence[str]:
    return ["8"]


def first_with_norm(model: nn.Module) -> Sequence[str]:
    return ["0", "1"]


def doubled(model: nn.Module, stream: torch.Generator) -> None:
    with torch.no_grad():
        model[8].weight.mul_(2).add_(torch.rand(model[8].weight.shape, generator=stream))  # type: ignore[operator]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.fixture
def lab() -> Lab:
    return Lab(Counting())


def placed(model: nn.Module) -> nn.Module:
    """Weights in the order of the Lab's: another order gives other last bits."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def trained(seed: int, recipe: Recipe = RECIPE) -> nn.Module:
    return train(placed(initialised(recipe, seed)), blobs(size=60), recipe, seed)


def test_a_seed_gives_the_same_bits() -> None:
    torch.manual_seed(1)
    one = state(trained(4))
    torch.manual_seed(2)
    assert not differing(one, state(trained(4)))
    assert differing(one, state(trained(5))) >= {"0.weight", "6.weight", "8.weight"}


def test_order_of_examples_and_initial_weights_both_follow_the_seed() -> None:
    assert differing(state(initialised(RECIPE, 1)), state(initialised(RECIPE, 2)))
    start = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS * PIXELS, 3))  # without dropout: only the order is left
    first, again, other = (state(train(deepcopy(start), blobs(size=60), RECIPE, seed)) for seed in (1, 1, 2))
    assert not differing(first, again)
    assert differing(first, other) == {"1.weight", "1.bias"}


def test_dropout_follows_the_seed() -> None:
    start = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(PIXELS * PIXELS, 3))
    whole = Recipe(network, epochs=2, batch=60)  # one batch: its order does not matter
    first, again, other = (state(train(deepcopy(start), blobs(size=60), whole, seed)) for seed in (1, 1, 2))
    assert not differing(first, again)
    assert (first["2.weight"] - other["2.weight"]).abs().max() > 1e-4


def test_the_global_random_state_is_left_alone(lab: Lab) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    spec = Trained(TRAIN, RECIPE, 0)
    lab.model(Derived(spec, doubled, 1))
    Lab(lab.store).model(Trained(TRAIN, RECIPE, 0, start=spec, trainable=last))
    figure(Check("c", (spec,), TEST), lab)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_ends_with_an_exception_too() -> None:
    def interrupted() -> None:
        with seeded(generator("x")):
            torch.rand(3)
            raise RuntimeError("inside")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        interrupted()
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns_and_ends_in_eval_mode() -> None:
    model = trained(0, Recipe(network, epochs=25, batch=16))
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    data = blobs(size=60, first=100)
    assert accuracy(logits(model, data.inputs), data.labels) > 0.9


def test_progress_hears_of_every_epoch() -> None:
    heard: list[int] = []
    train(initialised(RECIPE, 0), blobs(size=20), RECIPE, 0, progress=heard.append)
    assert heard == [1, 1, 1]


RUNNING = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


@pytest.mark.parametrize(("choice", "learning"), [
    (last, {"8.weight", "8.bias"}),
    (first_with_norm, {"0.weight", "0.bias", "1.weight", "1.bias", *RUNNING}),
])  # fmt: skip
def test_frozen_parts_stay_bit_identical(
    lab: Lab, choice: Callable[[nn.Module], Sequence[str]], learning: set[str]
) -> None:
    start = Trained(TRAIN, RECIPE, 0)
    before = state(lab.model(start))
    spec = Trained(TRAIN, RECIPE, 0, start=start, trainable=choice)
    assert differing(before, state(lab.model(spec))) == learning
    assert not differing(before, state(lab.model(start))), "the model it started from was changed"
    assert all(parameter.requires_grad for parameter in lab.model(spec).parameters())


def test_nothing_to_train_changes_nothing() -> None:
    model = initialised(RECIPE, 0)
    before = state(model)
    after = train(model, blobs(size=20), RECIPE, 0, trainable=[])
    assert not differing(before, state(after))
    assert not after.training


def test_training_goes_on_from_its_start(lab: Lab) -> None:
    start = Trained(TRAIN, RECIPE, 0)
    derived = Derived(start, doubled, 3)
    spec = Trained(TRAIN, RECIPE, 5, start=derived)
    assert trainings(spec) == [start, spec]
    with seeded(generator("initialise", 0)):
        by_hand = network()
    by_hand.load_state_dict(lab.model(start).state_dict())
    doubled(by_hand, generator("derive", 3))
    assert not differing(state(by_hand), state(lab.model(derived)))
    train(placed(by_hand), blobs(size=60), RECIPE, 5)
    assert not differing(state(by_hand), state(lab.model(spec)))


def test_derived_models_are_copies(lab: Lab) -> None:
    base = Trained(TRAIN, RECIPE, 0)
    before = state(lab.model(base))
    one, again, other = (lab.model(Derived(base, doubled, seed)) for seed in (1, 1, 2))
    assert one is again
    assert differing(before, state(one)) == {"8.weight"}
    assert differing(state(one), state(other)) == {"8.weight"}
    assert not differing(before, state(lab.model(base)))


def test_a_model_read_back_is_the_model_that_was_trained(lab: Lab) -> None:
    """Also in what its state dict does not hold."""
    spec = Trained(TRAIN, RECIPE, 7)
    direct = trained(7)
    inputs = blobs(size=10, first=50).inputs
    assert torch.equal(logits(Lab(Counting()).model(spec), inputs), logits(direct, inputs))
    derived = Derived(spec, lambda model, stream: None, 0)
    assert torch.equal(logits(lab.model(derived), inputs), logits(direct, inputs))


def test_what_is_stored_is_not_trained_again(lab: Lab) -> None:
    spec = Trained(TRAIN, RECIPE, 0)
    lab.train(spec)
    lab.train(spec)
    lab.model(spec)
    Lab(lab.store).model(spec)
    assert lab.store.writes == 1  # type: ignore[attr-defined]
    lab.store[spec.key]["8.bias"].fill_(9)  # type: ignore[index]
    assert (Lab(lab.store).model(spec)[8].bias == 9).all()  # type: ignore[index]


def test_fresh_trains_anew_and_forgets_the_old(lab: Lab) -> None:
    spec = Trained(TRAIN, RECIPE, 0)
    lab.train(spec)
    truth = {name: value.clone() for name, value in lab.store[spec.key].items()}  # type: ignore[index]
    lab.store[spec.key]["8.bias"].fill_(9)  # type: ignore[index]
    derived = Derived(spec, lambda model, stream: None, 0)
    wrong = [lab.outputs(model, TEST) for model in (spec, derived)]
    lab.train(spec, fresh=True)
    assert lab.store.writes == 2  # type: ignore[attr-defined]
    assert not differing(truth, state(lab.model(spec)))
    assert all(not torch.equal(lab.outputs(m, TEST), old) for m, old in zip((spec, derived), wrong, strict=True))


def test_forgotten_models_are_read_from_the_store_again(lab: Lab) -> None:
    spec = Trained(TRAIN, RECIPE, 0)
    intact = lab.outputs(spec, TEST)
    with torch.no_grad():
        lab.model(spec)[8].weight.zero_()  # type: ignore[index, operator]
    lab.forget_models()
    assert torch.equal(lab.outputs(spec, TEST), intact)


def test_a_store_that_keeps_nothing_is_told() -> None:
    class Sieve(Counting):
        def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
            return

    with pytest.raises(RuntimeError, match="cannot be read back"):
        Lab(Sieve()).model(Trained(TRAIN, RECIPE, 0))


def fixed(model: nn.Module, stream: torch.Generator, *, bias: tuple[float, ...]) -> None:
    """A model whose logits are the same for every input."""
    with torch.no_grad():
        model[8].weight.zero_()  # type: ignore[operator, union-attr]
        model[8].bias.copy_(torch.tensor(bias))  # type: ignore[operator, union-attr]


def saying(*bias: float) -> ModelSpec:
    return Derived(Trained(TRAIN, Recipe(network, epochs=1), 0), partial(fixed, bias=bias), 0)


def uneven(*, size: int) -> Data:
    data = blobs(size=size)
    return Data(data.inputs, torch.tensor([0, 0, 0, 1, 1, 2, 0, 0])[:size], data.ids)


EIGHT = Examples.of(uneven, size=8)  # five of class 0, two of class 1, one of class 2


def test_accuracy_is_a_mean_over_models_minus_that_of_others(lab: Lab) -> None:
    zero, one, two = saying(1, 0, 0), saying(0, 1, 0), saying(0, 0, 1)
    assert figure(Check("c", (zero,), EIGHT), lab) == 5 / 8
    assert figure(Check("c", (zero, one), EIGHT), lab) == pytest.approx((5 + 2) / 16, abs=1e-15)
    assert figure(Check("c", (two,), EIGHT, minus=(zero, one)), lab) == pytest.approx(1 / 8 - 7 / 16, abs=1e-15)


def test_total_variation_is_a_mean_over_examples_and_pairs(lab: Lab) -> None:
    biases = [(0.0, 0.0, 0.0), (1.0, 0.0, -1.0), (0.0, 2.0, 0.0)]
    p, q, r = (torch.tensor(bias, dtype=torch.float64).softmax(0) for bias in biases)
    expected = ((p - r).abs().sum() / 2 + (q - r).abs().sum() / 2) / 2
    models = [saying(*bias) for bias in biases]
    check = Check("c", tuple(models[:2]), EIGHT, "total_variation", minus=(models[2],))
    assert figure(check, lab) == pytest.approx(float(expected), abs=1e-6)
    spec = Trained(TRAIN, RECIPE, 0)
    outputs = lab.outputs(spec, TEST).softmax(1)
    by_hand = sum(float((row - r.float()).abs().sum()) / 2 for row in outputs) / len(outputs)
    check = Check("c", (spec,), TEST, "total_variation", minus=(models[2],))
    assert figure(check, lab) == pytest.approx(by_hand, abs=1e-6)


def test_no_examples_have_no_accuracy(lab: Lab) -> None:
    measured = figure(Check("c", (saying(1, 0, 0),), Examples.of(uneven, size=0), at_least=0.0), lab)
    assert math.isnan(measured)
    assert not Check("c", (), TEST, at_least=0.0).holds(measured)


def test_passes_are_bounded_and_joined() -> None:
    model = trained(0)
    inputs = blobs(size=150, first=7).inputs
    together = torch.cat([model(row[None]) for row in inputs]).detach()
    torch.testing.assert_close(logits(model, inputs), together, rtol=1e-5, atol=1e-5)
    assert not logits(model, inputs).requires_grad
