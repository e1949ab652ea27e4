"""The table of fixes: its columns, which setting a rule would choose, and what fixes reach over several models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

PLACE = ["task", "bug", "level"]
STATISTICS = ("accuracy", "worst_group", "mask_share", "area")
"""Shares: of examples that are classified right, the same of the worst group; of the input gradient's magnitude, and of
the input, that lies on what must not matter."""
FIXES_COLUMNS = (*PLACE, "fix", "setting", "selection", "seed", "test_set", *STATISTICS, "seconds")
FIXED, SWEPT = "fixed", "sweep"
"""Selections: the setting is the suite's or the default; it is one of a sweep, which nobody chose."""
NONE, BEST = "none", "clean_data"
"""Fixes: nothing is mended; trained on data without the shortcut, which is what a fix can reach."""
BIASED, DECORRELATED, SWAPPED, CLEAN = "biased", "decorrelated", "swapped", "clean"
VALIDATION, BALANCED = "validation", "balanced"
"""Held-out examples: as in training; such that the shortcut tells nothing, for which somebody must know the groups."""
TEST_SETS = (BIASED, DECORRELATED, SWAPPED, CLEAN)
RULES = {
    "oracle": (DECORRELATED, "accuracy"),
    "grouped validation": (BALANCED, "accuracy"),
    "validation": (VALIDATION, "accuracy"),
}
"""Further selections, by what they look at: the test set itself; held-out examples that group labels have balanced;
held-out examples as they come."""
CONFIDENCE = 0.95
SUMMARY_COLUMNS = (*PLACE, "fix", "setting", "selection", "test_set", "statistic", "mean", "low", "high", "models")


def with_selected(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the rows again that each rule would choose among the settings of a sweep, model by model, under the
    rule's name; of settings that are alike by it the first. Where nothing was swept there is nothing to choose."""
    chosen = []
    for _, part in table.groupby([*PLACE, "fix", "seed"], sort=False):
        if (part["selection"] == SWEPT).any():
            once = part.drop_duplicates(["setting", "test_set"])
            chosen += [once[once["setting"] == best].assign(selection=rule) for rule, best in _best(once).items()]
    return pd.concat([table, *chosen], ignore_index=True)


def _best(part: pd.DataFrame) -> dict[str, str]:
    """The setting that each rule chooses, of those rules that can choose."""
    found = {}
    for rule, (test_set, statistic) in RULES.items():
        seen = part[part["test_set"] == test_set].dropna(subset=statistic)
        if len(seen):
            found[rule] = str(seen["setting"].iloc[int(seen[statistic].argmax())])
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over models of each statistic, a row each; the interval, Student's, is missing for fewer
    than two models."""
    rows = []
    keys = [*PLACE, "fix", "setting", "selection", "test_set"]
    by_rule = table["selection"].isin(list(RULES))  # then each model may have a setting of its own
    told = table.assign(setting=table["setting"].mask(by_rule, ""))
    for names, part in told.groupby(keys, sort=False):
        for statistic in STATISTICS:
            values = part[statistic].dropna().to_numpy(float)
            if len(values):
                rows.append((*names, statistic, *interval(values), len(values)))
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of shares and its 95 % interval within [0, 1]; NaN ends for fewer than two values."""
    from scipy import stats

    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def read_fixes(text: Any) -> pd.DataFrame:
    """A table of fixes, from a path or a buffer; raises `ValueError` for another one."""
    texts = dict.fromkeys(("task", "bug", "level", "fix", "setting", "selection", "test_set"), str)
    table = pd.read_csv(text, dtype=texts, keep_default_na=False, na_values=[""])
    if list(table.columns) != list(FIXES_COLUMNS):
        raise ValueError(f"expected the columns {', '.join(FIXES_COLUMNS)}, found {', '.join(table.columns)}")
    return table.fillna({"setting": ""})


Spread = tuple[float, float, float]
"""Mean and ends of its interval."""
NOTHING: Spread = (math.nan, math.nan, math.nan)
MENDED_FROM, BROKEN_TO = 0.9, 0.5
"""Shares of the way from the model with the bug to one without: from here on mended, below here not."""
SAME = 0.02
"""Difference between these two that is none."""


@dataclass(frozen=True)
class Line:
    """What one fix reached at a place, over all models."""

    fix: str
    selection: str
    setting: str
    figures: Mapping[tuple[str, str], Spread]
    """By test set and statistic."""
    seconds: float
    """Median of what its trainings took, beside that of the model with the bug."""
    models: int = 0
    """How many were measured."""
    recovered: float = math.nan
    """Share of the way in accuracy on decorrelated examples, from 0 where nothing is mended to 1 with clean data, over
    the models of which all is known. NaN where clean data make no better ones."""
    moved: float = math.nan
    """Likewise of the gradient's share on what must not matter, whichever way it goes."""

    def at(self, test_set: str, statistic: str) -> Spread:
        """A figure; NaN where it was not measured."""
        return self.figures.get((test_set, statistic), NOTHING)

    @property
    def told(self) -> str:
        """What became of model and map, in words; empty where that cannot be said."""
        if self.fix in {NONE, BEST} or math.isnan(self.recovered):
            return ""
        if self.recovered >= MENDED_FROM:
            return "mended, though its gradient still lies on the shortcut" if self.moved < BROKEN_TO else "mended"
        if self.recovered >= BROKEN_TO:
            return "mended in part"
        return "not mended, THOUGH ITS GRADIENT LOOKS RIGHT" if self.moved >= BROKEN_TO else "not mended"


def lines(table: pd.DataFrame) -> dict[tuple[str, str, str], list[Line]]:
    """By task, bug and level: a line a fix, and a further one for every rule that chose its setting; what a sweep went
    through is left out."""
    told, found = summary(table[table["selection"] != SWEPT]), dict[tuple[str, str, str], list[Line]]()
    for place, part in told.groupby(PLACE, sort=False):
        task, bug, level = map(str, place)
        pairs = dict.fromkeys(part[["fix", "selection"]].itertuples(index=False, name=None))
        found[task, bug, level] = [_line(table, part, *pair) for pair in pairs]
    return found


def _line(table: pd.DataFrame, part: pd.DataFrame, fix: str, selection: str) -> Line:
    mine = part[(part["fix"] == fix) & (part["selection"] == selection)]
    place = mine.iloc[0][PLACE]
    own = _of(table, place, fix, selection)
    rows = mine[["test_set", "statistic", "mean", "low", "high"]].itertuples(index=False, name=None)
    figures = {(str(test_set), str(statistic)): (mean, low, high) for test_set, statistic, mean, low, high in rows}
    three = [*(_of(table, place, name, FIXED) for name in (NONE, BEST)), own]
    recovered = _share_of_way(*_means(three, DECORRELATED, "accuracy"), upward=True)
    moved = _share_of_way(*_means(three, BIASED, "mask_share"), upward=False)
    setting, seconds = str(mine.iloc[0]["setting"]), float(own["seconds"].median())
    return Line(fix, selection, setting, figures, seconds, own["seed"].nunique(), recovered, moved)


def _of(table: pd.DataFrame, place: pd.Series, fix: str, selection: str) -> pd.DataFrame:
    return table[(table[[*PLACE, "fix", "selection"]] == [*place, fix, selection]).all(axis=1)]


def _means(three: Sequence[pd.DataFrame], test_set: str, statistic: str) -> Spread:
    """Means of one statistic on a test set, of the models that all three tables have."""
    columns = [each[each["test_set"] == test_set].set_index("seed")[statistic] for each in three]
    common = pd.concat(columns, axis=1, join="inner").dropna()
    start, end, here = common.mean() if len(common) else [math.nan] * 3
    return float(start), float(end), float(here)


def _share_of_way(start: float, end: float, here: float, *, upward: bool) -> float:
    way = end - start
    return (here - start) / way if (way if upward else abs(way)) > SAME else math.nan


def swept(table: pd.DataFrame) -> dict[tuple[str, str, str, str], pd.DataFrame]:
    """By task, bug, level and fix: the summary of what a sweep went through, with the swept `value` of each row, in
    order."""
    told = summary(table[table["selection"] == SWEPT])
    values = pd.to_numeric(told["setting"].map(lambda setting: setting.rpartition("=")[2]), errors="coerce")
    told = told.assign(value=values).dropna(subset="value").sort_values("value", kind="stable")
    return {tuple(map(str, names)): part for names, part in told.groupby([*PLACE, "fix"], sort=False)}  # type: ignore[misc]
