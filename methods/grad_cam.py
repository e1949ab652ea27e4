"""Class activation maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attribug import methods
from attribug.errors import Unsupported
from attribug.query.hooks import forward_hooks
from attribug.query.query import Query
from attribug.query.trace import behind, graph, operation, reaches

PRODUCTS = ("Bmm", "Baddbmm")
ATTENTION = ("Softmax", "ScaledDotProduct", *PRODUCTS)  # operations that mix positions by their content


@methods.register("grad_cam", needs=("convolution_modules",), paper="Selvaraju et al. 2017, eqs. 1 and 2")
def grad_cam(query: Query) -> Tensor:
    """relu(Σ_k α_k A_k) at the last convolution that has a spatial map, α_k the mean gradient of its k-th map;
    bilinearly enlarged to the input's size and spread evenly over the channels, so that the channel sum is the map
    itself.

    Where the last convolution is only one of several branches (residual networks), A is the output of the last module
    with convolutions inside that every path passes, a stage of the network.
    """
    query.refuse_all_but_images()
    maps = []
    for inputs, targets in query.parts():
        activation, gradient = last_convolution(query, inputs, targets)
        weights = gradient.mean((2, 3), keepdim=True)
        cam = (weights * activation).sum(1, keepdim=True).clamp(min=0)  # (B, 1, h, w)
        large = nn.functional.interpolate(cam, size=inputs.shape[2:], mode="bilinear", align_corners=False)
        maps.append(large[:, 0])
    return query.over_channels(torch.cat(maps))


def last_convolution(query: Query, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Activation that every path from inputs to logits passes, after the last convolution, and the target logit's
    gradient there, both (B, k, h, w)."""
    for copying in (False, True):
        seen, logits, leaf = _watched(query, inputs, targets, copying=copying)
        if all(output._version == version for _, output, version in seen):
            break  # else something works in place on what was kept, a ReLU as a function
    activation = _cut(logits, leaf, [(module, output) for module, output, _ in seen])
    return query.exactly(activation.detach()), query.backward(logits, activation)


def _watched(
    query: Query, inputs: Tensor, targets: Tensor, *, copying: bool
) -> tuple[list[tuple[nn.Module, Tensor, int]], Tensor, Tensor]:
    """A pass: convolving modules with their outputs (and how often these were changed), target logits, inputs."""
    seen: list[tuple[nn.Module, Tensor, int]] = []

    def keep(module: nn.Module, args: object, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return output
        seen.append((module, output, output._version))
        return output.clone() if copying else output

    with forward_hooks(_convolving(query.model), keep), torch.enable_grad():
        leaf = query.exactly(inputs.detach()).requires_grad_(True)
        return seen, query.target_logits(leaf, targets), leaf


def _convolving(model: nn.Module) -> list[nn.Module]:
    """Convolutions, and modules with convolutions inside."""
    return [m for m in model.modules() if any(isinstance(inner, nn.Conv2d) for inner in m.modules())]


def _cut(logits: Tensor, leaf: Tensor, seen: list[tuple[nn.Module, Tensor]]) -> Tensor:
    """The output of the last convolution with a spatial map if every path passes it (1 × 1 convolutions after global
    pooling are classifiers), else that of the last module that all paths pass."""
    if not any(isinstance(module, nn.Conv2d) for module, _ in seen):
        raise Unsupported("the model has no convolution that runs")
    seen = [(module, output) for module, output in seen if output.shape[2:].numel() > 1]
    convolutions = [output for module, output in seen if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise Unsupported("no convolution of the model has a spatial map")
    if not convolutions[-1].requires_grad:
        raise Unsupported("the last convolution's output carries no gradient")
    last = next(i for i, (_, output) in enumerate(seen) if output is convolutions[-1])
    for _, output in [seen[last], *reversed(seen[last + 1 :])]:
        around = graph(logits, without=output.grad_fn)
        if reaches(around, leaf):
            continue
        mixing = [name for name in ATTENTION if any(_mixes(node, name, output) for node in around)]
        if mixing:
            raise Unsupported(f"attention follows the last convolution ({mixing[0]}); the map would be that of patches")
        return output
    raise Unsupported("no module after the last convolution is passed by every path; the model's branches end apart")


def _mixes(node: Any, attention: str, output: Tensor) -> bool:
    """Whether an operation is one that mixes positions, of which both operands come from an output: a product with
    weights mixes none."""
    if not operation(node).startswith(attention):
        return False
    operands = [parent for parent, _ in node.next_functions if parent is not None]
    return attention not in PRODUCTS or sum(output.grad_fn in behind(parent) for parent in operands) > 1
