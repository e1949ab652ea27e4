"""Explain any model's inputs with registered methods, outside of runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

from attribug import methods as registered
from attribug.contracts.pieces import Method
from attribug.errors import InputError, near_misses
from attribug.methods.adapters import as_method
from attribug.methods.plain_functions import names_of, taken

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attribug.contracts.data import Data


@overload
def explain(
    name: str | Callable[..., Any], model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int = ...,
    train_inputs: Tensor | None = ..., ids: Tensor | None = ..., threads: int | None = ...,
    **parameters: Any,
) -> Tensor: ...  # fmt: skip


@overload
def explain(
    name: Sequence[str | Callable[..., Any]], model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int = ...,
    train_inputs: Tensor | None = ..., ids: Tensor | None = ..., threads: int | None = ...,
    **parameters: Any,
) -> dict[str, Tensor]: ...  # fmt: skip


def explain(
    name: str | Callable[..., Any] | Sequence[str | Callable[..., Any]],
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    train_inputs: Tensor | None = None,
    ids: Tensor | None = None,
    threads: int | None = None,
    **parameters: Any,
) -> Tensor | dict[str, Tensor]:
    """Attributions of one method, (N, *shape), or of several by name, which then share their passes.

    inputs (N, *shape), floating-point as the model takes them; targets (N,) classes. The model must return logits
    (N, K); it is looked at anew in every call, explained in eval mode, and left as it was. `train_inputs` (M, *shape)
    for methods that need training data, `ids` (N,) name the examples' random streams (default 0 … N − 1). With several
    names each method takes the parameters it has. Whatever is a tensor here may be a NumPy array. A function f(model,
    inputs, targets, **parameters) may stand in a name's place; one without a name is called `function_1` and so on.

    Maps have the inputs' type, of models in half precision float32. Autocast and the like around a call change nothing.

    On a CPU, models of less than 1e8 floating-point operations an example run in one of torch's threads: their maps are
    a run's to the last bit, and busy cores do not keep them waiting. Larger ones get as many as torch is set to, unless
    a few matrix products show that these are no faster now. Another number moves last bits; `threads` fixes it, and the
    setting is put back.

    Raises `Unsupported` where a method cannot explain the model, `InputError` for other wrong input.
    """
    from attribug.maps.attribution import attributions
    from attribug.maps.operands import a_model, a_seed, chosen_parameters, examples, one_an_input, some_threads
    from attribug.query.query import Query

    alone = isinstance(name, str) or callable(name)
    given = [name] if isinstance(name, str) or callable(name) else list(name)
    names = names_of(given)
    chosen = _chosen(names, given)
    asks = {method.name: method.function if isinstance(each, str) else each
            for method, each in zip(chosen, given, strict=True)}  # fmt: skip
    options = {each: chosen_parameters(function, parameters) for each, function in asks.items()}
    for parameter in parameters:
        if not any(parameter in has for has in options.values()):
            known = {p for function in asks.values() for p in inspect.signature(function).parameters} - _OPERANDS
            raise InputError(f"{', '.join(names)}: unknown parameter {parameter!r}{near_misses(parameter, known)}")
    asked = examples("inputs", inputs, a_model(model))
    train = None if train_inputs is None else examples("train_inputs", train_inputs, model)
    about = one_an_input("targets", targets, asked).to(asked.device)
    ids = None if ids is None else one_an_input("ids", ids, asked)
    threads = some_threads(threads)
    query = Query(model, asked, about, ids=ids, seed=a_seed(seed), train=_training_data(train), threads=threads)
    maps = {method.name: attributions(method, query, options[method.name]) for method in chosen}
    return maps[names[0]] if alone else maps


_OPERANDS = {"query", "model", "inputs", "targets"}
"""What methods and functions get in any case."""


def _chosen(names: Sequence[str], given: Sequence[str | Callable[..., Any]]) -> list[Method]:
    """The registered methods, and the functions as methods; raises `InputError` where they would share a name."""
    for name, each in zip(names, given, strict=True):
        if not isinstance(each, str) and names.count(name) > 1:
            raise taken(name)
    return [
        registered.get(name) if isinstance(each, str) else Method(name, as_method(each))
        for name, each in zip(names, given, strict=True)
    ]


def _training_data(inputs: Tensor | None) -> Callable[[], Data] | None:
    if inputs is None:
        return None
    import torch

    from attribug.contracts.data import Data

    ids = torch.arange(len(inputs), device="cpu")
    return lambda: Data(inputs, torch.zeros_like(ids), ids)
