"""Class activation maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attribug import methods
from attribug.contracts import Unsupported
from attribug.query import Query


@methods.register("grad_cam", paper="Selvaraju et al. 2017, eqs. 1 and 2")
def grad_cam(query: Query) -> Tensor:
    """relu(Σ_k α_k A_k) at the last convolution, α_k the mean gradient of its k-th map; bilinearly enlarged to the
    input's size and spread evenly over the channels, so that the channel sum is the map itself."""
    if query.inputs.ndim != 4:
        raise Unsupported(f"expected images (N, C, H, W), found {tuple(query.inputs.shape)}")
    maps = []
    for inputs, targets in zip(query.inputs.split(query.rows), query.targets.split(query.rows), strict=True):
        activation, gradient = last_convolution(query, inputs, targets)
        weights = gradient.mean((2, 3), keepdim=True)
        cam = (weights * activation).sum(1, keepdim=True).clamp(min=0)  # (B, 1, h, w)
        large = nn.functional.interpolate(cam, size=inputs.shape[2:], mode="bilinear", align_corners=False)
        maps.append((large / inputs.shape[1]).expand_as(inputs))
    return torch.cat(maps)


def last_convolution(query: Query, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Output of the convolution that ran last, and the target logit's gradient there, both (B, k, h, w)."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> Tensor:
        seen.append(output)
        return output.clone()  # a ReLU in place must not overwrite what is kept

    handles = [m.register_forward_hook(keep) for m in query.model.modules() if isinstance(m, nn.Conv2d)]
    try:
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_(True)
            logits = query.target_logits(leaf, targets)
            if not seen:
                raise Unsupported("the model has no convolution that runs")
            if seen[-1].ndim != 4 or seen[-1].shape[2:].numel() == 1:
                raise Unsupported("the convolution that runs last has no spatial map")
            gradient = query.backward(logits, seen[-1])
    finally:
        for handle in handles:
            handle.remove()
    return seen[-1].detach(), gradient
