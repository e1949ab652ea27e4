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

KNOWN = ("torch.nn.modules.", "attribug.models.networks")
"""Where types of layers are defined that do nothing but what their weights and options say."""


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
    """The first `count` children of a model, which are those of the one it was made of, bit for bit."""

    base: nn.Module
    key: str
    """Content key of the base."""
    count: int
    kept: dict[Any, Any]
    """What queries of the base remember of it."""
    passed: Passed

    def outputs(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, float]:
        """What the model gives for inputs, and the seconds that were spared."""
        children = list(model.children())
        if not self._serves(model, children[: self.count], inputs):
            return model(inputs), 0.0
        key = (self.key, self.count, _content(inputs), settings(), ambient())
        known = self.passed.get(key)
        if known is None:
            started, value = time.perf_counter(), inputs
            for child in children[: self.count]:
                value = child(value)
            known = value.clone(), 0.0  # what follows may work in place
            self.passed.keep(key, known[0], time.perf_counter() - started)
        value, spared = known[0].clone(), known[1]
        for child in children[self.count :]:
            value = child(value)
        return value, spared

    def _serves(self, model: nn.Module, children: list[nn.Module], inputs: Tensor) -> bool:
        """Whether nobody watches, changes or differentiates what the shared modules do."""
        watched = own_hooks(model) or any(map(any, hooks_of_all())) or any(hooks(child) for child in children)
        training = model.training or any(module.training for child in children for module in child.modules())
        return _values_alone(inputs) and not watched and not training


def _values_alone(inputs: Tensor) -> bool:
    """Whether a pass is for its values: no derivative of either direction, no transform, no mode that sees it."""
    derived = torch.is_grad_enabled() or forward_ad._current_level >= 0
    seen = _get_current_dispatch_mode() is not None or torch._C._functorch.peek_interpreter_stack() is not None
    return not derived and not seen and type(inputs) is Tensor and inputs.device.type == "cpu"


def unchanged(model: nn.Module, base: nn.Module) -> int:
    """How many children from the input on are the same in both, weights, buffers and all; 0 unless both are chains.

    Only torch's own layers and attribug's: others may do more than they show, as count their calls.
    """
    if type(model) is not nn.Sequential or type(base) is not nn.Sequential:
        return 0
    count, weighty = 0, False
    for one, other in zip(model.children(), base.children(), strict=False):
        mine, theirs = _tensors(one), _tensors(other)
        same = _known(one) and _known(other) and repr(one) == repr(other) and mine.keys() == theirs.keys()
        if not same or not all(torch.equal(value, theirs[name]) for name, value in mine.items()):
            break
        count, weighty = count + 1, weighty or bool(mine)
    return count if weighty else 0


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _known(module: nn.Module) -> bool:
    return all(type(each).__module__.startswith(KNOWN) and "forward" not in vars(each) for each in module.modules())


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
