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
from attribug.query import Query, as_logits

PIECEWISE_LINEAR = {
    "AccumulateGrad", "Add", "Addmm", "Alias", "AvgPool2D", "AdaptiveAvgPool2D", "BackwardHookFunction", "Cat", "Clone",
    "ConstantPadNd", "Convolution", "CudnnBatchNorm", "Expand", "MaxPool2DWithIndices", "Mean", "Mm", "NativeBatchNorm",
    "Permute", "Relu", "ReshapeAlias", "Select", "Slice", "Squeeze", "Stack", "Sub", "Sum", "T", "ToCopy", "Transpose",
    "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip
"""Operations that rules for ReLU networks know, by their names in the autograd graph; anything else is refused, since a
rectifier may hide in it (where, clamp, a product with a mask)."""


class MethodFault(Exception):
    """A method broke its contract: wrong shape or type, or it changed the model or its inputs."""


def attributions(method: Method, query: Query, parameters: Mapping[str, Any]) -> Tensor:
    """Runs a method on a query; returns detached maps, (N, *shape), or probabilities (N, K) for such methods.

    Raises `Unsupported` where the method declines or the preflight finds that it would be silently wrong, and
    `MethodFault` for garbage.
    """
    with guarded(query.model, query.inputs, query.targets, query.ids), torch.enable_grad():
        for need in method.needs:
            PREFLIGHT[need](query)
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
    elif (result.dtype, result.device) != (query.inputs.dtype, query.inputs.device):
        expected, found = (f"{tensor.dtype} on {tensor.device}" for tensor in (query.inputs, result))
        raise MethodFault(f"expected {expected}, found {found}")
    return result.detach().contiguous()


@contextmanager
def guarded(model: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Puts weights, buffers, modes, hooks, requires_grad, gradients, inputs and the global random states back as they
    were, also after an exception; raises `MethodFault` if weights, buffers or inputs had changed."""
    modules = [(module, module.training, module._is_full_backward_hook) for module in model.modules()]
    tables = [(table, dict(table)) for module in model.modules() for table in _tables(module)]
    weights = [*model.parameters(), *model.buffers()]
    restore_weights = [_restorer(weight) for weight in weights]
    restore_inputs = [_restorer(tensor) for tensor in inputs]
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(states[1])
        random.setstate(states[2])
        replaced = list(map(id, [*model.parameters(), *model.buffers()])) != list(map(id, weights))
        for table, before in tables:
            table.clear()
            table.update(before)
        for module, training, full_backward_hook in modules:
            module.training, module._is_full_backward_hook = training, full_backward_hook
        weights_changed = sum(restore() for restore in restore_weights)  # a sum, so that all are restored
        inputs_changed = sum(restore() for restore in restore_inputs)
    if weights_changed or replaced:
        raise MethodFault("changed the model's weights or buffers")
    if inputs_changed:
        raise MethodFault("changed its inputs, targets or ids")


def _tables(module: nn.Module) -> list[dict[Any, Any]]:
    names = (
        "_parameters", "_buffers", "_modules",
        "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    )  # fmt: skip
    return [table for name in names if isinstance(table := getattr(module, name, None), dict)]


def _restorer(tensor: Tensor) -> Callable[[], bool]:
    """A function that puts a tensor, its requires_grad and its gradient back as they are now, and tells whether its
    values had changed; values are compared, since `tensor.data` changes them behind autograd's version counter."""
    values, required = tensor.detach().clone(), tensor.requires_grad
    gradient = tensor.grad if tensor.is_leaf else None
    accumulated = None if gradient is None else gradient.detach().clone()

    def restore() -> bool:
        changed = not _equal(tensor, values)
        with torch.no_grad():
            if changed and tensor.shape == values.shape and tensor.dtype == values.dtype:
                tensor.copy_(values)
            elif changed:
                tensor.data = values
            if tensor.is_leaf:
                tensor.requires_grad_(required)
                tensor.grad = gradient
            if gradient is not None and accumulated is not None:
                gradient.copy_(accumulated)
        return changed

    return restore


def _equal(tensor: Tensor, values: Tensor) -> bool:
    """Whether two tensors agree in type, shape and every value; NaN equals NaN."""
    if (tensor.dtype, tensor.shape, tensor.device) != (values.dtype, values.shape, values.device):
        return False
    return torch.equal(tensor, values) or bool(((tensor == values) | (tensor.isnan() & values.isnan())).all())


def safe_copy(model: nn.Module) -> nn.Module:
    """The model in eval mode, itself where no module works in place, else a copy whose modules do not."""
    if not any(getattr(module, "inplace", False) for module in model.modules()):
        return model.eval()
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
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
    rectified: set[Any] = set()

    def count(module: nn.Module, args: object, output: Tensor) -> None:
        rectified.add(output.grad_fn)

    handles = [m.register_forward_hook(count) for m in query.model.modules() if isinstance(m, nn.ReLU)]
    try:
        with torch.enable_grad():
            outputs = as_logits(query.model(query.inputs[:1].detach().requires_grad_(True)))
    finally:
        for handle in handles:
            handle.remove()
    nodes = graph(outputs)
    other = sorted({operation(node) for node in nodes} - PIECEWISE_LINEAR)
    if other:
        raise Unsupported(f"is defined for ReLU networks; the model uses {other[0]}")
    rectifiers = [node for node in nodes if operation(node) == "Relu"]
    functional = sum(node not in rectified for node in rectifiers)
    if functional:
        raise Unsupported(f"{functional} ReLU(s) are function calls that hooks cannot see; use nn.ReLU modules")
    if not rectifiers:
        raise Unsupported("the model has no ReLU")


def operation(node: Any) -> str:
    """What a node of the autograd graph differentiates: `Relu` for `ReluBackward0`."""
    name: str = node.name()
    return name.rpartition("::")[2].partition("Backward")[0]


def graph(outputs: Tensor) -> set[Any]:
    """All operations (nodes) of the autograd graph behind a tensor."""
    seen: set[Any] = set()
    waiting: list[Any] = [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return seen


PREFLIGHT: dict[str, Callable[[Query], None]] = {"relu_modules": relu_modules}
