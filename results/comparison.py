"""Two tables of one suite, row by row: what got worse, what is missing, what cannot be compared.

Two runs may have explained the *same models* on the same images: then nothing is left to chance, and a difference
counts once it is beyond the tolerance. Or they trained models of their own, under other seeds, code or processors: then
effects and values differ by chance, and a difference counts once it is beyond both the tolerance and what chance does
to any row of the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from attribug.results import brief
from attribug.results.comparison_words import REGRESSION, STATUSES, UNMEASURED, explained, order, place, told_status
from attribug.results.narrative import counted
from attribug.results.schema import KEYS, OUTCOMES, RESULT_COLUMNS, SCHEMA_VERSION, TableError, sort_results
from attribug.results.statistics import CONFIDENCE, UNDEFINED, Flags, Floats
from attribug.results.variation import beyond_chance, paired_variances, value_variances

NUMBERS = ("old", "new", "difference", "low", "high")
COLUMNS = (
    *KEYS, "status", "alarm", "note", "verdict_old", "verdict_new",
    *NUMBERS, *(f"effect_{name}" for name in NUMBERS), "same_models",
)  # fmt: skip
CELL = ["task", "bug", "level", "control"]
MANY, MOST = 10, 0.75
"""So many detections, and the share of them that chance never loses: between suites of three models a side and eight
images, alike but for their seeds, it loses up to half, for all rows share their models."""
EFFECT = "effect"
"""Name of the effect's own tolerance."""
SAME_MODELS = {"value": 1e-4, EFFECT: 0.05}
"""Tolerances under the same models: processors differ by 4e-6 in a score, which moves few images across δ."""
OTHER_MODELS = {"value": 0.1, EFFECT: 0.1}
"""Tolerances under other models; a value's is its metric's visible difference, where that is known."""


@dataclass(frozen=True)
class ComparedTable:
    """One side of a comparison."""

    name: str
    """How its user called it."""
    results: pd.DataFrame
    """Columns `RESULT_COLUMNS`."""
    scores: pd.DataFrame | None = None
    """Columns `SCORE_COLUMNS`, where they were kept."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What run.json or a reference's provenance tells; empty where there is none."""

    @property
    def suite(self) -> str:
        """The suite's name; raises `TableError` for a table of several."""
        names = list(pd.unique(self.results["suite"]))
        if len(names) != 1:
            raise TableError(f"{self.name}: expected rows of one suite, found {', '.join(map(repr, names)) or 'none'}")
        return str(names[0])

    @property
    def seeds(self) -> int:
        """Models a side."""
        suite: Mapping[str, Any] = self.facts.get("suite", {})
        return int(suite.get("seeds", self.results["seeds"].max()))

    def fact(self, kind: str, name: str, fact: str) -> Any:
        """What is known of a registered piece, else None."""
        return self.facts.get("pieces", {}).get(kind, {}).get(name, {}).get(fact)

    def weights(self, contrast: Mapping[str, Any]) -> tuple[str, list[str]]:
        """A contrast's key and its models' checksums: equal for two runs that explained the same."""
        known = self.facts.get("models", {})
        return str(contrast["key"]), [str(known.get(key, {}).get("weights", "")) for key in contrast["models"]]


@dataclass(frozen=True)
class Comparison:
    """What became of every row."""

    baseline: str
    candidate: str
    table: pd.DataFrame
    """Columns `COLUMNS`, one row a key of either side. `status` is one of `STATUSES`; `alarm` is `regression` where
    something got worse, `unmeasured` where a row that the baseline has was not measured, else empty. `old`, `new`,
    `difference` are of the metric's value under the contaminated model, `effect_…` of the effect; `low` and `high` are
    95 % intervals of the difference over models, each row's own."""
    alone: tuple[int, int] = (0, 0)
    """Rows that only the baseline, only the candidate has."""
    common: bool = False
    """Whether these were left out of `table`."""

    @property
    def notes(self) -> list[str]:
        """What is left out, or that one table is a part of the other, a line each."""
        old, new = self.alone
        both, names = len(self.table) - (0 if self.common else old + new), (self.baseline, self.candidate)
        if self.common:
            lines = zip(self.alone, names, strict=True)
            return [f"left out: {counted(count, 'row')} that only {name} has" for count, name in lines if count]
        if not both or bool(old) == bool(new):
            return []
        part, whole = names[::-1] if old else names
        more = f"{part} is a part of {whole}, which has {counted(old + new, 'row')} more"
        return [f"{more}; --common compares the {both} that both have"]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by status, in the order of `STATUSES`."""
        counted = Counter(self.table["status"])
        return {status: counted[status] for status in STATUSES if counted[status]}

    @property
    def compared(self) -> bool:
        """Whether the numbers of any row were."""
        return bool((~self.table["status"].isin(["missing", "incompatible", "new"]) & self.table["new"].notna()).any())

    @property
    def ok(self) -> bool:
        """Nothing got worse, and nothing is missing."""
        return self.code == 0

    @property
    def code(self) -> int:
        """1 where something got worse, 3 where something was not measured, else 0."""
        if (self.table["alarm"] == REGRESSION).any():
            return 1
        return 3 if (self.table["alarm"] == UNMEASURED).any() or not self.compared else 0

    @property
    def conclusion(self) -> str:
        """The outcome in one line, with the first row that caused it."""
        parts = []
        for alarm, said in ((REGRESSION, "worse"), (UNMEASURED, "not measured")):
            rows = self.table[self.table["alarm"] == alarm]
            if len(rows):
                parts.append(f"{len(rows)} of {len(self.table)} rows {said}, first {place(rows.iloc[0])}: "
                             f"{explained(rows.iloc[0])}")  # fmt: skip
        if not parts and not self.compared:
            parts = ["nothing was measured on both sides, which is not the same as nothing worse"]
        if not parts:
            told = Counter(told_status(row) for _, row in self.table.iterrows())
            counts = ", ".join(f"{told[words]} {words}" for words in sorted(told, key=order))
            same = int(self.table["same_models"].sum())
            models = f"{same} under the same models" if same else "under other models"
            parts = [f"nothing worse in {len(self.table)} rows ({counts}; {models})"]
        return f"{self.baseline} → {self.candidate}: {'; '.join(parts)}"

    def __repr__(self) -> str:
        """The outcome, and the first rows that raise an alarm."""
        told = [f"{place(row)}: {explained(row)}" for _, row in self._alarming().head(brief.FIRST).iterrows()]
        return brief.comparison_text(self.conclusion, self.counts, told, len(self._alarming()))

    def _repr_html_(self) -> str:
        """The rows that raise an alarm as notebooks show them, the first ones of many."""
        rows = self._alarming().head(brief.MOST_ROWS)
        told = [(place(row), str(row["status"]), explained(row)) for _, row in rows.iterrows()]
        return brief.comparison_html(self.conclusion, self.counts, told, len(self._alarming()))

    def _alarming(self) -> pd.DataFrame:
        """What got worse first, then what was not measured."""
        rows = [self.table[self.table["alarm"] == alarm] for alarm in (REGRESSION, UNMEASURED)]
        return pd.concat(rows)


def compare(
    baseline: ComparedTable,
    candidate: ComparedTable,
    *,
    tolerance: Mapping[str, float] | None = None,
    only_verdicts: bool = False,
    kinds: Mapping[str, str] | None = None,
    common: bool = False,
) -> Comparison:
    """Compares two tables of one suite.

    Args:
        baseline: what was.
        candidate: what is.
        tolerance: by metric, the difference of values that counts for nothing; `""` for all others, `effect` for
            effects. Defaults: under the same models 1e-4, and .05 for effects; under other models the metric's visible
            difference, and .1 for effects.
        only_verdicts: leaves values alone, and effects where the verdict stays.
        kinds: by metric, `similarity` or not: which way is worse; completes what `facts` tell. Where it is unknown,
            both ways are.
        common: only the rows that both have; the others are counted.

    Raises:
        TableError: tables of two suites, of several, or of another schema; nothing in common where only that is asked.
    """
    _expect_comparable(baseline, candidate)
    rows = _joined(baseline.results, candidate.results)
    alone = int((rows["side"] == "left_only").sum()), int((rows["side"] == "right_only").sum())
    if common:
        rows = rows[rows["side"] == "both"].reset_index(drop=True)
        if not len(rows):
            raise TableError(f"{candidate.name}: expected rows that {baseline.name} has as well, found none")
    rows["same_models"] = _same_models(rows, baseline, candidate)
    rows["setting"] = _other_settings(rows, baseline, candidate)
    rows = _differences(rows, baseline, candidate)
    rows = _moves(rows, baseline, candidate, tolerance or {}, kinds or {})
    judged = [_judged({str(name): entry for name, entry in row.items()}, only_verdicts)
              for row in rows.to_dict("records")]  # fmt: skip
    rows["status"], rows["alarm"], rows["note"] = (list(column) for column in zip(*judged, strict=True))
    rows["alarm"] = rows["alarm"].mask(_ruined(rows), REGRESSION)
    return Comparison(baseline.name, candidate.name, rows[list(COLUMNS)], alone, common)


def _expect_comparable(baseline: ComparedTable, candidate: ComparedTable) -> None:
    for side in (baseline, candidate):
        schema = side.facts.get("schema", SCHEMA_VERSION)
        if schema != SCHEMA_VERSION:
            raise TableError(f"{side.name}: expected a table of schema {SCHEMA_VERSION}, found schema {schema}")
    if baseline.suite != candidate.suite:
        raise TableError(
            f"{candidate.name}: expected results of suite {baseline.suite!r}, as {baseline.name}, found "
            f"{candidate.suite!r}"
        )


def _joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """One row a key of either table, in the order of tables; columns of the sides with `_old` and `_new`."""
    keys, rest = list(KEYS), [name for name in RESULT_COLUMNS if name not in {"suite", *KEYS}]
    sides = [side[[*keys, *rest]].rename(columns={name: f"{name}_{end}" for name in rest})
             for side, end in ((old, "old"), (new, "new"))]  # fmt: skip
    rows = sides[0].merge(sides[1], on=keys, how="outer", indicator="side").assign(suite="")
    return sort_results(rows)


def _same_models(rows: pd.DataFrame, baseline: ComparedTable, candidate: ComparedTable) -> pd.Series:
    """Whether both sides of a row explained the same models on the same images, as far as their facts tell."""
    sides = []
    for side in (baseline, candidate):
        suite = side.facts.get("suite", {})
        models_of: dict[str, list[Any]] = {}
        for name, contrast in sorted(side.facts.get("contrasts", {}).items()):
            key, weights = side.weights(contrast)
            told = (key, weights, suite.get("examples"), suite.get("seed")) if all(weights) else object()
            models_of.setdefault(name.rpartition(" / seed ")[0], []).append(told)
        sides.append(models_of)
    same = {name for name in sides[0].keys() & sides[1].keys() if sides[0][name] == sides[1][name]}
    cells = zip(rows["task"], rows["bug"], rows["level"], strict=True)
    return pd.Series([f"{task} / {bug} {level}" in same for task, bug, level in cells], index=rows.index)


def _other_settings(rows: pd.DataFrame, baseline: ComparedTable, candidate: ComparedTable) -> list[str]:
    """What makes a row's numbers mean something else on either side, or an empty text: the task's options, δ."""
    options = [side.facts.get("suite", {}).get("task_options") for side in (baseline, candidate)]
    said = []
    for task, level, metric in zip(rows["task"], rows["level"], rows["metric"], strict=True):
        visible = [side.fact("metrics", metric, "visible") for side in (baseline, candidate)]
        text = ""
        if None not in options and any(options[0].get(n) != options[1].get(n) for n in (task, level)):
            text = "other task_options"
        elif None not in visible and visible[0] != visible[1]:
            text = f"visible difference {visible[0]:g} → {visible[1]:g}"
        said.append(text)
    return said


def _differences(rows: pd.DataFrame, baseline: ComparedTable, candidate: ComparedTable) -> pd.DataFrame:
    """Adds old, new, difference and its variance for values and effects: `…` and `effect_…`."""
    rows = rows.assign(
        old=rows["value_old"], new=rows["value_new"], difference=rows["value_new"] - rows["value_old"],
        effect_difference=rows["effect_new"] - rows["effect_old"],
    )  # fmt: skip
    variance = rows["sem_old"] ** 2 + rows["sem_new"] ** 2
    effect_variance = _effect_variance(rows, "old") + _effect_variance(rows, "new")
    if baseline.scores is not None and candidate.scores is not None:
        keys = pd.MultiIndex.from_frame(rows[list(KEYS)])
        own = [value_variances(side.scores, side.seeds) for side in (baseline, candidate)]  # type: ignore[arg-type]
        variance = (own[0] + own[1]).reindex(keys).set_axis(rows.index).fillna(variance)
        paired = paired_variances(baseline.scores, candidate.scores, keys[rows["same_models"]], baseline.seeds)
        variance = paired.reindex(keys).set_axis(rows.index).fillna(variance)
    few = rows[["seeds_old", "seeds_new"]].min(axis=1).clip(lower=2)
    quantile = stdtrit(few - 1, (1 + CONFIDENCE) / 2)
    for prefix, spread in (("", variance), ("effect_", effect_variance)):
        half = quantile * np.sqrt(spread)
        rows[f"{prefix}variance"] = spread
        rows[f"{prefix}low"], rows[f"{prefix}high"] = (
            rows[f"{prefix}difference"] - half, rows[f"{prefix}difference"] + half,
        )  # fmt: skip
    return rows


def _effect_variance(rows: pd.DataFrame, side: str) -> pd.Series:
    """What a row's interval says of its effect's variance: the wider half, the other may be clipped."""
    effect, low, high = (rows[f"{name}_{side}"] for name in ("effect", "ci_low", "ci_high"))
    quantile = stdtrit(rows[f"seeds_{side}"].fillna(2).clip(lower=2) - 1, (1 + CONFIDENCE) / 2)
    variance: pd.Series = (np.maximum(effect - low, high - effect) / quantile) ** 2
    return variance


def _moves(
    rows: pd.DataFrame, baseline: ComparedTable, candidate: ComparedTable, tolerance: Mapping[str, float],
    kinds: Mapping[str, str],
) -> pd.DataFrame:  # fmt: skip
    """Adds which way value and effect moved: −1 worse, 0 not so that it counts, 1 better.

    Which way a value moved is seen in how far it lies from the control's: a similarity that falls together with the
    control's, or changes its sign with it, tells the bug no better. Under the same models such a move is worse: the
    numbers are others, and nothing is won.
    """
    metric, same = rows["metric"], rows["same_models"].to_numpy(bool)
    known = {name: candidate.fact("metrics", name, "kind") or baseline.fact("metrics", name, "kind") or kinds.get(name)
             for name in pd.unique(metric)}  # fmt: skip
    told = {name: baseline.fact("metrics", name, "visible") for name in known}
    visible = {name: OTHER_MODELS["value"] if seen is None else seen for name, seen in told.items()}
    default = np.where(same, SAME_MODELS["value"], metric.map(visible))
    given = metric.map({name: tolerance.get(name, tolerance.get("", np.nan)) for name in known})
    least = np.where(given.notna(), given, default)
    least_effect = tolerance.get(EFFECT, np.where(same, SAME_MODELS[EFFECT], OTHER_MODELS[EFFECT]))
    cell = rows[CELL].agg(" ".join, axis=1)
    effect = _beyond(rows, "effect_", least_effect, same | _sure(rows, "effect_", cell, np.inf))
    models = (rows["seeds_old"] + rows["seeds_new"] - 2).clip(lower=1).to_numpy(np.float64)
    value = _beyond(rows, "", least, same | _sure(rows, "", cell + " " + metric + "@" + rows["post"], models))
    control = (rows["benign_new"] - rows["benign_old"]).to_numpy(np.float64)
    sign = metric.map({name: -1 if kind == "similarity" else 1 for name, kind in known.items()}).to_numpy()
    gain = sign * (rows["difference"].to_numpy(np.float64) - control)
    unknown = metric.map({name: kind is None for name, kind in known.items()}).to_numpy()
    yardsticks = [np.abs((rows[f"{name}_new"] - rows[f"{name}_old"]).to_numpy(np.float64)) > least
                  for name in ("benign", "floor", "undefined")]  # fmt: skip
    moved = (value != 0) | (same & np.any(yardsticks, axis=0))
    way = np.select([unknown, gain > least, same | (gain < -least)], [-1.0, 1.0, -1.0], 0.0)
    return rows.assign(value_moved=np.where(moved, way, 0.0), effect_moved=effect)


def _sure(rows: pd.DataFrame, prefix: str, family: pd.Series, freedom: Floats | float) -> Flags:
    """Which differences are no chance. Effects of a cell vary alike, whatever method and metric; values do not."""
    difference, variance = (rows[f"{prefix}{name}"].to_numpy(np.float64) for name in ("difference", "variance"))
    return beyond_chance(difference, variance, family, freedom)


def _beyond(rows: pd.DataFrame, prefix: str, least: Any, sure: Flags) -> Floats:
    """The sign of each difference that is sure and beyond the tolerance, 0 for the others."""
    difference = rows[f"{prefix}difference"].to_numpy(np.float64)
    return np.nan_to_num(np.where((np.abs(difference) > least) & sure, np.sign(difference), 0.0))


def _judged(row: Mapping[str, Any], only_verdicts: bool) -> tuple[str, str, str]:
    """Status, alarm and note of a row."""
    old, new, reason = row["verdict_old"], row["verdict_new"], row["reason_new"]
    if row["side"] == "right_only":
        return "new", "", ""
    if row["side"] == "left_only":
        return "missing", UNMEASURED, "the candidate has no such row"
    if new in {"failed", "not taken"} and (new == "failed" or old != new):
        return "missing", UNMEASURED, f"{new}: {reason}"
    if old in OUTCOMES or new in OUTCOMES:
        alarm = "" if old in OUTCOMES else REGRESSION if old == "detects" else UNMEASURED
        return ("same", "", "") if old == new else ("verdict changed", alarm, reason)
    if row["setting"]:
        return "incompatible", UNMEASURED, row["setting"]
    return _unjudgeable(row) or _judged_numbers(row, only_verdicts, old, new)


def _unjudgeable(row: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What stands where the candidate measured too little to judge by, else None."""
    counts = [(row[f"{name}_new"], row[f"{name}_old"], what) for name, what in (("seeds", "models"), ("n", "images"))]
    fewer = [f"{now:.0f} of {before:.0f} {what}" for now, before, what in counts if now < before]
    if row["same_models"]:
        return ("missing", UNMEASURED, ", ".join(fewer)) if fewer else None
    if np.isnan(row["ci_low_new"]) and not np.isnan(row["ci_low_old"]):
        return "missing", UNMEASURED, ", ".join([f"no interval: {row['reason_new']}", *fewer])
    if np.isnan(row["effect_variance"]):
        return "incompatible", UNMEASURED, "other models, and no interval to tell chance by"
    return None


def _judged_numbers(row: Mapping[str, Any], only_verdicts: bool, old: str, new: str) -> tuple[str, str, str]:
    """Status, alarm and note where both sides have numbers of the same meaning."""
    effect, value = row["effect_moved"], row["value_moved"]
    control = f"control {row['benign_old']:.4g} → {row['benign_new']:.4g}" if value and row["same_models"] else ""
    if _undefined(row):
        return "worse", REGRESSION, f"undefined {row['undefined_old']:.0%} → {row['undefined_new']:.0%}"
    if old != new:
        contradicts = new in {"blind", "inverted"} or row["same_models"] or effect < 0
        lost = old == "detects" and contradicts
        fell = not only_verdicts and (effect < 0 or (value < 0 and effect == 0))
        note = "" if effect or row["same_models"] else "as chance does"
        return "verdict changed", REGRESSION if lost or fell else "", control or note
    if only_verdicts:
        return "same", "", ""
    if effect < 0 or (value < 0 and effect == 0):
        return "worse", REGRESSION, control
    return ("better" if effect > 0 or value > 0 else "same"), "", ""


def _undefined(row: Mapping[str, Any]) -> bool:
    """Whether scores of the candidate became undefined; the maps of one unlucky model may be constant."""
    if np.isnan(row["new"]):
        return not np.isnan(row["old"])
    most = UNDEFINED if row["same_models"] else 1 - UNDEFINED
    return bool(row["undefined_new"] > most >= row["undefined_old"])


def _ruined(rows: pd.DataFrame) -> pd.Series:
    """Lost detections where most are lost: each may be chance, all of them are not."""
    detected = (rows["verdict_old"] == "detects") & rows["status"].isin(["verdict changed", "worse", "better", "same"])
    lost = detected & (rows["verdict_new"] != "detects")
    return lost & (detected.sum() >= MANY) & (lost.sum() > MOST * detected.sum())
