"""Outcome → files: results.csv, scores.parquet, costs.csv, analysis, run.json, figures; each whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from attribug.errors import one_line
from attribug.results.added import COLUMNS as ADDED_COLUMNS
from attribug.results.added import added
from attribug.results.decisions import COLUMNS as DECISION_COLUMNS
from attribug.results.decisions import decisions
from attribug.results.evidence import Evidence, evidence, q_values
from attribug.results.evidence import joined as joined_evidence
from attribug.results.paper import as_printed
from attribug.results.power import COLUMNS as POWER_COLUMNS
from attribug.results.power import power
from attribug.results.published import beside
from attribug.results.ranking import COLUMNS as RANKING_COLUMNS
from attribug.results.ranking import ranking
from attribug.results.schema import KEYS, TEXTS, is_mended
from attribug.results.severity import by_post, severity
from attribug.results.summary import estimates, is_headline

if TYPE_CHECKING:
    from attribug.plans.plan import Plan
    from attribug.results.statistics import Kind


NO_CONTROL = "-"
"""Stands for the control of a bug without a contrast."""
FIRST_YARDSTICK = "predictions"
"""Column of the effects of what models themselves say."""
HEADLINE_NUMBERS = ("effect", "ci_low", "ci_high", "verdict", "reason")
HEADLINE_COLUMNS = (
    *KEYS, *HEADLINE_NUMBERS, "q", *(name for name in DECISION_COLUMNS if name not in KEYS),
    FIRST_YARDSTICK, "added", "added_low", "added_high", "adds",
)  # fmt: skip
EMPTY = {"added": ADDED_COLUMNS, "ranking": RANKING_COLUMNS, "power": POWER_COLUMNS}
NOTHING = pd.DataFrame(columns=list(DECISION_COLUMNS))


@dataclass(frozen=True)
class Distilled:
    """What the tables of a run need of its scores: little, whatever the number of images."""

    estimates: pd.DataFrame
    """A row a combination of `KEYS`: see `summary.estimates`."""
    evidence: Evidence | None
    """What effects rest on; None where there is nothing."""
    decisions: pd.DataFrame
    """A row a combination of `KEYS` that the matrix shows: see `decisions`."""
    fault: str = ""
    """Why evidence and decisions are missing, where they could not be worked out."""


def distilled(scores: pd.DataFrame, plan: Plan) -> Distilled:
    """Of all scores of a run, or of a part of them that has all rows of its keys."""
    seeds_total, kinds, visible = plan.suite.seeds, metric_kinds(plan), visible_differences(plan)
    estimated = estimates(scores, seeds_total=seeds_total, kinds=kinds, visible=visible)
    if not len(scores):
        return Distilled(estimated, None, NOTHING)
    try:
        rests_on = evidence(scores, seeds_total=seeds_total, kinds=kinds, visible=visible)
        wanted = is_shown(estimated, plan)
        shown = scores if wanted.all() else scores[is_shown(scores, plan)] if wanted.any() else scores.head(0)
        judged = decisions(shown, seeds_total=seeds_total, kinds=kinds) if len(shown) else NOTHING
    except Exception as error:  # not worth the results
        return Distilled(estimated, None, NOTHING, one_line(error))
    return Distilled(estimated, rests_on, judged)


def joined(parts: Sequence[Distilled]) -> Distilled:
    """What all parts of a run's scores give together."""
    pieces = [part.evidence for part in parts if part.evidence is not None]
    fault, rests_on = next((part.fault for part in parts if part.fault), ""), None
    try:
        rests_on = joined_evidence(pieces) if pieces and not fault else None
    except Exception as error:  # not worth the results
        fault = one_line(error)
    return Distilled(
        pd.concat([part.estimates for part in parts], ignore_index=True),
        rests_on,
        pd.concat([part.decisions for part in parts if len(part.decisions)] or [NOTHING], ignore_index=True),
        fault,
    )


def analyses(known: Distilled, results: pd.DataFrame, plan: Plan) -> dict[str, pd.DataFrame]:
    """By name: `headline` (the matrix, with q-values, decisions and what is added), `added`, `ranking`, `severity`,
    `posts`, `power`; each with its columns, also where there is nothing to tell. `paper_tables`, the tables of Adebayo
    et al. 2020 as printed with ours in the same cells, only where the run measures a setting of theirs."""
    graded = [name for name, bug in plan.bugs.items() if bug.graded]
    tables = {name: pd.DataFrame(columns=list(columns)) for name, columns in EMPTY.items()}
    tables |= {"severity": severity(results, graded), "posts": by_post(results)}
    printed = as_printed(beside(results, main_controls(plan)))
    tables |= {"paper_tables": printed} if len(printed) else {}
    headline = is_shown(results, plan)
    if known.evidence is None:
        return tables | {"headline": _merged(results[headline], {})}
    bare = bare_methods(plan)
    counted = pd.MultiIndex.from_frame(results.loc[~results["effect"].isna(), list(KEYS)])
    shown = known.evidence.select(pd.MultiIndex.from_frame(known.evidence.keys).isin(counted))  # the table's effects
    of_bugs = shown.select(~is_mended(shown.keys["bug"]).to_numpy())  # what fixes leave is no bug that is met
    tables["added"] = added(of_bugs, bare=bare)
    main = shown.select(is_shown(shown.keys, plan).to_numpy())
    met = main.select(~is_mended(main.keys["bug"]).to_numpy())
    tables["power"] = power(met, results[headline & ~is_mended(results["bug"])])
    if not len(main.keys):
        return tables | {"headline": _merged(results[headline], {})}
    others = tuple(method.name for method, _ in plan.methods if method.name not in bare)
    tables["ranking"] = ranking(met, others, bare=bare)
    keys = list(KEYS)
    judged = known.decisions[pd.MultiIndex.from_frame(known.decisions[keys]).isin(pd.MultiIndex.from_frame(main.keys))]
    more = {"q": main.keys.assign(q=q_values(main, bare=bare)), "judged": judged,
            "added": _beside_first_yardstick(tables["added"], plan)}  # fmt: skip
    return tables | {"headline": _merged(results[headline], more)}


def read_analysis(path: Path) -> pd.DataFrame:
    """A table of `analysis/`: a level 1 is a name, not a number, and an empty reason is a text."""
    texts = (*TEXTS, "adds", "smallest_detected", "toward")
    table = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
    return table.fillna(dict.fromkeys(texts, ""))


def metric_kinds(plan: Plan) -> dict[str, Kind]:
    """Kind by metric."""
    return {metric.name: metric.kind for metric, _ in plan.measured}


def visible_differences(plan: Plan) -> dict[str, float]:
    """δ by metric: the suite's, else each metric's own."""
    default = plan.suite.visible
    return {metric.name: metric.visible if default is None else default for metric, _ in plan.measured}


def primary_metrics(plan: Plan) -> dict[str, str]:
    """`metric@post` by bug: what the matrix shows."""
    return {name: bug.primary for name, bug in plan.bugs.items()}


def headlines(plan: Plan) -> dict[str, str]:
    """`metric@post` by method, of those that it stands for in the matrix instead of their bug's primary one."""
    return {method.name: method.headline for method, _ in plan.methods if method.headline}


def bare_methods(plan: Plan) -> list[str]:
    """Names of the methods that give what models themselves say."""
    return [method.name for method, _ in plan.methods if method.is_bare]


def main_controls(plan: Plan) -> dict[str, str]:
    """Name of the control by bug that its verdict is about."""
    controls = {cell.bug: cell.contrast.control for _, cell in reversed(plan.contrasted) if cell.contrast is not None}
    return {name: controls.get(name, NO_CONTROL) for name in plan.bugs}


def is_shown(rows: pd.DataFrame, plan: Plan) -> pd.Series:
    """Whether each row, of any table with the columns `KEYS`, belongs to the matrix."""
    return is_headline(rows, primary_metrics(plan), main_control=main_controls(plan), headlines=headlines(plan))


def _beside_first_yardstick(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """What is added to the metric that stands in the matrix for what models themselves say."""
    wanted = next((method.headline.partition("@")[0] for method, _ in plan.methods if method.is_bare), "")
    names = {"yardstick_effect": FIRST_YARDSTICK, "added": "added", "ci_low": "added_low", "ci_high": "added_high",
             "adds": "adds"}  # fmt: skip
    return table[table["yardstick"] == wanted][[*KEYS, *names]].rename(columns=names)


def _merged(rows: pd.DataFrame, more: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The matrix's rows with everything that is known of each: `q`, `judged`, `added`, where there are any."""
    keys = list(KEYS)
    merged = rows[[*keys, *HEADLINE_NUMBERS]]
    for table in more.values():
        merged = merged.merge(table.astype(dict.fromkeys(keys, str)), on=keys, how="left", validate="one_to_one")
    return merged.reindex(columns=list(HEADLINE_COLUMNS))
