"""Relevance under zennit's composites: passes, canonisation, and what a composite must reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attribug.errors import Unsupported
from attribug.query.preflight import POOLS, plain_layers, refuse_deviations, require
from attribug.query.query import Query
from attribug.query.trace import Trace, graph, reaches, trace

Start = Literal["logit", "one"]
Composite = Callable[[], Any]
SAME_OUTPUT = 1e-3  # how much merged batch norms may move the outputs, of their largest


def relevance(query: Query, make: Composite, *, start: Start = "logit", every_operation: bool = True) -> Tensor:
    """Relevance of the inputs, (N, *shape), under a zennit composite that `make` makes anew for every pass.

    `start`: what the target's output is given, its `logit` or `one`. With `every_operation`, raises `Unsupported` where
    an operation of the canonised model has no rule, a layer computes something else than its rule supposes, or merging
    batch norms would change the model. zennit clears the weights' gradients and merges batch norms while it works; both
    are undone.

    A model that normalises its inputs itself, (x − mean) / deviation channel by channel before its first layer, is
    explained as if that step were the 1 × 1 convolution (of vectors: the dense layer) that computes the same.
    """
    if every_operation:
        step = refuse_without_rules(query, make())
    else:
        step = None
        require(query, "plain_layers", plain_layers)
    model = query.model if step is None else _Prepared(step, query.model)
    maps, totals = [], []
    for inputs, targets in query.parts():
        leaf = query.exactly(inputs.detach()).clone().requires_grad_(True)
        with torch.enable_grad(), make().context(model):
            # a view, because hooks on the first module would meet the leaf itself
            logits = query.target_logits(leaf.view_as(leaf), targets, through=model)
            total = logits.detach() if start == "logit" else torch.ones_like(logits)
            maps.append(query.backward(logits * total, leaf).detach())
        totals.append(total)
    if every_operation:
        query.promise(torch.cat(totals))
    return torch.cat(maps)


def composite(convolution: Composite, dense: Composite, *, first: Composite | None = None) -> Any:
    """A zennit composite of rules for convolutions, dense layers and, if given, the layer that comes first."""
    from zennit.composites import LayerMapComposite, SpecialFirstLayerMapComposite
    from zennit.layer import Sum
    from zennit.rules import Norm, Pass
    from zennit.types import Activation, AvgPool, Convolution

    layers = [(Activation, Pass()), (Sum, Norm()), (AvgPool, Norm())]
    layers += [(Convolution, convolution()), (nn.Linear, dense())]
    if first is None:
        return LayerMapComposite(layer_map=layers, canonizers=canonizers())
    firsts = [(Convolution, first()), (nn.Linear, first())]
    return SpecialFirstLayerMapComposite(layer_map=layers, first_map=firsts, canonizers=canonizers())


def canonizers() -> list[Any]:
    """Merge batch norms into the layers before them; make residual sums of torchvision's ResNets visible to rules."""
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer

    class Merge(SequentialMergeBatchNorm):  # type: ignore[misc]
        """Leaves the identity behind; zennit 0.5 leaves 1 / √(1 + eps), which adds up in deep networks."""

        def register(self, linears: Any, batch_norm: Any) -> None:
            self.eps = batch_norm.eps
            super().register(linears, batch_norm)
            batch_norm.eps = 0.0

        def remove(self) -> None:
            super().remove()
            self.batch_norm.eps = self.eps

    return [Merge(), ResNetBottleneckCanonizer(), ResNetBasicBlockCanonizer()]


@dataclass(frozen=True)
class _Step:
    """How a model normalises its inputs before its first layer."""

    layer: nn.Module
    """The layer that takes the normalised inputs."""
    convolution: nn.Module
    """What computes them: a convolution of single positions, or a dense layer."""


class _Prepared(nn.Module):
    """A model with its first step as a layer of its own: what that gives takes the place of what the model makes."""

    def __init__(self, step: _Step, model: nn.Module) -> None:
        super().__init__()
        self.step, self.model = step.convolution, model
        self._first = [step.layer]  # in a list, so that it is no second child

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """Modules by the names that they have in the model, for composites that go by them; the step first."""
        yield "", self
        yield "normalisation", self.step
        yield from self.model.named_modules(*args, **kwargs)

    def forward(self, inputs: Tensor) -> Any:
        """The model's outputs, differentiable through the step."""
        given = self.step(inputs)
        handle = self._first[0].register_forward_pre_hook(lambda module, arguments: (given,), prepend=True)
        try:
            return self.model(inputs.detach())
        finally:
            handle.remove()


def refuse_without_rules(query: Query, made: Any) -> _Step | None:
    """Raises `Unsupported` unless a composite's rules reach every operation of the canonised model.

    Returns how the model normalises its inputs before its first layer, None where it does not.
    """
    from zennit.types import Activation

    _refuse_unmergeable(query.model)
    layers, first = _layers(), query.first()
    checked: Any = (nn.ReLU, *POOLS, *layers[:-1])  # a sum is what canonizers put in
    with torch.no_grad():
        before = query.model(first.clone())
    with _canonised(query.model, made.canonizers) as merged:
        with query.at_default_device():
            seen = trace(query.model, first, plain=checked, changed=True)
        context: dict[str, Any] = {}
        modules = list(query.model.named_modules())
        with_rule = {module for name, module in modules if made.module_map(context, name, module) is not None}
    near = max(SAME_OUTPUT, 8 * torch.finfo(before.dtype).eps) * float(before.abs().max())
    if not torch.allclose(seen.outputs.detach(), before, rtol=0, atol=near, equal_nan=True):
        cause = (
            "merging batch norms into the layers before them changes" if merged else "chance or an earlier pass change"
        )
        raise Unsupported(f"{cause} the model's outputs")
    refuse_deviations(seen)
    ran = [module for module, _, _ in seen.calls if isinstance(module, (Activation, *layers)) or module in merged]
    without = sorted({type(m).__name__ for m in ran if isinstance(m, layers) and m not in with_rule | merged})
    if without:
        raise Unsupported(f"the composite has no rule for {without[0]} (every_operation=False lets it pass as it is)")
    count, step = _preparation(seen)
    for beyond in seen.steps[count:]:
        if beyond.module not in ran and not beyond.hands_on:
            operation = seen.told(beyond)
            raise Unsupported(f"no rule reaches the operation {operation}, which no module with a rule carries out")
    _refuse_untracked(seen)
    _refuse_reused(ran, seen)
    _refuse_another_first(made, query.model, ran, seen)
    return step


def _layers() -> tuple[Any, ...]:
    """Types of modules that need a rule."""
    from zennit.layer import Sum
    from zennit.types import AvgPool, Convolution

    return AvgPool, Convolution, nn.Linear, Sum


def _refuse_untracked(seen: Trace) -> None:
    if seen.cut is not None:
        told = seen.called(seen.cut)
        raise Unsupported(f"no gradient flows back from {told}: a detached tensor, no_grad, or a reentrant checkpoint")


def _refuse_reused(ran: Sequence[nn.Module], seen: Trace) -> None:
    for layer, count in Counter(module for module in ran if isinstance(module, _layers())).items():
        if count > 1:
            raise Unsupported(f"module {seen.names[layer]!r} runs {count} times; rules remember one run of each layer")


def _refuse_unmergeable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.weight is None or module.running_mean is None
        ):
            raise Unsupported(f"batch norm {name!r} has no weights or statistics that could be merged")


def _preparation(seen: Trace) -> tuple[int, _Step | None]:
    """How many operations normalise the input before the first layer runs, and what they compute: 0 and None where they
    do anything else, or nothing."""
    layers = _layers()
    count = next((place for place, step in enumerate(seen.steps) if isinstance(step.module, layers)), 0)
    steps = seen.steps[:count]
    call = next(((layer, arguments[0]) for layer, arguments, _ in seen.calls if isinstance(layer, layers)), None)
    if call is None or all(step.hands_on for step in steps) or not all(step.entrywise for step in steps):
        return 0, None
    layer, entered = call
    if entered.shape != seen.leaf.shape or reaches(graph(seen.outputs, without=entered.grad_fn), seen.leaf):
        return 0, None
    convolution = _as_convolution(seen.leaf, entered)
    return (0, None) if convolution is None else (count, _Step(layer, convolution))


def _as_convolution(leaf: Tensor, entered: Tensor) -> nn.Module | None:
    """A layer that gives `entered` from `leaf`, both (1, C, *positions) or (1, D), where all positions of a channel are
    scaled and shifted alike; else None."""
    if entered.ndim not in CONVOLUTIONS:
        return None
    (scales,) = torch.autograd.grad(entered.sum(), leaf, retain_graph=True)
    scales = scales.double().flatten(2) if leaf.ndim > 2 else scales.double()[..., None]  # (1, C, positions)
    shifts = (entered - leaf * scales.reshape(leaf.shape)).detach().double().reshape(scales.shape)
    near = torch.finfo(leaf.dtype).eps ** 0.5
    for values in (scales, shifts):
        if not torch.allclose(values, values[..., :1].expand_as(values), rtol=near, atol=near):
            return None
    channels = scales.shape[1]
    layer: Any = CONVOLUTIONS[entered.ndim](channels)
    layer = layer.to(leaf.device, leaf.dtype).eval().requires_grad_(False)
    layer.weight.copy_(torch.diag(scales[0].mean(1)).reshape(layer.weight.shape))
    layer.bias.copy_(shifts[0].mean(1))
    return layer if torch.allclose(layer(leaf), entered, rtol=near, atol=near) else None


CONVOLUTIONS: dict[int, Callable[[int], nn.Module]] = {
    2: lambda channels: nn.Linear(channels, channels),
    3: lambda channels: nn.Conv1d(channels, channels, 1),
    4: lambda channels: nn.Conv2d(channels, channels, 1),
}
"""Layers of single positions, by the number of the inputs' axes."""


def _refuse_another_first(made: Any, model: nn.Module, ran: Sequence[nn.Module], seen: Trace) -> None:
    """Raises `Unsupported` where a composite's rule for the first layer would go to another one."""
    from zennit.composites import SpecialFirstLayerMapComposite
    from zennit.types import Convolution

    if not isinstance(made, SpecialFirstLayerMapComposite):
        return
    listed = next((module for module in model.modules() if isinstance(module, Convolution | nn.Linear)), None)
    first = next((module for module in ran if isinstance(module, Convolution | nn.Linear)), None)
    if listed is None or first is None:
        return
    if listed is not first:
        found = f"{seen.names[listed]!r}, but {seen.names[first]!r} runs first"
        raise Unsupported(f"the first layer's rule goes to the layer listed first, {found}")
    calls = [call for call in seen.calls if isinstance(call[0], Convolution | nn.Linear)]
    before = {output.grad_fn for _, _, output in calls}
    also = [seen.names[layer] for layer, (given, *_), _ in calls if layer is not first and not graph(given) & before]
    if also:
        raise Unsupported(f"the first layer's rule goes to {seen.names[first]!r}, but {also[0]!r} takes the input too")


@contextmanager
def _canonised(model: nn.Module, merging: Sequence[Any]) -> Iterator[set[nn.Module]]:
    """The model with canonizers applied; gives the batch norms that they merged into other layers."""
    applied: list[Any] = []
    try:
        try:
            for canonizer in merging:
                applied += canonizer.apply(model)
        except RuntimeError as error:
            raise Unsupported(f"a batch norm cannot be merged into the layer listed before it: {error}") from error
        yield {instance.batch_norm for instance in applied if hasattr(instance, "batch_norm")}
    finally:
        for instance in reversed(applied):
            instance.remove()
