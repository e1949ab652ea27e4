"""Method × query → maps: preflight, a guard around foreign code, and checks of what comes back."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attribug.contracts import Method, Unsupported
from attribug.query import Query

SMOOTH_ACTIVATIONS = {
    "GeluBackward0", "SiluBackward0", "HardtanhBackward0", "HardswishBackward0", "LeakyReluBackward0", "EluBackward0",
    "SigmoidBackward0", "TanhBackward0", "SoftplusBackward0", "MishBackward0", "HardsigmoidBackward0", "PreluKernelBackward0",
}  # fmt: skip


class MethodFault(Exception):  # noqa: N818
    """A method broke its contract: wrong shape or type, or it changed the model."""


def attributions(method: Method, query: Query, parameters: Mapping[str, Any]) -> Tensor:
    """Runs a method on a query; returns detached maps, (N, *shape), or probabilities (N, K) for such methods.

    Raises `Unsupported` where the method declines or the preflight finds that it would be silently wrong, and
    `MethodFault` for garbage.
    """
    for need in method.needs:
        PREFLIGHT[need](query)
    with guarded(query.model):
        result = method.function(query, **parameters)
    return _checked(method, query, result)


def _checked(method: Method, query: Query, result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise MethodFault(f"expected a tensor, found {type(result).__name__}")
    if not result.is_floating_point():
        raise MethodFault(f"expected floating-point maps, found {result.dtype}")
    if method.output == "probabilities":
        if result.ndim != 2 or len(result) != len(query.inputs):
            raise MethodFault(f"expected probabilities ({len(query.inputs)}, K), found {tuple(result.shape)}")
    elif result.shape != query.inputs.shape:
        raise MethodFault(f"expected maps {tuple(query.inputs.shape)}, found {tuple(result.shape)}")
    return result.detach()


@contextmanager
def guarded(model: nn.Module) -> Iterator[None]:
    """Restores mode, hooks, requires_grad, gradients and global random states; raises `MethodFault` if weights moved."""
    modes = [(module, module.training) for module in model.modules()]
    hooks = [(table, dict(table)) for module in model.modules() for table in _hook_tables(module)]
    tensors = [*model.parameters(), *model.buffers()]
    versions = [tensor._version for tensor in tensors]
    requires = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
        for module, training in modes:
            module.training = training
        for table, before in hooks:
            table.clear()
            table.update(before)
        for parameter, required, gradient in requires:
            parameter.requires_grad_(required)
            parameter.grad = gradient
    if [tensor._version for tensor in tensors] != versions:
        raise MethodFault("changed the model's weights or buffers")


def _hook_tables(module: nn.Module) -> list[dict[Any, Any]]:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [table for name in names if isinstance(table := getattr(module, name, None), dict)]


def safe_copy(model: nn.Module) -> nn.Module:
    """The model in eval mode, itself where no module works in place, else a copy whose modules do not."""
    if not any(getattr(module, "inplace", False) for module in model.modules()):
        return model.eval()
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return model


@contextmanager
def evaluated(model: nn.Module) -> Iterator[nn.Module]:
    """The model ready to be explained: in eval mode and without in-place modules; its modes are restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield safe_copy(model)
    finally:
        for module, training in modes:
            module.training = training


def relu_modules(query: Query) -> None:
    """Refuses models in which hooks on `nn.ReLU` modules would miss a rectifier or meet another activation."""
    calls = 0

    def count(module: nn.Module, args: object, output: object) -> None:
        nonlocal calls
        calls += 1

    handles = [m.register_forward_hook(count) for m in query.model.modules() if isinstance(m, nn.ReLU)]
    try:
        with torch.enable_grad():
            outputs = query.model(query.inputs[:1].detach().requires_grad_(True))
    finally:
        for handle in handles:
            handle.remove()
    operations = graph_operations(outputs)
    other = sorted({name for name in operations if name in SMOOTH_ACTIVATIONS})
    if other:
        raise Unsupported(f"is defined for ReLU networks; the model uses {other[0].removesuffix('Backward0')}")
    functional = operations.count("ReluBackward0") - calls
    if functional > 0:
        raise Unsupported(f"{functional} ReLU(s) are function calls that hooks cannot see; use nn.ReLU modules")
    if not calls:
        raise Unsupported("the model has no ReLU")


def graph_operations(outputs: Tensor) -> list[str]:
    """Names of all operations in the autograd graph behind a tensor."""
    names: list[str] = []
    seen: set[Any] = set()
    waiting: list[Any] = [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.append(node.name())
        waiting += [parent for parent, _ in node.next_functions]
    return names


PREFLIGHT: dict[str, Callable[[Query], None]] = {"relu_modules": relu_modules}
