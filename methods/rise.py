"""RISE: randomised input sampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from attribug import methods
from attribug.errors import InputError
from attribug.query.query import Query
from attribug.streams import generator


@methods.register("rise", stochastic=True, paper="Petsiuk et al. 2018, sections 3.1 and 3.2")
def rise(query: Query, *, samples: int = 500, cells: int = 7, keep: float = 0.5) -> Tensor:
    """RISE shows how high the class's logit is, on average, while random masks leave a pixel visible.

    Mean of soft random masks weighted by the target's logit under them, divided by `keep`.

    Masks: `cells` × `cells` coin flips with probability `keep`, enlarged bilinearly to one cell more than the image and
    shifted at random; the same for all examples. The paper weighs with probabilities; we explain logits. Spread evenly
    over the channels, so that the channel sum is the map itself.
    """
    query.refuse_all_but_images()
    if samples < 1 or cells < 1 or not 0 < keep < 1:
        raise InputError(f"rise: expected samples, cells ≥ 1 and 0 < keep < 1, found {samples}, {cells}, {keep}")
    stream = generator("rise", query.seed, samples, cells, float(keep))
    height, width = query.inputs.shape[2:]
    masks = soft_masks(height, width, samples, cells, keep, stream)  # (M, H, W)
    masks = query.exactly(masks.to(query.inputs.device))
    outputs = query.masked_outputs(masks)  # (N, M)
    maps = (outputs @ masks.flatten(1)).reshape(-1, *masks.shape[1:]) / (samples * keep)
    return query.over_channels(maps)


def soft_masks(height: int, width: int, samples: int, cells: int, keep: float, stream: torch.Generator) -> Tensor:
    """Masks in [0, 1], (samples, height, width), each with an expected value of `keep` at every pixel."""
    coins = (torch.rand(samples, 1, cells, cells, generator=stream, dtype=torch.float32) < keep).float()
    cell = (-(-height // cells), -(-width // cells))
    size = ((cells + 1) * cell[0], (cells + 1) * cell[1])
    large = functional.interpolate(coins, size=size, mode="bilinear", align_corners=False)[:, 0]
    shifts = torch.stack([torch.randint(side, (samples,), generator=stream) for side in cell], dim=1)
    pairs = zip(large, shifts.tolist(), strict=True)
    return torch.stack([mask[top : top + height, left : left + width] for mask, (top, left) in pairs])
