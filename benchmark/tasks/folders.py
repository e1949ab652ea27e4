"""Pictures of a folder, or photographs of a package, as examples: by class or flat, prepared as a model takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.errors import InputError, one_line, warn_of_shadow
from attribug.models.preparation import Preparation, Transform, applied, square
from attribug.tasks.gcompris import photographs
from attribug.tasks.masks import Marks
from attribug.tasks.picture_files import SUFFIXES, files, written

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
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    """(N, *spatial), bool, by name, where people marked something, the main region first; none where nobody did."""
    features: tuple[str, ...] = ()
    """Names of a vector's entries."""
    noted: tuple[str, ...] = ()
    """What does not fit of the masks, in words."""

    @property
    def masks(self) -> Tensor | None:
        """(N, *spatial), bool, where the object is, or what else is the main region; None where nobody says."""
        return next(iter(self.regions.values()), None)


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
    names below it, or below a subfolder for each region, not black where something is marked, cropped and resized as
    the pictures are (`attribug.tasks.masks`). `shown`: whether what people see is kept beside what the model takes.
    What Pillow cannot read is skipped and named, masks that do not fit are counted and told; both are refused with
    `strict`. Raises `InputError` where there is no picture, and where pictures differ in shape.
    """
    if most is not None and most < 1:
        raise InputError(f"--most: expected at least 1, found {most}")
    found = _found(folder)
    classes = sorted({each.kind for each in found} - {""})
    marks = None if masks is None else Marks(masks, [each.name for each in found], strict=strict)
    chosen = _some(found, most)
    inputs, regions = _Rows(len(chosen)), {name: _Rows(len(chosen)) for name in (marks.names if marks else ())}
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
        tensor = applied(prepare, picture, each.name)
        if inputs.shape not in {None, tensor.shape}:
            shapes = f"{tuple(inputs.shape or ())} and {tuple(tensor.shape)} ({each.name})"
            raise InputError(f"data {folder}: expected pictures of one shape, found {shapes}; --pixels N makes them so")
        inputs.append(tensor)
        if marks is not None:
            for name, mask in marks.of(each.name, picture.size, prepare).items():
                regions[name].append(mask)
        if shown:
            ours = prepare if isinstance(prepare, Preparation) else None
            seen.append(as_seen(tensor) if ours is None else np.asarray(square(picture, ours.pixels)))
        names.append(each.name)
        labels += [classes.index(each.kind)] if classes else []
    if not names:
        others = f"; {len(skipped)} could not be read, {': '.join(skipped[0])}" if skipped else ""
        raise InputError(f"data {folder}: expected pictures ({', '.join(SUFFIXES)}), found none{others}")
    texts = tuple(names), tuple(classes), tuple(labels), tuple(skipped)
    marked = {name: rows.filled for name, rows in regions.items()}
    return Prepared(inputs.filled, tuple(seen), *texts, marked, noted=marks.lines() if marks else ())


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
    paths = files(folder)
    classes = sorted({_kind(parts) for parts in paths} - {""})
    loose = [parts for parts in paths if len(parts) == 1]
    if classes and loose:
        raise InputError(
            f"data {folder}: expected pictures in folders by class or all in one, found {len(loose)} beside "
            f"{len(classes)} folders ({loose[0][0]}, {classes[0]}/)"
        )
    return [_Found(written(parts), _kind(parts), functools.partial(_read, folder, parts)) for parts in paths]


def _packaged(group: str) -> list[_Found]:
    """Photographs of Debian's package: animals flat, all others by class."""
    held = photographs(group)
    flat = all(name == label for name, label, _ in held)
    return [
        _Found(name if flat else f"{label}/{name}", "" if flat else label, picture.copy)
        for name, label, picture in held
    ]


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


def as_seen(tensor: Tensor) -> Any:
    """What a model gets, (C, H, W), from black at its lowest value to white at its highest: transforms may crop."""
    values = tensor.detach().double()
    low, high = values.min(), values.max()
    scaled = ((values - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    channels = scaled if len(scaled) == 3 else scaled[:1].expand(3, -1, -1)
    return np.ascontiguousarray(channels.permute(1, 2, 0).numpy())
