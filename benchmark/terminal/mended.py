"""What fixes reached, in the terminal: right, and for the right reasons?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from attribug.results.mending import BIASED, DECORRELATED, TEST_SETS, Line, Spread, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd


def tables(fixes: pd.DataFrame) -> Iterator[Table]:
    """One a task, bug and level: a line a fix, and a further one for each rule that chose a setting of it."""
    for place, found in lines(fixes).items():
        sets = [name for name in TEST_SETS if any((name, "accuracy") in line.figures for line in found)]
        table = Table(title="mended: {}, {} {}".format(*place), title_justify="left")
        table.add_column("fix", no_wrap=True)
        table.add_column("setting chosen by", no_wrap=True)
        for name in sets:
            table.add_column(f"accuracy\n{name}", justify="right")
        worst = any(not math.isnan(line.at(DECORRELATED, "worst_group")[0]) for line in found)
        if worst:
            table.add_column(f"worst group\n{DECORRELATED}", justify="right")
        table.add_column(f"gradient on\nthe shortcut\n{BIASED}", justify="right")
        table.add_column("more\nseconds", justify="right")
        table.add_column("the model is")
        for line in found:
            table.add_row(*_row(line, sets, worst))
        yield table


def _row(line: Line, sets: list[str], worst: bool) -> list[str]:
    accuracies = [_spread(line.at(name, "accuracy")) for name in sets]
    seconds = "" if math.isnan(line.seconds) else f"{line.seconds:.0f}"
    share = _spread(line.at(BIASED, "mask_share"), 3)
    group = [_spread(line.at(DECORRELATED, "worst_group"))] if worst else []
    return [line.fix, line.selection, *accuracies, *group, share, seconds, line.told]


def _spread(spread: Spread, digits: int = 2) -> str:
    """Mean and interval."""
    mean, low, high = (f"{value:.{digits}f}".removeprefix("0") for value in spread)
    if math.isnan(spread[0]):
        return ""
    return mean if math.isnan(spread[1]) else f"{mean} {low}–{high}"
