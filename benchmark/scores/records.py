"""A record: contrast × method with its scores, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
from torch import Tensor

from attribug.maps.attribution import Census
from attribug.maps.kept import Precision
from attribug.query.passes import Cost
from attribug.scores.measurement import COLUMNS

SHOWN = 3  # examples that a gallery shows


@dataclass(frozen=True)
class Settings:
    """What a suite fixes for every record."""

    seed: int
    examples: int
    chunk: int
    """Examples explained at a time."""
    rows: int
    """Examples of a single pass through a model."""
    maps: Precision = "float32"
    """In which attributions are scored."""


@dataclass
class Record:
    """Contrast × method: scores, or why there are none."""

    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    verdict: Literal["", "unsupported", "failed"] = ""
    reason: str = ""
    cost: Cost = field(default_factory=Cost)
    """Of the method on all sides, as if it had run alone."""
    scoring_seconds: float = 0.0
    peak_megabytes: float = 0.0
    """Largest resident size of the worker when the record was done."""
    census: Census = field(default_factory=Census)
    """Maps over all sides: how many, not finite, constant, and how far from the sums they promise."""
    rows: int = 0
    """Examples of the smallest pass, where memory ran out and passes were halved; last bits may then differ."""
    maps_kept: bool = False
    """Whether all its maps are stored."""
    lost: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Metrics without scores: verdict and reason by `metric@post`."""
    gallery: dict[str, Tensor] = field(default_factory=dict)
    """inputs (n, *shape), float16 if they are images; reference, control, contaminated: channel sums (n, *spatial),
    each over its largest absolute value, float16."""

    @property
    def failed_metrics(self) -> dict[str, str]:
        """Reasons of metrics that failed, by `metric@post`."""
        return {name: reason for name, (verdict, reason) in self.lost.items() if verdict == "failed"}
