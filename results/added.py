"""What an explanation adds: its effect, less that of asking the model without any explanation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attribug.results.evidence import Evidence
from attribug.results.summary import PREDICTIONS

CONTROLLED_PLACE = ["task", "bug", "level", "control"]
COLUMNS = (
    *CONTROLLED_PLACE, "method", "metric", "post", "yardstick", "effect", "yardstick_effect", "added", "ci_low",
    "ci_high", "adds",
)  # fmt: skip


def added(found: Evidence) -> pd.DataFrame:
    """One row an effect and yardstick, columns `COLUMNS`, in the order of the effects.

    A yardstick is a metric of the method `predictions` on the same bug, level and control: `total_variation`, what bare
    outputs tell; `background_swap`, what they tell when the background is swapped. The interval of the difference takes
    into account that both rest on the same models and images; it is clipped to [−1, 1]. `adds`: `more` where it lies
    above 0, `less` where below, `undecided` where it contains 0 or does not exist.
    """
    places = found.keys.groupby(CONTROLLED_PLACE, sort=False).ngroup().to_numpy()
    parts = [_of_place(found.select(places == number)) for number in range(int(places.max(initial=-1)) + 1)]
    rows = pd.concat([part for part in parts if len(part)] or [pd.DataFrame(columns=list(COLUMNS))])
    return rows.reset_index(drop=True)


def _of_place(found: Evidence) -> pd.DataFrame:
    """The differences of one bug, level and control."""
    bare = np.flatnonzero(found.keys["method"] == PREDICTIONS)
    explained = np.flatnonzero(found.keys["method"] != PREDICTIONS)
    rows, yardsticks = np.repeat(explained, len(bare)), np.tile(bare, len(explained))
    pairs = np.arange(len(rows))
    weights = np.zeros((len(found.keys), len(rows)))
    weights[rows, pairs] = 1
    weights[yardsticks, pairs] = -1
    difference = found.combine(weights)
    low, high = (np.clip(bound, -1.0, 1.0) for bound in difference.interval())
    return found.keys.iloc[rows].reset_index(drop=True).assign(
        yardstick=found.keys["metric"].to_numpy()[yardsticks],
        effect=found.effect[rows], yardstick_effect=found.effect[yardsticks],
        added=difference.value, ci_low=low, ci_high=high,
        adds=np.select([low > 0, high < 0], ["more", "less"], "undecided"),
    )[list(COLUMNS)]  # fmt: skip
