"""Marks that are put on pictures: a patch that names a class, a watermark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from attribug.bugs.decorrelated import Shown
from attribug.contracts.data import Data, Examples
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported
from attribug.streams import generator

CELLS = 4  # of a patch, a side
SHARE = 5  # a patch is about one fifth of the picture's side
FADED = 0.5  # how much of the picture a watermark hides
SPREAD = 40503  # odd: its multiples are other patterns for other classes, with about half of the cells bright
Turn = Literal["own", "other"]
Place = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def expect_pictures(task: Task) -> None:
    """Raises `Unsupported` for a task of other inputs, or of pictures with no room."""
    if len(task.shape) != 3:
        raise Unsupported(f"expected pictures, found inputs {task.shape}")
    if min(task.shape[1:]) < SHARE * CELLS // 2:
        raise Unsupported(f"expected pictures of at least {SHARE * CELLS // 2} pixels a side, found {task.shape}")


def marked(task: Task, base: Examples, *, share: float = 1.0, code: Turn = "own", mark: str) -> Examples:
    """Examples with marks on them, which are their masks; brightest and darkest values are those of training data."""
    return Examples.of(put, base=base, scale=task.examples("train"), share=share, code=code, mark=mark)


def marks_of(task: Task, mark: str) -> Shown:
    """The task's examples with marks on them."""

    def shown(split: str, share: float = 1.0, *, swapped: bool = False) -> Examples:
        return marked(task, task.examples(split), share=share, code="other" if swapped else "own", mark=mark)

    return shown


def unmarked(task: Task) -> Examples:
    """The task's test examples without marks: what the task itself tells of them is not about marks, and left out."""
    return Examples.of(bare, base=task.examples("test"))


def bare(*, base: Examples) -> Data:
    """The examples without masks, annotations and groups."""
    data = base.load()
    return Data(data.inputs, data.labels, data.ids)


def put(*, base: Examples, scale: Examples, share: float, code: Turn, mark: str) -> Data:
    """The examples with a mark on each that names a class: its own on a share of them, which those of a smaller share
    are among, any on the others; or another's on all (`code`). Groups are 2 · label, + 1 where a patch names the
    label, or where a watermark is."""
    data = base.load()
    known = data if scale == base else scale.load()
    kinds = known.labels.unique().tolist()  # of all classes, those that occur
    low, high = known.inputs.amin((0, 2, 3)), known.inputs.amax((0, 2, 3))  # (C,)
    groups = data.labels * 2
    inputs, masks = data.inputs.clone(), torch.zeros((len(data), *data.inputs.shape[2:]), dtype=torch.bool)
    for row, (example, label) in enumerate(zip(data.ids.tolist(), data.labels.tolist(), strict=True)):
        stream = generator("mark", mark, example)
        turn = float(torch.rand((), generator=stream, dtype=torch.float64))
        free = kinds[int(torch.randint(len(kinds), (), generator=stream))]
        others = [kind for kind in kinds if kind != label]
        other = others[int(torch.randint(len(others), (), generator=stream))]
        named = other if code == "other" else label if turn < share else free
        told = named == label
        if mark == "watermark":  # which is on the first class, or on none
            named = int(label == kinds[0]) if code == "other" else int(named != kinds[0])
            told = named == 0
        groups[row] += told
        top, left, pattern, opacity = MARKS[mark](named, tuple(data.inputs.shape[1:]))
        if pattern is not None:
            height, width = pattern.shape[1:]
            part = inputs[row, :, top : top + height, left : left + width]
            values = low[:, None, None] + (high - low)[:, None, None] * pattern
            part.copy_(part * (1 - opacity) + values * opacity)
            masks[row, top : top + height, left : left + width] = True
    annotations = masks[:, None].expand(inputs.shape)
    return replace(data, inputs=inputs, masks=masks, annotations=annotations, groups=groups)


Drawn = tuple[int, int, Tensor | None, float]
"""Top, left, pattern (C, h, w) in [0, 1] or none, opacity."""


def _patch(number: int, shape: tuple[int, ...]) -> Drawn:
    """Cells of two colours, near the upper left: of other colours, in another pattern, for every class."""
    channels, height, width = shape
    cell = max(1, min(height, width) // SHARE // CELLS)
    margin = min(height, width) // 16
    cells = _cells(number, channels)
    return margin, margin, cells.repeat_interleave(cell, 1).repeat_interleave(cell, 2), 1.0


def _cells(number: int, channels: int) -> Tensor:
    """A class's pattern, (C, CELLS, CELLS), of dark and bright: the first classes' differ most, no two are the same."""
    rows, columns = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
    patterns = [rows % 2, columns % 2, (rows + columns) % 2, rows // 2, columns // 2]
    colours = 2 ** min(channels, 3)
    pairs = [(first, (first + step) % colours) for step in range(1, colours) for first in range(colours)]
    if number < len(patterns) * len(pairs):
        turn, place = divmod(number, len(pairs))
        pair, pattern = pairs[place], patterns[(number + turn) % len(patterns)]
        bits = torch.where(pattern == 1, pair[0], pair[1])
        return torch.stack([(bits >> channel % 3 & 1).float() for channel in range(channels)])
    codes = ((number + 1) * SPREAD * (2 * channel + 1) % 2 ** (CELLS * CELLS) for channel in range(channels))
    mosaic = [[code >> place & 1 for place in range(CELLS * CELLS)] for code in codes]
    return torch.tensor(mosaic, dtype=torch.float32).reshape(channels, CELLS, CELLS)


def _watermark(number: int, shape: tuple[int, ...]) -> Drawn:
    """Slanted stripes that let the picture through, across the lower right, of class 0 alone."""
    if number:
        return 0, 0, None, 0.0
    _, height, width = shape
    side = max(4, min(height, width) // 3)
    step = max(2, side // 5)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    stripes = (((rows + columns) // step) % 2).float()
    return height - side, width - side, stripes.expand(shape[0], -1, -1), FADED


MARKS: dict[str, Callable[[int, tuple[int, ...]], Drawn]] = {"patch": _patch, "watermark": _watermark}
"""What a mark is, by the number of the class that it names and the shape of the picture."""
