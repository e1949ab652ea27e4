"""Pictures of a folder, or photographs of a package, as examples: by class or flat, prepared as a model takes them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.errors import InputError, one_line, warn_of_shadow
from attribug.models.preparation import Preparation, Transform, square
from attribug.tasks.gcompris import photographs

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PACKAGED = "gcompris:"
"""Before a group of a Debian package's photographs."""
SEE_THROUGH = {"RGBA", "LA", "PA", "RGBa", "La"}
"""Pillow's modes with a channel of transparency: what lies behind is for their owner to say."""


@dataclass(frozen=True)
class Prepared:
    """Pictures as a model takes them."""

    inputs: Tensor
    """(N, C, H, W), float32; of other data than pictures (N, *shape)."""
    shown: tuple[Any, ...]
    """The same as people see them, (H, W, 3), uint8: the same part of the picture as the model's; none where nobody
    asked for them."""
    names: tuple[str, ...]
    """Paths below the folder, or what a package calls them; numbers of other data."""
    folders: tuple[str, ...]
    """Names of the classes, sorted; none of a flat folder."""
    labels: tuple[int, ...]
    """Places in `folders`; none of a flat folder. Where there are no folders: numbers of outputs."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that are no picture, each with the reason."""
    masks: Tensor | None = None
    """(N, *spatial), bool, where the object is; None where nobody says."""
    features: tuple[str, ...] = ()
    """Names of a vector's entries."""


@dataclass(frozen=True)
class _Found:
    """A picture that was not read yet."""

    name: str
    kind: str
    """Its class; an empty text of one in a flat folder."""
    read: Callable[[], Any]


def pictures(
    folder: str | Path,
    prepare: Transform,
    *,
    strict: bool = False,
    most: int | None = None,
    masks: str | Path | None = None,
    shown: bool = True,
) -> Prepared:
    """Reads the pictures of a folder: of its subfolders, whose names are classes, or, where it has none, its own.

    `gcompris:animals` and `gcompris:scenes`, where nothing lies at such a path, are the photographs of a Debian
    package (`attribug.tasks.gcompris`): flat, called by the animals, and in four classes.

    `most`: of so many, spread evenly over the classes; no others are opened. `masks`: a folder of pictures of the same
    names below it, not black where the object is, cropped and resized as the pictures are. `shown`: whether what people
    see is kept beside what the model takes. What Pillow cannot read is skipped and named, or refused with `strict`.
    Raises `InputError` where there is no picture, and where pictures differ in shape.
    """
    if most is not None and most < 1:
        raise InputError(f"--most: expected at least 1, found {most}")
    found = _found(folder)
    classes = sorted({each.kind for each in found} - {""})
    if masks is not None and not Path(masks).is_dir():
        raise InputError(f"--masks {masks}: expected a folder of masks, found no folder")
    chosen = _some(found, most)
    inputs, objects = _Rows(len(chosen)), _Rows(len(chosen))
    seen, names, labels, skipped = [], [], [], []
    for each in chosen:
        try:
            picture = each.read()
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file makes of its reader
            if strict:
                raise InputError(f"data {folder}: {each.name}: no picture: {one_line(error)}") from error
            skipped.append((each.name, one_line(error)))
            continue
        tensor = _tensor(prepare, picture, each.name)
        if inputs.shape not in {None, tensor.shape}:
            shapes = f"{tuple(inputs.shape or ())} and {tuple(tensor.shape)} ({each.name})"
            raise InputError(f"data {folder}: expected pictures of one shape, found {shapes}; --pixels N makes them so")
        inputs.append(tensor)
        if masks is not None:
            objects.append(_mask(prepare, Path(masks), Path(each.name), picture.size))
        if shown:
            ours = prepare if isinstance(prepare, Preparation) else None
            seen.append(as_seen(tensor) if ours is None else np.asarray(square(picture, ours.pixels)))
        names.append(each.name)
        labels += [classes.index(each.kind)] if classes else []
    if not names:
        others = f"; {len(skipped)} could not be read, {': '.join(skipped[0])}" if skipped else ""
        raise InputError(f"data {folder}: expected pictures ({', '.join(SUFFIXES)}), found none{others}")
    texts = tuple(names), tuple(classes), tuple(labels), tuple(skipped)
    return Prepared(inputs.filled, tuple(seen), *texts, None if masks is None else objects.filled)


class _Rows:
    """Tensors of one shape, that come one by one, in memory for all that may come: a list of them and what it is
    stacked to would take twice as much."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = torch.empty(0)
        self._count = 0

    @property
    def shape(self) -> torch.Size | None:
        """Of a row; None before the first one."""
        return self._held.shape[1:] if self._count else None

    @property
    def filled(self) -> Tensor:
        """(N, *shape): those that came."""
        return self._held[: self._count]

    def append(self, row: Tensor) -> None:
        if not self._count:
            self._held = torch.empty((self._most, *row.shape), dtype=row.dtype)
        self._held[self._count] = row
        self._count += 1


def _mask(prepare: Transform, folder: Path, name: Path, size: tuple[int, int]) -> Tensor:
    """Where the object is, (H, W), bool: what the preparation makes of the mask is nearer to white than to black."""
    from PIL import Image

    found = [path for path in (folder / name.parent).glob("*") if path.stem == name.stem and path.is_file()]
    if len(found) != 1:
        counted = "none" if not found else f"{len(found)} ({', '.join(path.name for path in found)})"
        raise InputError(f"--masks {folder}: expected one mask named {name.with_suffix('')}.*, found {counted}")
    try:
        with Image.open(found[0]) as mask:
            given = Image.fromarray((np.asarray(mask.convert("L")) > 0).astype(np.uint8) * 255)
    except Exception as error:  # whatever a damaged file makes of its reader
        raise InputError(f"--masks {found[0]}: no picture: {one_line(error)}") from error
    if given.size != size:
        ours, theirs = ("{} × {}".format(*each) for each in (given.size, size))
        raise InputError(f"--masks {found[0]}: expected the size of its picture, {theirs}, found {ours}")
    pictures = (Image.new("RGB", size, "black"), Image.new("RGB", size, "white"), given.convert("RGB"))
    low, high, seen = (_tensor(prepare, each, str(name)).double().mean(0) for each in pictures)
    if torch.equal(low, high) or not torch.equal(high, _tensor(prepare, pictures[1], str(name)).double().mean(0)):
        raise InputError("--masks: expected a transform that does the same to every picture; --pixels N is one")
    return (seen - low).abs() > (high - low).abs() / 2


def _found(place: str | Path) -> list[_Found]:
    """The pictures of a folder, or of a name that stands for some, sorted by name."""
    folder = Path(place)
    if str(place).startswith(PACKAGED):
        if not folder.exists():
            return _packaged(str(place).removeprefix(PACKAGED))
        warn_of_shadow(str(place), "the photographs", "run in another folder")
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing there"
        raise InputError(f"data {folder}: expected a folder of pictures, found {there}")
    paths = _files(folder)
    classes = sorted({_kind(parts) for parts in paths} - {""})
    loose = [parts for parts in paths if len(parts) == 1]
    if classes and loose:
        raise InputError(
            f"data {folder}: expected pictures in folders by class or all in one, found {len(loose)} beside "
            f"{len(classes)} folders ({loose[0][0]}, {classes[0]}/)"
        )
    return [_Found(_name(parts), _kind(parts), functools.partial(_read, folder, parts)) for parts in paths]


def _files(folder: Path) -> list[tuple[str, ...]]:
    """Of each picture below a folder the parts of its path, sorted; what is hidden stays aside."""
    found: list[tuple[str, ...]] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder).parts
        shown = (name for name in files if not name.startswith("."))
        found += [(*below, name) for name in shown if os.path.splitext(name)[1].lower() in SUFFIXES]
    return sorted(found)


def _packaged(group: str) -> list[_Found]:
    """Photographs of Debian's package: animals flat, all others by class."""
    held = photographs(group)
    flat = all(name == label for name, label, _ in held)
    return [
        _Found(name if flat else f"{label}/{name}", "" if flat else label, picture.copy)
        for name, label, picture in held
    ]


def _name(parts: tuple[str, ...]) -> str:
    """The path below the folder, as text that can be written."""
    return "/".join(parts).encode(errors="replace").decode()


def _kind(parts: tuple[str, ...]) -> str:
    """The class that a picture's folder names; an empty text of one that lies in none."""
    return parts[0] if len(parts) > 1 else ""


def _some(found: Sequence[_Found], most: int | None) -> Sequence[_Found]:
    """At most so many, the first of every class, then the second ones."""
    if most is None or len(found) <= most:
        return found
    return [found[place] for place in sorted(taking_turns([each.kind for each in found])[:most])]


def taking_turns(kinds: Sequence[Hashable]) -> list[int]:
    """Positions, the first one of every kind, then the second ones, each in the order in which they come."""
    seen: dict[Hashable, int] = {}
    turns = []
    for place, kind in enumerate(kinds):
        turns.append((seen.setdefault(kind, 0), place))
        seen[kind] += 1
    return [place for _, place in sorted(turns)]


def _read(folder: Path, parts: tuple[str, ...]) -> Any:
    from PIL import Image, ImageOps

    path = folder.joinpath(*parts)
    if not path.is_file():  # opening a pipe would wait for ever
        raise ValueError("expected a file")
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
    return made.detach().float()


def as_seen(tensor: Tensor) -> Any:
    """What a model gets, (C, H, W), from black at its lowest value to white at its highest: transforms may crop."""
    values = tensor.detach().double()
    low, high = values.min(), values.max()
    scaled = ((values - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    channels = scaled if len(scaled) == 3 else scaled[:1].expand(3, -1, -1)
    return np.ascontiguousarray(channels.permute(1, 2, 0).numpy())
