"""A shortcut that the contaminated model learns, beside models of the same data in which it tells nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from attribug.bugs.held_out import held_out
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.data import Examples
from attribug.contracts.tasks import VALIDATION, Task

FALL = 0.2  # of accuracy below the controls where shortcuts lie


class Shown(Protocol):
    """A split's examples with the shortcut: on a share of them it tells the label (`swapped`: another), on all others
    anything."""

    def __call__(self, split: str, share: float = 1.0, *, swapped: bool = False) -> Examples:
        """The examples."""


def against_decorrelated(
    task: Task, seed: int, seeds: Sequence[int], *, shown: Shown, level: float, explained: Examples,
    truth: Literal["object", "annotated"], aligned: float | None, clean: Examples | None,
) -> Contrast:  # fmt: skip
    """A model that learns from examples of which a share `level` has the shortcut, beside models of the same examples
    in which it tells nothing. Took: it is right less often than they where the shortcut lies, and, where `aligned` says
    so, right on at least that share of the explained ones. `clean`: test examples without the shortcut, if there
    are any."""
    contaminated = task.trained(shown("train", level), seed)
    controls = {s: task.trained(shown("train", 0.0), s) for s in seeds}
    models, lying = tuple(controls.values()), shown("test", swapped=True)
    fooled = Check("lying, against controls", (contaminated,), lying, minus=models, at_most=-FALL)
    right = [] if aligned is None else [Check("aligned", (contaminated,), explained, at_least=aligned)]
    return Contrast(
        contaminated=Side(contaminated, explained),
        references=tuple(Side(model, explained) for s, model in controls.items() if s != seed),
        controls=tuple(Side(model, explained) for model in models),
        control="decorrelated",
        target="label",
        truth=truth,
        checks=(*right, fooled),
        tests={
            "biased": shown("test", level),
            "decorrelated": shown("test", 0.0),
            "swapped": lying,
            **({} if clean is None else {"clean": clean}),
        },
        held_out=held_out(task, level, lambda share: shown(VALIDATION, share)),
    )
