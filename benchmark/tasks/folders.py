"""A folder of pictures as examples: by class or flat, prepared as a model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.errors import InputError, one_line
from attribug.models.preparation import Preparation, Transform, square

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SEE_THROUGH = {"RGBA", "LA", "PA", "RGBa", "La"}
"""Pillow's modes with a channel of transparency: what lies behind is for their owner to say."""


@dataclass(frozen=True)
class Prepared:
    """Pictures as a model takes them."""

    inputs: Tensor
    """(N, C, H, W), float32."""
    shown: tuple[Any, ...]
    """The same as people see them, (H, W, 3), uint8: the same part of the picture as the model's."""
    names: tuple[str, ...]
    """Paths below the folder."""
    folders: tuple[str, ...]
    """Names of the classes, sorted; none of a flat folder."""
    labels: tuple[int, ...]
    """Places in `folders`; none of a flat folder."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that are no picture, each with the reason."""


def pictures(folder: str | Path, prepare: Transform, *, strict: bool = False, most: int | None = None) -> Prepared:
    """Reads the pictures of a folder: of its subfolders, whose names are classes, or, where it has none, its own.

    `most`: of so many, spread evenly over the classes. What Pillow cannot read is skipped and named, or refused with
    `strict`. Raises `InputError` where there is no picture, and where pictures differ in shape.
    """
    folder = Path(folder)
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing there"
        raise InputError(f"data {folder}: expected a folder of pictures, found {there}")
    if most is not None and most < 1:
        raise InputError(f"--most: expected at least 1, found {most}")
    every = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    found = sorted(path for path in every if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    classes = sorted({_kind(path, folder) for path in found} - {""})
    loose = [path for path in found if path.parent == folder]
    if classes and loose:
        raise InputError(
            f"data {folder}: expected pictures in folders by class or all in one, found {len(loose)} beside "
            f"{len(classes)} folders ({loose[0].name}, {classes[0]}/)"
        )
    tensors: list[Tensor] = []
    shown, names, labels, skipped = [], [], [], []
    for path in _some(found, folder, most):
        name = path.relative_to(folder).as_posix().encode(errors="replace").decode()
        try:
            picture = _read(path)
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file makes of its reader
            if strict:
                raise InputError(f"data {folder}: {name}: no picture: {one_line(error)}") from error
            skipped.append((name, one_line(error)))
            continue
        tensors.append(_tensor(prepare, picture, name))
        if tensors[-1].shape != tensors[0].shape:
            shapes = f"{tuple(tensors[0].shape)} and {tuple(tensors[-1].shape)} ({name})"
            raise InputError(f"data {folder}: expected pictures of one shape, found {shapes}; --pixels N makes them so")
        ours = prepare if isinstance(prepare, Preparation) else None
        shown.append(_as_seen(tensors[-1]) if ours is None else np.asarray(square(picture, ours.pixels)))
        names.append(name)
        labels += [classes.index(_kind(path, folder))] if classes else []
    if not tensors:
        others = f"; {len(skipped)} could not be read, {': '.join(skipped[0])}" if skipped else ""
        raise InputError(f"data {folder}: expected pictures ({', '.join(SUFFIXES)}), found none{others}")
    return Prepared(torch.stack(tensors), tuple(shown), tuple(names), tuple(classes), tuple(labels), tuple(skipped))


def _kind(path: Path, folder: Path) -> str:
    """The class that a picture's folder names; an empty text of one that lies in none."""
    return path.relative_to(folder).parts[0] if path.parent != folder else ""


def _some(found: Sequence[Path], folder: Path, most: int | None) -> Sequence[Path]:
    """At most so many, the first of every class, then the second ones."""
    if most is None or len(found) <= most:
        return found
    seen: dict[str, int] = {}
    turns = []
    for path in found:
        kind = _kind(path, folder)
        turns.append((seen.setdefault(kind, 0), path))
        seen[kind] += 1
    return sorted(path for _, path in sorted(turns)[:most])


def _read(path: Path) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        turned = ImageOps.exif_transpose(picture)  # as it was held
        if turned.mode in SEE_THROUGH or "transparency" in turned.info:
            raise InputError(
                f"picture {path.name}: expected 1 or 3 channels, found one of transparency beside them; flatten it"
            )
        if turned.mode.startswith("I;16"):  # which conversion would cut off
            turned = Image.fromarray((np.asarray(turned, np.float32) / 257).clip(0, 255).astype(np.uint8))
        if turned.mode in {"F", "I"}:
            raise ValueError(f"expected 8 or 16 bits a channel, found 32 ({turned.mode})")
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


def _as_seen(tensor: Tensor) -> Any:
    """What a model gets, (C, H, W), from black at its lowest value to white at its highest: transforms may crop."""
    values = tensor.detach().double()
    low, high = values.min(), values.max()
    scaled = ((values - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    channels = scaled if len(scaled) == 3 else scaled[:1].expand(3, -1, -1)
    return np.ascontiguousarray(channels.permute(1, 2, 0).numpy())
