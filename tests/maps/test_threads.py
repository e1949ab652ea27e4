"""Threads of torch in a plain process: how many passes get, and that they are as before afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import attribug
from attribug import methods
from attribug.contracts.data import Data
from attribug.contracts.pieces import Method
from attribug.errors import InputError, Unsupported
from attribug.maps import threads
from attribug.maps.attribution import attributions
from attribug.maps.guard import MethodFault
from attribug.models.networks import bvd_cnn
from attribug.query.query import Query
from attribug.query.settings import one_thread

INPUTS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 0])


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """This process goes on with the threads that it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2, 3])
def own(request) -> int:
    """Threads that the caller has set."""
    torch.set_num_threads(request.param)
    return request.param


class Watched(nn.Module):
    """A small model that notes the threads of every pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = bvd_cnn(pixels=16, width=4)
        self.seen: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(torch.get_num_threads())
        outputs: Tensor = self.inner(inputs)
        return outputs


@pytest.fixture
def large(monkeypatch) -> None:
    """Every model counts as one whose operations are worth sharing."""
    monkeypatch.setattr(threads, "WORTH_SHARING", 1.0)


def timed(monkeypatch, *, shared: float) -> list[int]:
    """Products take a second in one thread, and `shared` in several; returns the list of what is timed."""
    asked = []

    def seconds(number: int) -> float:
        asked.append(number)
        return 1.0 if number == 1 else shared

    monkeypatch.setattr(threads, "_seconds_of_products", seconds)
    return asked


def explain(model: nn.Module, name: str = "smoothgrad", **options) -> Tensor:
    return attribug.explain(name, model, INPUTS, TARGETS, train_inputs=INPUTS, **options)


@pytest.fixture(params=["smoothgrad", "vargrad", "kernel_shap", "lrp_epsilon", "pattern_net"])
def name(request) -> str:
    """A method of each way to run passes."""
    return request.param


# --- how many ---


def test_a_small_model_runs_in_one(own, name):
    model = Watched()
    explain(model, name)
    assert set(model.seen) == {1}
    assert torch.get_num_threads() == own


def test_maps_of_a_small_model_are_a_runs_to_the_last_bit(own, name):
    found = explain(Watched(), name)
    with one_thread():  # as in a worker
        query = Query(Watched().eval(), INPUTS, TARGETS, train=training_data)
        assert torch.equal(found, attributions(methods.get(name), query, {}))


def training_data() -> Data:
    return Data(INPUTS, TARGETS, torch.arange(len(INPUTS)))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("shared", "expected"), [(0.5, 3), (1.0, 1), (2.0, 1)])
def test_a_large_model_gets_what_is_faster(shared, expected, monkeypatch):
    timed(monkeypatch, shared=shared)
    torch.set_num_threads(3)
    model = Watched()
    explain(model)
    assert model.seen[-1] == expected
    assert set(model.seen[:3]) == {1}, "it is looked at in one"
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("large")
def test_a_callers_single_thread_stays_and_nothing_is_timed(monkeypatch):
    asked = timed(monkeypatch, shared=0.1)
    torch.set_num_threads(1)
    model = Watched()
    explain(model)
    assert set(model.seen) == {1}
    assert asked == []


@pytest.mark.usefixtures("large")
def test_methods_of_a_call_share_the_choice(monkeypatch):
    asked = timed(monkeypatch, shared=0.1)
    torch.set_num_threads(3)
    attribug.explain(["smoothgrad", "gradient", "occlusion"], Watched(), INPUTS, TARGETS)
    assert sorted(asked) == [1, 3]


@pytest.mark.usefixtures("large")
def test_several_threads_move_last_bits_at_most(monkeypatch):
    timed(monkeypatch, shared=0.1)
    torch.set_num_threads(3)
    assert torch.allclose(explain(Watched()), explain(Watched(), threads=1), rtol=1e-4, atol=1e-6)


def test_work_is_counted_an_example():
    torch.set_num_threads(2)
    model = bvd_cnn(pixels=16, width=4).eval()
    with FlopCounterMode(display=False) as counter:
        model(INPUTS)
    for count in (1, 2, 3):
        query = Query(model, INPUTS[:count], TARGETS[:count])
        assert threads._operations(query) == pytest.approx(counter.get_total_flops() / len(INPUTS))


def test_the_bound_lies_between_the_networks_that_it_names():
    from torchvision.models import resnet18

    for model, pixels, few in ((bvd_cnn(), 32, True), (resnet18(weights=None), 64, False)):
        query = Query(model.eval(), torch.rand(1, 3, pixels, pixels), torch.tensor([0]))
        assert (threads._operations(query) < threads.WORTH_SHARING) is few


class Unwatchable(Watched):
    """A model that refuses to be counted."""

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise NotImplementedError("an operation that nobody may watch")
        return super().forward(inputs)


@pytest.mark.usefixtures("large")
def test_a_model_that_cannot_be_counted_runs_in_one(monkeypatch):
    timed(monkeypatch, shared=0.1)
    torch.set_num_threads(2)
    model = Unwatchable()
    assert explain(model, "gradient").isfinite().all()
    assert set(model.seen) == {1}
    assert torch.get_num_threads() == 2


def test_products_take_time():
    assert threads._seconds_of_products(2) > 0
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_passes_leave_threads_alone(own):
    model = Watched().cuda()
    attribug.explain("smoothgrad", model, INPUTS.cuda(), TARGETS)
    assert set(model.seen) == {own}


@pytest.mark.usefixtures("large")
def test_inputs_elsewhere_than_on_a_cpu_leave_threads_alone(monkeypatch):
    """On the meta device, where nothing is computed: no GPU is needed."""
    asked = timed(monkeypatch, shared=0.1)
    torch.set_num_threads(3)
    query = Query(Watched().to("meta"), INPUTS.to("meta"), TARGETS)
    threads.for_passes(query, threads.before_passes(query))
    assert torch.get_num_threads() == 3
    assert asked == []


# --- asked for ---


@pytest.mark.parametrize("number", [1, 2, 4, np.int64(2)])
def test_as_many_as_asked_for(own, name, number):
    model = Watched()
    explain(model, name, threads=number)
    assert set(model.seen) == {number}
    assert torch.get_num_threads() == own


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True, np.float64(2)])
def test_anything_else_is_wrong_input(wrong):
    with pytest.raises(InputError, match="threads: expected a whole number from 1 on, or None, found"):
        explain(Watched(), threads=wrong)


# --- as before afterwards ---


class Wrong(Exception):
    """Raised by foreign code."""


def fails(query: Query) -> Tensor:
    raise Wrong


def declines(query: Query) -> Tensor:
    raise Unsupported("not this one")


def garbage(query: Query) -> None:
    torch.set_num_threads(5)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("asked", [None, 2])
@pytest.mark.parametrize(
    ("function", "error"), [(fails, Wrong), (declines, Unsupported), (garbage, MethodFault)]
)  # fmt: skip
def test_threads_are_as_before_after_a_raise(own, function, error, asked, monkeypatch):
    timed(monkeypatch, shared=0.1)
    query = Query(Watched().eval(), INPUTS, TARGETS, threads=asked)
    with pytest.raises(error):
        attributions(Method("mine", function), query, {})
    assert torch.get_num_threads() == own


def test_threads_are_as_before_where_the_model_raises(own):
    with pytest.raises(Unsupported), contextlib.suppress(RuntimeError):
        attribug.explain("smoothgrad", nn.Flatten(0), INPUTS, TARGETS)
    assert torch.get_num_threads() == own


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("inner", [None, 1, 4])
def test_a_call_inside_a_call_puts_back_what_it_found(own, inner, monkeypatch):
    timed(monkeypatch, shared=0.1)
    around = []

    def nested(query: Query) -> Tensor:
        before = torch.get_num_threads()
        maps = attribug.explain("gradient", query.model, query.inputs, query.targets, threads=inner)
        around.append((before, torch.get_num_threads()))
        return maps

    attributions(Method("mine", nested), Query(Watched().eval(), INPUTS, TARGETS), {})
    assert around == [(own, own)]
    assert torch.get_num_threads() == own
