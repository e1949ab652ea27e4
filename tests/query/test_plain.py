"""Layers that compute something else than their type says are told by what they give, trainable or frozen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from attribug.query.plain import deviation

OWN = "computes its weight from other tensors"
ELSE = "computes something else than"


def images() -> Tensor:
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def conv(kind: type[nn.Conv2d] = nn.Conv2d) -> Any:
    torch.manual_seed(0)
    return kind(3, 4, 3, padding=1)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Padding(nn.Conv2d):
    """Overrides what `nn.Conv2d.forward` calls."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight.abs(), bias)


class Clamping(nn.Conv2d):
    """The plain operation as long as weights are small, and another one under those that rules put in."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.clamp(-0.5, 0.5), self.bias)


class Adapted(nn.Conv2d):
    """W + A, where A is zero at first."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.a = nn.Parameter(torch.zeros_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight + self.a, self.bias)


class Spelled(nn.Conv2d):
    """A forward of its own that is the plain one."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, padding=1)


class Doubling(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.relu()


class Half(nn.Module):
    """Half of a weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def hooked() -> nn.Module:
    layer = conv()
    layer.register_forward_hook(lambda module, arguments, output: 2 * output)
    return layer


def replaced() -> nn.Module:
    layer = conv()
    layer.forward = lambda x: nn.Conv2d.forward(layer, x) + 1
    return layer


def parametrised() -> nn.Module:
    layer = conv()
    parametrize.register_parametrization(layer, "weight", Half())
    return layer


def adapted() -> nn.Module:
    layer = conv(Adapted)
    nn.init.ones_(layer.a)
    return layer


COMPUTED: dict[str, tuple[Callable[[], Any], str]] = {
    "pruned": (lambda: prune.l1_unstructured(conv(), "weight", 0.3), OWN),
    "its bias is pruned": (
        lambda: prune.l1_unstructured(conv(), "bias", 0.5),
        "has parameters besides weight and bias",
    ),
    "weight norm": (lambda: parametrizations.weight_norm(conv()), OWN),
    "spectral norm": (lambda: parametrizations.spectral_norm(conv()), OWN),
    "orthogonal": (lambda: parametrizations.orthogonal(conv()), OWN),
    "a parametrization of one's own": (parametrised, OWN),
    "spectral norm, old": (lambda: spectral_norm(conv()), OWN),
    "adapted by nothing yet": (lambda: conv(Adapted), "has parameters besides weight and bias: a"),
    "clamped beyond its weights": (lambda: conv(Clamping), "once its weights are changed"),
}
OTHERWISE: dict[str, tuple[Callable[[], Any], str]] = {
    "standardised": (lambda: conv(Standardised), ELSE),
    "absolute weights": (lambda: conv(Padding), ELSE),
    "adapted": (adapted, ELSE),
    "a hook that doubles": (hooked, ELSE),
    "a forward of the object's own": (replaced, ELSE),
    "a rectifier that doubles": (Doubling, ELSE),
}
PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (conv, (1, 3, 8, 8)),
    "spelled out": (lambda: conv(Spelled), (1, 3, 8, 8)),
    "reflecting": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (1, 3, 8, 8)),
    "one-dimensional": (lambda: nn.Conv1d(3, 4, 3), (1, 3, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), (1, 3, 8, 8)),
    "dense": (lambda: nn.Linear(8, 4), (1, 8)),
    "dense on tokens": (lambda: nn.Linear(8, 4, bias=False), (1, 5, 8)),
    "rectifier": (nn.ReLU, (1, 3, 8, 8)),
    "max-pooling": (lambda: nn.MaxPool1d(2), (1, 3, 8)),
    "mean-pooling": (lambda: nn.AvgPool2d(2), (1, 3, 8, 8)),
    "adaptive pooling": (lambda: nn.AdaptiveAvgPool2d(3), (1, 3, 8, 8)),
    "batch norm": (lambda: nn.BatchNorm2d(3), (1, 3, 8, 8)),
}


def told(layer: nn.Module, x: Tensor, *, changed: bool) -> str:
    layer.eval()
    with torch.no_grad():
        return deviation(layer, (x,), layer(x), changed=changed)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layer", COMPUTED)
def test_weights_that_are_computed_fit_no_rule_but_are_what_they_are(layer, frozen):
    make, reason = COMPUTED[layer]
    made = make().requires_grad_(not frozen)
    assert reason in told(made, images(), changed=True)
    assert told(made, images(), changed=False) == ""  # patterns may read the weight that the layer shows


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_the_old_weight_norm_shows_a_weight_that_it_computes():
    assert OWN in told(weight_norm(conv()), images(), changed=True)


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("layer", OTHERWISE)
def test_layers_that_compute_something_else_are_told(layer, changed):
    make, reason = OTHERWISE[layer]
    assert reason in told(make(), images(), changed=changed)


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layer", PLAIN)
def test_plain_layers_pass(layer, dtype, changed):
    make, shape = PLAIN[layer]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert told(make().to(dtype), x, changed=changed) == ""


def test_autocast_is_told_by_its_name():
    layer, x = conv(), images()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert "autocast in the model's forward" in deviation(layer, (x,), output)


@pytest.mark.parametrize("kind", [Clamping, Spelled, Standardised])
def test_a_layer_has_its_own_weights_back(kind):
    class Failing(kind):  # type: ignore[misc, valid-type]
        fails = False

        def forward(self, x: Tensor) -> Tensor:
            if self.fails and float(self.weight.detach().abs().max()) > 0.5:
                raise KeyError
            return super().forward(x)

    layer = conv(Failing)
    before, values = dict(layer._parameters), {name: value.clone() for name, value in layer.state_dict().items()}
    told(layer, images(), changed=True)
    with torch.no_grad():
        output = layer(images())
        layer.fails = True
        if kind is not Standardised:  # that one is told before other weights are tried
            with pytest.raises(KeyError):
                deviation(layer, (images(),), output, changed=True)
    assert all(layer._parameters[name] is value for name, value in before.items())
    assert all(torch.equal(value, values[name]) for name, value in layer.state_dict().items())


def test_what_takes_several_tensors_is_no_plain_layer():
    assert deviation(nn.Bilinear(2, 2, 2), (torch.ones(1, 2), torch.ones(1, 2)), torch.ones(1, 2)) != ""
    assert deviation(nn.Sequential(), (torch.ones(1, 2),), (torch.ones(1, 2),)) != ""
