"""Occlusion: what the logit loses when a window of the input is blanked."""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import methods
from attribug.errors import InputError
from attribug.query.query import Query

WINDOWS_ACROSS = 4  # the default window is a quarter of the image wide


@methods.register("occlusion", uses="masked_outputs", paper="Zeiler & Fergus 2014, section 4.2")
def occlusion(query: Query, *, window: int = 0, stride: int = 0) -> Tensor:
    """Occlusion shows by how much the class's logit falls when windows over a pixel are blanked.

    Mean, over the windows that hide a pixel, of F_t(x) − F_t(x with the window at zero).

    `window`: side in pixels (0: a quarter of the shorter side); `stride`: 0 for half a window. Spread evenly over the
    channels, so that the channel sum is the map itself; pixels that no window hides get zero.
    """
    query.refuse_all_but_images()
    if window < 0 or stride < 0:
        raise InputError(f"window, stride: expected pixels, or 0 for the default, found {window}, {stride}")
    height, width = query.inputs.shape[2:]
    side = window or max(1, min(height, width) // WINDOWS_ACROSS)
    hidden = windows(height, width, side, stride or max(1, side // 2))  # (M, H, W)
    loss = query.target_outputs()[:, None] - query.masked_outputs(~hidden)  # (N, M)
    weight = hidden.to(loss)
    total = torch.einsum("nm,mhw->nhw", loss, weight)
    return query.over_channels(total / weight.sum(0).clamp(min=1))


def windows(height: int, width: int, side: int, stride: int) -> Tensor:
    """Square windows that slide over an image until its last row and column are covered, (M, height, width) bool."""
    masks = []
    for top in _starts(height, side, stride):
        for left in _starts(width, side, stride):
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[top : top + side, left : left + side] = True
            masks.append(mask)
    return torch.stack(masks)


def _starts(length: int, side: int, stride: int) -> list[int]:
    count = 1 + -(-max(0, length - side) // stride)
    return [number * stride for number in range(count)]
