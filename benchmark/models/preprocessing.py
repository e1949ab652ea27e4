"""Pictures as models take them, prepared otherwise: by the usual mistakes, or in ways that change nothing."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Scale = Sequence[float]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def raw(inputs: Tensor, mean: Scale, std: Scale) -> Tensor:
    """Pictures in [0, 1] of inputs (N, C, H, W) that are (x − mean) / std of them."""
    return inputs * _wide(std, inputs) + _wide(mean, inputs)


def scaled(pictures: Tensor, mean: Scale, std: Scale) -> Tensor:
    """(x − mean) / std of pictures (N, C, H, W)."""
    return (pictures - _wide(mean, pictures)) / _wide(std, pictures)


def _wide(values: Scale, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype).reshape(-1, 1, 1)


def _bgr(pictures: Tensor, mean: Scale, std: Scale) -> Tensor:
    return scaled(pictures.flip(1), mean, std)


def _unscaled(pictures: Tensor, mean: Scale, std: Scale) -> Tensor:
    return pictures.clone()


def _normalisation(pictures: Tensor, mean: Scale, std: Scale) -> Tensor:
    """Forgotten where there is one, done where there is none."""
    if {*mean} != {0.0} or {*std} != {1.0}:
        return pictures.clone()
    return scaled(pictures, *(IMAGENET if pictures.shape[1] == len(IMAGENET[0]) else ((0.5,), (0.5,))))


def _bytes(pictures: Tensor, mean: Scale, std: Scale) -> Tensor:
    return scaled(pictures * 255, mean, std)


def _half_size(pictures: Tensor, mean: Scale, std: Scale) -> Tensor:
    """Made half as large, and as large again."""
    size = pictures.shape[2:]
    half = [max(1, length // 2) for length in size]
    small = torch.nn.functional.interpolate(pictures, half, mode="area")
    return scaled(torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False), mean, std)


WRONG: dict[str, Callable[[Tensor, Scale, Scale], Tensor]] = {
    "bgr": _bgr, "normalisation": _normalisation, "bytes": _bytes, "half_size": _half_size,
}  # fmt: skip
"""The usual mistakes by name, functions of pictures (N, C, H, W) in [0, 1], mean and std: channels in reverse order;
no mean and std, or ImageNet's where there should be none; values up to 255; half the size."""

OTHERS: dict[str, tuple[str, Callable[[Tensor, Scale, Scale], Tensor]]] = {
    "bgr": ("channels in the other order (with or without --bgr)", _bgr),
    "unscaled": ("values in [0, 1] (--mean 0 --std 1)", _unscaled),
    "bytes": ("values from 0 to 255 before --mean, --std", _bytes),
    "imagenet": ("ImageNet's mean and std (--mean .485,.456,.406 --std .229,.224,.225)",
                 lambda pictures, mean, std: scaled(pictures, *IMAGENET)),
    "halves": ("values in [-1, 1] (--mean .5 --std .5)", lambda pictures, mean, std: scaled(pictures, *HALVES)),
}  # fmt: skip
"""What a model may have been trained on instead, in words, for whoever asks whether another preparation does better."""


def harmless(pictures: Tensor, number: int) -> Tensor:
    """Pictures (N, C, H, W) in [0, 1], 1 or 3 channels, stored in a way that nobody sees: JPEG of quality 95, 94, … for
    even numbers; made 2, 3, … times as large, and as large again, for odd ones."""
    if number % 2 == 0:
        return torch.stack([_jpeg(each, 95 - number // 2) for each in pictures])
    size = pictures.shape[2:]
    larger = [length * (2 + number // 2) for length in size]
    grown = torch.nn.functional.interpolate(pictures, larger, mode="bicubic", align_corners=False)
    return torch.nn.functional.interpolate(grown, size, mode="area").clamp(0, 1)


def _jpeg(picture: Tensor, quality: int) -> Tensor:
    from PIL import Image

    values = np.round(picture.clamp(0, 1).numpy() * 255).astype(np.uint8)
    image = Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1))
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=quality, subsampling=0)
    read = np.asarray(Image.open(stored), np.float32) / 255
    return torch.from_numpy(read[None] if read.ndim == 2 else np.ascontiguousarray(np.moveaxis(read, -1, 0)))
