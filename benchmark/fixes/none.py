"""Fix: none; what every other fix is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import ModelSpec
from attribug.contracts.tasks import Level, Task


@fixes.register("none", paper="none: nothing is mended")
def none(task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int]) -> ModelSpec:
    """Nothing is mended: the contaminated model stays as it is."""
    return contrast.contaminated.model
