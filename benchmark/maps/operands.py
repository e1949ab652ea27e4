"""What users hand to `explain`: tensors or NumPy's arrays, checked in one line each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attribug.contracts.options import check_option
from attribug.errors import InputError

LARGEST_SINGLE = 3  # axes of one example that looks like a batch: (C, H, W)


def a_model(value: Any) -> nn.Module:
    """The model; raises `InputError` for anything else than a module."""
    if isinstance(value, nn.Module):
        return value
    found = repr(value) if isinstance(value, str) else type(value).__name__
    raise InputError(f"model: expected a torch.nn.Module that returns logits (N, K), found {found}")


def examples(name: str, value: Any, model: nn.Module) -> Tensor:
    """Floating-point examples (N, *shape): a tensor as it is; an array in the model's type, on its device.

    Raises `InputError` for anything else, such as bytes from 0 to 255: only their owner knows how the model takes them.
    """
    weight = next((each for each in model.parameters() if each.is_floating_point()), None)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        tensor = torch.tensor(value, device="cpu")  # a copy, since some arrays must not be written to
        return tensor if weight is None else tensor.to(weight.device, weight.dtype)
    if not isinstance(value, Tensor | np.ndarray):
        raise InputError(f"{name}: expected a tensor or an array (N, *shape), found {type(value).__name__}")
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = f"{value.dtype} {tuple(value.shape)}"
        raise InputError(f"{name}: expected floating-point values as the model takes them, found {found}")
    if value.layout != torch.strided:
        raise InputError(f"{name}: expected a dense tensor, found {value.layout}")
    if weight is not None and value.device != weight.device:
        raise InputError(f"{name}: expected a tensor on {weight.device} as the model is, found one on {value.device}")
    return value


def one_an_input(name: str, value: Any, inputs: Tensor) -> Tensor:
    """Whole numbers, one an input, (N,) int64: a tensor, an array, a list, or one number for a single input.

    Raises `InputError` for others, with a hint where `inputs` look like one example without its batch.
    """
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(np.asarray(value), device="cpu")
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected whole numbers, found {type(value).__name__}") from None
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"{name}: expected whole numbers ({len(inputs)},), found {tensor.dtype} {tuple(tensor.shape)}")
    if tensor.numel() == 1 and len(inputs) != 1 and inputs.ndim <= LARGEST_SINGLE:
        found = f"{tuple(inputs.shape)} and 1 of {name}"
        raise InputError(f"inputs: expected a batch (N, *shape), found {found}; inputs[None] is a batch of one example")
    return (tensor.reshape(1) if tensor.ndim == 0 else tensor).to(torch.int64)


def a_seed(value: Any) -> int:
    """The seed; raises `InputError` for anything but a whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"seed: expected a whole number, found {value!r}")
    return int(value)


def some_threads(value: Any) -> int | None:
    """The number of threads; raises `InputError` for anything but None or a whole number from 1 on."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"threads: expected a whole number from 1 on, or None, found {value!r}")
    return int(value)


def chosen_parameters(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given parameters that a function takes, with NumPy's numbers and arrays as Python's and torch's.

    Raises `InputError` for a value of another type than the parameter's.
    """
    parameters = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    taken = {name: _plain(value) for name, value in given.items() if anything or name in parameters}
    for name, value in taken.items():
        if name in parameters:
            check_option(name, parameters[name], value)
    return taken


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return torch.tensor(value, device="cpu") if isinstance(value, np.ndarray) else value
