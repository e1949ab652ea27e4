"""Method × query → maps: preflight, a guard around foreign code, and checks of what comes back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribug.contracts import Method, Unsupported
from attribug.preflight import preflight
from attribug.query import HOOKS, Query, hooks_of_all, restore_settings, settings
from attribug.streams import global_states_restored

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # words of the CPU's, CUDA's and cuBLAS's


@dataclass
class Census:
    """What is wrong with a method's maps, counted over all that it made for a record."""

    maps: int = 0
    nonfinite: int = 0
    """Maps with NaN or infinite values."""
    constant: int = 0
    """Maps that say nothing: one value everywhere."""
    promised: float = 0.0
    """Σ |what a map ought to sum to|, of maps that promise a sum: see `Query.promise`."""
    missed: float = 0.0
    """Σ |sum of a map − what it ought to be|, of the same."""

    def count(self, maps: Tensor, promised: Tensor | None) -> None:
        """Adds maps (N, *shape) and their promised sums (N,)."""
        flat = maps.flatten(1)
        self.maps += len(flat)
        self.nonfinite += int((~flat.isfinite().all(1)).sum())
        self.constant += int((flat.amax(1) == flat.amin(1)).sum())
        if promised is not None:
            expected, found = promised.double(), flat.double().sum(1)
            finite = expected.isfinite() & found.isfinite()
            self.promised += float(expected[finite].abs().sum())
            self.missed += float((found - expected)[finite].abs().sum())

    def add(self, other: Census) -> None:
        """Adds another census to this one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def imbalance(self) -> float:
        """Share of their promised sums that maps miss; 0 where they promise nothing."""
        return self.missed / self.promised if self.promised else 0.0


class MethodFault(Exception):
    """A method broke its contract: wrong shape or type, or it changed the model or its inputs."""


def attributions(method: Method, query: Query, parameters: Mapping[str, Any]) -> Tensor:
    """Runs a method on a query; returns detached maps, (N, *shape), or probabilities (N, K) for such methods.

    When memory runs out, the query's passes are halved until they fit; last bits may then differ.

    Raises `Unsupported` where the method declines or the preflight finds that it would be silently wrong, and
    `MethodFault` for garbage.
    """
    while True:
        try:
            return _attributed(method, query, parameters)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or query.rows == 1:
                raise
        query.rows //= 2
        query.forget_passes()
        if query.inputs.is_cuda:
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a device or in the process."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _attributed(method: Method, query: Query, parameters: Mapping[str, Any]) -> Tensor:
    query.promised = None
    with guarded(query.model, query.inputs, query.targets, query.ids), torch.enable_grad(), _eagerly(query.model):
        _evaluating(query.model)
        preflight(query, method.needs)
        result = method.function(query, **parameters)
    return _checked(method, query, result)


def _eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """Compiled models run as they are written, since compiled code knows no hooks that were added later."""
    compiled = any(type(m).__name__ == "OptimizedModule" or m._compiled_call_impl is not None for m in model.modules())
    if not compiled:
        return nullcontext()
    if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
        raise Unsupported("the model is compiled; give it as it was before torch.compile")
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _checked(method: Method, query: Query, result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise MethodFault(f"expected a tensor, found {type(result).__name__}")
    if type(result) is not Tensor:
        result = _plain(result)
    if result.layout != torch.strided:
        raise MethodFault(f"expected dense maps, found {result.layout}")
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
    maps: Tensor = result.detach().contiguous()
    return maps


def _plain(result: Tensor) -> Tensor:
    """A subclass's values: what it makes of operations on them must not reach metrics."""
    with torch._C.DisableTorchFunctionSubclass():
        plain: Tensor = result.as_subclass(Tensor)
    return plain


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


@contextmanager
def settings_restored() -> Iterator[None]:
    """Puts torch's and NumPy's settings back as they were, also after an exception: foreign code may leave others."""
    before = settings()
    try:
        yield
    finally:
        restore_settings(before)


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
        return _evaluating(model)
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model


def _evaluating(model: nn.Module) -> nn.Module:
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
