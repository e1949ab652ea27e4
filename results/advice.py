"""Which method for which suspicion: what sees a bug, what is blind, what nobody can tell, and what predictions tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from attribug.results import undecided
from attribug.results.headline import BARE, EXPLANATION, NULL, PLACE
from attribug.results.narrative import number
from attribug.results.power import STEPS
from attribug.results.schema import KEYS, OUTCOMES, is_mended
from attribug.results.statistics import UNDEFINED
from attribug.results.undecided import OPEN, named, why_open

SIGNED, ABSOLUTE = "sum", "abs_sum"
"""Posts of one map: its channels' sum, and the sum of their absolute values."""
FLIPS, OWN_PARTS, ROUNDING = "label_flips", 5, 1e-9
"""A bug whose models share no flipped image: with S of them, more than five, no level above 1/S."""
FEW = 5
"""Models a side that a run without intervals is told to ask for."""


class Told(NamedTuple):
    """A line of the matrix and its effect."""

    label: str
    effect: float


class Sign(NamedTuple):
    """A method that sees a bug by signed maps, and is blind to it by absolute ones: two effects."""

    label: str
    signed: float
    absolute: float


class Absent(NamedTuple):
    """Methods without scores for one reason; `verdict` is one of `OUTCOMES`."""

    verdict: str
    reason: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Output:
    """What models themselves say of a bug, and how many explanations say more or less for certain."""

    label: str
    metric: str
    verdict: str
    effect: float
    constructed: bool
    why: str
    """Why the verdict is open, or there is none; empty where it is decided."""
    more: int
    less: int
    of: int

    @property
    def enough(self) -> bool:
        """Whether it sees the bug, and no explanation sees it better for certain."""
        return self.verdict == "detects" and self.of > 0 and not self.more


@dataclass(frozen=True)
class Advice:
    """What a table says of one bug and level, under its primary metric and against its main control. An explanation
    stands in exactly one of `sees`, `blind`, `inverted`, `opened` and `absent`."""

    task: str
    bug: str
    level: str
    metric: str
    """`metric@post`."""
    sees: tuple[Told, ...]
    """These four groups: highest effect first."""
    blind: tuple[Told, ...]
    inverted: tuple[Told, ...]
    first: tuple[str, ...]
    """Explanations that may be the best one: no other's interval lies wholly above theirs, or they have none."""
    opened: tuple[tuple[str, tuple[str, ...]], ...]
    """By reason, the most frequent first: methods of which nobody can tell yet."""
    absent: tuple[Absent, ...]
    yardsticks: tuple[str, ...]
    """What knows nothing of the model, and was asked."""
    alarms: tuple[str, ...]
    """Those of them that detect the bug, which they must not."""
    outputs: tuple[Output, ...]
    by_sign: tuple[Sign, ...]
    """Of those in `sees`, the ones whose absolute maps are blind; empty where these were not measured."""

    @property
    def winner(self) -> str:
        """The one explanation that sees the bug better than all others for certain; empty where there is none."""
        return self.first[0] if len(self.first) == 1 and self.sees else ""

    @property
    def measured(self) -> int:
        """Explanations that have a number or wait for one."""
        groups = (self.sees, self.blind, self.inverted, *(labels for _, labels in self.opened))
        return sum(len(group) for group in groups)


def advise(rows: pd.DataFrame, added: pd.DataFrame | None = None, results: pd.DataFrame | None = None) -> list[Advice]:
    """One a task, bug and level, in the order of the rows; what fixes left of a bug is not met, and left out.

    Args:
        rows: as `headline` gives them.
        added: as `added` gives it: intervals of differences, which rest on the same models. Without it, one explanation
            says more than predictions for certain only where the two intervals do not overlap.
        results: the table that the rows are from; with it, absolute maps are looked at beside signed ones.
    """
    rows = rows[~is_mended(rows["bug"])]
    return [_of_place(part, added, results) for _, part in rows.groupby(PLACE, sort=False)]


def _of_place(rows: pd.DataFrame, added: pd.DataFrame | None, results: pd.DataFrame | None) -> Advice:
    """The advice of one task, bug and level."""
    explained = rows[rows["role"] == EXPLANATION].sort_values("effect", ascending=False, kind="stable")
    null = rows[rows["role"] == NULL]
    named_first = rows.sort_values("honest", kind="stable").iloc[0]
    groups: dict[str, list[str]] = {}
    for each in explained[explained["verdict"] == OPEN].itertuples():
        groups.setdefault(undecided.reason(each).kind, []).append(str(each.label))
    return Advice(
        task=str(named_first["task"]), bug=str(named_first["bug"]), level=str(named_first["level"]),
        metric="{metric}@{post}".format(**named_first),
        sees=_told(explained, "detects"), blind=_told(explained, "blind"), inverted=_told(explained, "inverted"),
        first=_first(explained),
        opened=tuple((kind, tuple(each)) for kind, each in sorted(groups.items(), key=lambda item: -len(item[1]))),
        absent=tuple(_absent(explained)),
        yardsticks=tuple(null["label"]), alarms=tuple(null.loc[null["verdict"] == "detects", "label"]),
        outputs=tuple(
            _output(row, explained, added) for row in rows[rows["role"] == BARE].sort_values("label").itertuples()
        ),
        by_sign=() if results is None else tuple(_by_sign(explained, results)),
    )  # fmt: skip


def _told(rows: pd.DataFrame, verdict: str) -> tuple[Told, ...]:
    found = rows[rows["verdict"] == verdict]
    return tuple(Told(label, float(effect)) for label, effect in zip(found["label"], found["effect"], strict=True))


def _first(explained: pd.DataFrame) -> tuple[str, ...]:
    """Who may be the best: intervals that reach the highest lower bound, and whoever is open without such an interval,
    since nobody knows how good it is."""
    usable = explained["ci_low"].notna() & (explained["undefined"] <= UNDEFINED)
    reaches = usable & (explained["ci_high"] >= explained.loc[usable, "ci_low"].max())
    return tuple(explained.loc[reaches | (~usable & (explained["verdict"] == OPEN)), "label"])


def _absent(explained: pd.DataFrame) -> list[Absent]:
    rows = explained[explained["verdict"].isin(OUTCOMES)]
    groups = rows.groupby(["verdict", "reason"], sort=False)["label"]
    return [Absent(str(verdict), str(reason), tuple(labels)) for (verdict, reason), labels in groups]


def _by_sign(explained: pd.DataFrame, results: pd.DataFrame) -> list[Sign]:
    """Methods that see the bug by their maps' signs alone: the same metric of absolute maps is blind to it."""
    signed = explained[(explained["verdict"] == "detects") & (explained["post"] == SIGNED)]
    keys = [name for name in KEYS if name != "post"]
    absolute = results[(results["post"] == ABSOLUTE) & (results["verdict"] == "blind")]
    found = signed[[*keys, "label", "effect"]].merge(absolute[[*keys, "effect"]], on=keys, suffixes=("", "_absolute"))
    return [
        Sign(str(label), float(effect), float(other))
        for label, effect, other in zip(found["label"], found["effect"], found["effect_absolute"], strict=True)
    ]


def _output(row: Any, explained: pd.DataFrame, added: pd.DataFrame | None) -> Output:
    """What one line of outputs says, beside the explanations that have an effect."""
    measured = explained[explained["effect"].notna()]
    unknown = math.isnan(row.effect) or math.isnan(row.ci_low)
    more, less = (0, 0) if unknown else _beside(row, measured, added)
    why = why_open(row) if row.verdict == OPEN else str(row.reason) if row.verdict in OUTCOMES else ""
    return Output(
        str(row.label), str(row.metric), str(row.verdict), float(row.effect), bool(row.constructed), why, more, less,
        len(measured),
    )  # fmt: skip


def _beside(row: Any, measured: pd.DataFrame, added: pd.DataFrame | None) -> tuple[int, int]:
    """How many explanations tell more than this line of outputs, and how many less, for certain."""
    if added is not None:
        yardsticks = [row.metric, f"{row.method}: {row.metric}"]
        table = added[added["yardstick"].isin(yardsticks)].astype(dict.fromkeys(KEYS, str))
        found = measured[[*KEYS]].astype(str).merge(table, on=[*KEYS])
        if len(found):
            return int((found["adds"] == "more").sum()), int((found["adds"] == "less").sum())
    return int((measured["ci_low"] > row.ci_high).sum()), int((measured["ci_high"] < row.ci_low).sum())


def first_place(told: Advice) -> str:
    """Who sees the bug best, in a sentence: a winner, or that there is none."""
    if not told.measured:
        return "No explanation was measured."
    if not told.sees:
        return "No explanation sees it for certain."
    if told.winner:
        return f"{told.winner} sees it best."
    names = f" ({named(told.first)})" if len(told.first) <= undecided.MOST_NAMED else ""
    return f"No winner: {len(told.first)} of {told.measured} explanations may be the best one{names}."


def outputs_said(told: Advice) -> list[str]:
    """What predictions alone tell, and whether maps tell more: a sentence each way of asking for them."""
    return [_said(output) for output in told.outputs]


SEEN = {"detects": "see it", "blind": "are blind to it", "inverted": "tell it the wrong way round"}


def _said(output: Output) -> str:
    direct = output.label.partition(": ")[2]
    who = f"Predictions for another version of the images ({direct})" if direct else "Predictions alone"
    if output.verdict in OUTCOMES:
        return f"{who}: {output.verdict}, {output.why}."
    if output.verdict == OPEN:
        return f"{who} leave it open: {output.why}." + (f" {_more(output)}" if output.more else "")
    by = ", true by construction: the bug was confirmed on them" if output.constructed else ""
    return f"{who} {SEEN[output.verdict]} ({number(output.effect)}{by}). {_more(output)}"


def _more(output: Output) -> str:
    """How explanations compare with outputs."""
    if not output.of:
        return "There is no map beside them."
    if output.more:
        return f"{output.more} of {output.of} methods' maps tell more for certain."
    if output.less == output.of:
        return "Every method's maps tell less."
    less = f"; those of {output.less} of {output.of} methods tell less" if output.less else ""
    return f"No method's maps tell more for certain{less}."


def alarm(told: Advice) -> str:
    """What is wrong where noise or edges see a bug; empty where they do not."""
    if not told.alarms:
        return ""
    see = "sees" if len(told.alarms) == 1 else "see"
    know = "knows" if len(told.alarms) == 1 else "know"
    return (
        f"Warning: {named(told.alarms)}, which {know} nothing of the model, {see} it: the bug changes what is "
        "explained, so maps may see the input's change and not the model's."
    )


def caution(told: Advice) -> str:
    """What to know of methods that see a bug by signs alone; empty where there are none."""
    if not told.by_sign:
        return ""
    effects = [f"{each.label} ({number(each.signed)}, absolute {number(each.absolute)})" for each in told.by_sign]
    one = len(effects) == 1
    return (
        f"By signs alone: {named(effects)}; {'its' if one else 'their'} absolute maps are blind, so what "
        f"{'it sees' if one else 'they see'} is whether relevance speaks for the class or against it."
    )


def next_step(suite: Mapping[str, Any], rows: pd.DataFrame, power: pd.DataFrame | None) -> tuple[str, str]:
    """What to type next, and what it would decide; two empty texts where nothing is open or no number of models helps.

    rows: of `headline`; power: as `power` gives it."""
    opened = rows[(rows["verdict"] == OPEN) & ~is_mended(rows["bug"])]
    if opened.empty:
        return "", ""
    asked = int(suite.get("seeds", 0))
    command = f"attribug run {suite['name']} … --seeds "  # with whatever else was typed
    if opened["ci_low"].isna().any() and asked < FEW:
        return f"{command}{FEW}", "an interval needs 3 models, and of 5 some may be lost"
    if opened["ci_low"].isna().all():
        return f"{command}{2 * asked}", "an interval needs 3 models that have the bug"
    needed = pd.DataFrame(columns=["bug", "level", "models"]) if power is None else power.dropna(subset="models")
    places = rows[["bug", "level"]].drop_duplicates()
    for step in STEPS:
        decided = int(((needed["models"] <= step) & _possible(needed, step)).sum())
        if step > asked and decided:
            told = f"would decide {decided} of {len(opened)} open verdicts with 80 % chance"
            left = set(places.loc[~_possible(places, step), "bug"])
            bugs = [bug for bug in suite.get("bugs", ()) if bug not in left]
            chosen = f"--bugs {','.join(bugs)} " if left else ""
            return f"attribug run {suite['name']} … {chosen}--seeds {step}", f"{step} models a side {told}"
    return "", ""


def _possible(places: pd.DataFrame, seeds: int) -> pd.Series:
    """Which bugs and levels so many models can have: each flips labels in a part of the data of its own."""
    flips = (places["bug"] == FLIPS) & (seeds > OWN_PARTS)
    level = pd.to_numeric(places["level"], errors="coerce")
    return ~(flips & (level * seeds > 1 + ROUNDING))


def lines(found: Sequence[Advice]) -> list[str]:
    """The advice in two lines at most, for a terminal: where one method is best, and where predictions are enough."""
    several = len({told.task for told in found}) > 1
    seen = [told for told in found if told.sees]
    told_lines = []

    def place(told: Advice) -> str:
        return f"{f'{told.task} / ' if several else ''}{told.bug} {told.level}"

    if seen:
        won = [f"{place(told)}: {told.winner}" for told in seen if told.winner]
        shared = [f"{place(told)} ({len(told.first)} may be the best)" for told in seen if not told.winner]
        parts = ([f"best: {'; '.join(won)}"] if won else []) + ([f"no winner: {', '.join(shared)}"] if shared else [])
        told_lines.append("; ".join(parts))
    enough = [place(told) for told in found if any(output.enough for output in told.outputs)]
    if enough:
        told_lines.append(f"no map tells more than predictions for certain: {', '.join(enough)}")
    return told_lines
