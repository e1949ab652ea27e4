"""Relevance under zennit's composites: passes, canonisation, and what a composite must reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attribug.errors import Unsupported
from attribug.query.preflight import POOLS, refuse_deviations
from attribug.query.query import Query
from attribug.query.trace import ELEMENTWISE, Trace, graph, reaches, trace

Start = Literal["logit", "one"]
Composite = Callable[[], Any]
SAME_OUTPUT = 1e-3  # how much merged batch norms may move the outputs, of their largest


def relevance(query: Query, make: Composite, *, start: Start = "logit", every_operation: bool = True) -> Tensor:
    """Relevance of the inputs, (N, *shape), under a zennit composite that `make` makes anew for every pass.

    `start`: what the target's output is given, its `logit` or `one`. With `every_operation`, raises `Unsupported` where
    an operation of the canonised model has no rule, a layer computes something else than its rule supposes, or merging
    batch norms would change the model. zennit clears the weights' gradients and merges batch norms while it works; both
    are undone.

    A model that normalises its inputs itself, (x − mean) / std entry by entry before its first layer, hands relevance
    through that step as it is: the map is that of the normalised input, wherever the step stands.
    """
    entry = refuse_without_rules(query, make()) if every_operation else None
    maps, totals = [], []
    for inputs, targets in query.parts():
        leaf = query.exactly(inputs.detach()).clone().requires_grad_(True)
        with _entering(entry) as entered, torch.enable_grad(), make().context(query.model):
            # a view, because hooks on the first module would meet the leaf itself
            logits = query.target_logits(leaf.view_as(leaf), targets)
            total = logits.detach() if start == "logit" else torch.ones_like(logits)
            if entered:
                maps.append(_through_preparation(query, logits * total, entered[0], leaf))
            else:
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


@contextmanager
def _entering(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """Gives what goes into a layer, while the model runs: a list that it enters."""
    entered: list[Tensor] = []
    if layer is None:
        yield entered
        return
    handle = layer.register_forward_pre_hook(lambda module, arguments: entered.append(arguments[0]))
    try:
        yield entered
    finally:
        handle.remove()


def _through_preparation(query: Query, start: Tensor, entered: Tensor, leaf: Tensor) -> Tensor:
    """Relevance at the leaf, of what flows back to the entrance of the first layer: autograd finds the way between
    them, and multiplies by slopes, which are taken out again."""
    arriving = query.backward(start, entered).detach().to(entered.dtype)
    (placed,) = torch.autograd.grad(entered, leaf, arriving, retain_graph=True)
    (slopes,) = torch.autograd.grad(entered, leaf, torch.ones_like(entered))
    return torch.where(slopes == 0, 0, placed / slopes).detach()


def refuse_without_rules(query: Query, made: Any) -> nn.Module | None:
    """Raises `Unsupported` unless a composite's rules reach every operation of the canonised model.

    Returns the first layer where the model normalises its inputs before it; else None.
    """
    from zennit.layer import Sum
    from zennit.types import Activation, AvgPool, Convolution

    _refuse_unmergeable(query.model)
    layers, first = (AvgPool, Convolution, nn.Linear, Sum), query.first()
    checked: Any = (nn.ReLU, *POOLS, AvgPool, Convolution, nn.Linear)
    with torch.no_grad():
        before = query.model(first.clone())
    with _canonised(query.model, made.canonizers) as merged:
        seen = trace(query.model, first, plain=checked, changed=True)
        context: dict[str, Any] = {}
        modules = list(query.model.named_modules())
        with_rule = {module for name, module in modules if made.module_map(context, name, module) is not None}
    near = max(SAME_OUTPUT, 8 * torch.finfo(before.dtype).eps) * float(before.abs().max())
    if not torch.allclose(seen.outputs.detach(), before, rtol=0, atol=near, equal_nan=True):
        raise Unsupported("merging batch norms into the layers before them changes the model's outputs")
    refuse_deviations(seen)
    ran = [module for module, _, _ in seen.calls if isinstance(module, (Activation, *layers)) or module in merged]
    without = sorted({type(m).__name__ for m in ran if isinstance(m, layers) and m not in with_rule | merged})
    if without:
        raise Unsupported(f"the composite has no rule for {without[0]} (every_operation=False lets it pass as it is)")
    prepared = _preparation(seen, {module for module in ran if isinstance(module, layers)})
    beyond = [step for step in seen.steps[prepared:] if step.module not in ran and not step.hands_on]
    if beyond:
        raise Unsupported(
            f"no rule reaches the operation {seen.told(beyond[0])}, which no module with a rule carries out"
        )
    for layer, count in Counter(module for module in ran if isinstance(module, layers)).items():
        if count > 1:
            raise Unsupported(f"module {seen.names[layer]!r} runs {count} times; rules remember one run of each layer")
    _refuse_another_first(made, query.model, ran, seen)
    return next(step.module for step in seen.steps[prepared:] if step.module in ran) if prepared else None


def _refuse_unmergeable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.weight is None or module.running_mean is None
        ):
            raise Unsupported(f"batch norm {name!r} has no weights or statistics that could be merged")


def _preparation(seen: Trace, layers: set[nn.Module]) -> int:
    """How many steps normalise the input entry by entry before the first layer runs; 0 where something else does."""
    count = next((place for place, step in enumerate(seen.steps) if step.module in layers), 0)
    steps = seen.steps[:count]
    if all(step.hands_on for step in steps):
        return 0
    ordinary = all(step.linear and step.module is None and step.name in ELEMENTWISE for step in steps)
    entered = next((arguments[0] for module, arguments, _ in seen.calls if module in layers), None)
    whole = isinstance(entered, Tensor) and entered.shape == seen.leaf.shape
    apart = whole and not reaches(graph(seen.outputs, without=entered.grad_fn), seen.leaf)
    return count if ordinary and apart else 0


def _refuse_another_first(made: Any, model: nn.Module, ran: Sequence[nn.Module], seen: Trace) -> None:
    """Raises `Unsupported` where a composite's rule for the first layer would go to another one."""
    from zennit.composites import SpecialFirstLayerMapComposite
    from zennit.types import Convolution

    if not isinstance(made, SpecialFirstLayerMapComposite):
        return
    listed = next(module for module in model.modules() if isinstance(module, Convolution | nn.Linear))
    first = next(module for module in ran if isinstance(module, Convolution | nn.Linear))
    if listed is not first:
        found = f"{seen.names[listed]!r}, but {seen.names[first]!r} runs first"
        raise Unsupported(f"the first layer's rule goes to the layer listed first, {found}")


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
