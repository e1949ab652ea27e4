"""Fix: counterexamples; what must not matter is drawn anew, the label is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import ModelSpec
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError, near_misses
from attribug.fixes.materials import annotated, at_least, contaminated
from attribug.streams import generator

VALUES = ("examples", "uniform")


@fixes.register(
    "counterexamples", needs=("annotations",), paper="Teso and Kersting 2019, section 3 (CAIPI's counterexamples)"
)
def counterexamples(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *,
    copies: int = 1, values: str = "examples",
) -> ModelSpec:  # fmt: skip
    """The model is trained anew on examples in which what must not matter is replaced by other values.

    Trained anew on the same examples, in which annotated values are those of another, random, training example in the
    same place (`values="examples"`), or uniform in the training data's range (`"uniform"`).

    Teso and Kersting add such copies one query after the other; here they take the examples' place, `copies` of each.
    """
    at_least("counterexamples", "copies", copies, 1)
    if values not in VALUES:
        raise InputError(f"counterexamples: unknown values {values!r}{near_misses(values, VALUES)}")
    model = contaminated(contrast)
    return replace(model, examples=Examples.of(redrawn, base=model.examples, copies=copies, values=values, seed=seed))


def redrawn(*, base: Examples, copies: int, values: str, seed: int) -> Data:
    """`copies` of the examples, one after the other, in which annotated values are drawn anew, others for every seed;
    their groups are gone, since nobody knows what shortcut was drawn."""
    data = base.load()
    where = annotated(data)
    streams = [generator("counterexamples", seed, number, len(data)) for number in range(copies)]
    drawn = [_drawn(data.inputs, stream, values) for stream in streams]
    inputs = torch.cat([torch.where(where, other, data.inputs) for other in drawn])
    rows = torch.arange(len(data)).repeat(copies)
    return replace(data.select(rows), inputs=inputs, groups=None)


def _drawn(inputs: Tensor, stream: torch.Generator, values: str) -> Tensor:
    """Values that tell nothing of an example, as its inputs."""
    if values == "examples":
        return inputs[torch.randint(len(inputs), (len(inputs),), generator=stream)]
    low, high = inputs.amin(), inputs.amax()
    return low + (high - low) * torch.rand(inputs.shape, generator=stream)
