"""What must not change a map: a bad neighbour, the number type, torch's ambient state, a model with odd parts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

import attribug
from attribug import methods
from attribug.conformance.methods import few
from attribug.maps.guard import MethodFault
from attribug.query.query import Query

NAMES = methods.names()
TARGETS = torch.tensor([0, 1, 2])
PIXELS = 12


def network(*, inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=inplace), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(96, 3),
    ).eval()  # fmt: skip


def images(rows: int = 3) -> Tensor:
    return torch.rand(rows, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(1))


def explained(name: str, model: nn.Module, inputs: Tensor, **more: Any) -> Tensor:
    train = images(40).flip(0).to(inputs.dtype)
    options = {"train_inputs": train, "seed": 7, **few(methods.get(name)), **more}
    return attribug.explain(name, model, inputs, TARGETS[: len(inputs)], **options)


# --- a bad example ---


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_example_leaves_the_others_alone(name, place, bad):
    inputs = images()
    inputs[place, 1, 2, 3] = bad
    others = [row for row in range(3) if row != place]
    found, expected = explained(name, network(), inputs), explained(name, network(), images())
    torch.testing.assert_close(found[others], expected[others], rtol=1e-4, atol=1e-6)
    assert found[others].isfinite().all()


class Standardising(nn.Module):
    """A model that is undefined at an input of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True))


def test_a_model_that_is_undefined_without_all_segments_has_no_shapley_values():
    with pytest.raises(attribug.Unsupported, match="not finite where all segments are left out"):
        explained("kernel_shap", Standardising(), images())
    bad = images()
    bad[:] = torch.nan
    assert not explained("kernel_shap", network(), bad).isfinite().any()  # the inputs' fault, not the model's


# --- number types ---


@pytest.mark.parametrize("name", NAMES)
def test_a_float64_twin_is_explained_alike(name):
    found, twin = explained(name, network(), images()), explained(name, network().double(), images().double())
    assert twin.dtype == torch.float64
    torch.testing.assert_close(found.double(), twin, rtol=1e-3, atol=1e-5 * float(twin.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_maps_of_models_in_half_precision_hold_what_float32_holds(name, dtype):
    model, inputs = network().to(dtype), images().to(dtype)
    found, exact = explained(name, model, inputs), explained(name, network().to(dtype).double(), inputs.double())
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    lost = (found == 0) & (exact.abs() > 1e-3 * exact.abs().max())
    assert float(lost.double().mean()) < 0.01
    assert torch.corrcoef(torch.stack([found.double().flatten(), exact.flatten()]))[0, 1] > 0.98


@pytest.mark.parametrize("name", ["vargrad", "smoothgrad_squared", "gradient"])
def test_small_gradients_of_float16_do_not_underflow(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    inputs = torch.rand(1, 3, 160, 160)
    found, exact = explained(name, model.half(), inputs.half()), explained(name, model.double(), inputs.half().double())
    assert float(((found == 0) & (exact != 0)).double().mean()) < 0.01
    assert float((found - exact).norm() / exact.norm()) < 0.05


# --- torch's ambient state ---


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


class Placing(nn.Module):
    """A model that makes a tensor where the default device says."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.devices = network(), []

    def forward(self, x: Tensor) -> Tensor:
        self.devices.append(torch.zeros(1).device.type)
        return self.net(x)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_device_is_the_models_business(name):
    expected = explained(name, network(), images())
    inputs, train, model = images(), images(40).flip(0), Placing()
    with default_device():
        options = few(methods.get(name))
        found = attribug.explain(name, model, inputs, TARGETS, train_inputs=train, seed=7, **options)
        assert torch.get_default_device().type == "meta"
    assert torch.equal(found, expected)
    assert set(model.devices) <= {"meta", "cpu"}
    assert "meta" in model.devices


# --- models with odd parts, which are neither copied nor blamed ---


class Counting(nn.Module):
    """Counts its passes in a buffer, keeps its features, and holds a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.lock = network(inplace=True), threading.Lock()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.passes += 1
        self.features = self.net[:5](x)
        return self.net[5:](self.features)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_counts_keeps_and_locks_is_explained(name):
    model = Counting()
    model(images())
    expected = explained(name, network(), images())
    torch.testing.assert_close(explained(name, model, images()), expected, rtol=1e-4, atol=1e-6)
    assert model.passes == 1
    assert model.net[1].inplace


def test_a_method_that_writes_to_another_buffer_is_still_caught():
    model = Counting()
    model.register_buffer("other", torch.zeros(3))

    def writes(query: Query) -> Tensor:
        query.model.other += 1
        return query.gradient()

    from attribug.contracts.pieces import Method
    from attribug.maps.attribution import attributions

    with pytest.raises(MethodFault, match="changed the model's weights or buffers"):
        attributions(Method("writes", writes), Query(model.eval(), images(), TARGETS), {})
    assert not model.other.any()


@pytest.mark.parametrize("name", ["gradient", "occlusion", "guided_backprop", "deep_lift", "lime"])
def test_pruned_models_that_work_in_place_are_explained(name):
    model = network(inplace=True)
    prune.l1_unstructured(model[0], "weight", 0.3)
    model(images())
    assert torch.equal(explained(name, model, images()), explained(name, baked(model), images()))


def baked(model: nn.Sequential) -> nn.Sequential:
    plain = network()
    plain[0].weight = nn.Parameter(model[0].weight.detach().clone())
    return plain


# --- what a call costs ---


class Sizes(TorchDispatchMode):
    """How many elements every operation makes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not any(
            isinstance(each, Tensor) and each.untyped_storage()._cdata == result.untyped_storage()._cdata
            for each in args
        ):
            self.made.append(result.numel())
        return result


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "guided_backprop", "deep_lift", "occlusion"])
def test_a_call_copies_no_weights(name):
    model = network()
    model[6] = nn.Sequential(nn.Linear(96, 977), nn.ReLU(), nn.Linear(977, 3))
    with Sizes() as sizes:
        explained(name, model, images())
    assert sizes.made
    assert 96 * 977 not in sizes.made


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize(("name", "own"), [("gradient", 1), ("guided_backprop", 1), ("deep_lift", 4)])
def test_a_call_costs_two_gradients_beyond_the_methods_own(name, own, rows):
    class Passing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.passed = network(), [0, 0]

        def forward(self, x: Tensor) -> Tensor:
            self.passed[0] += len(x)
            if x.requires_grad:
                x.register_hook(lambda gradient: self.passed.__setitem__(1, self.passed[1] + len(gradient)))
            return self.net(x)

    model = Passing()
    explained(name, model, images(rows))
    assert model.passed[0] <= (2 + own) * rows
    assert model.passed[1] <= (2 + own) * rows
