"""The results table: every planned row, with numbers or with the reason why there are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.contracts import outputs
from attribug.maps.attribution import Census
from attribug.results.schema import KEYS, MENDED, NUMBERS, PERTURBED, RESULT_COLUMNS, sort_results, typed
from attribug.results.statistics import FEWEST_MODELS, too_few
from attribug.results.summary import tabulated
from attribug.tables.analysis import main_controls

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.pieces import Bug, Method, Metric
    from attribug.plans.plan import Cell, Plan
    from attribug.running.outcome import Outcome

NO_TRIPLE = "no model has both a reference and a control to be compared with"
TOLERANCE = 0.05  # share of the sums they promise (completeness, conservation) that maps may miss without a warning


def results_of(outcome: Outcome, estimates: pd.DataFrame) -> pd.DataFrame:
    """The results table: every planned row, with numbers or with the reason why there are none."""
    plan = outcome.plan
    columns = [*KEYS, "verdict", "reason", "seeds", "n"]
    results = tabulated(estimates, plan.suite.name, pd.DataFrame(list(_outcomes(outcome)), columns=columns))
    planned = pd.DataFrame(list(_planned(outcome)), columns=columns).drop_duplicates(list(KEYS))
    absent = ~pd.MultiIndex.from_frame(planned[list(KEYS)]).isin(pd.MultiIndex.from_frame(results[list(KEYS)]))
    if absent.any():
        numbers = dict.fromkeys(NUMBERS, float("nan"))
        rest = planned[absent].assign(suite=plan.suite.name, **numbers)
        results = sort_results(typed(pd.concat([results, rest[list(RESULT_COLUMNS)]], ignore_index=True)))
    return _warn_of_imbalance(_mark_constructed(results, plan), outcome)


def _outcomes(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Rows without numbers: bugs that took in no model, methods that declined or failed."""
    plan = outcome.plan
    for number, cell in plan.contrasted:
        cells = [n for n, other in plan.contrasted if place_of(other) == place_of(cell)]
        taken = [n for n in cells if outcome.took(n)]
        broken = cell.verdict or ("failed" if (number, "") in outcome.failures else "")
        for method, _ in plan.methods:
            verdict, reason = broken, cell.reason or outcome.failures.get((number, ""), "")
            record = outcome.records.get((number, method.name))
            if not verdict and outcome.failed_checks(number) and not taken:
                verdict, reason = "not taken", "; ".join(outcome.failed_checks(number))
            elif not verdict and (number, method.name) in outcome.failures:
                verdict, reason = "failed", outcome.failures[number, method.name]
            elif not verdict and record is not None and record.verdict:
                verdict, reason = record.verdict, record.reason
            if verdict:
                yield from _empty_rows(plan, cell, method, verdict, reason, len(taken))
            elif record is not None and outcome.took(number):
                for row in _empty_rows(plan, cell, method, "", "", len(taken)):
                    lost = record.lost.get(f"{row['metric']}@{row['post']}")
                    if lost is not None:
                        yield row | {"verdict": lost[0], "reason": lost[1]}


def _planned(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Every row that the plan promises, as it stands where the models are too few for a single triple."""
    plan = outcome.plan
    for _, cell in plan.contrasted:
        taken = sum(outcome.took(n) for n, other in plan.contrasted if place_of(other) == place_of(cell))
        given = main_controls(plan)[cell.bug] == PERTURBED
        few = too_few(taken, plan.suite.seeds, "draw" if given else "model")
        reason = few if taken < FEWEST_MODELS else NO_TRIPLE
        for method, _ in plan.methods:
            yield from _empty_rows(plan, cell, method, "inconclusive", reason, 0)


def _empty_rows(
    plan: Plan, cell: Cell, method: Method, verdict: str, reason: str, seeds: int
) -> Iterator[dict[str, Any]]:
    contrast = cell.contrast
    controls = [main_controls(plan)[cell.bug]] if contrast is None else list(contrast.control_sets)
    for metric, post in plan.measured:
        verdict_matrix = contrast is None and plan.bugs[cell.bug].primary == f"{metric.name}@{post}"
        if metric.reads == method.output and (verdict_matrix or metric.applies(contrast)):
            for control in controls:
                yield {
                    "task": cell.task, "bug": cell.bug, "level": cell.level, "control": control,
                    "method": method.name, "metric": metric.name, "post": post, "verdict": verdict, "reason": reason,
                    "seeds": seeds, "n": 0,
                }  # fmt: skip


def place_of(cell: Any) -> tuple[str, str, str]:
    return cell.task, cell.bug, cell.level


def _mark_constructed(results: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Rows of what models themselves say tell where this is what the bug's checks are measured on."""
    bare = {metric.name: metric for metric, _ in plan.measured if not outputs.get(metric.reads).explains}
    constructed = {
        (cell.bug, name)
        for _, cell in plan.contrasted
        for name, metric in bare.items()
        if cell.contrast is not None and _is_checked(plan.bugs[cell.bug], cell.contrast, metric)
    }
    concerned = pd.MultiIndex.from_frame(results[["bug", "metric"]]).isin(list(constructed))
    marked = concerned & (results["verdict"] == "detects")
    return results.assign(reason=results["reason"].mask(marked, "true by construction"))


def _is_checked(bug: Bug, contrast: Contrast, metric: Metric) -> bool:
    """Whether a metric of outputs reads what the bug's checks read: outputs explained, or the same other version."""
    versions = {metric.inputs, metric.beside} - {""}
    if MENDED in bug.name:  # its checks were measured before
        return False
    if not versions:
        return bug.seen_in_predictions
    return any(check.examples == contrast.extra.get(version) for check in contrast.checks for version in versions)


def _warn_of_imbalance(results: pd.DataFrame, outcome: Outcome) -> pd.DataFrame:
    """Rows of methods whose maps miss the sums that their definition promises say by how much."""
    censuses: dict[tuple[str, ...], Census] = {}
    for (number, method), record in outcome.records.items():
        if outcome.took(number):
            censuses.setdefault((*place_of(outcome.plan.cells[number]), method), Census()).add(record.census)
    warnings = {
        place: f"maps miss the sum they promise by {census.imbalance:.0%}"
        for place, census in censuses.items()
        if census.imbalance > TOLERANCE
    }
    places = zip(*(results[name] for name in ("task", "bug", "level", "method")), strict=True)
    decided = ~results["verdict"].isin(["unsupported", "failed", "not taken"])
    texts = pd.Series([warnings.get(place, "") for place in places], index=results.index).where(decided, "")
    return results.assign(reason=(results["reason"] + "; " + texts).str.strip("; "))
