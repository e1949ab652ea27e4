"""What makes a model's input of a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.errors import InputError, one_line

Transform = Callable[[Any], Tensor]
"""Of a picture of Pillow's, to what the model takes, (C, H, W)."""


@dataclass(frozen=True)
class Preparation:
    """What makes numbers of a picture: the shorter side to `pixels`, the middle square, channels (x − mean) / std of
    values in [0, 1], in reverse order for models that were trained on BGR."""

    pixels: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False
    grey: bool = False
    """One channel."""

    def __call__(self, picture: Any) -> Tensor:
        """(C, pixels, pixels), float32."""
        shown = square(picture, self.pixels)
        values = np.asarray(shown.convert("L") if self.grey else shown, np.float32) / 255
        channels = values[None] if self.grey else np.moveaxis(values, 2, 0)
        channels = channels[::-1] if self.bgr else channels
        mean, std = (np.asarray(each, np.float32).reshape(-1, 1, 1) for each in (self.mean, self.std))
        return torch.from_numpy(np.ascontiguousarray((channels - mean) / std, dtype=np.float32))


def square(picture: Any, pixels: int) -> Any:
    """The middle square of a picture, `pixels` a side."""
    from PIL import Image

    side = min(picture.size)
    left, top = ((length - side) / 2 for length in picture.size)
    return picture.resize((pixels, pixels), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def applied(prepare: Transform, picture: Any, name: str) -> Tensor:
    """What a transform makes of a picture, (C, H, W), float32; `name`: the picture's, of which a message speaks. Raises
    `InputError` where it makes something else."""
    try:
        made = prepare(picture)
    except Exception as error:
        raise InputError(f"data {name}: the model's transform raises {one_line(error)}") from error
    if not isinstance(made, Tensor) or made.ndim != 3:
        found = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"data {name}: expected a tensor (C, H, W) from the model's transform, found {found}")
    return made.detach().float()
