"""Forward hooks that come off again, and the hooks that a model carries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def forward_hooks(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    """Modules with a forward hook, which is taken off again."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def hooks(model: nn.Module) -> tuple[int, ...]:
    """Numbers of all hooks on a model's modules, and on all modules; torch gives every hook a number of its own."""
    own = (number for module in model.modules() for number in own_hooks(module))
    return (*own, *(number for numbers in hooks_of_all() for number in numbers))


def own_hooks(module: nn.Module) -> list[int]:
    """Numbers of the hooks on a module itself."""
    return [number for name in HOOKS for number in getattr(module, f"_{name}", ())]


def hooks_of_all() -> list[dict[int, Any]]:
    """Torch's tables of hooks on all modules there are."""
    return [getattr(nn.modules.module, f"_global_{name}", {}) for name in HOOKS]
