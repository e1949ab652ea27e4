"""What an explanation adds: its effect, less that of asking the model without any explanation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribug.results.evidence import Evidence

CONTROLLED_PLACE = ["task", "bug", "level", "control"]
COLUMNS = (
    *CONTROLLED_PLACE, "method", "metric", "post", "yardstick", "effect", "yardstick_effect", "added", "ci_low",
    "ci_high", "adds",
)  # fmt: skip


def added(resting: Evidence, *, bare: Sequence[str]) -> pd.DataFrame:
    """One row an effect and yardstick, columns `COLUMNS`, in the order of the effects.

    A yardstick is what a `bare` method, which gives what models themselves say, tells of the same bug, level and
    control: `yardstick` names the metric, behind the method where this is not the first of them. The interval of the
    difference takes into account that both rest on the same models and images; it is clipped to [−1, 1]. `adds`: `more`
    where it lies above 0, `less` where below, `undecided` where it contains 0 or does not exist.
    """
    places = resting.keys.groupby(CONTROLLED_PLACE, sort=False).ngroup().to_numpy()
    parts = [_of_place(resting.select(places == number), bare) for number in range(int(places.max(initial=-1)) + 1)]
    rows = pd.concat([part for part in parts if len(part)] or [pd.DataFrame(columns=list(COLUMNS))])
    return rows.reset_index(drop=True)


def _of_place(resting: Evidence, bare: Sequence[str]) -> pd.DataFrame:
    """The differences of one bug, level and control."""
    is_bare = resting.keys["method"].isin(bare)
    asked, explained = np.flatnonzero(is_bare), np.flatnonzero(~is_bare)
    rows, yardsticks = np.repeat(explained, len(asked)), np.tile(asked, len(explained))
    difference, low, high, told = resting.less(rows, yardsticks)
    return resting.keys.iloc[rows].reset_index(drop=True).assign(
        yardstick=_names(resting.keys, bare)[yardsticks],
        effect=resting.effect[rows], yardstick_effect=resting.effect[yardsticks],
        added=difference, ci_low=low, ci_high=high, adds=told,
    )[list(COLUMNS)]  # fmt: skip


def _names(keys: pd.DataFrame, bare: Sequence[str]) -> npt.NDArray[np.object_]:
    """What every effect is called as a yardstick, (G,)."""
    first = keys["method"].isin(bare[:1])
    return keys["metric"].where(first, keys["method"] + ": " + keys["metric"]).to_numpy(object)
