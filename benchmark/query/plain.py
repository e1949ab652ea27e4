"""Whether a module computes what its type says, with the weights that it shows: told by what it gives.

Pruning, weight norm, spectral norm, standardised or adapted weights and functions of a subclass's own change what a
layer computes; rules and patterns that read `weight` and `bias` would be wrong without a word.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Called = Callable[[nn.Module, tuple[Any, ...], Any, int], None]
WEIGHTS = ("weight", "bias")


@contextmanager
def running_calls(modules: Iterable[nn.Module], running: list[nn.Module], ended: Called) -> Iterator[None]:
    """Keeps in `running` which of the modules run, innermost last, and calls `ended` after each, with its arguments,
    its output, and how often its first argument had been changed before: what their other hooks do before is not their
    own doing, what these do afterwards is part of what they give."""
    versions: list[int] = []

    def begin(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        running.append(module)
        versions.append(arguments[0]._version if arguments and isinstance(arguments[0], Tensor) else 0)

    def end(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        running.pop()
        ended(module, arguments, output, versions.pop())

    handles = []
    try:
        for module in modules:
            handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def deviation(module: nn.Module, arguments: tuple[Any, ...], output: Any, *, changed: bool = False) -> str:
    """Why a module's output is not what its type in `torch.nn` computes with its `weight` and `bias`; empty where it
    is. With `changed`, also what it would do under other weights, which rules of relevance give it."""
    kind = _kind(module)
    given = arguments[0] if len(arguments) == 1 else None
    if kind is None or not isinstance(given, Tensor) or not isinstance(output, Tensor):
        return "takes or gives something else than one tensor"
    if torch._C._functorch.is_functorch_wrapped_tensor(given):
        return "runs inside a transform of torch.func"
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and output.dtype != weight.dtype:
        return f"computes in {output.dtype} with weights of {weight.dtype}: autocast in the model's forward"
    if _is_itself(kind, module):
        return ""
    if not _agree(output, _expected(kind, module, given)):
        return f"computes something else than {kind.__name__} does with its weight and bias"
    return _under_other_weights(kind, module, given) if changed else ""


@functools.cache
def _plain_types() -> dict[type[nn.Module], Callable[[Any, Tensor], Tensor]]:
    """Types whose operation is told from outside, whatever a subclass makes of their parts."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    told: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
        kind: functools.partial(_convolved, kind) for kind in convolutions
    }
    return {**told, nn.Linear: lambda module, x: functional.linear(x, module.weight, module.bias)}


def _convolved(kind: Any, module: Any, x: Tensor) -> Tensor:
    result: Tensor = kind._conv_forward(module, x, module.weight, module.bias)
    return result


def _kind(module: nn.Module) -> type[nn.Module] | None:
    """The type in `torch.nn` that a module's type is, or inherits from."""
    return next((each for each in type(module).__mro__ if each.__module__.startswith("torch.nn.modules.")), None)


def _is_itself(kind: type[nn.Module], module: nn.Module) -> bool:
    """Whether a module without weights runs its type's own function and nothing after it but the hook that asks."""
    own = type(module).forward is kind.forward and "forward" not in vars(module)
    return own and not module._parameters and kind not in _plain_types() and len(module._forward_hooks) <= 1


def _expected(kind: type[nn.Module], module: nn.Module, x: Tensor) -> Tensor:
    plain = _plain_types().get(kind)
    result: Tensor = kind.forward(module, x) if plain is None else plain(module, x)
    return result


def _agree(output: Tensor, expected: Tensor) -> bool:
    if output.shape != expected.shape or output.dtype != expected.dtype:
        return False
    if torch.equal(output, expected):
        return True
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().max()) if len(finite) else 0.0
    near = scale * torch.finfo(expected.dtype).eps ** 0.5 if expected.is_floating_point() else 0
    return torch.allclose(output, expected, rtol=0, atol=near, equal_nan=True)


def _under_other_weights(kind: type[nn.Module], module: nn.Module, x: Tensor) -> str:
    """What keeps rules, which put other weights into a layer for a moment, from working on it."""
    own = module._parameters
    if isinstance(getattr(module, "weight", None), Tensor) and own.get("weight") is None:
        return "computes its weight from other tensors (pruning, weight norm, a parametrization); remove these first"
    more = [name for name, value in own.items() if value is not None and name not in WEIGHTS]
    if more:
        return f"has parameters besides weight and bias: {', '.join(more)}"
    if type(module).forward is kind.forward and "forward" not in vars(module):
        return ""
    before = {name: value for name in WEIGHTS if (value := own.get(name)) is not None}
    try:
        for name, value in before.items():
            own[name] = nn.Parameter(1 - 2 * value, requires_grad=False)
        same = _agree(module.forward(x), _expected(kind, module, x))
    finally:
        own.update(before)
    return "" if same else f"computes something else than {kind.__name__} does once its weights are changed"
