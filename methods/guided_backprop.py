"""Modified back-propagation through ReLUs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from attribug import methods
from attribug.query import Query


@methods.register("guided_backprop", needs=("relu_modules",), paper="Springenberg et al. 2015, section 3.4")
def guided_backprop(query: Query) -> Tensor:
    """Gradient of the target's logit in which every ReLU passes only positive signals, forward and backward."""
    handles = [
        module.register_full_backward_hook(_positive) for module in query.model.modules() if isinstance(module, nn.ReLU)
    ]
    try:
        return query.input_gradients()
    finally:
        for handle in handles:
            handle.remove()


def _positive(module: nn.Module, grad_input: Any, grad_output: Any) -> tuple[Tensor]:
    """relu(incoming signal) under the forward gate, which autograd has applied to `grad_input`."""
    return (grad_input[0].clamp(min=0),)
