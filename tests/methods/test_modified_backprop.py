"""Guided backpropagation, DeconvNet and guided Grad-CAM against captum, where captum is right, and slow loops; and
refusals where hooks would miss a rectifier."""

import warnings

import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional

import attribug

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
DTYPES = [(torch.float64, 1e-8), (torch.float32, 1e-4)]


class Functional(nn.Module):
    """Convolution, activation, convolution, nn.ReLU or the activation again, dense layer."""

    def __init__(self, activation, *, module: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.dense = nn.Linear(4 * 16 * 16, 3)
        self.activation = activation
        self.relu = nn.ReLU() if module else activation

    def forward(self, x):
        return self.dense(self.relu(self.two(self.activation(self.one(x)))).flatten(1))


class Unused(nn.Module):
    """A functional ReLU that counts, and a ReLU module whose output goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 16 * 16, 3), nn.ReLU()

    def forward(self, x):
        hidden = self.conv(x)
        self.relu(hidden)
        return self.dense(functional.relu(hidden).flatten(1))


class Shared(nn.Module):
    """One ReLU module, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.dense, self.relu = nn.Linear(4 * 16 * 16, 3), nn.ReLU()

    def forward(self, x):
        return self.dense(self.relu(self.two(self.relu(self.one(x)))).flatten(1))


def captums(model, inputs, targets, method=attr.GuidedBackprop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum announces its hooks
        return method(model).attribute(inputs, target=targets)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_is_captums(dtype, tolerance, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(dtype), make_inputs(dtype)
    found = attribug.explain("guided_backprop", model, inputs, targets)
    gradient = attribug.explain("gradient", model, inputs, targets)
    assert not torch.allclose(found, gradient, rtol=1e-2)
    torch.testing.assert_close(found, captums(model, inputs, targets), rtol=tolerance, atol=tolerance * 1e-2)


def test_a_relu_used_twice_is_guided_twice(make_inputs):
    torch.manual_seed(0)
    model, (inputs, targets) = Shared().double(), make_inputs()
    twice = nn.Sequential(model.one, nn.ReLU(), model.two, nn.ReLU(), nn.Flatten(), model.dense)
    shared, separate = (attribug.explain("guided_backprop", each, inputs, targets) for each in (model, twice))
    torch.testing.assert_close(shared, separate, rtol=1e-12, atol=1e-14)


def test_is_a_slow_loop_backwards(make_inputs):
    """Springenberg et al., figure 1c, by hand: R ← (f > 0) · (R > 0) · R at every ReLU."""
    torch.manual_seed(1)
    first, second, last = (nn.Linear(a, b).double() for a, b in ((768, 20), (20, 20), (20, 3)))
    inputs, targets = make_inputs()
    found = attribug.explain(
        "guided_backprop", nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last), inputs, targets
    )
    for row in range(len(inputs)):
        a = first(inputs[row].flatten())
        b = second(a.relu())
        signal = last.weight[targets[row]]
        signal = torch.where((b > 0) & (signal > 0), signal, 0) @ second.weight
        signal = torch.where((a > 0) & (signal > 0), signal, 0) @ first.weight
        torch.testing.assert_close(found[row], signal.reshape(3, 16, 16), rtol=1e-10, atol=1e-12)


def test_captum_falls_back_to_the_gradient_without_a_word_and_we_refuse(make_inputs):
    """The motive: captum's hooks cannot see functional ReLUs, and its map is then the plain gradient."""
    torch.manual_seed(2)
    model, (inputs, targets) = Functional(functional.relu).double(), make_inputs()
    assert torch.equal(
        captums(model, inputs, targets), attr.Saliency(model).attribute(inputs, target=targets, abs=False)
    )
    with pytest.raises(attribug.Unsupported, match=r"2 ReLU\(s\) are function calls that hooks cannot see"):
        attribug.explain("guided_backprop", model, inputs, targets)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Functional(functional.relu, module=True), r"1 ReLU\(s\) are function calls"),
        (Functional(lambda x: functional.relu(x, inplace=True), module=True), r"1 ReLU\(s\) are function calls"),
        (Functional(torch.Tensor.relu, module=True), r"1 ReLU\(s\) are function calls"),
        (Unused(), r"1 ReLU\(s\) are function calls"),
        (Functional(lambda x: x.clamp(min=0), module=True), "Clamp"),
        (Functional(lambda x: torch.clamp_min(x, 0), module=True), "Clamp"),
        (Functional(lambda x: torch.maximum(x, torch.zeros_like(x)), module=True), "Maximum"),
        (Functional(nn.Threshold(0.0, 0.0), module=True), "Threshold"),
        (Functional(lambda x: x, module=False), "has no ReLU"),
    ],
)  # fmt: skip
def test_other_rectifiers_are_refused(model, reason, make_inputs):
    inputs, targets = make_inputs(torch.float32)
    with pytest.raises(attribug.Unsupported, match=reason):
        attribug.explain("guided_backprop", model, inputs, targets)


@pytest.mark.parametrize("module", [False, True], ids=["alone", "beside ReLU"])
@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU6(), nn.ReLU6(inplace=True), nn.GELU(), nn.SiLU(), nn.LeakyReLU(), nn.ELU(), nn.SELU(), nn.CELU(),
        nn.RReLU(), nn.PReLU(), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.Sigmoid(), nn.Tanh(),
        nn.Softplus(), nn.LogSigmoid(), nn.Softshrink(), nn.Hardshrink(), nn.Tanhshrink(),
    ],
    ids=str,
)  # fmt: skip
def test_other_activations_are_refused(activation, module, make_inputs):
    inputs, targets = make_inputs(torch.float32)
    with pytest.raises(attribug.Unsupported, match="is defined for ReLU networks; the model uses"):
        attribug.explain("guided_backprop", Functional(activation, module=module), inputs, targets)


def test_relu_in_place_gives_the_same_map(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    expected = attribug.explain("guided_backprop", model, inputs, targets)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    assert torch.equal(attribug.explain("guided_backprop", model, inputs, targets), expected)
    assert all(module.inplace for module in model.modules() if isinstance(module, nn.ReLU))
    assert not torch.equal(expected, attribug.explain("gradient", model, inputs, targets))


def test_plain_backward_hooks_can_still_be_registered_afterwards(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    attribug.explain("guided_backprop", model, inputs, targets)
    for module in model.modules():
        module.register_backward_hook(lambda *_: None)  # raises on a module that ever had a full hook


# --- DeconvNet and guided Grad-CAM ---


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_deconvnet_is_captums(dtype, tolerance, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(dtype), make_inputs(dtype)
    maps = attribug.explain(["deconvnet", "guided_backprop", "gradient"], model, inputs, targets)
    expected = captums(model, inputs, targets, attr.Deconvolution)
    torch.testing.assert_close(
        maps["deconvnet"], expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )
    for other in ("guided_backprop", "gradient"):
        assert not torch.allclose(maps["deconvnet"], maps[other], rtol=1e-2)


def test_deconvnet_is_a_slow_loop_backwards(make_inputs):
    """Zeiler & Fergus, section 2.1, by hand: R ← (R > 0) · R at every ReLU, whether it was active or not; a max-pool's
    switches stay."""
    torch.manual_seed(1)
    conv, first, last = nn.Conv2d(3, 2, 1).double(), nn.Linear(128, 20).double(), nn.Linear(20, 3).double()
    inputs, targets = make_inputs()
    layers = (conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), first, nn.ReLU(), last)
    found = attribug.explain("deconvnet", nn.Sequential(*layers), inputs, targets)
    ungated = 0
    for row in range(len(inputs)):
        before = conv(inputs[row]).relu()
        signal = last.weight[targets[row]].relu()
        ungated += int(((signal > 0) & (first(functional.max_pool2d(before, 2).flatten()) < 0)).sum())
        signal = (signal @ first.weight).reshape(2, 8, 8)
        unpooled = torch.zeros(2, 16, 16, dtype=torch.float64)
        for k, i, j in torch.cartesian_prod(*map(torch.arange, (2, 8, 8))).tolist():
            switch = int(before[k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].argmax())
            unpooled[k, 2 * i + switch // 2, 2 * j + switch % 2] = signal[k, i, j]
        expected = torch.einsum("khw,kc->chw", unpooled.relu(), conv.weight[:, :, 0, 0])
        torch.testing.assert_close(found[row], expected, rtol=1e-10, atol=1e-12)
    assert ungated


@pytest.mark.parametrize("pixels", [16, 23])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_guided_grad_cam_is_captums(dtype, tolerance, pixels, make_cnn, make_inputs):
    """And with it the product of its factors: the map, not the share of it that one channel has."""
    model, (inputs, targets) = make_cnn(dtype, pixels=pixels), make_inputs(dtype, pixels=pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum announces its hooks
        method = attr.GuidedGradCam(model, model.conv5)
        expected = method.attribute(inputs.clone(), targets, interpolate_mode="bilinear").detach()
        other = method.attribute(inputs.clone(), targets, interpolate_mode="nearest").detach()
    maps = attribug.explain(["guided_grad_cam", "guided_backprop", "grad_cam"], model, inputs, targets)
    size = float(expected.abs().max())
    assert size > 0
    torch.testing.assert_close(maps["guided_grad_cam"], expected, rtol=tolerance, atol=tolerance * size)
    assert not torch.allclose(maps["guided_grad_cam"], other, rtol=1e-2)
    product = maps["guided_backprop"] * maps["grad_cam"].sum(1, keepdim=True)
    torch.testing.assert_close(maps["guided_grad_cam"], product, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("name", ["deconvnet", "guided_grad_cam"])
def test_relus_used_twice_or_in_place_give_the_same_map(name, make_inputs):
    torch.manual_seed(3)
    model, (inputs, targets) = Shared().double(), make_inputs()
    twice = nn.Sequential(model.one, nn.ReLU(), model.two, nn.ReLU(), nn.Flatten(), model.dense)
    expected, shared = (attribug.explain(name, each, inputs, targets) for each in (twice, model))
    assert expected.any()
    torch.testing.assert_close(shared, expected, rtol=1e-12, atol=1e-14)
    model.relu.inplace = True
    assert torch.equal(attribug.explain(name, model, inputs, targets), shared)


@pytest.mark.parametrize("name", ["deconvnet", "guided_grad_cam"])
@pytest.mark.parametrize(
    ("activation", "module", "reason"),
    [
        (functional.relu, False, r"2 ReLU\(s\) are function calls"),
        (functional.relu, True, r"1 ReLU\(s\) are function calls"),
        (nn.GELU(), True, "is defined for ReLU networks; the model uses Gelu"),
    ],
)
def test_rectifiers_that_hooks_would_miss_are_refused(name, activation, module, reason, make_inputs):
    inputs, targets = make_inputs(torch.float32)
    with pytest.raises(attribug.Unsupported, match=reason):
        attribug.explain(name, Functional(activation, module=module), inputs, targets)


def test_guided_grad_cam_reads_after_the_relu_where_grad_cam_does(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    found, cam = (
        attribug.explain(name, model, inputs, targets, after_relu=True) for name in ("guided_grad_cam", "grad_cam")
    )
    product = attribug.explain("guided_backprop", model, inputs, targets) * cam.sum(1, keepdim=True)
    torch.testing.assert_close(found, product)
    assert not torch.allclose(found, attribug.explain("guided_grad_cam", model, inputs, targets), rtol=1e-2)
