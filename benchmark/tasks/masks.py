"""Masks of what people marked on pictures: one folder, or one a region; what does not fit is counted and told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.errors import InputError, one_line
from attribug.models.preparation import Transform, applied
from attribug.tasks.picture_files import SUFFIXES, files, written

OBJECT = "object"
"""The region of masks that nobody names."""
FORMATS = (*SUFFIXES, ".pbm", ".pgm", ".ppm")
SAME_SHAPE = 0.01
"""Relative difference of two pictures' aspect ratios, up to which they are of one shape."""
NAMED = 3  # in a line
Size = tuple[int, int]


def in_order(names: Iterable[str]) -> list[str]:
    """Names of regions: `object` first, which is then the main one, all others as they come."""
    return sorted(names, key=lambda name: name != OBJECT)


def places(folder: Path, pictures: Iterable[str]) -> dict[str, dict[str, list[Path]]]:
    """The files of each region, by path below its folder without suffix, as `_stem` gives that of a picture.

    Masks lie below the folder as the pictures, by `pictures` their paths, lie below theirs: then they are one region,
    `object`; or they do so below a subfolder for each region, which carries its name. Raises `InputError` where both
    are true, or neither.
    """
    if not folder.is_dir():
        raise InputError(f"--masks {folder}: expected a folder of masks, found no folder")
    known, every = {_stem(name) for name in pictures}, files(folder, FORMATS)
    together = _by_stem(folder, every)
    regions = {
        written([name]): _by_stem(folder / name, [parts[1:] for parts in every if parts[0] == name and len(parts) > 1])
        for name in sorted({parts[0] for parts in every if len(parts) > 1})
    }
    as_one = [stem for stem in together if stem in known]
    as_several = [f"{name}/{stem}" for name, held in regions.items() for stem in held if stem in known]
    if as_one and as_several:
        found = f"found both ({as_one[0]}, {as_several[0]})"
        raise InputError(f"--masks {folder}: expected masks named as the pictures, or folders of regions, {found}")
    if as_one:
        return {OBJECT: together}
    if as_several:
        return {name: regions[name] for name in in_order(regions)}
    expected = "expected masks named as the pictures, or a folder of such for each region"
    raise InputError(f"--masks {folder}: {expected}, found none of {len(every)} that fits a picture")


class Marks:
    """A folder's masks, for pictures that come one by one; keeps count of what does not fit."""

    def __init__(self, folder: str | Path, pictures: Sequence[str], *, strict: bool) -> None:
        """`pictures`: the paths of all below their folder, whether they come or not; `strict`: what does not fit is an
        `InputError`. Raises `InputError` where no mask fits any of them."""
        self._folder, self._strict = Path(folder), strict
        self._places = places(self._folder, pictures)
        self._count = 0
        self._fitted: list[tuple[Path, Size, Size]] = []
        self._missing: dict[str, list[str]] = {name: [] for name in self._places}
        self._empty: dict[str, list[str]] = {name: [] for name in self._places}
        self._strangers = self._without_picture({_stem(name) for name in pictures})
        if strict and self._strangers:
            expected = "expected a picture of this name among the data, found none"
            raise InputError(f"--masks {self._folder / self._strangers[0]}: {expected}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the regions, the main one first."""
        return tuple(self._places)

    def of(self, name: str, size: Size, prepare: Transform) -> dict[str, Tensor]:
        """The masks of a picture by region, (H, W) bool each, cropped and resized by `prepare` as the picture is;
        nothing is marked where there is no mask. `size`: of the picture, width and height. Raises `InputError` for
        several masks, for files that are no pictures, and where `prepare` does not do the same to every picture."""
        self._count += 1
        bounds = _bounds(prepare, size, name)
        found = {}
        for region in self._places:
            path = self._file(region, name)
            if path is None:
                self._missing[region].append(name)
                found[region] = torch.zeros(bounds[0].shape, dtype=torch.bool)
                continue
            seen = applied(prepare, self._fitting(path, size).convert("RGB"), name).double().mean(0)
            found[region] = (seen - bounds[0]).abs() > (bounds[1] - bounds[0]).abs() / 2
            if not bool(found[region].any()):
                self._empty[region].append(name)
                if self._strict:
                    raise InputError(f"--masks {path}: expected a mask that shows something to the model, found none")
        return found

    def lines(self) -> tuple[str, ...]:
        """What did not fit the pictures that came, in words."""
        told = [*_fitted(self._fitted, self._folder)]
        for region in self._places:
            missing, empty = self._missing[region], self._empty[region]
            of = "" if self.names == (OBJECT,) else f" of {region}"
            if missing:
                have = "has" if len(missing) == 1 else "have"
                told.append(f"{len(missing)} of {counted(self._count, 'picture')} {have} no mask{of}: {_some(missing)}")
            told += _empties(empty, self._count - len(missing), of)
        if self._strangers:
            belong = "belongs" if len(self._strangers) == 1 else "belong"
            told.append(f"{counted(len(self._strangers), 'mask')} {belong} to no picture: {_some(self._strangers)}")
        return tuple(told)

    def _without_picture(self, known: set[str]) -> list[str]:
        """Masks of no picture, by their paths below the folder."""
        used = {path for held in self._places.values() for stem in held if stem in known for path in held[stem]}
        return [written(parts) for parts in files(self._folder, FORMATS) if self._folder.joinpath(*parts) not in used]

    def _file(self, region: str, name: str) -> Path | None:
        found = self._places[region].get(_stem(name), [])
        place = self._folder if self.names == (OBJECT,) else self._folder / region
        if len(found) > 1 or (self._strict and not found):
            held = "none" if not found else f"{len(found)} ({', '.join(path.name for path in found)})"
            raise InputError(f"--masks {place}: expected one mask named {_stem(name)}.*, found {held}")
        return found[0] if found else None

    def _fitting(self, path: Path, size: Size) -> Any:
        """What a file marks, white on black, of its picture's size."""
        from PIL import Image

        try:
            with Image.open(path) as mask:
                wide = mask.mode.startswith(("I", "F"))  # whose conversion rounds small numbers to 0
                given = Image.fromarray((np.asarray(mask if wide else mask.convert("L")) > 0).astype(np.uint8) * 255)
        except Exception as error:  # whatever a damaged file makes of its reader
            raise InputError(f"--masks {path}: no picture: {one_line(error)}") from error
        if given.size == size:
            return given
        if self._strict:
            expected = f"expected the size of its picture, {_size(size)}"
            raise InputError(f"--masks {path}: {expected}, found {_size(given.size)}")
        self._fitted.append((path, given.size, size))
        return given.resize(size, Image.Resampling.NEAREST)


def empties(masks: Mapping[str, Tensor], names: Sequence[str]) -> tuple[str, ...]:
    """What arrays of masks (N, *spatial) leave unmarked, in words; `names`: of the N examples."""
    told = []
    for region, each in masks.items():
        empty = [name for name, shows in zip(names, each.flatten(1).any(1).tolist(), strict=True) if not shows]
        told += _empties(empty, len(names), "" if tuple(masks) == (OBJECT,) else f" of {region}")
    return tuple(told)


def uses(masks: Mapping[str, Tensor]) -> list[str]:
    """What bugs that need an object make of masks by region, in words."""
    told = []
    main = next(iter(masks), "")
    if len(masks) > 1:
        told.append(f"masks of {', '.join(masks)}; where a bug needs the object, {main} stands for it")
    without = int((~masks[main].flatten(1).any(1)).sum()) if masks else 0
    if without:
        left = f"the {without} without any {'is' if without == 1 else 'are'} left out"
        told.append(f"where objects are put on other backgrounds, {left}")
    return told


def counted(number: int, what: str) -> str:
    """`1 mask`, `2 masks`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _stem(name: str) -> str:
    """A path below a folder, without its suffix."""
    path = PurePosixPath(name)
    return str(path.parent / path.stem)


def _by_stem(folder: Path, paths: Iterable[tuple[str, ...]]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for parts in paths:
        found.setdefault(_stem(written(parts)), []).append(folder.joinpath(*parts))
    return found


def _bounds(prepare: Transform, size: Size, name: str) -> tuple[Tensor, Tensor]:
    """What a preparation makes of black and of white pictures, (H, W) each."""
    from PIL import Image

    pictures = (Image.new("RGB", size, colour) for colour in ("black", "white", "white"))
    low, high, again = (applied(prepare, each, name).double().mean(0) for each in pictures)
    if torch.equal(low, high) or not torch.equal(high, again):
        raise InputError("--masks: expected a transform that does the same to every picture; --pixels N is one")
    return low, high


def _fitted(fitted: Sequence[tuple[Path, Size, Size]], folder: Path) -> list[str]:
    told = []
    distorted = [each for each in fitted if abs(_aspect(each[1]) / _aspect(each[2]) - 1) > SAME_SHAPE]
    if fitted:
        were = "was fitted to its picture" if len(fitted) == 1 else "were fitted to their pictures"
        told.append(f"{counted(len(fitted), 'mask')} of another size {were}, e.g. {_example(fitted[0], folder)}")
    if distorted:
        found = f"{len(distorted)} of them {'is' if len(distorted) == 1 else 'are'} of another shape"
        told.append(f"{found}, e.g. {_example(distorted[0], folder)}: were pictures cropped after they were marked?")
    return told


def _example(fitted: tuple[Path, Size, Size], folder: Path) -> str:
    path, ours, theirs = fitted
    return f"{_size(ours)} for {_size(theirs)} ({written(path.relative_to(folder).parts)})"


def _empties(empty: Sequence[str], count: int, of: str) -> list[str]:
    show = "shows" if len(empty) == 1 else "show"
    return (
        [f"{len(empty)} of {counted(count, 'mask')}{of} {show} nothing to the model: {_some(empty)}"] if empty else []
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


def _size(size: Size) -> str:
    return "{} × {}".format(*size)


def _aspect(size: Size) -> float:
    return size[0] / size[1]
