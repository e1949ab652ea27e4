"""A user's own training: what it is given, that it decides alone, and one line for whatever it leaves wrong."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe, Trained
from attribug.errors import InputError, Unsupported
from attribug.models import brought, fitting
from attribug.models.fitting import fitted
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from doubles import mine

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "own.md"
RATE = 0.02
STEPS = 3


def plain(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> None:
    """Gradient descent on all examples: nothing is drawn."""
    optimiser = torch.optim.SGD(model.parameters(), RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()


def drawn(model: nn.Module, inputs: Tensor, labels: Tensor, *, seed: int) -> None:
    """Everything global is drawn from, and changed."""
    noise = torch.randn(1) + np.random.rand() + random.random()
    inputs.mul_(0)
    labels.zero_()
    torch.set_default_dtype(torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise.float())


def elsewhere(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """Trains a copy, and returns that."""
    other = copy.deepcopy(model)
    plain(other, inputs, labels, seed)
    return other


def train(function: Callable[..., Any], seed: int = 0, **changes: Any) -> nn.Module:
    recipe = Recipe(mine.network, epochs=1)
    described = fitting.from_python(function)
    return fitted(mine.network(), mine.bars(size=12), replace(recipe, **changes), seed, function=described)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_it_trains_as_the_same_loop_does_by_hand() -> None:
    expected, data = mine.network().train(), mine.bars(size=12)
    plain(expected, data.inputs, data.labels, 0)
    found = train(plain)
    assert same(found, expected)
    assert same(train(elsewhere), expected)
    assert not same(found, mine.network())
    assert not found.training


def test_what_it_is_given_is_a_model_in_training_with_nothing_frozen() -> None:
    def look(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> None:
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert (inputs.dtype, labels.dtype, type(seed), seed) == (torch.float32, torch.int64, int, 7)
        assert torch.is_grad_enabled()
        plain(model, inputs, labels, seed)

    with torch.no_grad():
        train(look, 7)


def test_seeds_decide_and_global_states_stay() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    one = train(drawn, 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]
    assert torch.get_default_dtype() == torch.float32
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    assert same(one, train(drawn, 3))
    assert not same(one, train(drawn, 4))


def part(*, size: int) -> Data:
    return mine.bars(size=size)


def test_the_users_model_and_examples_stay_as_they_are() -> None:
    mine_own = mine.network()
    before, spec = state(mine_own), brought.describe(mine_own)
    examples = Examples.of(part, size=12)
    lab = Lab(Memory())
    recipe = Recipe(spec.source, epochs=1, fit=partial(fitted, function=fitting.from_python(drawn)))
    trained = lab.model(Trained(examples, recipe, 0, spec))
    assert all(torch.equal(value, before[name]) for name, value in mine_own.state_dict().items())
    assert same(lab.model(spec), mine.network())
    assert not same(trained, lab.model(spec))
    assert torch.equal(lab.data(examples).inputs, mine.bars(size=12).inputs)
    assert torch.equal(lab.data(examples).labels, mine.bars(size=12).labels)


def raising(model: nn.Module, *_: Any, seed: int) -> None:
    raise ArithmeticError("no luck\nat all")


def stopping(model: nn.Module, *_: Any, seed: int) -> None:
    raise SystemExit(3)


def scoring(model: nn.Module, *_: Any, seed: int) -> float:
    return 0.5


def growing(model: nn.Module, *_: Any, seed: int) -> None:
    model.more = nn.Linear(2, 2)  # in place: what it was cannot be seen any more afterwards


def replacing(model: nn.Module, *_: Any, seed: int) -> nn.Module:
    return nn.Linear(2, 2)


def halving(model: nn.Module, *_: Any, seed: int) -> nn.Module:
    return model.half()


def diverging(model: nn.Module, *_: Any, seed: int) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))


def forgetting(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> None:
    """No step; running statistics move nevertheless."""
    nn.functional.cross_entropy(model(inputs), labels).backward()


@pytest.mark.parametrize(
    ("function", "kind", "expected"),
    [
        (raising, RuntimeError, r"raises ArithmeticError: no luck"),
        (stopping, RuntimeError, r"raises SystemExit: 3"),
        (scoring, ValueError, r"returns float: expected the trained model, or None for the one it was given"),
        (growing, ValueError, r"gives a model of other layers: .*, found more.weight, more.bias"),
        (replacing, ValueError, r"gives a model of other layers: .*, found 0.weight, 0.bias, 1.weight and 8 more"),
        (halving, ValueError, r"gives a model of other layers: .* types, found 0.weight, .*"),
        (diverging, ValueError, r"leaves NaN or infinity in 0.weight"),
        (forgetting, ValueError, r"leaves all weights as they were: expected some that it has trained"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(function: Any, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=f"^your function {function.__name__} [0-9a-f]{{8}} {expected}$") as caught:
        train(function)
    assert "\n" not in str(caught.value)


def test_what_was_infinite_before_may_stay_so() -> None:
    def masked() -> nn.Module:
        model = mine.network()
        model.register_buffer("mask", torch.full((2,), -torch.inf))
        return model

    recipe, function = Recipe(masked, epochs=1), fitting.from_python(plain)
    assert fitted(masked(), mine.bars(size=12), recipe, 0, function=function).mask.isinf().all()  # type: ignore[operator]


def test_nobody_else_decides_what_learns_or_is_minimised() -> None:
    with pytest.raises(Unsupported, match=r"your function plain .* decides itself what learns, and what is minimised"):
        train(plain, objective=partial(nn.functional.cross_entropy))
    with pytest.raises(Unsupported, match="decides itself"):
        fitted(
            mine.network(), mine.bars(size=12), Recipe(mine.network, epochs=1), 0, trainable=["5"],
            function=fitting.from_python(plain),
        )  # fmt: skip


class Trainer:
    """One that is called."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> None:
        nn.functional.cross_entropy(model(inputs), labels).backward()
        torch.optim.SGD(model.parameters(), self.rate).step()


def test_partials_and_objects_are_told_by_what_they_hold() -> None:
    def scaled(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int, rate: float) -> None:
        Trainer(rate)(model, inputs, labels, seed)

    for make, name in ((lambda rate: partial(scaled, rate=rate), "scaled"), (Trainer, "Trainer")):
        one, again, other = (fitting.from_python(make(rate)) for rate in (0.1, 0.1, 0.2))  # type: ignore[operator]
        assert one == again
        assert one.code != other.code
        assert one.name.startswith(f"{name} ")
        assert same(train(make(0.1)), train(make(0.1)))  # type: ignore[operator]
        assert not same(train(make(0.1)), train(make(0.2)))  # type: ignore[operator]


def test_what_cannot_be_pickled_is_told_in_one_line() -> None:
    held = (number for number in range(3))

    def fit(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> None:
        next(held)

    with pytest.raises(InputError, match=r"^--fit fit: expected one that can be pickled for .*: [^\n]*$"):
        fitting.from_python(fit)


def test_the_documents_example_trains(tmp_path: Path) -> None:
    (example,) = re.findall(r"(?s)```python\n# my_training.py\n(.*?)```", DOCUMENT.read_text())
    (tmp_path / "my_training.py").write_text(example)
    function = fitting.named(f"{tmp_path}/my_training.py:train")
    data, recipe = mine.bars(size=48), Recipe(mine.network, epochs=1)
    models = [fitted(mine.network(), data, recipe, seed, function=function) for seed in (0, 0, 1)]
    assert same(*models[:2])
    assert not same(*models[1:])
    right = [float((model(data.inputs).argmax(1) == data.labels).float().mean()) for model in (mine.network(), *models)]
    assert min(right[1:]) > right[0]
