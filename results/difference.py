"""One method less another: the difference of their effects in every cell, on the same models and images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from attribug.results.evidence import Evidence
from attribug.results.narrative import number

PLACE = ["task", "bug", "level", "control", "metric", "post"]
COLUMNS = (*PLACE, "effect", "other_effect", "difference", "ci_low", "ci_high", "tells")


@dataclass(frozen=True)
class Difference:
    """What one method tells more or less than another."""

    method: str
    other: str
    table: pd.DataFrame
    """One row a cell that both have, columns `COLUMNS`: both effects, the difference with its 95 % interval, and
    `tells`: `more`, `less`, or `undecided` where the interval contains 0 or does not exist."""
    alone: tuple[str, ...]
    """Cells that one of the two lacks."""

    @property
    def conclusion(self) -> str:
        """Where which of the two tells more, in one line."""
        counts = self.table["tells"].value_counts()
        more, less, open_ = (int(counts.get(name, 0)) for name in ("more", "less", "undecided"))
        of = f"{len(self.table)} cell{'' if len(self.table) == 1 else 's'}"
        return f"{self.method} minus {self.other}, {of}: more in {more}, less in {less}, undecided in {open_}"

    def __repr__(self) -> str:
        lines = [f"{place(row)}: {cell(row)}" for _, row in self.table.iterrows()]
        return "\n".join([self.conclusion, *lines])


def difference(resting: Evidence, method: str, other: str) -> Difference:
    """The effects of `method` less those of `other`, of the same task, bug, level, control, metric and post.

    The interval takes into account that both effects rest on the same models and images.
    """
    keys = resting.keys.astype(str).reset_index(names="at")
    one, two = (keys[keys["method"] == name][[*PLACE, "at"]] for name in (method, other))
    both = one.merge(two, on=PLACE, suffixes=("", "_other"), how="outer", indicator="side", sort=False)
    shared = both[both["side"] == "both"].astype({"at": np.int64, "at_other": np.int64}).sort_values("at")
    rows, others = shared["at"].to_numpy(), shared["at_other"].to_numpy()
    value, low, high, told = resting.less(rows, others)
    table = shared[PLACE].reset_index(drop=True).assign(
        effect=resting.effect[rows], other_effect=resting.effect[others],
        difference=value, ci_low=low, ci_high=high, tells=told,
    )  # fmt: skip
    lacking = both[both["side"] != "both"]
    alone = tuple(
        f"{other if row['side'] == 'left_only' else method} lacks {place(row)}" for _, row in lacking.iterrows()
    )
    return Difference(method, other, table[list(COLUMNS)], alone)


def place(row: pd.Series) -> str:
    """A cell in words."""
    return f"{row['task']} / {row['bug']} {row['level']} / {row['metric']}@{row['post']} against {row['control']}"


def cell(row: pd.Series) -> str:
    """`+.12 [.03, .21], more`."""
    interval = "no interval" if np.isnan(row["ci_low"]) else f"[{number(row['ci_low'])}, {number(row['ci_high'])}]"
    sign = "+" if row["difference"] > 0 else ""
    effects = f"{number(row['effect'])} and {number(row['other_effect'])}"
    return f"{sign}{number(row['difference'])} {interval}, {row['tells']} ({effects})"
