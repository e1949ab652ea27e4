"""What a fix has at hand: the contaminated training, what is held out, the layers that it works on."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Trained
from attribug.errors import InputError, Unsupported
from attribug.models import checks
from attribug.models.fitting import fitted
from attribug.models.lab import logits
from attribug.models.training import unfilled
from attribug.streams import generator

ROWS = 256  # of a pass without gradients
TRIED = 2  # examples that tell what a network does
WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def contaminated(contrast: Contrast) -> Trained:
    """The contaminated training. Raises `Unsupported` where there is none, or its examples know of no shortcut."""
    model = contrast.contaminated.model
    if not isinstance(model, Trained):
        raise Unsupported("expected a model that training contaminated; this one's weights or inputs were changed")
    if isinstance(model.recipe.fit, partial) and model.recipe.fit.func is fitted:
        raise Unsupported("expected a training that a fix can change, found a function of yours (--fit)")
    if not contrast.tests:
        raise Unsupported("expected a bug that teaches a shortcut; this one has no test set that tells who learnt it")
    return model


def held_out(contrast: Contrast, name: str) -> Examples:
    """The held-out examples `biased` or `balanced`. Raises `Unsupported` where there are none."""
    if name not in contrast.held_out:
        raise Unsupported(f"expected {name} examples that neither train nor test, found none: no validation split")
    return contrast.held_out[name]


def annotated(data: Data) -> Tensor:
    """Where the inputs must not matter, (N, *shape) bool. Raises `Unsupported` where nobody says."""
    if data.annotations is None:
        raise Unsupported("expected training examples with annotations of what must not matter, found none")
    return data.annotations


def groups(data: Data) -> Tensor:
    """Label and shortcut together, (N,) int64. Raises `Unsupported` where nobody says."""
    if data.groups is None:
        raise Unsupported("expected examples with groups of label and shortcut, found none")
    return data.groups


def at_least(fix: str, name: str, value: float, least: float) -> None:
    """Raises `InputError` for a parameter below its least value, or none that is finite."""
    if not least <= value < math.inf:
        raise InputError(f"{fix}: expected a finite {name} of at least {least:g}, found {value:g}")


def untrained(model: Trained) -> nn.Module:
    """The network as before its training, in eval mode."""
    return unfilled(model).eval()


def tried(shape: tuple[int, ...]) -> Tensor:
    """Noise in [0, 1), (2, *shape) float32: what a network is tried on."""
    return torch.rand((TRIED, *shape), generator=generator("fix", "tried", *shape))


def first_dense(model: nn.Module, shape: tuple[int, ...], layer: str = "") -> str:
    """Name of the first dense layer with inputs (N, H) that another layer with weights runs before; of `layer`, where
    it is such a one. Raises `Unsupported` where there is none, for a layer that is none, or has no bias."""
    names = {module: name for name, module in model.named_modules()}
    ran = [(module, given) for module, given in _ran(model, tried(shape)) if isinstance(module, WEIGHTED)]
    behind = [names[module] for module, given in ran[1:] if isinstance(module, nn.Linear) and given.ndim == 2]
    if layer and layer not in behind:
        known = ", ".join(behind) or "none"
        raise Unsupported(
            f"layer: expected a dense layer with inputs (N, H) behind another layer ({known}), got {layer!r}"
        )
    if not behind:
        raise Unsupported("expected a dense layer with inputs (N, H) behind another layer, found none")
    return _with_bias(model, layer or behind[0])


def last_dense(model: nn.Module, inputs: Tensor) -> str:
    """Name of the dense layer that makes the outputs (N, K) of (N, H). Raises `Unsupported` where none does, or it
    has no bias."""
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    ran = [(module, given) for module, given in _ran(model, inputs[:TRIED]) if isinstance(module, nn.Linear)]
    with torch.no_grad():
        outputs = model(inputs[:TRIED])
        if not ran or ran[-1][1].ndim != 2 or not torch.equal(ran[-1][0](ran[-1][1]), outputs):
            raise Unsupported("expected a network whose outputs are those of a dense layer, found another")
    return _with_bias(model, names[ran[-1][0]])


def activations(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """What a layer is given for inputs (N, *shape), (N, H) on the CPU, without gradients."""
    module, device = model.get_submodule(layer), next(model.parameters()).device
    found = []
    for rows in inputs.split(ROWS):
        found += [given.cpu() for ran, given in _ran(model, rows.to(device)) if ran is module]
    return torch.cat(found)


def predictions(model: nn.Module, inputs: Tensor) -> Tensor:
    """The classes that an eval-mode model predicts, (N,) int64 on the CPU."""
    return logits(model, inputs).argmax(1)


def accuracy(model: nn.Module, data: Data) -> float:
    """Share of examples whose label an eval-mode model predicts."""
    return float(checks.accuracy(logits(model, data.inputs), data.labels.cpu()))


def _with_bias(model: nn.Module, name: str) -> str:
    if model.get_submodule(name).bias is None:
        raise Unsupported(f"expected a dense layer with a bias, found {name!r} without")
    return name


def _ran(model: nn.Module, inputs: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Modules without children and what each was given first, in the order in which they ran."""
    found: list[tuple[nn.Module, Tensor]] = []

    def began(module: nn.Module, arguments: tuple[object, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            found.append((module, arguments[0].detach()))

    handles = [each.register_forward_pre_hook(began) for each in model.modules() if not list(each.children())]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
