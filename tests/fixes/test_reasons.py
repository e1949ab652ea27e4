"""Right for the right reasons: the loss against slow loops, its gradient, its negative control, its refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attribug import fixes
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.objectives import summed_cross_entropy
from attribug.errors import InputError, Unsupported
from attribug.fixes import find_another, reasons, rrr
from attribug.fixes.materials import annotated
from attribug.models.networks import bvd_cnn
from attribug.models.training import initialised, train
from doubles.shortcuts import FEATURES, described, mended, network, shortcut


def double(model: nn.Module) -> nn.Module:
    return model.double()


def batch(size: int = 12, *, classes: int = 3) -> Data:
    data = shortcut(split="train", share=1.0, size=size, classes=classes)
    marked = torch.rand(data.inputs.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    return replace(data, inputs=data.inputs.double(), annotations=marked)


@pytest.fixture
def model() -> nn.Module:
    return double(initialised(Recipe(partial(network, classes=3), epochs=1), 3))


SLOW: dict[str, Callable[[Tensor], Tensor]] = {
    "sum_log": lambda p: p.log().sum(), "max_log": lambda p: p.log().max(), "sum": lambda p: p.sum(),
    "max": lambda p: p.max(),
}  # fmt: skip


def slow_loss(model: nn.Module, data: Data, *, weight: float, decay: float, penalty: str) -> float:
    """Example by example, entry by entry, from the paper."""
    total = 0.0
    assert data.annotations is not None
    for x, y, marked in zip(data.inputs, data.labels, data.annotations, strict=True):
        total -= float(model(x[None])[0].softmax(0)[y].log())
        slope = torch.autograd.functional.jacobian(lambda x: SLOW[penalty](model(x[None])[0].softmax(0)), x)
        total += weight * sum(float(slope[d]) ** 2 for d in range(len(x)) if marked[d])
    return total + decay * sum(float(value) ** 2 for each in model.parameters() for value in each.flatten())


@pytest.mark.parametrize("penalty", sorted(SLOW))
def test_the_loss_is_the_papers(model: nn.Module, penalty: str) -> None:
    data = batch()
    found = reasons.right_reasons(model, data, weight=7.0, decay=0.3, penalty=penalty)
    slow = slow_loss(model, data, weight=7.0, decay=0.3, penalty=penalty)
    assert float(found) == pytest.approx(slow, rel=1e-10)
    assert float(found) != pytest.approx(slow_loss(model, data, weight=7.1, decay=0.3, penalty="sum_log"), rel=1e-10)


def test_terms_are_sums(model: nn.Module) -> None:
    once = batch()
    twice = once.select(torch.arange(len(once)).repeat(2))
    for one, two in zip(*(reasons.terms(model, data, "sum_log") for data in (once, twice)), strict=True):
        assert float(two) == pytest.approx(2 * float(one), rel=1e-12)


@pytest.mark.parametrize("penalty", ["sum_log", "max_log"])
def test_its_gradient_is_that_of_finite_differences(model: nn.Module, penalty: str) -> None:
    data, step = batch(), 1e-6
    loss = partial(reasons.right_reasons, model, data, weight=3.0, decay=0.1, penalty=penalty)
    loss().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        for place in range(0, parameter.numel(), 17):
            values = parameter.data.view(-1)
            start, moved = float(values[place]), []
            for sign in (1, -1):
                values[place] = start + sign * step
                moved.append(float(loss()))
            values[place] = start
            expected = (moved[0] - moved[1]) / (2 * step)
            assert float(parameter.grad.view(-1)[place]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def trained(objective: Callable[..., Tensor]) -> Tensor:
    recipe = Recipe(network, epochs=2, batch=32, learning_rate=0.01, objective=objective)
    model = train(initialised(recipe, 0), shortcut(split="train", share=1.0), recipe, 0)
    return torch.cat([each.detach().flatten() for each in model.parameters()])


def test_penalising_what_is_constant_changes_nothing() -> None:
    plain = trained(summed_cross_entropy)
    constant = trained(partial(reasons.right_reasons, weight=1e3, decay=0.0, penalty="sum"))
    torch.testing.assert_close(constant, plain, rtol=1e-3, atol=1e-4)
    real = trained(partial(reasons.right_reasons, weight=1e3, decay=0.0, penalty="sum_log"))
    assert float((real - plain).abs().max()) > 0.1


def test_no_weight_is_plain_training() -> None:
    plain = trained(summed_cross_entropy)
    torch.testing.assert_close(trained(partial(reasons.right_reasons, weight=0.0, decay=0.0)), plain)
    torch.testing.assert_close(trained(partial(reasons.right_reasons, weight=1e-12, decay=0.0)), plain)
    assert not torch.allclose(trained(partial(reasons.right_reasons, weight=0.0, decay=1.0)), plain)


def test_the_weight_that_is_chosen_balances_both_terms() -> None:
    data, recipe = shortcut(split="train", share=1.0), Recipe(network, epochs=9, batch=32, learning_rate=0.01)
    model = initialised(recipe, 0)
    before = [each.clone() for each in model.parameters()]
    weight = reasons.balancing_weight(model, data, recipe, 0, penalty="sum_log")
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    seen = {"answers": 0.0, "reasons": 0.0}

    def noting(model: nn.Module, batch: Data) -> Tensor:
        found = dict(zip(seen, reasons.terms(model, batch, "sum_log"), strict=True))
        for name, value in found.items():
            seen[name] += float(value.detach())
        return found["answers"]

    train(initialised(recipe, 0), data, replace(recipe, epochs=1, objective=noting), 0)
    assert weight == pytest.approx(seen["answers"] / seen["reasons"])
    nothing = replace(data, annotations=torch.zeros_like(data.inputs, dtype=torch.bool))
    with pytest.raises(Unsupported, match="give a weight"):
        reasons.balancing_weight(model, nothing, recipe, 0, penalty="sum_log")


def test_a_share_of_the_examples_keeps_its_annotations() -> None:
    base = Examples.of(shortcut, split="train", share=1.0)
    kept = {}
    for share in (0.1, 0.5, 1.0):
        data = rrr.partly_annotated(base=base, share=share, seed=0)
        assert data.annotations is not None
        kept[share] = data.annotations.any(1)
        assert int(kept[share].sum()) == round(share * len(data))
        assert torch.equal(data.inputs, base.load().inputs)
    assert not (kept[0.1] & ~kept[0.5]).any(), "those of a smaller share are among those of a larger one"
    drawn = [annotated(rrr.partly_annotated(base=base, share=0.5, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]), "another seed, another draw"


class Once(torch.autograd.Function):
    """Squares, and can be differentiated once."""

    @staticmethod
    def forward(context, inputs):  # type: ignore[no-untyped-def]
        context.save_for_backward(inputs)
        return inputs.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):  # type: ignore[no-untyped-def]
        (inputs,) = context.saved_tensors
        return 2 * inputs * gradient


class Squaring(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        squared: Tensor = Once.apply(inputs)
        return squared


def once_only() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 6), Squaring(), nn.Linear(6, 2))


@pytest.mark.parametrize("name", ["rrr", "find_another", "rr_clarc"])
def test_networks_without_a_second_derivative_are_refused_by_name(name: str) -> None:
    task, contrast = described(network=once_only)
    with pytest.raises(Unsupported, match="Once has no second derivative") as caught:
        mended(name, task, contrast)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("network", [network, partial(bvd_cnn, channels=3, pixels=16, width=2)])
def test_shipped_networks_are_not_refused(network: Callable[[], nn.Module]) -> None:
    shape = (FEATURES,) if isinstance(network()[0], nn.Linear) else (3, 16, 16)  # type: ignore[index]
    reasons.refuse_without_second_derivatives(network(), shape)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"weight": -1.0}, "weight of at least 0"), ({"weight": float("nan")}, "weight of at least 0"),
        ({"weight": float("inf")}, "finite weight"), ({"decay": float("inf")}, "finite decay"),
        ({"share": 0.0}, r"share in \(0, 1\]"), ({"share": 1.5}, "share"), ({"penalty": "sun"}, "did you mean 'sum'"),
        ({"penalty": "sum", "weight": 0.0}, "give a weight"),
    ],
)  # fmt: skip
def test_parameters_that_mean_nothing_are_refused(parameters: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        mended("rrr", *described(), **parameters)


def test_parameters_are_in_the_models_key() -> None:
    task, contrast = described()
    options: list[dict[str, object]] = [{}, {"weight": 1.0}, {"weight": 2.0}, {"share": 0.5}, {"decay": 0.0}]
    options += [{"penalty": "max_log"}]
    assert len({mended("rrr", task, contrast, **each).key for each in options}) == len(options)
    assert fixes.get("rrr").swept == "weight"


def test_another_explanation_masks_what_a_loop_masks(model: nn.Module) -> None:
    inputs = batch().inputs
    found = find_another.rested_on(model.eval(), inputs)
    for x, masked in zip(inputs, found, strict=True):
        slope = torch.autograd.functional.jacobian(lambda x: model(x[None])[0].softmax(0).max(), x).abs()
        expected = [bool(slope[d] > 0.67 * slope.max()) for d in range(len(x))]
        assert masked.tolist() == expected
    assert found.any(1).all()
    assert not found.all(1).any()
