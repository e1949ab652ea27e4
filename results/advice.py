"""Which method for which bug, told from a table: what sees it, what is blind, what nobody can tell, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attribug.results.headline import BARE, EXPLANATION, NULL, PLACE
from attribug.results.narrative import number
from attribug.results.power import MOST_MODELS
from attribug.results.schema import OUTCOMES, PERTURBED, is_mended
from attribug.results.statistics import UNDEFINED

SIGNED, UNSIGNED = "sum", "abs_sum"
"""The post that keeps a map's signs, and that which drops them."""
TIED = 1e-9
"""By which two ends of intervals may differ and still be one."""
OPEN = (
    (r"undecided($|;)", "the interval is too wide"),
    (r"^undefined ", f"more than {UNDEFINED:.0%} of the scores are undefined".replace("%", " %")),
    (r"^no headroom", "the maps had nothing to lose"),
)
"""Reasons of `inconclusive` rows that carry numbers, and the words for all of a kind."""


@dataclass(frozen=True)
class Advice:
    """What a table tells of one bug at one level, under the bug's primary metric and against its main control."""

    task: str
    bug: str
    level: str
    units: str
    """What verdicts rest on: `5 models a side`, or draws of a model that is given."""
    sees: tuple[tuple[str, float], ...]
    """Explanation methods that detect it, with their effects, the largest first."""
    first: tuple[str, ...]
    """Those of them that may be the best: their intervals reach the highest lower end."""
    blind: tuple[str, ...]
    inverted: tuple[str, ...]
    open: Mapping[str, tuple[str, ...]]
    """Methods of which nobody can tell, by reason."""
    absent: Mapping[str, tuple[str, ...]]
    """Methods without numbers, by verdict and reason."""
    outputs: tuple[tuple[str, str, float, bool], ...]
    """What bare outputs tell: label, verdict, effect, and whether it is true by construction."""
    false_alarms: tuple[str, ...]
    """Methods that know no model, and detect it all the same."""
    by_sign: tuple[str, ...]
    """Those that see it by signed maps and, as far as was measured, not by absolute ones."""

    @property
    def winner(self) -> str:
        """The one method that may be the best; empty where several may, or none sees the bug."""
        return self.first[0] if len(self.first) == 1 else ""

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """All explanation methods, each in one group."""
        opened = tuple(name for names in self.open.values() for name in names)
        absent = tuple(name for names in self.absent.values() for name in names)
        seen = tuple(name for name, _ in self.sees)
        return {"sees": seen, "blind": self.blind, "inverted": self.inverted, "open": opened, "absent": absent}


def advice(rows: pd.DataFrame, results: pd.DataFrame) -> list[Advice]:
    """What a table tells of each of its bugs and levels, in its order.

    rows: of `attribug.results.headline.headline`, of the table `results`. Rows of mended models are left out.
    """
    rows = rows[~is_mended(rows["bug"])]
    unsigned = results[results["post"] == UNSIGNED]
    return [_of_place(place, part, unsigned) for place, part in rows.groupby(PLACE, sort=False)]


def views(found: Sequence[Advice], power: pd.DataFrame | None) -> list[dict[str, Any]]:
    """What the page shows of each bug and level; power: as `attribug.results.power.power` gives it."""
    return [_view(each, power) for each in found]


def why_open(reason: str) -> str:
    """The reason of an `inconclusive` row without its numbers."""
    return next((words for pattern, words in OPEN if re.search(pattern, reason)), reason)


def ranked(told: Advice) -> str:
    """Who is best, in a sentence: a winner, none, or that nobody sees the bug."""
    if not told.sees:
        return "No explanation sees it for certain."
    if told.winner:
        sign = " But it does so by the signs of its maps alone: by absolute ones it does not."
        best = f"`{told.winner}` sees it best: no other method's interval reaches its own."
        return best + (sign if told.winner in told.by_sign else "")
    return f"No winner: {len(told.first)} of the {len(told.sees)} methods that see it may be the best one."


def outputs_tell(told: Advice) -> list[str]:
    """What bare outputs tell without any explanation, and whether it is more than maps do, a sentence each."""
    best = max((effect for _, effect in told.sees), default=0.0)
    sentences = []
    for label, verdict, effect, constructed in told.outputs:
        what = f"`{label}` alone, without any map,"
        if verdict == "detects":
            beside = "as well as the best map does" if effect <= best + 0.005 else "better than any map does"
            if effect < best - 0.005:
                beside = f"where the best map has {number(best)}"
            why = "; the bug was confirmed on them, so this is so by construction" if constructed else ""
            sentences.append(f"{what} tell it ({number(effect)}), {beside}{why}.")
        elif verdict == "blind":
            sentences.append(f"{what} do not tell it ({number(effect)}).")
        elif verdict == "inconclusive":
            sentences.append(f"Whether `{label}` alone tell it is open ({number(effect)}).")
    return sentences


def _view(each: Advice, power: pd.DataFrame | None) -> dict[str, Any]:
    """Groups with a title, the reason where there is one, and methods with their effects."""
    groups: list[tuple[str, str, str, Sequence[tuple[str, str]]]] = [
        ("detects", "sees it", "", [(name, number(effect)) for name, effect in each.sees]),
        ("blind", "blind", "", [(name, "") for name in each.blind]),
        ("inverted", "the wrong way round", "", [(name, "") for name in each.inverted]),
        *(("inconclusive", "nobody can tell", why, [(name, "") for name in names]) for why, names in each.open.items()),
    ]
    for told, names in each.absent.items():
        kind, _, why = told.partition(": ")
        groups.append((kind, kind, why, [(name, "") for name in names]))
    return {
        "task": each.task, "bug": each.bug, "level": each.level, "units": each.units, "ranked": ranked(each),
        "outputs": outputs_tell(each), "by_sign": each.by_sign, "next": _next(each, power),
        "groups": [
            {"verdict": verdict, "title": title, "why": why, "names": names}
            for verdict, title, why, names in groups if names
        ],
    }  # fmt: skip


def _next(each: Advice, power: pd.DataFrame | None) -> str:
    """How many models would decide what is open; empty where nothing is, or nobody knows."""
    if power is None or not each.open:
        return ""
    place = {"task": each.task, "bug": each.bug, "level": each.level}
    here = power[(power[list(place)].astype(str) == pd.Series(place)).all(axis=1)]
    models = here.loc[here["models"].notna(), "models"]
    count = sum(map(len, each.open.values()))
    unit = "draws" if "draw" in each.units else "models"
    if models.empty:
        return f"Up to {MOST_MODELS} {unit} a side would not decide what is open."
    fewest, most = int(models.min()), int(models.max())
    span = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{span} {unit} a side would decide {len(models)} of {count} open verdicts with 80 % chance."


def _of_place(place: Any, part: pd.DataFrame, unsigned: pd.DataFrame) -> Advice:
    explaining = part[part["role"] == EXPLANATION].sort_values("effect", ascending=False, kind="stable")
    sees = explaining[explaining["verdict"] == "detects"]
    bare, null = part[part["role"] == BARE], part[part["role"] == NULL]
    seeds = int(part["seeds"].max())
    unit = "draw" if (part["control"] == PERTURBED).all() else "model"
    absent = explaining[explaining["verdict"].isin(OUTCOMES)]
    return Advice(
        *map(str, place),
        units=f"{seeds} {unit}{'' if seeds == 1 else 's'} a side",
        sees=tuple(zip(sees["method"], sees["effect"], strict=True)),
        first=tuple(sees.loc[sees["ci_high"] >= sees["ci_low"].max() - TIED, "method"]),
        blind=tuple(explaining.loc[explaining["verdict"] == "blind", "method"]),
        inverted=tuple(explaining.loc[explaining["verdict"] == "inverted", "method"]),
        open=_grouped((row.method, why_open(row.reason)) for row in _rows(explaining, "inconclusive")),
        absent=_grouped((row.method, f"{row.verdict}: {row.reason}") for row in absent.itertuples()),
        outputs=tuple((row.label, row.verdict, row.effect, bool(row.constructed)) for row in bare.itertuples()),
        false_alarms=tuple(null.loc[null["verdict"] == "detects", "method"]),
        by_sign=_by_sign(sees, unsigned),
    )


def _by_sign(sees: pd.DataFrame, unsigned: pd.DataFrame) -> tuple[str, ...]:
    """Of rows that detect by signed maps, the methods whose absolute maps do not."""
    same = [*PLACE, "control", "method", "metric"]
    signed = sees[sees["post"] == SIGNED]
    both = signed.merge(unsigned[[*same, "verdict"]], on=same, suffixes=("", "_unsigned"))
    return tuple(both.loc[both["verdict_unsigned"] != "detects", "method"])


def _rows(rows: pd.DataFrame, verdict: str) -> Iterable[Any]:
    return rows[rows["verdict"] == verdict].itertuples()


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Methods by their reason."""
    found: dict[str, list[str]] = {}
    for name, reason in pairs:
        found.setdefault(reason, []).append(name)
    return {reason: tuple(names) for reason, names in found.items()}
