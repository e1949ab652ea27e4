"""Looks at a model before a method runs: whatever would make the method silently wrong is refused with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribug.contracts import Unsupported
from attribug.query import Query, as_logits

ROUTING = {
    "AccumulateGrad", "Alias", "BackwardHookFunction", "Cat", "Clone", "ConstantPadNd", "Expand",
    "MaxPool2DWithIndices", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "Squeeze", "Stack", "T", "ToCopy",
    "Transpose", "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip
"""Operations that hand values on, by their names in the autograd graph."""
PIECEWISE_LINEAR = ROUTING | {
    "Add", "Addmm", "AvgPool2D", "AdaptiveAvgPool2D", "Convolution", "CudnnBatchNorm", "Mean", "Mm", "NativeBatchNorm",
    "Relu", "Sub", "Sum",
}  # fmt: skip
"""What ReLU networks are made of; anything else is refused by methods made for these, since a rectifier may hide in it
(where, clamp, a product with a mask)."""
SHUFFLING = {"Clamp", "Flip", "Index", "Roll"}  # at a model's end these hide no more than routing does
PROBABILITIES = {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"}
SUMS_TO_ONE = 1e-4  # how near to 1 the outputs of three unlike inputs must sum to be taken for probabilities


def preflight(query: Query, needs: tuple[str, ...]) -> None:
    """Raises `Unsupported` unless the model gives logits that depend on the input, and has what a method `needs`.

    Every answer is remembered with the query.
    """
    for need in ("logits", *needs):
        if need not in PREFLIGHT:
            raise ValueError(f"needs: expected one of {', '.join(sorted(PREFLIGHT))}, found {need!r}")
        if need not in query.preflights:
            try:
                PREFLIGHT[need](query)
                query.preflights[need] = ""
            except Unsupported as reason:
                query.preflights[need] = str(reason)
        if query.preflights[need]:
            raise Unsupported(query.preflights[need])


def logits(query: Query) -> None:
    """Refuses outputs that are no logits (N, K), or probabilities, or the same whatever the input."""
    first = query.inputs[:1].detach()
    leaf = torch.cat([first, 1 + first, first.flip(-1) / 2 - 1]).requires_grad_(True)
    with torch.enable_grad():
        outputs = torch.cat([as_logits(query.model(part)) for part in leaf.split(query.rows)])
    last = outputs.grad_fn
    while last is not None and operation(last) in ROUTING | SHUFFLING and last.next_functions:
        last = last.next_functions[0][0]
    values = outputs.detach()
    ones = (values >= 0).all() and ((values.sum(1) - 1).abs() < SUMS_TO_ONE).all()
    ones = ones or (values.logsumexp(1).abs() < SUMS_TO_ONE).all()  # of their logarithms
    if last is not None and operation(last) in PROBABILITIES:
        raise Unsupported(f"the model ends in {operation(last)}; give it without, so that it returns logits")
    if ones and values.shape[1] > 1:
        raise Unsupported("the model returns probabilities (they sum to 1) or their logarithms; let it return logits")
    if not _reaches(outputs, leaf) and torch.equal(values, values[:1].expand_as(values)):
        raise Unsupported("the model's output does not depend on its input")


def relu_modules(query: Query) -> None:
    """Refuses models in which hooks on `nn.ReLU` modules would miss a rectifier or meet another activation."""
    seen = trace(query.model, query.inputs)
    other = sorted({operation(node) for node in seen.nodes} - PIECEWISE_LINEAR)
    if other:
        raise Unsupported(f"is defined for ReLU networks; the model uses {other[0]}")
    rectified = {getattr(output, "grad_fn", None) for module, _, output in seen.calls if isinstance(module, nn.ReLU)}
    rectifiers = [node for node in seen.nodes if operation(node) == "Relu"]
    functional = sum(node not in rectified for node in rectifiers)
    if functional:
        raise Unsupported(f"{functional} ReLU(s) are function calls that hooks cannot see; use nn.ReLU modules")
    if not rectifiers:
        raise Unsupported("the model has no ReLU")


def layers_run_once(query: Query) -> None:
    """Refuses models that use one module several times, for methods that keep what a module saw."""
    counts = Counter(module for module, _, _ in trace(query.model, query.inputs).calls)
    reused = [module for module, count in counts.items() if count > 1]
    if reused:
        names = {module: name for name, module in query.model.named_modules()}
        raise Unsupported(f"module {names[reused[0]]!r} runs {counts[reused[0]]} times; give each use its own module")


def pool_modules(query: Query) -> None:
    """Refuses models whose max-pooling is not all done by `nn.MaxPool2d` modules that return values alone."""
    seen = trace(query.model, query.inputs)
    pooled = {getattr(output, "grad_fn", None) for module, _, output in seen.calls if isinstance(module, nn.MaxPool2d)}
    if any(operation(node).startswith("MaxPool") and node not in pooled for node in seen.nodes):
        raise Unsupported("max-pooling is a function call that hooks cannot see; use nn.MaxPool2d modules")


PREFLIGHT: dict[str, Callable[[Query], None]] = {
    "logits": logits,
    "relu_modules": relu_modules,
    "layers_run_once": layers_run_once,
    "pool_modules": pool_modules,
}
"""What a method's `needs` may name."""


@dataclass(frozen=True)
class Trace:
    """One pass of one example: the autograd graph behind the outputs, and the calls of modules without children."""

    outputs: Tensor
    leaf: Tensor
    nodes: set[Any]
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]]
    """Module, arguments, output; in order."""


def trace(model: nn.Module, inputs: Tensor) -> Trace:
    """Runs a model on its first input and looks at what happens."""
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]] = []
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]

    def note(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        calls.append((module, arguments, output))

    handles = [module.register_forward_hook(note) for module in leaves]
    try:
        leaf = inputs[:1].detach().clone().requires_grad_(True)
        with torch.enable_grad():
            outputs = as_logits(model(leaf))
    finally:
        for handle in handles:
            handle.remove()
    return Trace(outputs, leaf, graph(outputs), calls)


def operation(node: Any) -> str:
    """What a node of the autograd graph differentiates: `Relu` for `ReluBackward0`."""
    name: str = node.name()
    return name.rpartition("::")[2].partition("Backward")[0]


def graph(outputs: Tensor, without: Any = None) -> set[Any]:
    """All operations (nodes) of the autograd graph behind a tensor; of those only behind the node `without`, none."""
    seen: set[Any] = set()
    waiting: list[Any] = [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node is not without and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return seen


def _reaches(outputs: Tensor, leaf: Tensor) -> bool:
    return any(getattr(node, "variable", None) is leaf for node in graph(outputs))
