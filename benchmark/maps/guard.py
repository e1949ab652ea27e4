"""The guard around foreign code: models, inputs, settings and random states are left as they were."""

from __future__ import annotations

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
def guarded(
    model: nn.Module, *inputs: Tensor, copying: bool = True, own: set[str] | None = None
) -> Iterator[Callable[[], None]]:
    """Puts weights, buffers, modes, hooks, requires_grad, gradients, inputs, settings and the global random states back
    as they were, also after an exception; raises `MethodFault` if weights, buffers or inputs had changed.

    Buffers that have changed when the given function is called are the model's own doing, such as a counter of passes:
    their names enter `own`, and what becomes of them is nobody's fault.

    Without `copying`, for methods that are known to leave weights alone, these are not copied: the objects and their
    memory are put back, and values written into it are not noticed.
    """
    own = set() if own is None else own
    modules = [(module, module.training, module._is_full_backward_hook) for module in model.modules()]
    tables = [(table, dict(table)) for module in model.modules() for table in _tables(module)]
    tables += [(table, dict(table)) for table in hooks_of_all()]
    weights, changed_buffers = list(model.parameters()), _watched_buffers(model)
    restore_weights = [_restorer(weight, copying=copying) for weight in weights]
    restore_inputs = [_restorer(tensor) for tensor in inputs]
    try:
        with global_states_restored(), settings_restored():
            yield lambda: own.update(changed_buffers())
    finally:
        replaced = list(map(id, model.parameters())) != list(map(id, weights))
        weights_changed = bool(changed_buffers() - own) or replaced
        for table, before in tables:
            table.clear()
            table.update(before)
        for module, training, full_backward_hook in modules:
            if (module.training, module._is_full_backward_hook) != (training, full_backward_hook):  # setting is slow
                module.training, module._is_full_backward_hook = training, full_backward_hook
        weights_changed |= sum(restore() for restore in restore_weights) > 0  # a sum, so that all are restored
        inputs_changed = sum(restore() for restore in restore_inputs)
    if weights_changed:
        raise MethodFault("changed the model's weights or buffers")
    if inputs_changed:
        raise MethodFault("changed its inputs, targets or ids")


def _watched_buffers(model: nn.Module) -> Callable[[], set[str]]:
    """A function that tells which buffers are others than now, or have other values, and puts the values back."""
    buffers = dict(model.named_buffers(remove_duplicate=False))
    restore_buffers = {name: _restorer(buffer) for name, buffer in buffers.items()}

    def changed_buffers() -> set[str]:
        now = dict(model.named_buffers(remove_duplicate=False))
        other = {name for name in {*now, *buffers} if now.get(name) is not buffers.get(name)}
        return other | {name for name, restore in restore_buffers.items() if restore()}

    return changed_buffers


def _tables(module: nn.Module) -> list[dict[Any, Any]]:
    names = ("_parameters", "_buffers", "_modules", *(f"_{name}" for name in HOOKS))
    return [table for name in names if isinstance(table := getattr(module, name, None), dict)]


def _restorer(tensor: Tensor, *, copying: bool = True) -> Callable[[], bool]:
    """A function that puts a tensor, its requires_grad and its gradient back as they are now, and tells whether its
    values had changed; values are compared, since `tensor.data` changes them behind autograd's version counter."""
    data, required = tensor.detach(), tensor.requires_grad
    values = data.clone() if copying else data
    gradient = tensor.grad if tensor.is_leaf else None
    accumulated = None if gradient is None or not copying else gradient.detach().clone()

    def restore() -> bool:
        moved = (tensor.dtype, tensor.shape, tensor.data_ptr()) != (data.dtype, data.shape, data.data_ptr())
        changed = moved if not copying else not _equal(tensor, values)
        with torch.no_grad():
            if changed and copying and tensor.shape == values.shape and tensor.dtype == values.dtype:
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


@contextmanager
def evaluated(model: nn.Module) -> Iterator[nn.Module]:
    """The model ready to be explained: in eval mode, and no module works in place, since hooks must find values as they
    were. Both are switched back afterwards; scripted modules, which take no hooks, are left as they are."""
    trained = [module for module in model.modules() if module.training]
    inplace = [module for module in model.modules() if _works_in_place(module)]
    try:
        for module in trained:
            module.training = False  # not `eval()`, which a model may take as a sign to merge weights
        for module in inplace:
            module.inplace = False  # type: ignore[assignment]
        yield model
    finally:
        for module in trained:
            module.training = True
        for module in inplace:
            module.inplace = True  # type: ignore[assignment]


def _works_in_place(module: nn.Module) -> bool:
    return vars(module).get("inplace") is True and not isinstance(module, torch.jit.ScriptModule)
