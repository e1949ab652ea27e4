"""What every registered method must keep, in checks of its name alone; and broken methods that each check refuses."""

import contextlib
import copy
import inspect
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attribug
from attribug import methods
from attribug.attribution import MethodFault
from attribug.networks import bvd_cnn

torch.set_num_threads(1)
NAMES = methods.names()
FEW = {"samples": 24, "steps": 24}  # 3 examples × 24: more than the 64 rows of one pass
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
CLASSES, PIXELS, BROKEN = 3, 16, "test_broken"
TARGETS = torch.tensor([2, 0, 1])


def network(dtype: torch.dtype = torch.float64, *, channels: int = 3, pixels: int = PIXELS) -> nn.Module:
    """A BVD-CNN with lively gradients, in eval mode; the same weights at every call."""
    model = bvd_cnn(channels=channels, classes=CLASSES, pixels=pixels, width=4)
    return reseeded(model).to(dtype).eval()


def reseeded(model: nn.Module) -> nn.Module:
    stream = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=stream)
        else:
            nn.init.normal_(parameter, 0.5, 0.1, generator=stream)
    return model


def images(
    dtype: torch.dtype = torch.float64, *, channels: int = 3, size: tuple[int, int] = (PIXELS, PIXELS)
) -> Tensor:
    return torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def few(names: Sequence[str]) -> dict[str, Any]:
    """Small parameters, of those that some of the methods have."""
    known = {parameter for name in names for parameter in inspect.signature(methods.get(name).function).parameters}
    return {name: value for name, value in FEW.items() if name in known}


def explained(name: str, model: nn.Module, inputs: Tensor, targets: Tensor = TARGETS, **options: Any) -> Tensor:
    train = torch.rand(8, *inputs.shape[1:], generator=torch.Generator().manual_seed(2), dtype=inputs.dtype).to(
        inputs.device
    )
    return attribug.explain(name, model, inputs, targets, **{"train_inputs": train, **few([name]), **options})


def close(one: Tensor, other: Tensor) -> bool:
    """Equal up to the rounding of float64 sums in another order."""
    return torch.allclose(one, other, rtol=1e-8, atol=1e-10 * float(other.abs().max()))


# --- the checks ---


def check_shape_type_device(name: str) -> None:
    for device, dtype in itertools.product(DEVICES, (torch.float32, torch.float64)):
        inputs = images(dtype).to(device)
        maps = explained(name, network(dtype).to(device), inputs, TARGETS.to(device))
        expected = inputs.shape if methods.get(name).output == "attributions" else (len(inputs), CLASSES)
        assert maps.shape == expected
        assert (maps.dtype, maps.device) == (inputs.dtype, inputs.device)
        assert maps.isfinite().all()
        assert not maps.requires_grad


def check_says_something(name: str) -> None:
    """No map is constant on a network with lively gradients."""
    maps = explained(name, network(), images()).flatten(1)
    assert (maps.amax(1) > maps.amin(1)).all()


def check_seed(name: str) -> None:
    """The seed, and nothing else random, decides; another seed matters exactly where the method says so."""
    maps = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        random.seed(global_seed)
        maps.append(explained(name, network(), images(), seed=seed))
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2]) != methods.get(name).stochastic


def check_batch_equals_one_by_one(name: str) -> None:
    model, inputs, ids = network(), images(), torch.tensor([7, 40, 3])
    together = explained(name, model, inputs, ids=ids)
    for row in range(len(inputs)):
        one = slice(row, row + 1)
        assert close(explained(name, model, inputs[one], TARGETS[one], ids=ids[one]), together[one])
    order = torch.tensor([1, 2, 0])
    assert close(explained(name, model, inputs[order], TARGETS[order], ids=ids[order]), together[order])


def check_order_of_requests(names: Sequence[str]) -> None:
    """Alone, in a list and in the reversed list: the same bits."""
    model, inputs = network(), images()
    lists = []
    for order in (list(names), list(names)[::-1]):
        lists.append(attribug.explain(order, model, inputs, TARGETS, train_inputs=images(), **few(names)))
    for name in names:
        alone = explained(name, model, inputs, train_inputs=images())
        assert torch.equal(lists[0][name], alone)
        assert torch.equal(lists[1][name], alone)


def check_target(name: str) -> None:
    """The maps change with the target exactly where the method says that it uses it."""
    model, inputs = network(), images()
    one, other = (explained(name, model, inputs, targets) for targets in (TARGETS, (TARGETS + 1) % CLASSES))
    for row in range(len(inputs)):
        assert torch.equal(one[row], other[row]) != methods.get(name).uses_target


def check_explains_a_logit(name: str) -> None:
    """What uses a target explains its logit: the other classes' weights do not matter, as they would after softmax."""
    model, inputs = network(), images()
    if methods.get(name).uses_target:
        for row, target in enumerate(TARGETS.tolist()):
            alone = copy.deepcopy(model)
            with torch.no_grad():
                for parameter in alone.dense3.parameters():
                    parameter[torch.arange(CLASSES) != target] = 0
            one, ids = slice(row, row + 1), torch.tensor([row])
            found = [explained(name, each, inputs[one], TARGETS[one], ids=ids) for each in (model, alone)]
            assert close(*found)


def check_explains_eval_mode(name: str) -> None:
    """A model in training mode is explained as in eval mode, under no_grad and with frozen weights as without."""
    model, inputs = awkward(), images()
    with torch.no_grad():
        try:
            training = explained(name, model.train(), inputs)
        except attribug.Unsupported:
            return
    assert torch.equal(training, explained(name, model.eval(), inputs))
    assert torch.equal(training, explained(name, model.requires_grad_(False), inputs))


def check_leaves_everything(name: str, *, after: int | None = None) -> None:
    """Model, inputs and global random states are as they were; also when the model fails after some passes."""
    model, tensors = awkward(), (images().requires_grad_(), TARGETS.clone(), torch.arange(3), images())
    if after is not None:
        model = Failing(model, after)
    before = state(model, tensors)
    with contextlib.suppress(attribug.Unsupported, OnPurpose):
        explained(name, model, tensors[0], tensors[1], ids=tensors[2], train_inputs=tensors[3])
    assert state(model, tensors) == before


def check_survives_failing_models(name: str) -> None:
    for after in range(3):  # the first pass only asks for the number of classes
        check_leaves_everything(name, after=after)


def check_other_shapes(name: str) -> None:
    """One channel, odd and oblong images: finite maps of the right shape, or a refusal."""
    for channels, size in ((1, (16, 16)), (3, (17, 17)), (2, (13, 18))):
        inputs = images(channels=channels, size=size)
        model = oblong(channels) if size[0] != size[1] else network(channels=channels, pixels=size[0])
        try:
            maps = explained(name, model, inputs)
        except attribug.Unsupported:
            continue
        assert maps.shape == (inputs.shape if methods.get(name).output == "attributions" else (3, CLASSES))
        assert maps.isfinite().all()


CHECKS = [
    check_shape_type_device, check_says_something, check_seed, check_batch_equals_one_by_one, check_target,
    check_explains_a_logit, check_explains_eval_mode, check_leaves_everything, check_survives_failing_models,
    check_other_shapes,
]  # fmt: skip


# --- models, and what of them a method might change ---


class OnPurpose(RuntimeError):
    """What a failing model raises."""


class Failing(nn.Module):
    """A model that fails after some calls."""

    def __init__(self, model: nn.Module, after: int) -> None:
        super().__init__()
        self.model, self.after, self.calls = model, after, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.after:
            raise OnPurpose
        return self.model(inputs)


def awkward() -> nn.Module:
    """Batch normalisation and dropout, mixed modes, a frozen weight, a gradient, a hook of the user's."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(),
        nn.Linear(4 * (PIXELS // 2) ** 2, CLASSES),
    ).double()  # fmt: skip
    reseeded(model).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[6].weight.grad = torch.full_like(model[6].weight, 0.5)
    model[3].register_forward_hook(keep)
    return model


def keep(module: nn.Module, args: object, output: Tensor) -> None:
    """A hook that does nothing."""


def oblong(channels: int) -> nn.Module:
    """A network for images of any size."""
    layers = [
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    ]
    return reseeded(nn.Sequential(*layers)).double().eval()


def state(model: nn.Module, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Everything a method must leave alone, in values that compare."""
    modules = {
        name: (
            type(module), module.training, module._is_full_backward_hook,
            sorted(vars(module)), {k: dict(v) for k, v in vars(module).items() if "hook" in k and isinstance(v, dict)},
        )
        for name, module in model.named_modules()
    }  # fmt: skip
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "modules": modules,
        "tensors": {name: told(tensor) for name, tensor in [*weights.items(), *enumerate(tensors)]},
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),
    }


def told(tensor: Tensor) -> tuple[Any, ...]:
    gradient = None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist())
    return id(tensor), tensor.detach().tolist(), tensor.requires_grad, gradient, dict(tensor._backward_hooks or {})


# --- the registered methods ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS)
def test_method(check: Callable[[str], None], name: str) -> None:
    check(name)


def test_order_of_requests_does_not_matter() -> None:
    check_order_of_requests(NAMES)


def test_shipped_methods_name_their_paper_and_explain_themselves() -> None:
    for name in NAMES:
        assert methods.get(name).paper
        assert methods.get(name).function.__doc__


# --- broken methods: each check refuses what it is there for ---


@pytest.fixture
def register():
    """Registers a broken method, whose name is free again afterwards."""

    def enter(function: Callable[..., Tensor], **facts: Any) -> None:
        methods.register(BROKEN, **facts)(function)

    yield enter
    methods._registry._entries.pop(BROKEN, None)


CALLS = [0]


def counts_its_calls(query):
    CALLS[0] += 1
    return query.gradient() * CALLS[0]


def knows_what_ran_before(query):
    return query.gradient() * len(query._memo)


def softmax_gradient(query):
    leaf = query.inputs.detach().requires_grad_(True)
    chosen = query.model(leaf).log_softmax(1).gather(1, query.targets[:, None]).sum()
    return torch.autograd.grad(chosen, leaf)[0]


def own_noise(query):
    return torch.stack([torch.randn(query.inputs.shape[1:], generator=g) for g in query.generators("own")]).double()


def in_training_mode(query):
    query.model.train()
    return query.input_gradients()


def writes_on_the_model(query):
    query.model.note = "seen"
    return query.gradient()


def writes_after_the_first_pass(query):
    gradient = query.gradient()
    query.model.note = "seen"
    query.model(query.inputs)
    del query.model.note
    return gradient


def hooks_a_weight(query):
    if not isinstance(query.model, Failing):
        next(p for p in query.model.parameters() if p.requires_grad).register_hook(lambda gradient: gradient)
    return query.gradient()


def spoils_the_training_examples(query):
    query.train.inputs.zero_()
    return query.gradient()


def needs_even_images(query):
    halves = query.gradient().unflatten(-1, (2, query.inputs.shape[-1] // 2))
    return halves.flatten(-2)


def reads_another_target(query):
    return query.input_gradient(query.inputs, torch.zeros_like(query.targets))


def nan_for_the_last(query):
    maps = query.gradient()
    maps[-1] = torch.nan
    return maps


def global_noise(draw: Callable[[], float]) -> Callable[[Any], Tensor]:
    return lambda query: query.gradient() + draw()


BROKEN_METHODS = [
    (check_shape_type_device, lambda query: query.gradient().sum(1), {}),
    (check_shape_type_device, lambda query: query.gradient().double(), {}),
    (check_shape_type_device, lambda query: query.gradient().float(), {}),
    (check_shape_type_device, nan_for_the_last, {}),
    (check_shape_type_device, lambda query: query.gradient(), {"output": "probabilities"}),
    (check_says_something, lambda query: torch.zeros_like(query.inputs), {}),
    (check_seed, global_noise(lambda: torch.rand(1).item()), {}),
    (check_seed, global_noise(lambda: torch.rand(1).item()), {"stochastic": True}),
    (check_seed, global_noise(np.random.rand), {"stochastic": True}),
    (check_seed, global_noise(random.random), {"stochastic": True}),
    (check_seed, lambda query: query.gradient(), {"stochastic": True}),
    (check_seed, own_noise, {"stochastic": False}),
    (check_batch_equals_one_by_one, lambda query: query.gradient() - query.gradient().mean(), {}),
    (
        check_batch_equals_one_by_one,
        lambda query: query.gradient() * torch.arange(len(query.inputs))[:, None, None, None],
        {},
    ),
    (check_target, lambda query: query.gradient(), {"uses_target": False}),
    (check_target, reads_another_target, {"uses_target": True}),
    (check_target, own_noise, {"uses_target": True, "stochastic": True}),
    (check_explains_a_logit, softmax_gradient, {}),
    (check_explains_eval_mode, in_training_mode, {}),
    (check_leaves_everything, writes_on_the_model, {}),
    (check_leaves_everything, hooks_a_weight, {}),
    (check_leaves_everything, spoils_the_training_examples, {}),
    (check_survives_failing_models, writes_after_the_first_pass, {}),
    (check_other_shapes, needs_even_images, {}),
    (check_other_shapes, lambda query: query.gradient().mean((2, 3), keepdim=True) / (query.inputs.shape[1] - 1), {}),
]


@pytest.mark.parametrize(("check", "function", "facts"), BROKEN_METHODS)
def test_broken_method_is_refused(check, function, facts, register) -> None:
    register(function, **facts)
    with pytest.raises((AssertionError, MethodFault, RuntimeError)):
        check(BROKEN)


def test_models_do_fail_in_mid_run() -> None:
    for after in range(3):  # the first pass only asks for the number of classes
        with pytest.raises(OnPurpose):
            explained("smoothgrad", Failing(awkward(), after), images())


@pytest.mark.parametrize("function", [counts_its_calls, knows_what_ran_before])
def test_method_that_depends_on_earlier_ones_is_refused(function, register) -> None:
    register(function)
    with pytest.raises(AssertionError):
        check_order_of_requests([BROKEN, "gradient", "integrated_gradients"])


@pytest.mark.parametrize("check", CHECKS)
def test_checks_refuse_only_what_is_broken(check, register) -> None:
    register(lambda query: query.gradient().abs(), paper="none")
    check(BROKEN)


def add_to_a_weight(model, tensors):
    with torch.no_grad():
        model[6].weight[0, 0] += 1e-12


CHANGES = [
    add_to_a_weight,
    lambda model, tensors: model[1].running_mean.data.add_(1e-12),
    lambda model, tensors: model[4].eval(),
    lambda model, tensors: model[2].register_forward_hook(keep),
    lambda model, tensors: model[2].register_forward_pre_hook(lambda module, args: None),
    lambda model, tensors: model[2].register_full_backward_hook(lambda *_: None).remove(),
    lambda model, tensors: model[0].weight.requires_grad_(True),
    lambda model, tensors: model[6].weight.grad.add_(1),
    lambda model, tensors: setattr(model[6].weight, "grad", None),
    lambda model, tensors: setattr(model[6], "bias", nn.Parameter(model[6].bias.detach().clone())),
    lambda model, tensors: setattr(model, "note", 1),
    lambda model, tensors: model.__setitem__(2, nn.GELU()),
    lambda model, tensors: tensors[0].data.mul_(1 + 1e-12),
    lambda model, tensors: tensors[0].requires_grad_(True),
    lambda model, tensors: torch.rand(1),
    lambda model, tensors: np.random.rand(),
    lambda model, tensors: random.random(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows_in_the_state(change) -> None:
    model, tensors = awkward(), (images(), images())
    before = state(model, tensors)
    assert state(model, tensors) == before
    change(model, tensors)
    assert state(model, tensors) != before
