"""What a model shares with the one that it was made of: the first modules of a chain, as they were. What these give for
the same inputs is computed once."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from attribug.query.hooks import hooks, hooks_of_all, own_hooks
from attribug.query.settings import ambient, settings

KNOWN: tuple[type[nn.Module], ...] = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.ReLU, nn.MaxPool1d,
    nn.MaxPool2d, nn.MaxPool3d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity,
)  # fmt: skip
"""Layers that do nothing but what their weights and the options that they print say; and attribug's own of these."""
OWN = "attribug.models.networks"


class Passed:
    """What shared modules gave for inputs, the last few by `room` bytes, each with the seconds that it took."""

    ROOM = 128_000_000

    def __init__(self) -> None:
        self.values: OrderedDict[Any, tuple[Tensor, float]] = OrderedDict()
        self.size = 0

    def get(self, key: Any) -> tuple[Tensor, float] | None:
        """What was kept; None where nothing is."""
        if key in self.values:
            self.values.move_to_end(key)
        return self.values.get(key)

    def keep(self, key: Any, value: Tensor, seconds: float) -> None:
        """Keeps a value, and forgets what was not asked for longest."""
        self.values[key] = value, seconds
        self.size += value.nbytes
        while self.size > self.ROOM:
            _, (oldest, _) = self.values.popitem(last=False)
            self.size -= oldest.nbytes

    def clear(self) -> None:
        """Forgets everything."""
        self.values.clear()
        self.size = 0


@dataclass(frozen=True)
class Below:
    """The first `count` layers of a model, which are those of the one it was made of, bit for bit.

    It looks at weights once, when it is made: for passes of who leaves them as they are."""

    key: str
    """Content key of the base."""
    count: int
    kept: dict[Any, Any]
    """What queries of the base remember of it."""
    passed: Passed

    def outputs(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, float]:
        """What the model gives for inputs, and the seconds that were spared."""
        if not isinstance(model, nn.Sequential) or not self._serves(model, inputs):
            return model(inputs), 0.0
        layers = list(model)
        key = (self.key, self.count, _content(inputs), settings(), ambient())
        known = self.passed.get(key)
        if known is None:
            started, value = time.perf_counter(), inputs
            for layer in layers[: self.count]:
                value = layer(value)
            known = value.clone(), 0.0  # what follows may work in place
            self.passed.keep(key, known[0], time.perf_counter() - started)
        value, spared = known[0].clone(), known[1]
        for layer in layers[self.count :]:
            value = layer(value)
        return value, spared

    def _serves(self, model: nn.Sequential, inputs: Tensor) -> bool:
        """Whether nobody watches, changes or differentiates what the shared layers do."""
        layers = list(model)[: self.count]
        watched = own_hooks(model) or any(map(any, hooks_of_all())) or any(hooks(layer) for layer in layers)
        training = model.training or any(layer.training for layer in layers)
        return _values_alone(inputs) and not watched and not training


def _values_alone(inputs: Tensor) -> bool:
    """Whether a pass is for its values: no derivative of either direction, no transform, no mode that sees it."""
    derived = torch.is_grad_enabled() or forward_ad._current_level >= 0
    modes = _get_current_dispatch_mode() is not None or torch._C._len_torch_function_stack() > 0
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return not (derived or modes or transformed) and type(inputs) is Tensor and inputs.device.type == "cpu"


def unchanged(model: nn.Module, base: nn.Module) -> int:
    """How many layers from the input on are the same in both, weights, buffers and all; 0 unless both are chains.

    Only layers that do no more than they show: others may count their calls, draw at random, or hide an option.
    """
    if type(model) is not nn.Sequential or type(base) is not nn.Sequential:
        return 0
    count, weighty = 0, False
    for one, other in zip(model, base, strict=False):
        mine, theirs = _tensors(one), _tensors(other)
        same = _known(one) and type(one) is type(other) and repr(one) == repr(other) and mine.keys() == theirs.keys()
        if not same or not all(_same_bits(value, theirs[name]) for name, value in mine.items()):
            break
        count, weighty = count + 1, weighty or bool(mine)
    return count if weighty else 0


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _known(layer: nn.Module) -> bool:
    kind = type(layer)
    listed = kind in KNOWN or (kind.__module__ == OWN and isinstance(layer, KNOWN))
    return listed and "forward" not in vars(layer)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape, one.device) != (other.dtype, other.shape, other.device):
        return False
    first, second = (each.detach().contiguous().flatten().view(torch.uint8) for each in (one, other))
    return torch.equal(first, second)


def _content(values: Tensor) -> tuple[Any, ...]:
    """What tells a dense tensor from others: its bytes as they lie in memory, and how they are read."""
    values = values.detach()
    flat = (
        values.as_strided((values.numel(),), (1,), values.storage_offset())
        if _dense(values)
        else values.contiguous().flatten()
    )
    digest = hashlib.blake2b(flat.view(torch.uint8).numpy().data, digest_size=16).digest()
    return digest, values.dtype, tuple(values.shape), values.stride()


def _dense(values: Tensor) -> bool:
    """Whether a tensor's values lie side by side, in whatever order."""
    last = torch.channels_last
    return values.is_contiguous() or (values.ndim == 4 and values.is_contiguous(memory_format=last))
