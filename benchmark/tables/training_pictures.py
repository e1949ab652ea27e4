"""Clean beside contaminated training images: what a bug did to them, one figure a task, bug and level."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from attribug.contracts.models import Trained
from attribug.results.schema import MENDED
from attribug.results.training_strip import MOST, Pair, training_strip

LOOKED_AT = 256
"""Training images of the model with the bug among which changed ones are looked for."""
IMAGES = 4
"""Dimensions of inputs (N, C, H, W)."""

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.data import Examples
    from attribug.running.outcome import Outcome


def training_pictures(outcome: Outcome) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Of the first model in which each bug of the training data took; empty where it changed no image."""
    plan, done = outcome.plan, set()
    for number, cell in plan.contrasted:
        place = (cell.task, cell.bug, cell.level)
        if place in done or cell.contrast is None or MENDED in cell.bug or not outcome.took(number):
            continue
        done.add(place)
        sides = _examples(cell.contrast) if plan.bugs[cell.bug].stage == "data" else None
        if sides is not None:
            yield figure_name(*place), partial(_drawn, *sides)


def figure_name(task: str, bug: str, level: str) -> str:
    """The file of a figure."""
    return f"training_{task}_{bug}_{level}.png"


def _examples(contrast: Contrast) -> tuple[Examples, Examples] | None:
    """What a model without the bug was trained on, and the model with it; None where either was not."""
    buggy = contrast.contaminated.model
    sides = (*contrast.references, *contrast.controls)
    same = [s.model for s in sides if isinstance(s.model, Trained) and s.seed == contrast.contaminated.seed]
    others = [side.model for side in sides if isinstance(side.model, Trained)]
    if not isinstance(buggy, Trained) or not others:
        return None
    return (same or others)[0].examples, buggy.examples


def changed(clean: Examples, buggy: Examples) -> list[Pair]:
    """Images that both hold and that differ, in content or label; holds one side in memory at a time."""
    after = buggy.load()
    if after.inputs.ndim != IMAGES:
        return []
    after = after.select(torch.arange(min(LOOKED_AT, len(after))))
    before = clean.load()
    rows = {int(each): row for row, each in enumerate(before.ids)}
    pairs: list[Pair] = []
    for number, each in enumerate(after.ids.tolist()):
        if (row := rows.get(each)) is None or len(pairs) == MOST:
            continue
        images, labels = (before.inputs[row], after.inputs[number]), (before.labels[row], after.labels[number])
        if labels[0] != labels[1] or not torch.equal(*images):
            pairs.append(Pair(images[0].numpy(), images[1].numpy(), int(labels[0]), int(labels[1])))
    return pairs


def _drawn(clean: Examples, buggy: Examples) -> bytes:
    pairs = changed(clean, buggy)
    drawn = io.BytesIO()
    if pairs:
        training_strip(drawn, pairs)
    return drawn.getvalue()
