"""Fix: clean data; what any other fix can reach at best."""

from __future__ import annotations

from collections.abc import Sequence

from attribug import fixes
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import ModelSpec
from attribug.contracts.tasks import Level, Task
from attribug.errors import Unsupported


@fixes.register("clean_data", needs=("balanced data",), paper="none: the contrast's own control")
def clean_data(task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int]) -> ModelSpec:
    """Clean data: the model is trained on examples in which the shortcut tells nothing, as if one had them.

    The control of the contaminated model's seed: as many examples, in which the shortcut tells nothing.
    """
    for side in contrast.controls:
        if side.seed == contrast.contaminated.seed:
            return side.model
    raise Unsupported(f"expected a control of seed {contrast.contaminated.seed}, found none")
