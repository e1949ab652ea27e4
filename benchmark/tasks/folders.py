"""A folder of pictures as examples: by class or flat, prepared as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.errors import InputError, one_line

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SEE_THROUGH = {"RGBA", "LA", "PA", "RGBa", "La"}
"""Pillow's modes with a channel of transparency: what lies behind is for their owner to say."""
Transform = Callable[[Any], Tensor]
"""Of a picture of Pillow's (RGB), to what the model takes, (C, H, W)."""


@dataclass(frozen=True)
class Prepared:
    """Pictures as a model takes them."""

    inputs: Tensor
    """(N, C, H, W), float32."""
    shown: tuple[Any, ...]
    """The same as people see them, (H, W, 3), uint8: resized and cropped as the model's, where that is known."""
    names: tuple[str, ...]
    """Paths below the folder."""
    folders: tuple[str, ...]
    """Names of the classes, sorted; none of a flat folder."""
    labels: tuple[int, ...]
    """Places in `folders`; none of a flat folder."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that are no picture, each with the reason."""


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
        values = np.asarray(square(picture, self.pixels), np.float32) / 255
        channels = values.mean(2)[None] if self.grey else np.moveaxis(values, 2, 0)
        channels = channels[::-1] if self.bgr else channels
        mean, std = (np.asarray(each, np.float32).reshape(-1, 1, 1) for each in (self.mean, self.std))
        return torch.from_numpy(np.ascontiguousarray((channels - mean) / std, dtype=np.float32))


def square(picture: Any, pixels: int) -> Any:
    """The middle square of a picture, `pixels` a side."""
    from PIL import Image

    scale = pixels / min(picture.size)
    size = [max(pixels, round(side * scale)) for side in picture.size]
    left, top = ((side - pixels) // 2 for side in size)
    return picture.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + pixels, top + pixels))


def pictures(folder: str | Path, prepare: Transform, *, strict: bool = False, most: int | None = None) -> Prepared:
    """Reads the pictures of a folder: of its subfolders, whose names are classes, or, where it has none, its own.

    `most`: of so many, spread evenly over the classes. What Pillow cannot read is skipped and named, or refused with
    `strict`. Raises `InputError` where there is no picture, and where pictures differ in shape.
    """
    folder = Path(folder)
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing there"
        raise InputError(f"data {folder}: expected a folder of pictures, found {there}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    classes = sorted({path.relative_to(folder).parts[0] for path in found if path.parent != folder})
    loose = [path for path in found if path.parent == folder]
    if classes and loose:
        raise InputError(
            f"data {folder}: expected pictures in folders by class or all in one, found {len(loose)} beside "
            f"{len(classes)} folders ({loose[0].name}, {classes[0]}/)"
        )
    tensors: list[Tensor] = []
    shown, names, labels, skipped = [], [], [], []
    for path in _some(found, folder, most):
        name = path.relative_to(folder).as_posix()
        try:
            picture = _read(path)
        except InputError:
            raise
        except (OSError, ValueError, SyntaxError) as error:
            if strict:
                raise InputError(f"data {folder}: {name}: no picture: {one_line(error)}") from error
            skipped.append((name, one_line(error)))
            continue
        tensors.append(_tensor(prepare, picture, name))
        if tensors[-1].shape != tensors[0].shape:
            shapes = f"{tuple(tensors[0].shape)} and {tuple(tensors[-1].shape)} ({name})"
            raise InputError(f"data {folder}: expected pictures of one shape, found {shapes}; --pixels N makes them so")
        shown.append(np.asarray(_as_seen(picture, tensors[-1])))
        names.append(name)
        labels += [classes.index(path.relative_to(folder).parts[0])] if classes else []
    if not tensors:
        others = f"; {len(skipped)} could not be read, {': '.join(skipped[0])}" if skipped else ""
        raise InputError(f"data {folder}: expected pictures ({', '.join(SUFFIXES)}), found none{others}")
    return Prepared(torch.stack(tensors), tuple(shown), tuple(names), tuple(classes), tuple(labels), tuple(skipped))


def _some(found: Sequence[Path], folder: Path, most: int | None) -> Sequence[Path]:
    """At most so many, the first of every class, then the second ones."""
    if most is None or len(found) <= most:
        return found
    seen: dict[Path, int] = {}
    turns = []
    for path in found:
        turns.append((seen.setdefault(path.parent, 0), path))
        seen[path.parent] += 1
    return sorted(path for _, path in sorted(turns)[:most])


def _read(path: Path) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        turned = ImageOps.exif_transpose(picture)  # as it was held
        if turned.mode in SEE_THROUGH or "transparency" in turned.info:
            raise InputError(
                f"picture {path.name}: expected 1 or 3 channels, found one of transparency beside them; flatten it"
            )
        if turned.mode.startswith("I"):  # 16 bits, which conversion would cut off
            turned = Image.fromarray((np.asarray(turned, np.float32) / 257).clip(0, 255).astype(np.uint8))
        return turned.convert("RGB")


def _tensor(prepare: Transform, picture: Any, name: str) -> Tensor:
    try:
        made = prepare(picture)
    except Exception as error:
        raise InputError(f"data {name}: the model's transform raises {one_line(error)}") from error
    if not isinstance(made, Tensor) or made.ndim != 3:
        found = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"data {name}: expected a tensor (C, H, W) from the model's transform, found {found}")
    return made.float()


def _as_seen(picture: Any, tensor: Tensor) -> Any:
    height, width = tensor.shape[1:]
    return square(picture, height) if height == width else picture.resize((width, height))
