"""What a re-initialisation leaves untouched is computed once; no bit of a map and no figure of a cost moves by it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from attribug import bugs, methods, tasks
from attribug.contracts.contrasts import Side
from attribug.maps.asked import asked
from attribug.maps.kept import Explained, explained
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.models.networks import bvd_cnn
from attribug.query.below import Below, Passed, unchanged
from attribug.query.hooks import forward_hooks
from attribug.query.query import Query
from attribug.suites import suite

SMALL = {"train": 40, "test": 20, "epochs": 1, "width": 2}
SHARED = {1: 18, 3: 14, "all": 0}
"""Children of a BVD-CNN before the first that `reinit` changes at a level."""


class Twice(nn.ReLU):
    """Does more than its type says."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    model: nn.Sequential = bvd_cnn(channels=1, classes=3, pixels=16, width=2).eval()
    return model


def derived(change: Callable[[nn.Sequential], object]) -> tuple[nn.Sequential, nn.Sequential]:
    """A model, and one that is made of it."""
    base = chain()
    model = copy.deepcopy(base)
    with torch.no_grad():
        change(model)
    return base, model


def top(model: nn.Sequential) -> None:
    model.get_submodule("dense3").weight.mul_(-2)


def below(base: nn.Module, model: nn.Module) -> Below:
    return Below("base", unchanged(model, base), {}, Passed())


@pytest.fixture
def calls() -> Iterator[Counter[str]]:
    """How often each type of layer runs."""
    counts: Counter[str] = Counter()
    forward = {kind: kind.forward for kind in (nn.Conv2d, nn.Linear)}

    def counted(kind: type[nn.Module], module: nn.Module, x: Tensor) -> Tensor:
        counts[kind.__name__] += len(x)
        result: Tensor = forward[kind](module, x)
        return result

    for kind in forward:
        kind.forward = lambda module, x, kind=kind: counted(kind, module, x)  # type: ignore[method-assign]
    yield counts
    for kind, own in forward.items():
        kind.forward = own  # type: ignore[method-assign]


@pytest.mark.parametrize(("change", "count"), [
    (lambda model: None, 19),
    (top, 18),
    (lambda model: model.conv3.bias.add_(1), 5),
    (lambda model: model.conv1.weight.add_(1), 0),
    (lambda model: setattr(model, "relu5", Twice()), 11),
    (lambda model: setattr(model, "relu5", nn.LeakyReLU()), 11),
    (lambda model: setattr(model, "pool2", nn.MaxPool2d(2, ceil_mode=True)), 4),
    (lambda model: setattr(model.relu2, "forward", torch.sigmoid), 3),
    (lambda model: model.conv2.weight.mul_(float("nan")), 2),
    (lambda model: nn.utils.parametrizations.weight_norm(model.conv2), 2),
    (lambda model: model.conv4.register_buffer("seen", torch.zeros(())), 7),
], ids=["none", "top", "bias", "bottom", "type", "slope", "option", "forward", "nan", "norm", "buffer"])  # fmt: skip
def test_what_is_unchanged_ends_at_the_first_difference(change: Callable[[nn.Sequential], object], count: int) -> None:
    base, model = derived(change)
    assert unchanged(model, base) == count


def test_only_chains_share() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = chain()

    assert unchanged(Net(), Net()) == 0
    assert unchanged(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), nn.Sequential(nn.ReLU(), nn.Linear(2, 2))) == 0, (
        "nothing with weights is shared, so nothing is worth it"
    )
    assert unchanged(nn.Sequential(Twice(), nn.Flatten()), nn.Sequential(Twice(), nn.Flatten())) == 0


def test_a_layer_that_runs_twice_runs_twice() -> None:
    torch.manual_seed(0)
    relu = nn.ReLU()
    base = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))
    model = copy.deepcopy(base)
    with torch.no_grad():
        model[4].weight.mul_(-2)
        shared, inputs = below(base, model), torch.rand(5, 4)
        assert shared.count == 4
        for _ in range(2):
            assert torch.equal(shared.outputs(model, inputs)[0], model(inputs))


@pytest.mark.parametrize("other", [
    nn.AvgPool2d(2, count_include_pad=False), nn.LSTM(2, 2), nn.FractionalMaxPool2d(2, 3), nn.Dropout3d(),
], ids=lambda module: type(module).__name__)  # fmt: skip
def test_layers_that_hide_something_are_not_shared(other: nn.Module) -> None:
    base = nn.Sequential(nn.Conv2d(1, 2, 3), other, nn.Flatten())
    assert unchanged(copy.deepcopy(base), base) == 1


def test_other_types_and_other_signs_of_zero_are_other_weights() -> None:
    base = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert unchanged(copy.deepcopy(base).double(), base) == 0
    with torch.no_grad():
        base[0].bias.zero_()
        model = copy.deepcopy(base)
        model[0].bias.mul_(-1)
    assert torch.equal(model[0].bias, base[0].bias)
    assert unchanged(model, base) == 0


def test_methods_that_may_change_weights_share_nothing(calls: Counter[str]) -> None:
    """A foreign one that puts them back leaves no wrong output behind."""
    task = tasks.get("digits").function(seed=0, other=None, **SMALL)
    contrast = bugs.get("reinit").function(task, 1, 0, [0])
    lab = Lab(Memory())
    (query, _), *_ = asked(contrast, [], lab, torch.arange(2), seed=0, rows=16, about=[contrast.contaminated]).values()
    assert query.below is not None
    occlusion = methods.get("occlusion")

    def wild(query: Query) -> Tensor:
        weight = next(query.model.parameters())
        before = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
            query.forward(query.inputs / 2)
            weight.copy_(before)
        return torch.zeros_like(query.inputs)

    explained(replace(occlusion, name="wild", function=wild), query, {})
    explained(occlusion, query, {})
    calls.clear()
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(query.forward(query.inputs / 2), query.model(query.inputs / 2))
    assert calls["Conv2d"] == 2 * 5 * 3, "the second time, shared layers did not run"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_the_models_own(layout: torch.memory_format, calls: Counter[str]) -> None:
    base, model = derived(top)
    model = model.to(memory_format=layout)
    shared = below(base, model)
    batches = [torch.rand(7, 1, 16, 16).to(memory_format=layout) for _ in range(3)]
    with torch.no_grad():
        expected = [model(batch) for batch in batches]
        calls.clear()
        for times in (1, 2):
            found = [shared.outputs(model, batch.clone(memory_format=torch.preserve_format))[0] for batch in batches]
            assert all(map(torch.equal, found, expected))
            assert calls["Conv2d"] == 5 * 21
            assert calls["Linear"] == (3 + (times == 2)) * 21
        batches[0][0, 0, 0, 0] += 1e-3
        assert torch.equal(shared.outputs(model, batches[0])[0], model(batches[0]))
        turned = batches[1].transpose(2, 3)
        assert torch.equal(shared.outputs(model, turned)[0], model(turned))


def test_who_changes_what_a_pass_gives_changes_only_its_own() -> None:
    base, model = derived(lambda model: (top(model), setattr(model, "relu7", nn.ReLU(inplace=True))))
    shared, inputs = below(base, model), torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        expected = model(inputs)
        for _ in range(3):
            found, _seconds = shared.outputs(model, inputs)
            assert torch.equal(found, expected)
            found.zero_()


def test_a_model_of_shared_layers_alone_hands_out_copies() -> None:
    base, model = derived(lambda model: None)
    shared, inputs = below(base, model), torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        expected = model(inputs)
        for _ in range(3):
            shared.outputs(model, inputs)[0].zero_()
        assert torch.equal(shared.outputs(model, inputs)[0], expected)


@pytest.mark.parametrize(
    "how", ["gradients", "dual numbers", "vmap", "hook", "hook on all", "training", "mode", "functions"]
)
def test_whoever_looks_gets_passes_of_its_own(how: str, calls: Counter[str]) -> None:
    """And what he looks for: a gradient, a tangent, a call of his hook."""
    base, model = derived(top)
    shared, inputs = below(base, model), torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        shared.outputs(model, inputs)
    calls.clear()
    if how == "gradients":
        leaf = inputs.clone().requires_grad_()
        shared.outputs(model, leaf)[0].sum().backward()
        assert leaf.grad is not None
    elif how == "dual numbers":
        with torch.no_grad(), forward_ad.dual_level():
            dual = forward_ad.make_dual(inputs.clone(), torch.ones_like(inputs))
            assert forward_ad.unpack_dual(shared.outputs(model, dual)[0]).tangent is not None
    elif how == "vmap":
        with torch.no_grad():
            each = torch.func.vmap(lambda x: shared.outputs(model, x[None])[0][0])(inputs)
        torch.testing.assert_close(each, model(inputs))
    elif how == "hook":
        told: list[str] = []
        with torch.no_grad(), forward_hooks([model.conv1], lambda *_: told.append("conv1")):
            shared.outputs(model, inputs)
        assert told
    elif how == "hook on all":
        told = []
        handle = nn.modules.module.register_module_forward_hook(lambda *_: told.append("any"))
        with torch.no_grad():
            shared.outputs(model, inputs)
        handle.remove()
        assert len(told) == 20  # and the chain itself
    elif how == "training":
        with torch.no_grad():
            shared.outputs(model.train(), inputs)
    elif how == "functions":
        from torch.overrides import TorchFunctionMode

        class Watching(TorchFunctionMode):
            def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                told.append(function.__name__)
                return function(*args, **(kwargs or {}))

        told = []
        with torch.no_grad(), Watching():
            shared.outputs(model, inputs)
        assert told.count("linear") == 3
    else:
        from torch.utils.flop_counter import FlopCounterMode

        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shared.outputs(model, inputs)
        assert counter.get_total_flops() > 0
    assert calls["Conv2d"] > 0


def test_the_room_is_bounded() -> None:
    passed = Passed()
    passed.ROOM = 10 * 400  # type: ignore[misc]
    for number in range(50):
        passed.keep(number, torch.zeros(100), 0.0)
        passed.get(0)
    assert passed.size == sum(value.nbytes for value, _ in passed.values.values()) <= passed.ROOM
    assert passed.get(49) is not None
    assert passed.get(1) is None
    passed.keep("large", torch.zeros(10_000), 0.0)
    assert not passed.values
    assert passed.size == 0
    assert passed.get("large") is None


def of_every_method(level: int | str, *, alone: bool) -> Iterator[tuple[str, Side, Explained]]:
    """What every method makes of every side of a re-initialisation."""
    task = tasks.get("digits").function(seed=0, other=None, **SMALL)
    contrast = bugs.get("reinit").function(task, level, 0, [0])
    lab = Lab(Memory())
    if alone:
        lab.below = lambda spec: None  # type: ignore[method-assign]
    for side, (query, _) in asked(contrast, [], lab, torch.arange(2), seed=0, rows=16).items():
        if not alone and side.model != contrast.references[0].model:
            shared = lab.below(side.model)
            assert (shared.count if shared else 0) == SHARED[level]
        for name in methods.names():
            method = methods.get(name)
            if method.output == "attributions":
                yield name, side, explained(method, query, suite.load("quick").method_options.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("level", SHARED)
def test_every_map_and_every_count_is_as_without(level: int | str, calls: Counter[str]) -> None:
    counts, found = [], []
    for alone in (True, False):
        calls.clear()
        found.append(list(of_every_method(level, alone=alone)))
        counts.append(calls["Conv2d"])
    for (name, side, one), (_, _, other) in zip(*found, strict=True):
        assert torch.equal(one.maps, other.maps), (name, side)
        assert (one.cost.forward, one.cost.backward) == (other.cost.forward, other.cost.backward), (name, side)
    assert len(found[0]) > 29 * 6
    print(f"examples through convolutions, level {level}: {counts[0]} alone, {counts[1]} shared")
    assert counts[1] == counts[0] if level == "all" else counts[1] < 0.75 * counts[0]
