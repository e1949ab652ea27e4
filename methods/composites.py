"""Relevance under zennit's composites: passes, canonisation, and what a composite must reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attribug.errors import Unsupported
from attribug.query.preflight import ROUTING
from attribug.query.query import Query
from attribug.query.trace import operation, trace

Start = Literal["logit", "one"]
Composite = Callable[[], Any]
SAME_OUTPUT = 1e-3  # how much merged batch norms may move the outputs, of their largest


def relevance(query: Query, make: Composite, *, start: Start = "logit", every_operation: bool = True) -> Tensor:
    """Relevance of the inputs, (N, *shape), under a zennit composite that `make` makes anew for every pass.

    `start`: what the target's output is given, its `logit` or `one`. With `every_operation`, raises `Unsupported` where
    an operation of the canonised model has no rule, or merging its batch norms would change it. zennit clears the
    weights' gradients and merges batch norms while it works; both are undone.
    """
    if every_operation:
        refuse_without_rules(query, make())
    maps, totals = [], []
    for inputs, targets in query.parts():
        leaf = inputs.detach().clone().requires_grad_(True)
        with torch.enable_grad(), make().context(query.model):
            # a view, because hooks on the first module would meet the leaf itself
            logits = query.target_logits(leaf.view_as(leaf), targets)
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


def refuse_without_rules(query: Query, made: Any) -> None:
    """Raises `Unsupported` unless a composite's rules reach every operation of the canonised model."""
    from zennit.composites import SpecialFirstLayerMapComposite
    from zennit.layer import Sum
    from zennit.types import Activation, AvgPool, Convolution

    norms = [(n, m) for n, m in query.model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for name, module in norms:
        if module.weight is None or module.running_mean is None:
            raise Unsupported(f"batch norm {name!r} has no weights or statistics that could be merged")
    with torch.no_grad():
        before = query.model(query.inputs[:1].clone())
    with _canonised(query.model, made.canonizers) as merged:
        seen = trace(query.model, query.inputs)
        context: dict[str, Any] = {}
        modules = list(query.model.named_modules())
        with_rule = {module for name, module in modules if made.module_map(context, name, module) is not None}
    if not torch.allclose(seen.outputs.detach(), before, rtol=0, atol=SAME_OUTPUT * float(before.abs().max())):
        raise Unsupported("merging batch norms into the layers before them changes the model's outputs")
    layers = (AvgPool, Convolution, nn.Linear, Sum)
    ruled = [(m, output) for m, _, output in seen.calls if isinstance(m, (Activation, *layers)) or m in merged]
    without = sorted({type(m).__name__ for m, _ in ruled if isinstance(m, layers) and m not in with_rule | merged})
    if without:
        raise Unsupported(f"the composite has no rule for {without[0]} (every_operation=False lets it pass as it is)")
    beyond = sorted({operation(node) for node in seen.nodes - {output.grad_fn for _, output in ruled}} - ROUTING)
    if beyond:
        raise Unsupported(f"no rule reaches the operation {beyond[0]}, which no module with a rule carries out")
    names = {module: name for name, module in query.model.named_modules()}
    for layer, count in Counter(module for module, _ in ruled if isinstance(module, layers)).items():
        if count > 1:
            raise Unsupported(f"module {names[layer]!r} runs {count} times; rules remember one run of each layer")
    if isinstance(made, SpecialFirstLayerMapComposite):
        listed = next(module for module in query.model.modules() if isinstance(module, Convolution | nn.Linear))
        ran = next(module for module, _ in ruled if isinstance(module, Convolution | nn.Linear))
        if listed is not ran:
            found = f"{names[listed]!r}, but {names[ran]!r} runs first"
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
