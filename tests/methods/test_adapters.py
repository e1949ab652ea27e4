"""Other people's methods as ours: plain functions, captum's classes against captum itself, zennit's composites."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional
from zennit import composites
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.torchvision import ResNetCanonizer

import attribug
from attribug import keys, methods
from attribug.maps.attribution import attributions
from attribug.maps.guard import MethodFault
from attribug.plugins import _LOADED, load_plugin
from attribug.query.query import Query
from attribug.streams import generator

NAME = "test_adapted"


@pytest.fixture
def enter():
    """Registers by an adapter, `enter(methods.from_…, …)`, under a name that is free again afterwards."""

    def register(adapter, *arguments, **facts):
        methods._registry.forget(NAME)
        adapter(NAME, *arguments, **facts)
        return NAME

    yield register
    methods._registry.forget(NAME)


@pytest.fixture
def as_method(enter):
    return partial(enter, methods.from_function)


@pytest.fixture
def as_captum(enter):
    return partial(enter, methods.from_captum)


@pytest.fixture
def as_zennit(enter):
    return partial(enter, methods.from_zennit)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


class Functional(nn.Module):
    """Its rectifier is a function call, which hooks on modules cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 256, 3)
        self.double()

    def forward(self, inputs):
        return self.last(functional.relu(self.first(inputs)).flatten(1))


class Reusing(Functional):
    """Its rectifier runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(4, 4, 3, padding=1).double()

    def forward(self, inputs):
        return self.last(self.relu(self.second(self.relu(self.first(inputs)))).flatten(1))


def normalised() -> nn.Module:
    """A network with batch normalisation after its convolutions; its eps is small, for zennit leaves it behind."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5, eps=1e-12), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 64, 3),
    ).double()  # fmt: skip
    for norm in (model[1], model[5]):
        for values in (norm.weight.data, norm.running_var):
            values.uniform_(0.5, 2)
        for values in (norm.bias.data, norm.running_mean):
            values.normal_()
    return model.eval()


# --- plain functions ---


def same_but_for_rounding(one, other):
    """Our passes have channels last, which changes the order of sums."""
    tolerance = 1e-12 if one.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def plain_gradient(model, inputs, targets):
    leaf = inputs.requires_grad_(True)
    model(leaf).gather(1, targets[:, None]).sum().backward()
    return leaf.grad


def test_gradient_written_as_users_write_it(as_method, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    maps = attribug.explain([as_method(plain_gradient), "gradient"], model, inputs, targets)
    same_but_for_rounding(maps[NAME], maps["gradient"])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not inputs.requires_grad


def test_parameters_reach_the_function(as_method, linear):
    model, inputs, targets, _ = linear
    name = as_method(lambda model, inputs, targets, factor=1.0: factor * inputs)
    assert torch.equal(attribug.explain(name, model, inputs, targets, factor=3.0), 3 * inputs)


def test_arrays_become_tensors_of_the_inputs_type(as_method, linear):
    model, inputs, targets, _ = linear
    name = as_method(lambda model, inputs, targets: np.asarray(inputs.detach().numpy(), dtype=np.float64) + 1)
    found = attribug.explain(name, model.float(), inputs.float(), targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, inputs.float() + 1)


def test_whole_numbers_are_garbage(as_method, linear):
    model, inputs, targets, _ = linear
    name = as_method(lambda model, inputs, targets: np.ones(inputs.shape, dtype=np.int64))
    with pytest.raises(MethodFault, match=r"expected floating-point maps, found torch\.int64"):
        attribug.explain(name, model, inputs, targets)


def test_inputs_that_the_function_changes_stay_as_they_were(as_method, linear):
    model, inputs, targets, weights = linear
    before = inputs.clone()
    name = as_method(lambda model, inputs, targets: inputs.zero_())
    maps = attribug.explain([name, "input_x_gradient"], model, inputs, targets)
    assert torch.equal(inputs, before)
    assert torch.equal(maps["input_x_gradient"], before * weights)


@pytest.mark.parametrize("answer", [None, "maps", lambda model: model])
def test_what_is_no_array_is_no_map(answer, as_method, linear):
    model, inputs, targets, _ = linear
    with pytest.raises((TypeError, RuntimeError, ValueError, MethodFault)):
        attribug.explain(as_method(lambda model, inputs, targets: answer), model, inputs, targets)


def noisy(model, inputs, targets, *, scale=1.0):
    """Draws from every global random state."""
    noise = torch.rand(inputs.shape) + float(np.random.rand()) + random.random()
    return plain_gradient(model, inputs, targets) * scale * noise


def test_functions_that_draw_are_asked_for_one_example_at_a_time_under_its_seeds(as_method, linear):
    model, inputs, targets, _ = linear
    name, ids = as_method(noisy, stochastic=True), torch.tensor([4, 0, 77, 9])
    assert methods.get(name).stochastic
    before = states()
    found = attribug.explain(name, model, inputs, targets, ids=ids, scale=2.0)
    assert states() == before
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    assert torch.equal(attribug.explain(name, model, inputs, targets, ids=ids, scale=2.0), found)
    assert not torch.equal(attribug.explain(name, model, inputs, targets, ids=ids, scale=2.0, seed=1), found)
    for row in (2, 0):
        one = slice(row, row + 1)
        alone = attribug.explain(name, model, inputs[one], targets[one], ids=ids[one], scale=2.0)
        assert torch.equal(alone, found[one])
        stream = generator("example", 0, "global seeds", int(ids[row])).initial_seed()
        torch.manual_seed(stream)
        np.random.seed(stream % 2**32)
        random.seed(stream)
        assert torch.equal(noisy(model, inputs[one].clone(), targets[one], scale=2.0), found[one])


def test_functions_that_draw_and_do_not_say_so_depend_on_global_states(as_method, linear):
    """What the flag is there for."""
    model, inputs, targets, _ = linear
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(attribug.explain(as_method(noisy), model, inputs, targets))
    assert not torch.equal(*found)


def test_facts_reach_the_registry(as_method):
    name = as_method(plain_gradient, uses_target=False, paper="nobody")
    assert (methods.get(name).uses_target, methods.get(name).paper) == (False, "nobody")


def test_a_taken_name_is_refused():
    with pytest.raises(attribug.InputError, match=r"method 'gradient' is taken by attribug\.methods\.gradient"):
        methods.from_function("gradient", plain_gradient)


# --- captum ---


def similar(original, perturbed, sample, **_):
    return torch.exp(-((original - perturbed) ** 2).mean()).item()


def smooth(model):
    return attr.NoiseTunnel(attr.Saliency(model))


CAPTUM = {
    "saliency": (attr.Saliency, {}, {"abs": False}),
    "integrated_gradients": (attr.IntegratedGradients, {"multiply_by_inputs": False}, {"n_steps": 7, "baselines": 0.2}),
    "occlusion": (attr.Occlusion, {}, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}),
    "guided_backprop": (attr.GuidedBackprop, {}, {}),
    "deconvolution": (attr.Deconvolution, {}, {}),
    "deep_lift": (attr.DeepLift, {"eps": 1e-9}, {"baselines": 0.1}),
    "guided_grad_cam": (attr.GuidedGradCam, {"layer": "conv5"}, {"interpolate_mode": "bilinear"}),
}
DRAWING = {
    "noise_tunnel": (smooth, {"nt_samples": 4, "stdevs": 0.2, "abs": False}),
    "lime": (attr.Lime, {"n_samples": 30, "similarity_func": similar}),
    "kernel_shap": (attr.KernelShap, {"n_samples": 30, "feature_mask": lambda query: mask_of(query.inputs)}),
    "gradient_shap": (attr.GradientShap, {"n_samples": 4, "baselines": lambda query: query.train.inputs}),
}
hooks_are_captums = pytest.mark.filterwarnings("ignore:Setting (backward|forward)")
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")


def mask_of(inputs):
    """Quarters of an image."""
    halves = torch.arange(inputs.shape[-1]) * 2 // inputs.shape[-1]
    return (2 * halves[:, None] + halves).expand(1, inputs.shape[1], -1, -1)


@hooks_are_captums
@pytest.mark.parametrize("name", CAPTUM)
def test_captums_methods_are_captums(name, as_captum, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    kind, constructor, rest = CAPTUM[name]
    found = attribug.explain(as_captum(kind, **constructor, **rest), model, inputs, targets)
    if "layer" in constructor:
        constructor = {**constructor, "layer": model.get_submodule(constructor["layer"])}
    leaf = inputs.clone().requires_grad_(True)
    expected = kind(model, **constructor).attribute(leaf, target=targets, **rest).detach()
    loose = {"rtol": 1e-5, "atol": 1e-6} if expected.dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(found, expected.double(), **loose)  # captum's occlusion divides in float32
    assert found.abs().max() > 1e-3
    if name == "saliency":
        same_but_for_rounding(found, attribug.explain("gradient", model, inputs, targets))
        assert not torch.equal(attribug.explain(as_captum(attr.Saliency), model, inputs, targets), found)  # abs=True


@pytest.mark.parametrize("name", DRAWING)
def test_captums_methods_that_draw_follow_the_seed_alone(name, as_captum, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    kind, options = DRAWING[name]
    entered = as_captum(kind, **options, **({"stochastic": True} if kind is smooth else {}))
    assert methods.get(entered).stochastic
    ids, before = torch.tensor([6, 2, 40]), states()
    given = {"train_inputs": make_inputs(seed=5)[0]}
    found = attribug.explain(entered, model, inputs, targets, ids=ids, **given)
    assert states() == before
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(attribug.explain(entered, model, inputs, targets, ids=ids, **given), found)
    assert not torch.allclose(attribug.explain(entered, model, inputs, targets, ids=ids, seed=1, **given), found)
    for row in range(3):
        one = slice(row, row + 1)
        alone = attribug.explain(entered, model, inputs[one], targets[one], ids=ids[one], **given)
        assert torch.equal(alone, found[one])


def test_a_drawing_method_is_captums_under_the_examples_seed(as_captum, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    found = attribug.explain(as_captum(attr.KernelShap, **DRAWING["kernel_shap"][1]), model, inputs, targets)
    for row in range(3):
        torch.manual_seed(generator("example", 0, "global seeds", row).initial_seed())
        expected = attr.KernelShap(model).attribute(
            inputs[[row]], target=targets[[row]], n_samples=30, feature_mask=mask_of(inputs)
        )
        assert torch.equal(found[[row]], expected)


def test_arguments_may_ask_the_query(as_captum, make_cnn, make_inputs):
    model, (inputs, targets), train = make_cnn(), make_inputs(), make_inputs(seed=7)[0]
    name = as_captum(attr.IntegratedGradients, n_steps=2, baselines=lambda query: query.train.inputs[:1])
    found = attribug.explain(name, model, inputs, targets, train_inputs=train)
    close(found, attribug.explain("integrated_gradients", model, inputs, targets, steps=2, baseline=train[:1]))
    with pytest.raises(attribug.Unsupported, match="needs training examples"):
        attribug.explain(name, model, inputs, targets)


def test_facts_are_told_apart_from_arguments(as_captum):
    method = methods.get(as_captum(attr.Saliency, abs=False, paper="Simonyan et al. 2014", uses_target=False))
    assert (method.paper, method.uses_target, method.stochastic, method.needs) == (
        "Simonyan et al. 2014", False, False, (),
    )  # fmt: skip
    assert method.function.__doc__ == "captum's Saliency."
    assert methods.get(as_captum(attr.DeepLift)).needs == ("relu_modules", "layers_run_once")
    assert methods.get(as_captum(attr.DeepLift, needs=("relu_modules",))).needs == ("relu_modules",)
    assert methods.get(as_captum(attr.GuidedBackprop)).needs == ("relu_modules",)


def test_a_new_instance_explains_every_model(as_captum, make_cnn, make_inputs):
    built, (inputs, targets) = [], make_inputs()

    def build(model):
        built.append(model)
        return attr.Saliency(model)

    name, models = as_captum(build, abs=False), [make_cnn(seed=0), make_cnn(seed=1), make_cnn(seed=0)]
    found = [attribug.explain(name, model, inputs, targets) for model in models]
    assert all(one is other for one, other in zip(built, models, strict=True))
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_maps_of_layers_are_no_maps_of_inputs(as_captum, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    with pytest.raises(MethodFault, match=r"expected maps \(3, 3, 16, 16\), found \(3, 1, 4, 4\)"):
        attribug.explain(as_captum(attr.LayerGradCam, layer="conv5"), model, inputs, targets)


@pytest.mark.parametrize(
    ("kind", "model", "reason"),
    [
        (attr.GuidedBackprop, Functional, r"1 ReLU\(s\) are function calls"),
        (attr.Deconvolution, Functional, r"1 ReLU\(s\) are function calls"),
        (attr.DeepLift, Functional, r"1 ReLU\(s\) are function calls"),
        (attr.DeepLift, Reusing, "module 'relu' runs 2 times; give each use its own module"),
    ],
)
def test_models_in_which_captums_hooks_would_miss_something_are_refused(kind, model, reason, as_captum, make_inputs):
    inputs, targets = make_inputs()
    with pytest.raises(attribug.Unsupported, match=reason):
        attribug.explain(as_captum(kind), model(), inputs, targets)


@hooks_are_captums
def test_without_the_refusal_a_plain_gradient_would_pass_for_guided_backpropagation(as_captum, make_inputs):
    inputs, targets = make_inputs()
    found = attribug.explain([as_captum(attr.GuidedBackprop, needs=()), "gradient"], Functional(), inputs, targets)
    same_but_for_rounding(found[NAME], found["gradient"])


def test_a_function_that_builds_is_looked_through(as_captum, make_inputs):
    inputs, targets = make_inputs()
    name = as_captum(partial(attr.GuidedBackprop))
    with pytest.raises(attribug.Unsupported, match="function calls that hooks cannot see"):
        attribug.explain(name, Functional(), inputs, targets)
    tunnel = as_captum(lambda model: attr.NoiseTunnel(attr.GuidedBackprop(model)), stochastic=True, nt_samples=2)
    with pytest.raises(attribug.Unsupported, match="function calls that hooks cannot see"):
        attribug.explain(tunnel, Functional(), inputs, targets)


def test_undeclared_draws_are_refused(as_captum, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    name = as_captum(lambda model: attr.NoiseTunnel(attr.Saliency(model)), nt_samples=2)
    with pytest.raises(attribug.InputError, match="captum's NoiseTunnel draws at random; register it with stochastic"):
        attribug.explain(name, model, inputs, targets)


def test_functions_get_bounded_parts(enter, make_cnn, make_inputs):
    model, (inputs, targets), sizes = make_cnn(), make_inputs(), []

    def sized(model, inputs, targets):
        sizes.append(len(inputs))
        return inputs + 1

    method = methods.get(enter(methods.from_function, sized))
    found = attributions(method, Query(model, inputs, targets, rows=2), {})
    assert sizes == [2, 1]
    assert torch.equal(found, inputs + 1)


def test_an_instance_is_refused(make_cnn):
    with pytest.raises(attribug.InputError, match=f"method '{NAME}': expected a captum class, found Saliency"):
        methods.from_captum(NAME, attr.Saliency(make_cnn()))


# --- zennit ---


@pytest.mark.parametrize("canonizers", [[ResNetCanonizer], [ResNetCanonizer()], [SequentialMergeBatchNorm]])
def test_a_zennit_composite_is_the_built_in_one(canonizers, as_zennit, make_inputs):
    model, (inputs, targets) = normalised(), make_inputs()
    name = as_zennit(composites.EpsilonPlusFlat, canonizers)
    found = attribug.explain([name, "lrp_epsilon_plus_flat", "lrp_epsilon"], model, inputs, targets)
    close(found[name], found["lrp_epsilon_plus_flat"])
    assert not torch.allclose(found[name], found["lrp_epsilon"])
    close(found[name], attribug.explain(name, normalised(), inputs, targets))  # the model is as it was


def test_batch_norms_without_canonizers_are_refused(as_zennit, make_cnn, make_inputs):
    inputs, targets = make_inputs()
    name = as_zennit(composites.EpsilonPlusFlat)
    with pytest.raises(attribug.Unsupported, match="no rule reaches the operation NativeBatchNorm"):
        attribug.explain(name, normalised(), inputs, targets)
    found = attribug.explain([name, "lrp_epsilon_plus_flat"], make_cnn(), inputs, targets)  # no batch norms
    assert torch.equal(found[name], found["lrp_epsilon_plus_flat"])


def test_zennits_guided_backpropagation_needs_no_rule_for_every_operation(as_zennit, make_inputs):
    model, (inputs, targets) = normalised(), make_inputs()
    name = as_zennit(composites.GuidedBackprop, start="one", every_operation=False)
    close(*attribug.explain([name, "guided_backprop"], model, inputs, targets).values())
    logits, best = model(inputs).detach().max(1)
    assert (logits > 0).all()
    scaled = attribug.explain(as_zennit(composites.GuidedBackprop, every_operation=False), model, inputs, best)
    close(scaled, attribug.explain("guided_backprop", model, inputs, best) * logits[:, None, None, None])
    with pytest.raises(attribug.Unsupported, match="the composite has no rule for Conv2d"):
        attribug.explain(as_zennit(composites.GuidedBackprop), model, inputs, targets)
    with pytest.raises(attribug.Unsupported, match="are function calls"):
        attribug.explain(as_zennit(composites.GuidedBackprop, every_operation=False), Functional(), inputs, targets)


def test_a_composite_that_takes_no_canonizers(as_zennit, make_cnn, make_inputs):
    def bare():
        return composites.EpsilonPlusFlat()

    model, (inputs, targets) = make_cnn(), make_inputs()
    name = as_zennit(bare, paper="nobody")
    assert methods.get(name).paper == "nobody"
    found = attribug.explain([name, "lrp_epsilon_plus_flat"], model, inputs, targets)
    assert torch.equal(found[name], found["lrp_epsilon_plus_flat"])
    with pytest.raises(attribug.InputError, match="expected a composite that takes canonizers"):
        methods.from_zennit(NAME, bare, [ResNetCanonizer])


# --- content keys, plugins ---

VARIANTS = {
    "plain": (methods.from_function, plain_gradient),
    "noisy": (methods.from_function, noisy),
    "saliency": (methods.from_captum, attr.Saliency),
    "signed": (methods.from_captum, attr.Saliency, {"abs": False}),
    "lrp": (methods.from_captum, attr.LRP),
    "layer": (methods.from_captum, attr.GuidedGradCam, {"layer": "conv5"}),
    "other layer": (methods.from_captum, attr.GuidedGradCam, {"layer": "conv4"}),
    "asking": (methods.from_captum, attr.DeepLift, {"baselines": lambda query: query.train.inputs[:1]}),
    "asking otherwise": (methods.from_captum, attr.DeepLift, {"baselines": lambda query: query.train.inputs[:2]}),
    "flat": (methods.from_zennit, composites.EpsilonPlusFlat),
    "merged": (methods.from_zennit, composites.EpsilonPlusFlat, {"canonizers": [ResNetCanonizer]}),
    "otherwise merged": (methods.from_zennit, composites.EpsilonPlusFlat, {"canonizers": [SequentialMergeBatchNorm]}),
    "epsilon": (methods.from_zennit, partial(composites.EpsilonPlusFlat, epsilon=0.1)),
    "one": (methods.from_zennit, composites.EpsilonPlusFlat, {"start": "one"}),
    "any": (methods.from_zennit, composites.EpsilonPlusFlat, {"every_operation": False}),
}


def test_content_keys_tell_adapters_and_arguments_apart(enter):
    def key(adapter, content, options=None):
        return keys.digest(methods.get(enter(adapter, content, **(options or {}))).function)

    found = {name: key(*variant) for name, variant in VARIANTS.items()}
    assert len(set(found.values())) == len(VARIANTS)
    assert {name: key(*variant) for name, variant in VARIANTS.items()} == found
    assert key(methods.from_zennit, composites.EpsilonPlusFlat, {"canonizers": [ResNetCanonizer()]}) == found["merged"]


PLUGIN = """
from captum import attr
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonGammaBox, EpsilonPlus
from attribug import methods

def ones(model, inputs, targets):
    return inputs * 0 + 1

methods.from_function("test_plugin_ones", ones)
methods.from_captum("test_plugin_saliency", attr.Saliency, abs=False)
methods.from_zennit("test_plugin_lrp", EpsilonPlus, [SequentialMergeBatchNorm])
"""
PLUGGED = ["test_plugin_lrp", "test_plugin_ones", "test_plugin_saliency"]


@pytest.fixture
def plugin(tmp_path):
    """Writes a plugin file; what it registers is gone afterwards."""
    loaded = set(_LOADED)

    def write(text):
        (tmp_path / "adapted.py").write_text(text)
        return str(tmp_path / "adapted.py")

    yield write
    for name in PLUGGED:
        methods._registry.forget(name)
    for module in set(_LOADED) - loaded:
        del _LOADED[module]


def test_adapters_work_at_the_top_of_a_plugin(plugin, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    assert load_plugin(plugin(PLUGIN)) == {"method": PLUGGED}
    found = attribug.explain([*PLUGGED, "gradient"], model, inputs, targets)
    same_but_for_rounding(found["test_plugin_saliency"], found["gradient"])
    assert torch.equal(found["test_plugin_ones"], torch.ones_like(inputs))
    assert found["test_plugin_lrp"].isfinite().all()


def test_a_plugin_that_fails_withdraws_what_its_adapters_entered(plugin):
    with pytest.raises(attribug.InputError, match=r"does not import: ZeroDivisionError"):
        load_plugin(plugin(PLUGIN + "1 / 0\n"))
    assert not set(PLUGGED) & set(methods.names())
    assert load_plugin(plugin(PLUGIN)) == {"method": PLUGGED}


def test_names_taken_by_the_plugin_are_refused(plugin):
    load_plugin(plugin(PLUGIN))
    with pytest.raises(attribug.InputError, match=r"'test_plugin_ones' is taken by attribug.plugins.adapted_"):
        methods.from_function("test_plugin_ones", plain_gradient)


def test_adapted_methods_promise_what_theirs_promise(as_zennit, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    query = Query(model, inputs, targets)
    attributions(methods.get(as_zennit(composites.EpsilonPlusFlat)), query, {})
    close(query.promised, model(inputs).gather(1, targets[:, None])[:, 0].detach())


class Inheriting(attr.GuidedBackprop):
    """A class of one's own."""


def test_what_a_class_inherits_counts(as_captum, make_inputs):
    inputs, targets = make_inputs()
    with pytest.raises(attribug.Unsupported, match="function calls that hooks cannot see"):
        attribug.explain(as_captum(Inheriting), Functional(), inputs, targets)


def test_permuted_batches_are_refused():
    with pytest.raises(attribug.InputError, match="FeaturePermutation mixes the examples of a batch"):
        methods.from_captum(NAME, attr.FeaturePermutation)


def test_a_layer_that_is_not_there_is_unsupported(as_captum, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    with pytest.raises(attribug.Unsupported, match="the model has no layer 'conv9'"):
        attribug.explain(as_captum(attr.LayerGradCam, layer="conv9"), model, inputs, targets)
