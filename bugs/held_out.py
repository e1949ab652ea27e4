"""What a bug keeps apart for fixes: examples that neither train a model nor test it."""

from __future__ import annotations

from collections.abc import Callable

from attribug.contracts.data import Examples
from attribug.contracts.tasks import VALIDATION, Task


def held_out(task: Task, level: float, shown: Callable[[float], Examples]) -> dict[str, Examples]:
    """`shown`: validation examples by the share whose shortcut tells the label. Nothing, where the task has none."""
    return {"biased": shown(level), "balanced": shown(0.0)} if VALIDATION in task.splits else {}
