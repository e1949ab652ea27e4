"""Operations that depend on the input are seen as they run, whatever autograd knows of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attribug.query.trace import trace


class Calling(nn.Module):
    """A function of a tensor that becomes logits, beside modules that it may use."""

    def __init__(self, function: Callable[["Calling", Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.relu, self.dense = function, nn.ReLU(), nn.Linear(8, 8)
        self.register_buffer("number", torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x).flatten(1)


def seen(function: Callable[[Calling, Tensor], Tensor]):
    torch.manual_seed(0)
    return trace(Calling(function).eval(), torch.rand(1, 8))


def steps(function: Callable[[Calling, Tensor], Tensor]) -> dict[str, bool]:
    """Operations by name: whether each is linear."""
    return {step.name: step.linear for step in seen(function).steps if step.name not in {"clone", "view"}}


def gate_without_gradient(module: Calling, x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = (x * 3).sigmoid()
    return x * gate


def through_memory(module: Calling, x: Tensor) -> Tensor:
    place = torch.zeros(x.shape)
    place[:, :4] = x[:, :4]
    return place.tanh()


def weights_made_anew(module: Calling, x: Tensor) -> Tensor:
    weight = module.dense.weight / module.dense.weight.norm() * module.number.exp()
    return functional.linear(x, weight)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: (x - m.number) / m.number, {"sub": True, "div": True}),
        (lambda m, x: m.number / x, {"div": False}),
        (lambda m, x: x * x, {"mul": False}),
        (lambda m, x: x * x.detach(), {"detach": True, "mul": False}),
        (lambda m, x: (x @ x.T).expand(1, 8), {"mm": False}),
        (gate_without_gradient, {"mul": False, "sigmoid": False}),
        (through_memory, {"tanh": False, "slice": True, "copy": True}),
        (weights_made_anew, {"mm": True}),  # what is made of weights alone does not depend on the input
        (lambda m, x: torch.where(m.number > 0, x, -x), {"neg": True, "where": True}),
        (lambda m, x: torch.where(x > 0, x, -x), {"neg": True, "where": False}),
        (lambda m, x: x.masked_fill(x > 0, 0.0), {"masked_fill": False}),
        (lambda m, x: torch.zeros_like(x) + m.number, {}),
        (lambda m, x: x.new_zeros(1, 8).sigmoid(), {}),
        (lambda m, x: x.flip(1).roll(1) + x, {"flip": True, "roll": True, "add": True}),
        (lambda m, x: x.sort().values, {"sort": False}),
        (lambda m, x: x if bool((x > -1).all()) else -x, {}),
        (lambda m, x: m.relu(m.dense(x)), {"addmm": True, "relu": False}),
    ],
)
def test_what_runs_and_whether_it_is_linear(function, expected):
    found = steps(function)
    assert {name: found.get(name) for name in expected} == expected
    unlike = {name for name, linear in found.items() if not linear} - set(expected)
    assert not unlike
    if not expected:
        assert set(found) <= {"clone", "view"}


def test_operations_belong_to_the_innermost_module_that_runs():
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu()

    model = nn.Sequential(nn.Linear(8, 4), nn.Sequential(nn.ReLU(), Inner()))
    found = trace(model.eval(), torch.rand(1, 8))
    rectifiers = [step for step in found.steps if step.name == "relu"]
    assert [step.module for step in rectifiers] == [model[1][0], model[1][1]]
    assert [found.told(step) for step in rectifiers] == ["Relu (ReLU '1.0')", "Relu (Inner '1.1')"]
    assert [step.module for step in found.steps if step.name == "addmm"] == [model[0]]


def test_several_operations_of_one_module_are_all_its_own():
    model = nn.Sequential(nn.Linear(4, 3), nn.AvgPool1d(3), nn.Flatten()).eval()
    found = trace(model, torch.rand(1, 5, 4))
    assert {step.module for step in found.steps if not step.hands_on} == {model[0], model[1]}


@pytest.mark.parametrize(("norm", "own"), [(nn.InstanceNorm2d(3), True), (nn.BatchNorm2d(3), False)])
def test_norms_by_own_statistics_are_not_linear(norm, own):
    found = trace(nn.Sequential(norm, nn.Flatten()).eval(), torch.rand(1, 3, 4, 4))
    assert any(step.own_statistics for step in found.steps) is own
    assert all(step.linear for step in found.steps) is not own


def test_outputs_that_are_overwritten_are_named():
    def overwriting(module: Calling, x: Tensor) -> Tensor:
        hidden = module.dense(x)
        hidden += x
        return module.relu(hidden)

    found = seen(overwriting)
    assert {type(module) for module in found.overwritten} == {nn.Linear}
    assert not seen(lambda m, x: m.relu(m.dense(x) + x)).overwritten


def test_hooks_come_off_and_the_graph_stays():
    model = Calling(lambda m, x: m.relu(m.dense(x)))
    found = trace(model, torch.rand(1, 8))
    assert found.outputs.grad_fn is not None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert found.without_tensors().outputs.numel() == 0
    assert found.without_tensors().steps == found.steps
