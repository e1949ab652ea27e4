"""A model's layers in the order in which they run: of a model that somebody brings, definition tells neither which is
the last nor which have a part in the outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def only(model: nn.Module, *, layer: str) -> list[str]:
    """The name of one layer, as a choice of modules."""
    return [layer]


def running_order(model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """Names of the modules with weights of their own that the outputs (N, K) depend on, by when they (last) begin.

    One whose weights another module uses, as attention those of its projection, stands after that one. `inputs`
    (N, *shape). Gradients are asked for: give a copy that nobody else has.
    """
    begun: dict[str, None] = {}

    def begins(name: str) -> None:
        begun.pop(name, None)
        begun[name] = None

    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: begins(name)) for name, module in model.named_modules()
    ]
    weights = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    try:
        with torch.enable_grad():
            for parameter in weights:
                parameter.requires_grad_(True)
            outputs = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    used = {id(parameter) for parameter in _behind(outputs, weights)}
    own = {
        name: any(id(parameter) in used for parameter in module.parameters(recurse=False))
        for name, module in model.named_modules()
    }
    places = {name: place for place, name in enumerate(begun)}
    found = [(_place(name, places), number, name) for number, (name, has_part) in enumerate(own.items()) if has_part]
    return tuple(name for _, _, name in sorted(found))


def _behind(outputs: Tensor, weights: list[nn.Parameter]) -> list[nn.Parameter]:
    """The weights that outputs depend on; all of them where the model lets no gradients flow."""
    if not weights or not outputs.requires_grad:
        return weights
    given = torch.autograd.grad(outputs.double().square().sum(), weights, allow_unused=True)
    return [parameter for parameter, gradient in zip(weights, given, strict=True) if gradient is not None]


def _place(name: str, places: dict[str, int]) -> int:
    """Where a module begins, or the nearest one around it that does."""
    while name and name not in places:
        name = name.rpartition(".")[0]
    return places.get(name, -1)
