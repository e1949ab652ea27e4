"""The guard around foreign code: models, inputs, settings and random states are left as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribug.query.hooks import HOOKS, hooks_of_all
from attribug.query.settings import settings_restored
from attribug.streams import global_states_restored


class MethodFault(Exception):
    """A method broke its contract: wrong shape or type, or it changed the model or its inputs."""


@contextmanager
def guarded(model: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Puts weights, buffers, modes, hooks, requires_grad, gradients, inputs, settings and the global random states back
    as they were, also after an exception; raises `MethodFault` if weights, buffers or inputs had changed."""
    modules = [(module, module.training, module._is_full_backward_hook) for module in model.modules()]
    tables = [(table, dict(table)) for module in model.modules() for table in _tables(module)]
    tables += [(table, dict(table)) for table in hooks_of_all()]
    weights = [*model.parameters(), *model.buffers()]
    restore_weights = [_restorer(weight) for weight in weights]
    restore_inputs = [_restorer(tensor) for tensor in inputs]
    try:
        with global_states_restored(), settings_restored():
            yield
    finally:
        replaced = list(map(id, [*model.parameters(), *model.buffers()])) != list(map(id, weights))
        for table, before in tables:
            table.clear()
            table.update(before)
        for module, training, full_backward_hook in modules:
            if (module.training, module._is_full_backward_hook) != (training, full_backward_hook):  # setting is slow
                module.training, module._is_full_backward_hook = training, full_backward_hook
        weights_changed = sum(restore() for restore in restore_weights)  # a sum, so that all are restored
        inputs_changed = sum(restore() for restore in restore_inputs)
    if weights_changed or replaced:
        raise MethodFault("changed the model's weights or buffers")
    if inputs_changed:
        raise MethodFault("changed its inputs, targets or ids")


def _tables(module: nn.Module) -> list[dict[Any, Any]]:
    names = ("_parameters", "_buffers", "_modules", *(f"_{name}" for name in HOOKS))
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
        return evaluating(model)
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model


def evaluating(model: nn.Module) -> nn.Module:
    """The model itself, in eval mode."""
    return model.eval() if any(module.training for module in model.modules()) else model


@contextmanager
def evaluated(model: nn.Module) -> Iterator[nn.Module]:
    """The model ready to be explained: in eval mode and without in-place modules; its modes are restored afterwards."""
    trained = [module for module in model.modules() if module.training]
    try:
        yield safe_copy(model)
    finally:
        for module in trained:
            module.training = True
