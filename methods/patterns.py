"""PatternNet and PatternAttribution: signal directions fitted to each explained model on its own training data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from attribug import keys, methods
from attribug.errors import Unsupported
from attribug.query.hooks import forward_hooks
from attribug.query.passes import Cost
from attribug.query.preflight import refuse_deviations
from attribug.query.query import Query, at_least_single
from attribug.query.trace import trace

ROUNDING = 100  # times the rounding of a neuron's power: where it varies less, it has no pattern
Layer = nn.Conv2d | nn.Linear
Patterns = dict[Layer, Tensor]
IDLE = (nn.Dropout, nn.Dropout2d, nn.Identity)
PASSED = (*IDLE, nn.MaxPool2d)
"""What may stand between a layer and its ReLU."""
KNOWN = (
    nn.Conv2d, nn.Linear, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, *IDLE,
)  # fmt: skip


@methods.register(
    "pattern_net", needs=("piecewise_linear", "layers_run_once"), fits_training_data=True,
    paper="Kindermans et al. 2018, eqs. 6 and 9, section 4",
)  # fmt: skip
def pattern_net(query: Query) -> Tensor:
    """PatternNet shows the signal: what the network's neurons respond to in the input, without distractors.

    Back-projection of the target's logit with patterns a in place of weights, ReLU gates kept.
    """
    with back_projecting(patterns(query)):
        return query.input_gradients()


@methods.register(
    "pattern_attribution", needs=("piecewise_linear", "layers_run_once"), fits_training_data=True,
    paper="Kindermans et al. 2018, section 4",
)  # fmt: skip
def pattern_attribution(query: Query) -> Tensor:
    """PatternAttribution shows how much the signal in the input contributes to the class's logit.

    Back-projection with a ⊙ w in place of weights, a the patterns of `pattern_net`.
    """
    with back_projecting({layer: a * layer.weight.detach() for layer, a in patterns(query).items()}):
        return query.input_gradients()


@dataclass
class _Sums:
    """Running sums of one layer over samples and positions, in float64: k neurons, d inputs of each."""

    active: Tensor  # (k,) how often
    inputs: Tensor  # (2k, d): of x, then of x y, both where a neuron is active
    y: Tensor  # (k,)
    count: int = 0


def patterns(query: Query) -> Patterns:
    """The patterns of the query's model, shaped as its weights and at least float32; fitted once for a model and its
    training examples, where the query may remember them. Those of layers that it shares with the model that it was made
    of, and with others made of that, are fitted once for all: they see the same inputs."""
    inputs, layers = query.train_inputs, _layers(query.model)
    key = "patterns", keys.digest(*query.model.parameters(), inputs)
    if key in query.kept:
        fitted, cost = query.kept[key]
        query.charge(cost)
        return dict(zip(layers, fitted, strict=True))
    below = query.below
    skip = 0 if below is None else _before_the_last_step(query.model, below.count)
    lower: list[Tensor] = []
    alone = 0.0
    if below is not None and skip:
        theirs = [parameter for layer in layers[:skip] for parameter in layer.parameters()]
        common = "patterns of shared layers", skip, query.rows, keys.digest(*theirs, inputs)
        lower, alone = below.kept.get(common, (lower, alone))
    upper, cost = query.priced(partial(fit, query.model, inputs, query.rows, query.forward, skip=len(lower)))
    fitted = [*lower, *upper.values()]
    if below is not None and skip and not lower:
        below.kept[common] = fitted[:skip], cost.seconds
    spared = max(0.0, alone - cost.seconds)  # a fit of all layers takes so much longer
    query.charge(Cost(spared))
    query.kept[key] = fitted, Cost(cost.seconds + spared, cost.forward, cost.backward)
    return dict(zip(layers, fitted, strict=True))


def _before_the_last_step(model: nn.Module, count: int) -> int:
    """How many layers with weights stand in the first `count` of a chain with something behind them there that is more
    than passed through: what follows a layer tells when its neurons are active."""
    chain = list(cast("nn.Sequential", model))[:count]
    steps = [module for module in chain if not isinstance(module, PASSED)]
    return len([module for module in steps[:-1] if isinstance(module, nn.Conv2d | nn.Linear)])


def fit(
    model: nn.Module,
    inputs: Tensor,
    rows: int,
    forward: Callable[[Tensor], Tensor] | None = None,
    *,
    skip: int = 0,
) -> Patterns:
    """a = cov / (wᵀcov) with cov = E₊[x y] − E₊[x] E[y], y = wᵀx without bias, E₊ over samples whose neuron is active
    after its ReLU, bias included (a layer without ReLU: over all); one pass over `inputs` (N, *shape), `rows` at a time
    through `forward` (default: the model). `skip`: the first layers of which none is wanted.

    Raises `Unsupported` for layers other than convolutions without groups and dense layers, and for those that compute
    something else than these.
    """
    layers = _layers(model)
    if not layers:
        raise Unsupported("patterns are defined for convolutions and dense layers; the model has none")
    place = next(tensor for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point())
    rectified = _rectified(model, inputs[:1].to(place))
    sums: dict[Layer, _Sums] = {}
    with forward_hooks(layers[skip:], _collector(sums, rectified)), torch.no_grad():
        for batch in inputs.split(rows):
            (forward or model)(batch.to(place))
    return {layer: _pattern(layer, sums[layer]) for layer in layers[skip:]}


@contextmanager
def back_projecting(weights: Patterns) -> Iterator[None]:
    """Layers compute as ever, but gradients flow back through `weights` in place of theirs."""

    def hook(layer: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
        other = _linear_part(layer, args[0].to(weights[layer]), weights[layer])
        return (other + (output - other).detach()).to(output.dtype)

    with forward_hooks(weights, hook):
        yield


def _layers(model: nn.Module) -> list[Layer]:
    for module in model.modules():
        if not any(True for _ in module.children()) and not isinstance(module, KNOWN):
            raise Unsupported(f"patterns are defined for convolutions and dense layers; found {type(module).__name__}")
        if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
            raise Unsupported("patterns are defined for convolutions without groups, padded with zeros")
        if isinstance(module, nn.Conv2d) and isinstance(module.padding, str):
            raise Unsupported("patterns need convolutions whose padding is given in pixels")
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _rectified(model: nn.Module, example: Tensor) -> set[nn.Module]:
    """The layers whose output goes into a ReLU next; refuses models that are no chain of modules."""
    seen = trace(model, example, plain=KNOWN)
    refuse_deviations(seen)
    for module in seen.overwritten:
        raise Unsupported(f"something works in place on what {seen.called(module)} gives")
    calls = [call for call in seen.calls if not isinstance(call[0], IDLE)]
    ends = (model, (), seen.leaf), (model, (seen.outputs,), None)
    for (before, _, output), (after, arguments, _) in pairwise([ends[0], *calls, ends[1]]):
        if not torch.equal(arguments[0].flatten(), output.flatten()):
            start = "the input" if before is model else type(before).__name__
            names = f"{start} and {'the output' if after is model else type(after).__name__}"
            raise Unsupported(f"patterns are defined for chains of layers; something happens between {names}")
    flat = all(output.ndim == 2 for layer, _, output in calls if isinstance(layer, nn.Linear))
    if not flat:
        raise Unsupported("patterns are defined for dense layers on vectors (N, D)")
    if set(_layers(model)) - {layer for layer, _, _ in calls}:
        raise Unsupported("patterns are defined for layers that run; one of the model's does not")
    chain = [module for module, _, _ in calls if not isinstance(module, nn.MaxPool2d)]  # it commutes with ReLU
    return {before for before, after in pairwise(chain) if isinstance(after, nn.ReLU)}


def _collector(sums: dict[Layer, _Sums], rectified: set[nn.Module]) -> Callable[..., None]:
    def collect(layer: Layer, args: tuple[Tensor], output: Tensor) -> None:
        shape = (1, -1, 1, 1) if isinstance(layer, nn.Conv2d) else (1, -1)
        if at_least_single(output.dtype) == output.dtype:
            x, y = args[0], output if layer.bias is None else output - layer.bias.reshape(shape)
        else:  # what half precision rounds away is what patterns are made of
            x = args[0].float()
            y = _linear_part(layer, x, layer.weight.float())
        active = (output > 0).to(y) if layer in rectified else torch.ones_like(y)
        neurons = [axis for axis in range(y.ndim) if axis != 1]
        if layer not in sums:
            zero = torch.zeros(y.shape[1], dtype=torch.float64, device=y.device)
            wide = torch.zeros(2 * y.shape[1], layer.weight[0].numel(), dtype=torch.float64, device=y.device)
            sums[layer] = _Sums(zero.clone(), wide, zero)
        total = sums[layer]
        total.active += active.sum(neurons, dtype=torch.float64)
        total.inputs += _weighted_inputs(layer, x, torch.cat([active, active * y], dim=1))
        total.y += y.sum(neurons, dtype=torch.float64)
        total.count += y.numel() // y.shape[1]

    return collect


def _weighted_inputs(layer: Layer, x: Tensor, weights: Tensor) -> Tensor:
    """Σ over samples and positions of weights ⊗ what a neuron sees, (2k, d): a gradient with respect to weights."""
    if isinstance(layer, nn.Linear):
        return weights.T @ x
    shape = (weights.shape[1], *layer.weight.shape[1:])
    window: Any = (layer.stride, layer.padding, layer.dilation)
    gradient: Tensor = conv2d_weight(x, shape, weights, *window)
    return gradient.flatten(1)


def _pattern(layer: Layer, total: _Sums) -> Tensor:
    often = total.active.clamp(min=1)[:, None]
    active_x, active_xy = total.inputs.chunk(2)
    covariance = active_xy / often - (active_x / often) * (total.y / total.count)[:, None]
    weight = layer.weight.detach().double().flatten(1)
    variance, power = ((weight * moment).sum(1, keepdim=True) for moment in (covariance, active_xy / often))
    dtype = at_least_single(layer.weight.dtype)
    usable = variance.abs() > ROUNDING * torch.finfo(dtype).eps * power.abs()
    pattern = torch.where(usable, covariance / torch.where(usable, variance, 1), 0)
    return pattern.reshape(layer.weight.shape).to(dtype)


def _linear_part(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight)
    return functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation)
