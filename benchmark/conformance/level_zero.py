"""At level 0 nothing is contaminated: the whole pipeline, from training to table, must say exactly one half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.conformance.checks import Nonconformant, expect
from attribug.errors import Unsupported
from attribug.results.schema import SCORE_COLUMNS
from attribug.results.summary import summarise
from attribug.scores.blocks import score_block

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.pieces import Method, Metric
    from attribug.models.lab import Lab
    from attribug.scores.records import Settings

ROUNDING = 1e-12  # of a mean of halves


def table(
    contrasts: Sequence[Contrast],
    methods: Sequence[tuple[Method, Mapping[str, Any]]],
    measured: Sequence[tuple[Metric, str]],
    lab: Lab,
    settings: Settings,
    visible: float | None = None,
) -> pd.DataFrame:
    """The rows of results that the contrasts' main control gives; `visible`: instead of every metric's own δ.

    Raises `Unsupported` where a method declines, `Nonconformant` where a record fails or has no scores.
    """
    frames = []
    for contrast in contrasts:
        for side in contrast.sides:  # trained before it is explained, as in a run
            lab.model(side.model)
        for name, record in score_block(contrast, methods, measured, lab, settings).items():
            if record.verdict == "unsupported":
                raise Unsupported(record.reason)
            expect(not record.verdict, f"{name}: {record.reason}")
            frames.append(record.scores.assign(task="task", bug="bug", level="0", method=name))
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        raise Nonconformant("expected scores of every method, found none")
    facts = {metric.name: metric for metric, _ in measured}
    results = summarise(
        pd.concat(frames, ignore_index=True)[list(SCORE_COLUMNS)],
        suite="conformance",
        seeds_total=len(contrasts),
        kinds={name: metric.kind for name, metric in facts.items()},
        visible={name: metric.visible if visible is None else visible for name, metric in facts.items()},
    )
    return results[results["control"] == contrasts[0].control]


def expect_one_half(results: pd.DataFrame) -> None:
    """Raises `Nonconformant` unless every effect is exactly .5."""
    expect(len(results), "expected rows against the main control, found none")
    for method, metric, post, effect in zip(*(results[c] for c in ("method", "metric", "post", "effect")), strict=True):
        found = f"found {effect:.3g} ({method}, {metric}@{post})"
        exact = abs(effect - 0.5) <= ROUNDING
        expect(exact, f"where nothing is contaminated: expected an effect of exactly .5, {found}")
