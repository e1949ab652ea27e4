"""Attribution methods; one family a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attribug.contracts import Method
from attribug.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.query import Query

_registry: Registry[Method] = Registry("method", "attribug.methods", Method)
register = _registry.register
names = _registry.names
get = _registry.get

__all__ = ["from_function", "get", "names", "register", "register_functions"]


def from_function(name: str, function: Callable[..., Any], **facts: Any) -> None:
    """Registers a plain function `f(model, inputs, targets, **parameters)` that returns maps of the inputs' shape, a
    tensor or an array; it gets the logit model and detached inputs (N, *shape), and targets (N,)."""
    register(name, **facts)(_as_method(function))


def register_functions(pickled: bytes) -> None:
    """Registers functions that a Python session handed over, as `from_function` would: {name: (function, content key)}.

    A function takes the place of one handed over earlier. The key travels along, because a worker may see another order
    of sets in what a function encloses.
    """
    import cloudpickle

    for name, (function, key) in (cloudpickle.loads(pickled) if pickled else {}).items():
        method = _as_method(function)
        method.key = key  # type: ignore[attr-defined]
        _registry.forget(name)
        register(name)(method)


def _as_method(function: Callable[..., Any]) -> Callable[..., Tensor]:
    import torch

    def method(query: Query, **parameters: Any) -> Tensor:
        maps = function(query.model, query.inputs.clone(), query.targets.clone(), **parameters)
        maps = torch.as_tensor(maps)
        return maps.to(query.inputs) if maps.is_floating_point() else maps  # whole numbers are refused, not turned

    method.__module__ = getattr(function, "__module__", "") or ""
    method.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)
    method.__wrapped_function__ = function  # type: ignore[attr-defined]
    return method
