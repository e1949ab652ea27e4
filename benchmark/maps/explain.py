"""Explain any model's inputs with registered methods, outside of runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from attribug import methods as registered
from attribug.errors import InputError, near_misses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attribug.contracts.data import Data


@overload
def explain(
    name: str, model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int = ...,
    train_inputs: Tensor | None = ..., ids: Tensor | None = ..., **parameters: Any,
) -> Tensor: ...  # fmt: skip


@overload
def explain(
    name: Sequence[str], model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int = ...,
    train_inputs: Tensor | None = ..., ids: Tensor | None = ..., **parameters: Any,
) -> dict[str, Tensor]: ...  # fmt: skip


def explain(
    name: str | Sequence[str],
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    train_inputs: Tensor | None = None,
    ids: Tensor | None = None,
    **parameters: Any,
) -> Tensor | dict[str, Tensor]:
    """Attributions of one method, (N, *shape), or of several by name, which then share their passes.

    inputs (N, *shape); targets (N,) classes. The model must return logits (N, K); it is explained in eval mode and left
    as it was. `train_inputs` (M, *shape) for methods that need training data, `ids` (N,) name the examples' random
    streams (default 0 … N − 1). With several names each method takes the parameters it has.

    Raises `Unsupported` where a method cannot explain the model, `InputError` for unknown names and parameters.
    """
    from attribug.maps.attribution import attributions
    from attribug.query.query import Query

    names = [name] if isinstance(name, str) else list(name)
    chosen = [registered.get(each) for each in names]
    options = {method.name: _taken(method.function, parameters) for method in chosen}
    for parameter in parameters:
        if not any(parameter in taken for taken in options.values()):
            known = {p for m in chosen for p in inspect.signature(m.function).parameters if p != "query"}
            raise InputError(f"{', '.join(names)}: unknown parameter {parameter!r}{near_misses(parameter, known)}")
    query = Query(model, inputs, targets, ids=ids, seed=seed, train=_training_data(train_inputs))
    maps = {method.name: attributions(method, query, options[method.name]) for method in chosen}
    return maps[names[0]] if isinstance(name, str) else maps


def _taken(function: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    accepted = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted):
        return dict(parameters)
    names = {parameter.name for parameter in accepted}
    return {name: value for name, value in parameters.items() if name in names}


def _training_data(inputs: Tensor | None) -> Callable[[], Data] | None:
    if inputs is None:
        return None
    import torch

    from attribug.contracts.data import Data

    ids = torch.arange(len(inputs))
    return lambda: Data(inputs, torch.zeros_like(ids), ids)
