"""The guard around methods: garbage is refused, models and inputs come back as they were."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch import nn

import attribug
from attribug.contracts.pieces import Method
from attribug.maps.attribution import attributions
from attribug.maps.guard import MethodFault, evaluated, guarded
from attribug.query.query import Query


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(48, 3)
    ).eval()


def query(explained: nn.Module | None = None) -> Query:
    inputs = torch.rand(4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return Query(explained or model(), inputs, torch.tensor([0, 1, 2, 0]))


def run(function, asked: Query | None = None, **facts):
    return attributions(Method("mine", function, **facts), asked or query(), {})


# --- what comes back ---


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda q: None, "expected a tensor, found NoneType"),
        (lambda q: q.gradient().numpy(), "expected a tensor, found ndarray"),
        (lambda q: (q.gradient(), 0), "expected a tensor, found tuple"),
        (lambda q: q.gradient().long(), "expected floating-point maps, found torch.int64"),
        (lambda q: q.gradient() > 0, "expected floating-point maps, found torch.bool"),
        (lambda q: q.gradient().sum(1), r"expected maps \(4, 2, 4, 4\), found \(4, 4, 4\)"),
        (lambda q: q.gradient()[:3], r"expected maps \(4, 2, 4, 4\), found \(3, 2, 4, 4\)"),
        (lambda q: q.gradient().mean(1, keepdim=True), r"expected maps \(4, 2, 4, 4\), found \(4, 1, 4, 4\)"),
    ],
)
def test_garbage_is_a_fault(result, message):
    with pytest.raises(MethodFault, match=message):
        run(result)


@pytest.mark.parametrize("result", [lambda q: q.gradient(), lambda q: q.outputs()[:2], lambda q: q.outputs()[0]])
def test_garbage_instead_of_probabilities_is_a_fault(result):
    with pytest.raises(MethodFault, match=r"expected probabilities \(4, K\), found"):
        run(result, output="probabilities")


def test_maps_come_detached():
    asked = query()
    asked.inputs.requires_grad_(True)
    assert not run(lambda q: q.inputs * 2, asked).requires_grad
    assert run(lambda q: q.outputs(), output="probabilities").shape == (4, 3)


def test_parameters_reach_the_method():
    found = attributions(Method("mine", lambda q, *, factor: q.inputs * factor), query(), {"factor": 3})
    assert torch.equal(found, query().inputs * 3)


def test_what_a_method_raises_passes_through():
    class Odd(Exception):
        pass

    def fails(asked):
        raise Odd

    with pytest.raises(Odd):
        run(fails)


def test_methods_may_rely_on_gradients():
    def plain(asked):
        leaf = asked.inputs.clone().requires_grad_(True)
        asked.model(leaf).sum().backward()
        return leaf.grad

    with torch.no_grad():
        inside = run(plain)
    assert torch.equal(inside, run(plain))


# --- what must not change, and is put back where it did ---


def zero_in_place(asked):
    with torch.no_grad():
        asked.model[0].weight.zero_()


def zero_behind_autograd(asked):
    asked.model[0].weight.data.zero_()


def other_data(asked):
    asked.model[5].bias.data = torch.zeros(3)


def other_type(asked):
    asked.model.double()


def other_parameter(asked):
    asked.model[5].weight = nn.Parameter(torch.zeros(3, 48))


def other_statistics(asked):
    asked.model.train()
    asked.model(asked.inputs)


def loaded(asked):
    asked.model.load_state_dict({name: value + 1 for name, value in asked.model.state_dict().items()})


def hidden_layer(asked):
    asked.model.append(nn.Linear(3, 3))


CHANGES = [
    zero_in_place, zero_behind_autograd, other_data, other_type, other_parameter, other_statistics, loaded,
    hidden_layer,
]  # fmt: skip


def values(of: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in of.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype and torch.equal(one[n], other[n]) for n in one
    )


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_method_that_changes_weights_is_caught_and_they_are_put_back(change, fails):
    asked = query()
    before, objects = values(asked.model), [id(p) for p in asked.model.parameters()]

    def method(q):
        change(q)
        if fails:
            raise KeyError("mid-run")
        return q.inputs

    expected = pytest.raises(KeyError) if fails else pytest.raises(MethodFault, match="changed the model's weights")
    with expected:
        run(method, asked)
    assert same(values(asked.model), before)
    assert [id(p) for p in asked.model.parameters()] == objects
    assert not asked.model.training


def test_weights_that_a_method_puts_back_itself_are_no_fault():
    def method(q):
        weight = q.model[0].weight
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.clamp_(min=0)
            weight.copy_(kept)
        return q.inputs

    assert run(method) is not None


def test_weights_with_nan_are_no_fault():
    asked = query()
    with torch.no_grad():
        asked.model[0].weight[0] = torch.nan
    assert run(lambda q: q.inputs, asked) is not None
    with pytest.raises(MethodFault):
        run(lambda q: zero_behind_autograd(q) or q.inputs, asked)
    assert asked.model[0].weight[0].isnan().all()


@pytest.mark.parametrize(
    "change",
    [
        lambda q: q.inputs.mul_(2), lambda q: q.inputs.data.zero_(), lambda q: q.inputs.numpy().fill(1),
        lambda q: q.targets.zero_(), lambda q: q.ids.add_(1),
    ],
)  # fmt: skip
def test_a_method_that_changes_its_inputs_is_caught_and_they_are_put_back(change):
    asked = query()
    before = [each.clone() for each in (asked.inputs, asked.targets, asked.ids)]
    with pytest.raises(MethodFault, match="changed its inputs, targets or ids"):
        run(lambda q: (change(q), q.gradient())[1], asked)
    assert all(torch.equal(*pair) for pair in zip(before, (asked.inputs, asked.targets, asked.ids), strict=True))


def test_one_methods_fault_is_not_anothers():
    """Methods of a block share a query: what one spoils, the next must not see."""
    asked, expected = query(), run(lambda q: q.gradient())

    def spoils(q):
        q.inputs.zero_()
        q.model[0].weight.data.zero_()
        q.gradient().zero_()
        return q.gradient()

    with pytest.raises(MethodFault):
        run(spoils, asked)
    fresh = Query(asked.model, asked.inputs, asked.targets)
    assert torch.equal(run(lambda q: q.gradient(), fresh), expected)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("fails", [False, True])
def test_modes_hooks_gradients_and_random_states_are_put_back(fails):
    explained = model()
    explained[1].train()
    explained[5].weight.requires_grad_(False)
    explained[0].weight.grad = torch.ones_like(explained[0].weight)
    gradient, calls = explained[0].weight.grad, []
    explained[2].register_forward_hook(lambda *_: calls.append("user's"))
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    before = values(explained)

    def untidy(q):
        q.model.eval()
        for module in q.model.modules():
            module.register_forward_hook(lambda *_: calls.append("left behind"))
            module.register_forward_pre_hook(lambda *_: calls.append("left behind"))
            module.register_full_backward_hook(lambda *_: calls.append("left behind"))
            module.register_full_backward_pre_hook(lambda *_: calls.append("left behind"))
        q.model.requires_grad_(True)
        q.model(q.inputs).sum().backward()
        q.inputs.requires_grad_(True)
        torch.rand(1)
        np.random.rand()
        random.random()
        if fails:
            raise KeyError("mid-run")
        return torch.zeros_like(q.inputs)

    asked = query(explained)
    if fails:
        with pytest.raises(KeyError):
            run(untidy, asked)
    else:
        run(untidy, asked)
    assert "left behind" in calls
    calls.clear()
    assert [module.training for module in explained] == [False, True, False, False, False, False]
    assert [p.requires_grad for p in explained[5].parameters()] == [False, True]
    assert explained[0].weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert explained[5].bias.grad is None
    assert not asked.inputs.requires_grad
    assert same(values(explained), before)
    after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    assert torch.equal(after[0], states[0])
    assert after[1:] == states[1:]
    explained.eval()(asked.inputs.clone().requires_grad_(True)).sum().backward()
    assert calls == ["user's"]
    for module in explained:
        module.register_backward_hook(lambda *_: None)  # refused by torch where a full hook was ever left


def test_a_hook_that_a_method_removed_is_back():
    explained, calls = model(), []
    explained[2].register_forward_hook(lambda *_: calls.append(1))
    run(lambda q: (q.model[2]._forward_hooks.clear(), q.inputs)[1], query(explained))
    calls.clear()
    explained(query().inputs)
    assert calls == [1]


def test_a_module_that_a_method_swapped_is_back():
    explained = model()
    relu = explained[2]

    def swaps(q):
        q.model[2] = nn.GELU()
        return q.inputs

    run(swaps, query(explained))
    assert explained[2] is relu


def test_the_guard_protects_foreign_code_alone():
    explained = model()
    with guarded(explained):
        explained.train()
    assert not explained.training

    with contextlib.suppress(MethodFault), guarded(explained):
        explained[0].weight.data.zero_()
    assert explained[0].weight.any()


# --- models made ready ---


def test_models_are_explained_in_eval_mode_and_get_their_modes_back():
    explained = model().train()
    explained[1].eval()
    with contextlib.suppress(KeyError), evaluated(explained) as ready:
        assert ready is explained
        assert not any(module.training for module in ready.modules())
        raise KeyError
    assert [module.training for module in explained] == [True, False, True, True, True, True]


def test_modules_that_work_in_place_do_not_while_they_are_explained():
    explained = model()
    explained[2].inplace = explained[3].inplace = True
    with contextlib.suppress(KeyError), evaluated(explained) as ready:
        assert ready is explained
        assert not any(getattr(module, "inplace", False) for module in ready.modules())
        raise KeyError
    assert [getattr(module, "inplace", None) for module in explained] == [None, None, True, True, None, None]


# --- preflight ---


def test_the_preflight_runs_before_the_method_and_leaves_nothing():
    asked = query(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    with pytest.raises(attribug.Unsupported, match="the model has no ReLU"):
        run(lambda q: pytest.fail("the method ran"), asked, needs=("relu_modules",))
    asked = query()
    run(lambda q: q.gradient(), asked, needs=("relu_modules",))
    assert not any(module._forward_hooks for module in asked.model.modules())


def test_the_preflight_is_not_charged():
    asked = query()
    with asked.costing() as costing:
        run(lambda q: q.gradient(), asked, needs=("relu_modules",))
    assert costing.cost.forward == 4


@pytest.mark.parametrize(("answer", "found"), [(lambda x: (x, x), "found tuple"), (lambda x: x.sum(), r"found \(\)")])
def test_the_preflight_refuses_models_without_logits(answer, found):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, inputs):
            return answer(self.relu(inputs))

    with pytest.raises(attribug.Unsupported, match=r"expected logits \(N, K\) from the model, " + found):
        run(lambda q: q.gradient(), query(Odd()), needs=("relu_modules",))
