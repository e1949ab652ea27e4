"""Back-propagation with other rules at ReLUs: DeconvNet, guided backpropagation, guided Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from attribug import methods
from attribug.methods.grad_cam import grad_cam
from attribug.query.query import Query

Hook = Callable[[nn.Module, Any, Any], tuple[Tensor]]


@methods.register("deconvnet", needs=("relu_modules",), paper="Zeiler & Fergus 2014, section 2.1")
def deconvnet(query: Query) -> Tensor:
    """DeconvNet leads the class's logit back to the pixels; every ReLU passes what is positive on its way back.

    Gradient of the target's logit in which every ReLU passes the positive part of the incoming signal, whatever its own
    input was.
    """
    return _backprop(query, lambda module, grad_input, grad_output: (grad_output[0].clamp(min=0),))


@methods.register("guided_backprop", needs=("relu_modules",), paper="Springenberg et al. 2015, section 3.4")
def guided_backprop(query: Query) -> Tensor:
    """Guided backpropagation is the gradient with only positive signals let through every ReLU.

    Gradient of the target's logit in which every ReLU passes only positive signals, forward and backward.
    """
    return _backprop(query, lambda module, grad_input, grad_output: (grad_input[0].clamp(min=0),))  # gated by autograd


@methods.register(
    "guided_grad_cam", needs=("relu_modules", "convolution_modules"), uses="layer_maps",
    paper="Selvaraju et al. 2017, section 3.3",
)  # fmt: skip
def guided_grad_cam(query: Query, *, after_relu: bool = False) -> Tensor:
    """Guided Grad-CAM multiplies guided backpropagation by Grad-CAM, enlarged bilinearly to the input's size.

    `after_relu`: as of `grad_cam`.
    """
    cam = grad_cam(query, after_relu=after_relu).sum(1, keepdim=True)
    return guided_backprop(query) * cam


def _backprop(query: Query, hook: Hook) -> Tensor:
    handles = [m.register_full_backward_hook(hook) for m in query.model.modules() if isinstance(m, nn.ReLU)]
    try:
        return query.input_gradients()
    finally:
        for handle in handles:
            handle.remove()
