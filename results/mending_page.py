"""The part of a page that tells of fixes: bugs detected, models mended, and whether they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from attribug.results import mending, plots
from attribug.results.headline import at
from attribug.results.mending import BIASED, DECORRELATED, NONE, TEST_SETS, Line, Spread
from attribug.results.narrative import number
from attribug.results.schema import MENDED

View = dict[str, Any]
GRADIENT, SURROGATE = "gradient", "lime"
"""Methods whose costs are compared."""


def views(
    table: pd.DataFrame,
    rows: pd.DataFrame,
    facts: Mapping[str, Any],
    embed: Callable[..., Any],
    anchor: Callable[..., str],
) -> list[View]:
    """One a task, bug and level. rows: of `headline`; embed, anchor: the page's."""
    curves = mending.swept(table)
    return [
        {
            "task": place[0], "bug": place[1], "level": place[2], "id": anchor("mended", *place),
            "sets": (sets := [name for name in TEST_SETS if any((name, "accuracy") in line.figures for line in lines)]),
            "worst": any(math.isfinite(line.at(DECORRELATED, "worst_group")[0]) for line in lines),
            "area": number(lines[0].at(BIASED, "area")[0]),
            "lines": [_line(line, sets, place, rows, facts, anchor) for line in lines],
            "curves": [
                {"fix": fix, "svg": embed(plots.sweep(rows_of, f"{fix}: {_parameter(rows_of)}"), *place, fix)}
                for (*where, fix), rows_of in curves.items()
                if tuple(where) == place
            ],
            "warnings": _warnings(lines, place, rows),
        }
        for place, lines in mending.lines(table).items()
    ]  # fmt: skip


def cost_sentence(costs: pd.DataFrame | None) -> str:
    """How much less an input gradient costs than LIME, an image; empty where not both were run."""
    if costs is None:
        return ""
    records = costs[(costs["kind"] == "record") & (costs["images"] > 0)]
    each = (records["seconds"] / records["images"]).groupby(records["method"]).median()  # the first one loads libraries
    if not {GRADIENT, SURROGATE} <= set(each.index) or not each[GRADIENT]:
        return ""
    return (
        f"A gradient took {1e3 * each[GRADIENT]:.3g} ms an image in this run, LIME {1e3 * each[SURROGATE]:.3g}: "
        f"{each[SURROGATE] / each[GRADIENT]:,.3g} times as long (medians of records)."
    )


def _parameter(rows: pd.DataFrame) -> str:
    return str(rows["setting"].iloc[0]).rpartition("=")[0].rpartition(" ")[2]


def _line(
    line: Line, sets: Sequence[str], place: tuple[str, str, str], rows: pd.DataFrame, facts: Mapping[str, Any],
    anchor: Callable[..., str],
) -> View:  # fmt: skip
    here = _explained(rows, place, line.fix)
    own = line.selection == mending.FIXED
    task, bug, _ = place
    name = bug if line.fix == NONE else f"{bug}{MENDED}{line.fix}"
    told = facts["pieces"]["bugs"].get(name, {})
    return {
        "fix": line.fix, "selection": line.selection, "models": line.models, "setting": line.setting, "told": line.told,
        "summary": "" if line.fix == NONE else told.get("summary", ""),
        "link": anchor(task, name) if own and len(here) else "",
        "accuracies": [spread(line.at(name, "accuracy")) for name in sets],
        "worst": spread(line.at(DECORRELATED, "worst_group")), "share": spread(line.at(BIASED, "mask_share"), 3),
        "recovered": number(line.recovered), "seconds": number(line.seconds, 1),
        "detect": f"{(here['verdict'] == 'detects').sum()} of {len(here)}" if own and len(here) else "",
    }  # fmt: skip


def _explained(rows: pd.DataFrame, place: tuple[str, str, str], fix: str) -> pd.DataFrame:
    """The rows of explanations about what a fix left."""
    task, bug, level = place
    here = at(rows, (task, bug if fix == NONE else f"{bug}{MENDED}{fix}", level))
    return here[~here["honest"]]


def _warnings(lines: Sequence[Line], place: tuple[str, str, str], rows: pd.DataFrame) -> list[str]:
    """Where maps look right and the model is still wrong, by the gradient or by what explanations no longer detect."""
    sentences = []
    before = _explained(rows, place, NONE)
    seen = set(before.loc[before["verdict"] == "detects", "label"])
    for line in lines:
        if line.selection != mending.FIXED or not line.told.startswith("not mended"):
            continue
        after = _explained(rows, place, line.fix)
        decided = set(after.loc[after["verdict"].isin(["blind", "inverted"]), "label"])
        moved = line.moved >= mending.BROKEN_TO
        if moved or (seen and seen <= decided):
            what = "its gradient leaves the shortcut" if moved else "no explanation that detected the bug does any more"
            right = number(line.at(DECORRELATED, "accuracy")[0])
            still = f"but the model is still wrong: right on {right} of decorrelated examples."
            sentences.append(f"After {line.fix}, {what}, {still}")
    return sentences


def spread(value: Spread, digits: int = 2) -> str:
    """Mean and interval, as tables show them."""
    mean, low, high = (number(each, digits) for each in value)
    return f"{mean} ({low}–{high})" if low else mean
