"""Published pipelines, kept to repeat their numbers. None of these is a bug's primary metric: see docs/reading.md.

Adebayo et al. 2020 do not print their pipeline; the authors' earlier public code scales each signed map by its own
minimum and maximum, keeps the channels, and calls scikit-image's SSIM with Gaussian weights, sample covariances and,
for floating-point numbers, a data range of 2. A *flat* map at one half then scores up to .8 × the share of the
background against GT-1: .8 wherever a window sees background alone, near 0 along the object's outline.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import metrics
from attribug.errors import Unsupported
from attribug.metrics.similarity import SSIMForm, structural_similarity

FEWEST_PIXELS = 64
"""A side, below which the window's border hides most of what an object's outline contributes."""
RANGE_OF_FLOATS = 2.0


@metrics.register(
    "ssim_range2", images=True, bounds=(-1, 1), visible=0.1, posts=("minmax",), prepare=SSIMForm, domain=(-1, 1),
    reproduction=True, paper="Adebayo et al. 2020, Table 3 (the authors' earlier code)",
)  # fmt: skip
def ssim_range2(a: SSIMForm, b: SSIMForm) -> Tensor:
    """Do two maps look alike by a lenient SSIM? 1 the same, 0 unlike; yet unrelated ones may come near 1.

    SSIM with channels kept, sample covariances and the data range 2: unrelated heavy-tailed maps score near 1.
    """
    return structural_similarity(a, b, data_range=RANGE_OF_FLOATS, unbiased=True)


@metrics.register(
    "gt1_ssim", kind="alignment", images=True, bounds=(-1, 1), visible=0.1, posts=("minmax",), domain=(-1, 1),
    channels=True, symmetric=False, reproduction=True, paper="Adebayo et al. 2020, Table 2 (GT-1)",
)  # fmt: skip
def gt1_ssim(a: Tensor, masks: Tensor) -> Tensor:
    """Does the map look like an ideal one that is 1 in the mask and 0 elsewhere? 1 the same, 0 unlike.

    `ssim_range2` of a map and GT-1, the truth mask as an image: 1 where relevance is expected, 0 elsewhere.

    Undefined: a map without a range, an empty mask. Raises `Unsupported` below 64 pixels a side.
    """
    return _against(a, masks, None)


@metrics.register(
    "gt2_ssim", kind="alignment", images=True, bounds=(-1, 1), visible=0.1, posts=("minmax",), domain=(-1, 1),
    channels=True, symmetric=False, reproduction=True, beside="background_only",
    paper="Adebayo et al. 2020, Table 2 (GT-2)",
)  # fmt: skip
def gt2_ssim(a: Tensor, masks: Tensor, beside: Tensor) -> Tensor:
    """Does the map look like the background's own map, cut to the mask? 1 the same, 0 unlike.

    `ssim_range2` of a map and GT-2, GT-1 times the same model's map of the background without the object.

    Squares of heavy-tailed maps score near 1, whatever the model: nearly all of both is near 0. Undefined and raises as
    `gt1_ssim`.
    """
    return _against(a, masks, beside)


def _against(maps: Tensor, masks: Tensor, weights: Tensor | None) -> Tensor:
    planes = maps[:, None] if maps.ndim == 3 else maps
    if planes.ndim != 4 or masks.shape != (len(planes), *planes.shape[2:]) or masks.dtype != torch.bool:
        raise Unsupported(
            "expected maps (N, C, H, W) and masks (N, H, W) of torch.bool, "
            f"found {tuple(maps.shape)} and {tuple(masks.shape)} {masks.dtype}"
        )
    if min(masks.shape[1:]) < FEWEST_PIXELS:
        raise Unsupported(f"not computed below {FEWEST_PIXELS} pixels a side, found {tuple(masks.shape[1:])}")
    truth = masks[:, None].to(planes).expand_as(planes)
    truth = truth if weights is None else truth * weights.reshape(planes.shape)
    values = structural_similarity(SSIMForm(planes), SSIMForm(truth), data_range=RANGE_OF_FLOATS, unbiased=True)
    return torch.where(masks.flatten(1).any(1), values, torch.nan)
