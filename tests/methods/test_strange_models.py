"""Models that hide from hooks, from autograd or from their own weights: refused for what they are, never altered."""

import contextlib
import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import attribug
from attribug import methods
from attribug.conformance.methods import few
from attribug.contracts.pieces import Method
from attribug.maps.attribution import attributions
from attribug.maps.guard import MethodFault
from attribug.methods.composites import composite, relevance
from attribug.query.query import Query

NAMES = methods.names()
RULES = [name for name in NAMES if "lrp" in name or name in {"deep_taylor", "excitation_backprop"}]
PATTERNS = ["pattern_net", "pattern_attribution"]
TARGETS = torch.tensor([0, 1, 2])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(144, 3)
    ).eval()  # fmt: skip


def images(rows: int = 3) -> Tensor:
    return torch.rand(rows, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def explained(name: str, model: nn.Module, inputs: Tensor | None = None) -> Tensor:
    given = images() if inputs is None else inputs
    return attribug.explain(name, model, given, TARGETS, train_inputs=images(40), seed=7, **few(methods.get(name)))


class Around(nn.Module):
    """A network, and what is done with it."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.net, self.run = network(), run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Reversing(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return -gradient


class OverwritingReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x, inplace=True)


def fast_weights(model: Any, x: Tensor) -> Tensor:
    weights = {name: value.detach() + 0.2 for name, value in model.net.named_parameters()}
    outputs: Tensor = torch.func.functional_call(model.net, weights, (x,))
    return outputs


def with_branch(make: Callable[[Tensor], Tensor]) -> Around:
    """Logits beside those of a branch that no gradient comes back from."""
    torch.manual_seed(1)
    join = nn.Linear(6, 3)
    return Around(
        lambda m, x: m.join(torch.cat([m.net(x), m.branch(make(x).flatten(1))], 1)), branch=nn.Linear(432, 3), join=join
    )


def overwriting() -> nn.Sequential:
    model = network()
    model[1] = OverwritingReLU()
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], list[str], str]] = {
    "weights of another's": (lambda: Around(fast_weights), RULES + PATTERNS, "runs with other weights than its own"),
    "a detached branch": (lambda: with_branch(torch.detach), RULES, "no gradient flows back from module 'branch'"),
    "a branch of answers": (lambda: with_branch(lambda x: (x > 0.5).float()), [*RULES, "deep_lift"], "uses ToCopy"),
    "a gradient that is reversed": (
        lambda: Around(lambda m, x: m.net[1:](Reversing.apply(m.net[0](x)))),
        [*RULES, *PATTERNS, "deep_lift", "guided_backprop"], "the function Reversing says itself how",
    ),
    "a rectifier that overwrites": (overwriting, [*RULES, *PATTERNS, "deep_lift", "guided_backprop", "deconvnet"],
                                    "works in place on what it is given"),
    "vmap": (lambda: Around(lambda m, x: torch.func.vmap(lambda each: m.net(each[None])[0])(x)),
             [*RULES, *PATTERNS, "deep_lift", "guided_backprop", "grad_cam"], "cannot be watched"),
    "whole numbers": (lambda: Around(lambda m, x: m.net(x).int()), NAMES, "expected floating-point logits"),
    "complex numbers": (lambda: Around(lambda m, x: m.net(x) + 0j), NAMES, "expected floating-point logits"),
    "a transposed convolution": (
        lambda: Around(lambda m, x: m.up(m.net[:2](x)).mean((2, 3)), up=nn.ConvTranspose2d(4, 3, 3)),
        ["grad_cam"], "in module 'up' (ConvTranspose2d)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("model", "name"), [(model, name) for model in REFUSED for name in REFUSED[model][1]])
def test_strange_models_are_refused_for_what_they_are(model, name, frozen):
    make, _, reason = REFUSED[model]
    with pytest.raises(attribug.Unsupported) as refused:
        explained(name, make().requires_grad_(not frozen))
    assert reason in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_made_yet_are_told(name):
    with pytest.raises(attribug.Unsupported, match="has lazy modules that have no weights yet"):
        explained(name, nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))


EXPLAINED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "checks its inputs": (
        lambda: Around(lambda m, x: m.net(x) if float(x.detach().sum()) > -1 or bool(x.min() >= 0) else x),
        ["gradient", "grad_cam", "occlusion"],
    ),
    "asserts their range": (
        lambda: Around(lambda m, x: m.net(x) if bool(x.min() >= 0) and bool(x.amax() <= 1) else x),
        ["gradient", *RULES, "guided_backprop", "deep_lift"],
    ),
    "vmap": (REFUSED["vmap"][0], ["gradient", "occlusion", "integrated_gradients", "lime"]),
    "weights of its own by a call": (
        lambda: Around(lambda m, x: torch.func.functional_call(m.net, dict(m.net.named_parameters()), (x,))),
        [*RULES, "deep_lift", "grad_cam"],
    ),
}


@pytest.mark.parametrize(("model", "name"), [(model, name) for model in EXPLAINED for name in EXPLAINED[model][1]])
def test_what_changes_nothing_is_no_reason_to_refuse(model, name):
    torch.testing.assert_close(explained(name, EXPLAINED[model][0]()), explained(name, network()))


def test_a_product_with_weights_is_no_attention():
    model = Around(lambda m, x: torch.einsum("bchw,kc->bk", m.net[:2](x), m.head), head=nn.Parameter(torch.randn(3, 4)))
    assert explained("grad_cam", model).any()


def test_pixels_that_a_model_crops_away_cost_nobody_else_a_map():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(300, 5), nn.ReLU(), nn.Linear(5, 3))
    model, inputs = Around(lambda m, x: m.head(x[:, :, 2:, 2:]), head=head), images()
    inputs[0, 0, 0, 0] = torch.nan
    found = explained("deep_lift", model, inputs)
    torch.testing.assert_close(found[1:], explained("deep_lift", model)[1:])


def test_composites_by_name_find_the_layers_of_a_model_that_normalises():
    from zennit.composites import NameMapComposite
    from zennit.rules import Gamma

    normalising = Around(lambda m, x: m.net((x - 0.3) / 0.2))
    step = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        step.weight.copy_(5 * torch.eye(3)[:, :, None, None])
        step.bias.fill_(-1.5)
    plain = Around(lambda m, x: m.net(m.step(x)), step=step)

    def asked(model: nn.Module) -> Tensor:
        rules = [(["net.0", "net.4"], Gamma(0.25))]
        return relevance(Query(model.eval(), images(), TARGETS), lambda: NameMapComposite(rules), every_operation=False)

    def under_rules(model: nn.Module, *more: tuple[list[str], Any]) -> Tensor:
        rules = [(["net.0", "net.4"], Gamma(0.25)), *more]
        made = lambda: NameMapComposite(rules)  # noqa: E731
        query = Query(model.eval(), images(), TARGETS)
        return attributions(Method("named", lambda q: relevance(q, made)), query, {})

    with pytest.raises(attribug.Unsupported, match="no rule for AvgPool2d"):
        under_rules(normalising)
    assert not torch.allclose(asked(normalising), explained("input_x_gradient", normalising), atol=1e-4)
    pooled = (["net.2"], composite(Gamma, Gamma).layer_map[2][1])
    names = (["normalisation"], Gamma(0.25)), (["step"], Gamma(0.25))
    torch.testing.assert_close(
        under_rules(normalising, pooled, names[0]), under_rules(plain, pooled, names[1]), rtol=1e-3, atol=1e-5
    )


# --- what a call leaves behind ---


class Merging(nn.Linear):
    """Takes `eval()` as a sign to merge an update into its weights."""

    merged = False

    def train(self, mode: bool = True) -> "Merging":
        super().train(mode)
        if not mode and not self.merged:
            self.weight.data += 1
            self.merged = True
        return self


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_not_told_to_evaluate(name):
    model = network()
    model[4] = Merging(144, 3)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with contextlib.suppress(attribug.Unsupported):
        explained(name, model)
    assert model.training
    assert not model[4].merged
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("assigning", [False, True])
def test_a_counter_of_passes_is_no_methods_fault_whoever_asks_first(assigning):
    def counted(model: Any, x: Tensor) -> Tensor:
        if assigning:
            model.passes = model.passes + 1
        else:
            model.passes += 1
        outputs: Tensor = model.net(x)
        return outputs

    model = Around(counted)
    model.register_buffer("passes", torch.zeros((), dtype=torch.int64))
    attribug.explain(["gradient", "occlusion", "lrp_epsilon"], model, images(), TARGETS)
    kept: dict[Any, Any] = {}
    for name in ("gradient", "occlusion", "gradient"):
        attributions(methods.get(name), Query(model, images(), TARGETS, kept=kept), {})
    assert model.passes == 0


def test_whoever_dresses_as_a_shipped_method_is_watched_as_a_stranger():
    @functools.wraps(methods.get("gradient").function)
    def dressed(query: Query) -> Tensor:
        query.model[0].weight.data.zero_()
        return query.inputs

    model = network()
    before = model[0].weight.detach().clone()
    with pytest.raises(MethodFault, match="changed the model's weights"):
        attributions(Method("dressed", dressed), Query(model, images(), TARGETS), {})
    assert torch.equal(model[0].weight, before)


def test_nothing_holds_a_model_after_the_call():
    model = network()
    attribug.explain(
        ["guided_backprop", "lrp_epsilon", "pattern_net"], model, images(), TARGETS, train_inputs=images(40)
    )
    held = weakref.ref(model)
    del model
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("name", NAMES)
def test_a_context_of_devices_ends_where_it_ends(name):
    expected, inputs, train = explained(name, network()), images(), images(40)
    model, options = network(), few(methods.get(name))
    with torch.device("meta"):
        found = attribug.explain(name, model, inputs, TARGETS, train_inputs=train, seed=7, **options)
        assert torch.zeros(1).device.type == "meta"
    assert torch.zeros(1).device.type == "cpu"
    assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", NAMES)
def test_anomaly_mode_costs_nobody_a_map(name):
    inputs = images()
    inputs[1] = torch.nan
    with torch.autograd.set_detect_anomaly(True):
        found = explained(name, network(), inputs)
        assert torch.is_anomaly_enabled()
    torch.testing.assert_close(found[[0, 2]], explained(name, network())[[0, 2]], rtol=1e-4, atol=1e-6)
