"""What is looked at before a method runs: probabilities, constants, models that hooks and gradients cannot see into."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import attribug
from attribug import methods
from attribug.contracts.pieces import Method
from attribug.maps.attribution import attributions
from attribug.query.preflight import PREFLIGHT, preflight
from attribug.query.query import Query
from attribug.query.trace import trace

CLASSES = 3
TARGETS = torch.tensor([2, 0, 1])


class Ending(nn.Module):
    """Logits, and what is made of them."""

    def __init__(self, end: Callable[[Tensor], Tensor], classes: int = CLASSES) -> None:
        super().__init__()
        self.layer, self.end = nn.Linear(2 * 4 * 4, classes), end
        stream = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=stream)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.layer(inputs.flatten(1)))


class Counting(nn.Module):
    """Counts the examples that pass, in a list: a plain number would be part of its state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.sizes: list[int] = []

    @property
    def count(self) -> int:
        return sum(self.sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        self.sizes.append(len(inputs))
        return self.model(inputs)


def images() -> Tensor:
    return torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))


def query(model: nn.Module, targets: Tensor = TARGETS) -> Query:
    return Query(model.eval(), images(), targets)


def refusal(model: nn.Module, *needs: str) -> str:
    """Why a model is refused; empty where it is not."""
    try:
        preflight(query(model, torch.zeros_like(TARGETS)), needs)
    except attribug.Unsupported as reason:
        return str(reason)
    return ""


def small(*layers: nn.Module) -> nn.Sequential:
    """Layers after a convolution, on images (2, 4, 4), then a dense layer."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), *layers, nn.Flatten())
    return nn.Sequential(*body, nn.Linear(body(images()).shape[1], CLASSES)).eval()


# --- probabilities ---

ENDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax": (lambda z: z.softmax(1), "ends in Softmax"),
    "softmax module": (nn.Softmax(dim=1), "ends in Softmax"),
    "log_softmax": (lambda z: functional.log_softmax(z, 1), "ends in LogSoftmax"),
    "log_softmax module": (nn.LogSoftmax(dim=1), "ends in LogSoftmax"),
    "softmin": (nn.Softmin(dim=1), "ends in Softmax"),
    "sigmoid": (torch.sigmoid, "ends in Sigmoid"),
    "sigmoid module": (nn.Sigmoid(), "ends in Sigmoid"),
    "logsigmoid": (functional.logsigmoid, "ends in LogSigmoid"),
    "view": (lambda z: z.softmax(1).view(len(z), -1), "ends in Softmax"),
    "squeeze": (lambda z: z[:, None].softmax(2).squeeze(1), "ends in Softmax"),
    "flatten": (nn.Sequential(nn.Sigmoid(), nn.Unflatten(1, (CLASSES, 1)), nn.Flatten()), "ends in Sigmoid"),
    "transposed": (lambda z: z.t().log_softmax(0).t().contiguous(), "ends in LogSoftmax"),
    "reshape": (lambda z: z.t().sigmoid().t().reshape(len(z), -1), "ends in Sigmoid"),
    "another type": (lambda z: z.double().softmax(1).float(), "ends in Softmax"),
    "by hand": (lambda z: z.exp() / z.exp().sum(1, keepdim=True), "returns probabilities (they sum to 1)"),
    "normalised": (lambda z: functional.normalize(z.exp(), p=1, dim=1), "returns probabilities (they sum to 1)"),
    "clamped": (lambda z: z.softmax(1).clamp(1e-7, 1), "ends in Softmax"),
    "flipped": (lambda z: z.sigmoid().flip(1), "ends in Sigmoid"),
    "chosen": (lambda z: z.sigmoid()[:, [1, 0]], "ends in Sigmoid"),
    "scaled logarithm": (lambda z: z.log_softmax(1) * 1, "or their logarithms"),
    "logarithm by hand": (lambda z: z - z.logsumexp(1, keepdim=True), "or their logarithms"),
    "both classes": (
        lambda z: torch.cat([1 - z[:, :1].sigmoid(), z[:, :1].sigmoid()], 1),
        "returns probabilities (they sum to 1)",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_probabilities_are_refused(end):
    make, reason = ENDS[end]
    assert reason in refusal(Ending(make))


@pytest.mark.parametrize("end", ["sigmoid", "logsigmoid", "view"])
def test_a_single_probability_is_refused(end):
    make, reason = ENDS[end]
    assert reason in refusal(Ending(make, classes=1))


@pytest.mark.parametrize(
    "end",
    [
        nn.Identity(), nn.Softplus(), torch.exp, nn.ReLU(), lambda z: z / 100, lambda z: z.view(len(z), -1),
        lambda z: z.sigmoid() * z, lambda z: z[:, :1], lambda z: 1 + z[:, :1] * 1e-6,
        lambda z: (z - 1e3).relu(),
        lambda z: torch.cat([z[:, :1], 1 - z[:, :1]], 1),  # sums to 1 and is sometimes negative
    ],
)  # fmt: skip
def test_logits_are_not_refused_whatever_their_values(end):
    assert refusal(Ending(end)) == ""


def test_probabilities_inside_are_no_end():
    model = nn.Sequential(Ending(nn.Softmax(dim=1)), nn.Linear(CLASSES, CLASSES))
    assert refusal(model) == ""


# --- constants, and models that cannot be differentiated ---

CONSTANT = {
    "zeros": lambda x: torch.zeros(len(x), CLASSES),
    "a parameter": lambda x: torch.ones(CLASSES, requires_grad=True).expand(len(x), -1),
    "detached zeros": lambda x: x.detach().flatten(1)[:, :CLASSES] * 0,
}


class Saying(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, inputs: Tensor) -> Tensor:
        return self.answer(inputs)


class Closed(Ending):
    """A model behind an interface that gives no gradients."""

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.detach())


@pytest.mark.parametrize("answer", CONSTANT)
@pytest.mark.parametrize("name", methods.names())
def test_no_method_explains_a_constant(name, answer):
    with pytest.raises(attribug.Unsupported, match="the model's output does not depend on its input"):
        attribug.explain(name, Saying(CONSTANT[answer]), images(), TARGETS, train_inputs=images())


@pytest.mark.parametrize("name", ["occlusion", "lime", "kernel_shap", "rise", "random"])
def test_models_without_gradients_are_explained_by_their_outputs(name):
    closed, opened = (attribug.explain(name, kind(nn.Identity()), images(), TARGETS) for kind in (Closed, Ending))
    assert torch.equal(closed, opened)


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "smoothgrad", "expected_gradients"])
def test_models_without_gradients_are_refused_by_methods_that_take_some(name):
    with pytest.raises(attribug.Unsupported, match="the model's output does not depend on its input"):
        attribug.explain(name, Closed(nn.Identity()), images(), TARGETS, train_inputs=images())


# --- rectifiers, reused modules, pooling ---


class Calling(nn.Module):
    """A convolution, then a function, then a dense layer."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], features: int = 48) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.dense = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(features, CLASSES)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(self.function(self, self.conv(inputs)).flatten(1))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (small(nn.ReLU()), ""),
        (small(nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)), ""),
        (Calling(lambda m, x: m.relu(x) + m.relu(-x)), ""),
        (Calling(lambda m, x: (m.relu(x) - 0.5) / torch.tensor(2.0) * torch.ones(4)), ""),
        (Calling(lambda m, x: m.relu(x) / (1 + x.detach().abs())), "the model uses Abs"),
        (Calling(lambda m, x: m.relu(x) / x.detach()), "the model uses Div"),
        (Calling(lambda m, x: 1 / m.relu(x)), "the model uses Reciprocal"),
        (Calling(lambda m, x: m.relu(x) if bool((x < 9).all()) else x), ""),
        (Calling(lambda m, x: m.relu(m.relu(x))), ""),
        (small(), "the model has no ReLU"),
        (Calling(lambda m, x: functional.relu(x)), "1 ReLU(s) are function calls that hooks cannot see"),
        (Calling(lambda m, x: m.relu(x).relu()), "1 ReLU(s) are function calls that hooks cannot see"),
        (Calling(lambda m, x: x.clamp(min=0)), "the model uses Clamp"),
        (Calling(lambda m, x: torch.where(x > 0, x, 0 * x)), "is defined for ReLU networks; the model uses "),
        (Calling(lambda m, x: m.relu(x) * (x > 0)), "the model uses Mul"),
        (small(nn.ReLU6()), "the model uses Hardtanh"),
        (small(nn.LeakyReLU()), "the model uses LeakyRelu"),
        (small(nn.GELU(), nn.ReLU()), "the model uses Gelu"),
        (small(nn.Tanh()), "the model uses Tanh"),
    ],
)
def test_rectifiers_that_hooks_would_miss_are_refused(model, reason):
    found = refusal(model, "relu_modules")
    assert reason in found
    assert bool(found) == bool(reason)
    assert refusal(model) == ""


def test_a_number_read_from_values_is_no_constant():
    model = Calling(lambda m, x: m.relu(x) * float(x.detach().sum()))
    with pytest.raises(attribug.Unsupported, match="the model uses LocalScalarDense"):
        PREFLIGHT["relu_modules"](query(model))


def test_modules_that_run_twice_are_named():
    twice = Calling(lambda m, x: m.relu(m.relu(x)))
    assert refusal(twice, "layers_run_once") == "module 'relu' runs 2 times; give each use its own module"
    shared = nn.ReLU()
    model = small(shared, nn.MaxPool2d(2), shared)
    assert refusal(model, "layers_run_once") == "module '1' runs 2 times; give each use its own module"
    assert refusal(small(nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()), "layers_run_once") == ""
    assert refusal(Calling(lambda m, x: m.relu(x)), "layers_run_once") == ""  # what never runs does not count


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        (small(nn.ReLU(), nn.MaxPool2d(2)), False),
        (small(nn.ReLU()), False),
        (Calling(lambda m, x: m.pool(x), features=12), False),
        (Calling(lambda m, x: functional.max_pool2d(x, 2), features=12), True),
        (Calling(lambda m, x: m.pool(functional.max_pool2d(x, 2)), features=3), True),
        (small(nn.Flatten(2), nn.MaxPool1d(2)), False),
        (small(nn.Unflatten(1, (1, 3)), nn.MaxPool3d(2)), False),
        (Calling(lambda m, x: functional.max_pool1d(x.flatten(2), 2), features=24), True),
    ],
)
def test_pooling_that_hooks_would_miss_is_refused(model, refused):
    expected = "max-pooling is a function call that hooks cannot see; use nn.MaxPool2d modules"
    assert refusal(model, "pool_modules") == (expected if refused else "")


def test_an_unknown_need_is_told():
    with pytest.raises(ValueError, match=r"needs: expected one of convolution_modules, .*, found 'relu_module'"):
        preflight(query(small(nn.ReLU())), ("relu_module",))
    others = {
        "piecewise_linear",
        "relu_modules",
        "layers_run_once",
        "pool_modules",
        "convolution_modules",
        "plain_layers",
    }
    assert set(PREFLIGHT) == {"logits", *others}


def test_every_registered_need_is_known():
    needed = {need for name in methods.names() for need in methods.get(name).needs}
    assert needed
    assert needed <= set(PREFLIGHT)


# --- memory, costs, traces left behind ---


def maps(asked: Query, name: str = "gradient") -> Tensor:
    return attributions(methods.get(name), asked, {})


@pytest.mark.parametrize("needs", [(), ("relu_modules",), ("layers_run_once",), ("pool_modules", "relu_modules")])
def test_answers_are_remembered(needs):
    model = Counting(small(nn.ReLU()))
    asked, still = query(model), Method("still", lambda q: q.inputs + 0, needs=needs)
    attributions(still, asked, {})
    passed = model.count
    assert passed == 4  # two examples, and one of them twice
    attributions(still, asked, {})
    attributions(Method("other", lambda q: q.inputs + 1, needs=needs[:1]), asked, {})
    assert model.count == passed
    attributions(still, query(model), {})
    assert model.count == 2 * passed  # anything may have been switched in between: nobody answers for the model
    kept: dict[Any, Any] = {}
    for _ in range(3):
        attributions(still, Query(model, images(), TARGETS, kept=kept), {})
    assert model.count == 3 * passed
    model.register_forward_hook(lambda *_: None)
    attributions(still, Query(model, images(), TARGETS, kept=kept), {})
    assert model.count == 4 * passed


def test_another_shape_is_looked_at_anew():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(dim=1))
    with pytest.raises(attribug.Unsupported, match="ends in Softmax"):
        maps(query(model))
    model[3] = nn.Identity()
    assert maps(query(model)).isfinite().all()


class Viewing(nn.Module):
    """A model that flattens by `view`, which channels last do not allow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.dense = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(48, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(self.conv(inputs).view(len(inputs), -1))


def test_images_come_with_channels_last_where_the_model_takes_them():
    viewing, other = Viewing(), small()
    other.load_state_dict({"0.weight": viewing.conv.weight, "0.bias": viewing.conv.bias,
                           "2.weight": viewing.dense.weight, "2.bias": viewing.dense.bias})  # fmt: skip
    asked = [query(viewing), query(other)]
    found = [maps(each) for each in asked]
    assert [each.channels_last for each in asked] == [False, True]
    torch.testing.assert_close(*found)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        maps(query(nn.Sequential(nn.Flatten(), nn.Linear(31, CLASSES))))


def test_refusals_are_remembered_with_the_query():
    model = Counting(Ending(nn.Softmax(dim=1)))
    asked = query(model)
    for _ in range(3):
        with pytest.raises(attribug.Unsupported, match="ends in Softmax"):
            maps(asked)
    assert model.count == 4


def test_one_need_that_fails_does_not_hide_another():
    asked = query(small(nn.Tanh()))
    for _ in range(2):
        with pytest.raises(attribug.Unsupported, match="the model uses Tanh"):
            preflight(asked, ("relu_modules",))
        preflight(asked, ("layers_run_once",))
        preflight(asked, ())


def test_the_preflight_costs_nothing():
    asked = query(small(nn.ReLU()))
    with asked.costing() as costing:
        maps(asked, "guided_backprop")
    assert (costing.cost.forward, costing.cost.backward) == (3, 3)


def test_a_model_in_training_mode_is_looked_at_in_eval_mode():
    model = small(nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = []
    model[1].register_forward_hook(lambda module, args, output: modes.append(module.training))
    found = attribug.explain("guided_backprop", model, images(), TARGETS)
    assert modes
    assert not any(modes)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(found, attribug.explain("guided_backprop", model.eval(), images(), TARGETS))
    asked = Query(model.train(), images(), TARGETS)
    assert torch.equal(maps(asked, "guided_backprop"), found)
    assert model.training
    model.train()(images())
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])  # training mode would have been noticed


class Breaking(nn.Module):
    """Runs its rectifier, then raises."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.breaks = small(nn.ReLU()), True

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.body(inputs)
        if self.breaks:
            raise KeyError("in mid-pass")
        return outputs


@pytest.mark.parametrize("need", PREFLIGHT)
def test_hooks_are_gone_after_an_exception_which_is_not_remembered(need):
    model = Breaking()
    asked, inputs = query(model), images()
    with pytest.raises(KeyError, match="in mid-pass"):
        PREFLIGHT[need](asked)
    with pytest.raises(KeyError, match="in mid-pass"):
        preflight(asked, (need,))
    assert not any(module._forward_hooks for module in model.modules())
    model.breaks = False
    preflight(asked, (need,))
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(asked.inputs, inputs)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_trace_shows_the_calls_of_modules_in_order():
    model = small(nn.ReLU(), nn.MaxPool2d(2))
    seen = trace(model, images()[:1])
    assert [module for module, _, _ in seen.calls] == list(model)
    assert seen.outputs.shape == (1, CLASSES)
    torch.testing.assert_close(seen.outputs, model(images()[:1]))


# --- what could go stale, and what one example's trace does not show ---


def test_a_weight_or_a_switch_that_changes_is_looked_at_anew():
    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.probabilities = small(), False

        def forward(self, inputs: Tensor) -> Tensor:
            outputs = self.body(inputs)
            return outputs.softmax(1) if self.probabilities else outputs

    model = Switching()
    assert maps(query(model)).isfinite().all()
    model.probabilities = True
    with pytest.raises(attribug.Unsupported, match="ends in Softmax"):
        maps(query(model))


@pytest.mark.parametrize(
    "end",
    [
        nn.BatchNorm1d(CLASSES, track_running_stats=False),
        functional.dropout,
        lambda z: z - z.mean(0),
        lambda z: z @ (z.T @ z),
    ],
)
def test_outputs_that_depend_on_the_batch_or_on_chance_are_refused(end):
    assert refusal(Ending(end)) == "an example's outputs depend on the other examples of its batch, or on chance"


def test_a_probe_stays_within_the_range_of_the_data():
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()

        def forward(self, inputs: Tensor) -> Tensor:
            if not 0 <= float(inputs.min()) <= float(inputs.max()) <= 1:
                raise ValueError("expected pixels in [0, 1]")
            return self.body(inputs)

    assert maps(query(Careful())).isfinite().all()


def test_compiled_models_run_as_they_are_written():
    torch.manual_seed(0)
    plain = small(nn.ReLU())
    compiled = torch.compile(plain, backend="eager")
    compiled(images())
    expected, found = (maps(query(model), "guided_backprop") for model in (plain, compiled))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(maps(query(plain)), expected)


def test_scripted_models_are_refused_by_what_needs_hooks():
    scripted = torch.jit.script(small(nn.ReLU()))
    with pytest.raises(attribug.Unsupported, match="TorchScript"):
        maps(query(scripted), "guided_backprop")


def test_no_inputs_are_refused():
    with pytest.raises(attribug.InputError, match="inputs: expected at least one example, found none"):
        Query(small(), images()[:0], TARGETS[:0])
