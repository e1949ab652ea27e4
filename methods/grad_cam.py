"""Class activation maps: Grad-CAM and its kin, of one layer and one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from attribug import methods
from attribug.errors import Unsupported
from attribug.query.hooks import forward_hooks
from attribug.query.passes import primitive
from attribug.query.query import Query
from attribug.query.trace import behind, graph, operation, reaches

PRODUCTS = ("Bmm", "Baddbmm")
ATTENTION = ("Softmax", "ScaledDotProduct", *PRODUCTS)  # operations that mix positions by their content


@methods.register(
    "grad_cam", needs=("convolution_modules",), uses="layer_maps", paper="Selvaraju et al. 2017, eqs. 1 and 2"
)
def grad_cam(query: Query, *, after_relu: bool = False) -> Tensor:
    """Grad-CAM sums the last convolution's maps, weighs each by its mean gradient, and keeps what is positive.

    relu(Σ_k α_k A_k), α_k the mean gradient of the k-th map of the last convolution with a spatial map; bilinearly
    enlarged to the input's size and spread evenly over the channels, so that the channel sum is the map itself.

    Where the last convolution is only one of several branches (residual networks), A is the output of the last module
    with convolutions inside that every path passes, a stage of the network. Before a ReLU most of A may be negative:
    then the sum often is so everywhere, and the map empty. `after_relu`: A is what the ReLU gives that follows, as in
    the code of the paper's authors (`relu5_3` of VGG-16), with batch norms and max-pooling at most in between; A itself
    where it comes from ReLUs; raises `Unsupported` where neither is seen.
    """
    return _enlarged(query, _averaged_maps(query, after_relu).clamp(min=0))


@methods.register(
    "grad_cam_signed", needs=("convolution_modules",), uses="layer_maps",
    paper="Selvaraju et al. 2017, eq. 1, and eq. 2 before its ReLU",
)  # fmt: skip
def grad_cam_signed(query: Query, *, after_relu: bool = False) -> Tensor:
    """Grad-CAM without its ReLU is positive where the target's logit gains and negative where it loses.

    The linear combination Σ_k α_k A_k of which `grad_cam` keeps the positive part; all else as there.
    """
    return _enlarged(query, _averaged_maps(query, after_relu))


@methods.register(
    "layer_cam", needs=("convolution_modules",), uses="layer_maps", paper="Jiang et al. 2021, eqs. 5 and 6"
)
def layer_cam(query: Query) -> Tensor:
    """LayerCAM weighs every position of the last convolution's maps by its own gradient where that is positive.

    relu(Σ_k relu(∂y/∂A_k) ⊙ A_k), A and its enlargement as in `grad_cam`. One layer alone, so without the scaling by
    which the paper fuses shallow layers.
    """
    return _enlarged(query, layer_maps(query).positive.clamp(min=0))


@methods.register(
    "hires_cam", needs=("convolution_modules",), uses="layer_maps", paper="Draelos & Carin 2020: HiResCAM"
)
def hires_cam(query: Query) -> Tensor:
    """HiResCAM multiplies the last convolution's maps by their gradients, position by position, and keeps the sign.

    Σ_k ∂y/∂A_k ⊙ A_k, A and its enlargement as in `grad_cam`; no ReLU, as in the code of the paper's authors. Where A
    enters one dense layer and nothing else, the map before it is enlarged sums to the target's logit less its bias.
    """
    return _enlarged(query, layer_maps(query).elementwise)


@methods.register(
    "grad_cam_plus_plus", needs=("convolution_modules",), uses="layer_maps",
    paper="Chattopadhay et al. 2018: closed form for the exponential of a score",
)  # fmt: skip
def grad_cam_plus_plus(query: Query) -> Tensor:
    """Grad-CAM++ weighs each map by its positive gradients, more so where the map is active in few places.

    Grad-CAM in which a map counts the more, the fewer positions it is active at.

    relu(Σ_k w_k A_k), w_k = Σ_ij α_ij relu(g_ij), g = ∂y/∂A_k, α = g² / (2g² + g³ Σ_ab A_k,ab): the closed form for
    the score exp(y) of a logit y, enlarged as in `grad_cam`. The derivatives of exp(y) share a factor exp(y): it
    cancels in α, and is left out of w, where it scales a map as a whole. The α are not normalised to a sum of 1, as
    they are in the authors' code and not in their paper.

    A is read as by `grad_cam` with `after_relu`, so that no sum of it is negative, 0 ≤ α ≤ ½, and the denominator
    cannot vanish.
    """
    return _enlarged(query, _after_relu(layer_maps(query).plus_plus).clamp(min=0))


@dataclass(frozen=True)
class LayerMaps:
    """What the methods of one layer sum over its feature maps, before any ReLU of their own, each (N, h, w)."""

    averaged: Tensor
    """Σ_k mean(g_k) A_k."""
    elementwise: Tensor
    """Σ_k g_k ⊙ A_k."""
    positive: Tensor
    """Σ_k relu(g_k) ⊙ A_k."""
    averaged_after_relu: Tensor | None
    """Σ_k mean(g_k) A_k where A comes from a ReLU; None where that does not show."""
    plus_plus: Tensor | None
    """Σ_k w_k A_k with Grad-CAM++'s weights, at the same place."""


@primitive
def layer_maps(query: Query) -> LayerMaps:
    """Sums over the feature maps of the last convolution, in one pass: far smaller than the maps and gradients are."""
    query.refuse_all_but_images()
    sums, after_relu = [], []
    for inputs, targets in query.parts():
        (maps, gradient), rectified = last_convolution(query, inputs, targets)
        sums.append((_averaged(maps, gradient), (gradient * maps).sum(1), (gradient.clamp(min=0) * maps).sum(1)))
        after_relu += [] if rectified is None else [(_averaged(*rectified), _plus_plus(*rectified))]
    averaged, elementwise, positive = _joined(sums)
    averaged_after_relu, plus_plus = _joined(after_relu) if len(after_relu) == len(sums) else (None, None)
    return LayerMaps(averaged, elementwise, positive, averaged_after_relu, plus_plus)


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> Iterator[Tensor]:
    return (torch.cat(each) for each in zip(*parts, strict=True))


def _averaged(maps: Tensor, gradient: Tensor) -> Tensor:
    """Σ_k mean(g_k) A_k, (B, h, w)."""
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * maps).sum(1)


def _plus_plus(maps: Tensor, gradient: Tensor) -> Tensor:
    """Σ_k w_k A_k, (B, h, w), of maps that are nowhere negative; g² is cancelled from α, so that small gradients do not
    underflow: relu(g) α is 0 where g is not positive, and relu(g) / (2 + g Σ A) where it is."""
    positive = gradient.clamp(min=0)
    weights = (positive / (2 + positive * maps.sum((2, 3), keepdim=True))).sum((2, 3), keepdim=True)
    return (weights * maps).sum(1)


def _averaged_maps(query: Query, after_relu: bool) -> Tensor:
    maps = layer_maps(query)
    return _after_relu(maps.averaged_after_relu) if after_relu else maps.averaged


def _after_relu(maps: Tensor | None) -> Tensor:
    if maps is None:
        raise Unsupported("no ReLU is seen behind the last convolution, and the definition needs maps of one")
    return maps


def _enlarged(query: Query, maps: Tensor) -> Tensor:
    """Maps (N, h, w) at the size of the inputs and over their channels."""
    size = query.inputs.shape[2:]
    large = nn.functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)
    return query.over_channels(large[:, 0])


Layer = tuple[Tensor, Tensor]
"""Feature maps and the target logit's gradient there, both (B, k, h, w)."""


def last_convolution(query: Query, inputs: Tensor, targets: Tensor) -> tuple[Layer, Layer | None]:
    """The layer that every path from inputs to logits passes, after the last convolution; and where its maps are what
    ReLUs gave: itself, or after the ReLU that follows, or None."""
    for copying in (False, True):
        seen, logits, leaf = _watched(query, inputs, targets, copying=copying)
        if all(output._version == version for _, output, version in seen):
            break  # else something works in place on what was kept, a ReLU as a function
    activation = _cut(logits, leaf, [(module, output) for module, output, _ in seen])
    maps = query.exactly(activation.detach())
    relu = None if _is_rectified(activation.grad_fn) else _relu_behind(logits, activation)
    if relu is None:
        layer = maps, query.backward(logits, activation)
        return layer, layer if _is_rectified(activation.grad_fn) else None
    rectified = query.exactly(_given(relu).detach())  # before the pass back, which frees it
    gradient, after_relu = query.gradients(logits, (activation, GradientEdge(relu, 0)))
    return (maps, gradient), (rectified, after_relu) if rectified.shape[2:].numel() > 1 else None


PASSED = ("", "Clone", "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "MaxPool2DWithIndices")
"""Operations between a convolution and its ReLU, hooks' own included."""
KEEPING = ("", "Clone", "Cat", "MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D")
"""Operations that give nothing negative where they are given nothing negative."""


def _relu_behind(logits: Tensor, activation: Tensor) -> Any:
    """The node of the ReLU that alone uses an activation; None where something else does."""
    users: dict[Any, list[Any]] = {}
    for node in graph(logits):
        for parent, _ in node.next_functions:
            users.setdefault(parent, []).append(node)
    node = activation.grad_fn
    while len(users.get(node, ())) == 1:
        (node,) = users[node]
        if operation(node) not in PASSED:
            return node if _is_relu(node) else None
    return None


def _is_rectified(node: Any) -> bool:
    """Whether all that an operation gives shows to come from ReLUs."""
    parents = [parent for parent, _ in node.next_functions]
    return _is_relu(node) or (
        operation(node) in KEEPING
        and bool(parents)
        and all(each is not None and _is_rectified(each) for each in parents)
    )


def _is_relu(node: Any) -> bool:
    """Whether a node is a ReLU, be it one with an upper bound."""
    return operation(node) == "Relu" or (operation(node) == "Hardtanh" and node._saved_min_val == 0)


def _given(relu: Any) -> Tensor:
    """What a ReLU gave, as autograd keeps it."""
    values: Tensor = relu._saved_result if operation(relu) == "Relu" else relu._saved_self
    return values if operation(relu) == "Relu" else values.clamp(0, relu._saved_max_val)


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
