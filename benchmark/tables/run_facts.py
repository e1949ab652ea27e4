"""What run.json tells: everything needed to judge and repeat the run."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug import keys, tasks
from attribug.contracts.models import trainings
from attribug.plans.plan import LIBRARIES
from attribug.registry import Entry
from attribug.results.schema import MENDED, SCHEMA_VERSION
from attribug.tables.analysis import main_controls, visible_differences

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.plans.plan import Plan
    from attribug.running.outcome import Outcome


def run_facts(outcome: Outcome, results: pd.DataFrame) -> dict[str, Any]:
    """What run.json tells: everything needed to judge and repeat the run."""
    plan = outcome.plan
    failures = [
        {"cell": plan.cells[n].name, "method": method, "reason": reason} for n, method, reason in outcome.faults
    ]
    return {
        "schema": SCHEMA_VERSION,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "plan": plan.key,
        "suite": plan.suite.model_dump(),
        "device": plan.device,
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
        "versions": {"attribug": keys.version("attribug"), **keys.versions(*LIBRARIES, "pandas")},
        "revision": _revision(),
        "pieces": _pieces(plan),
        "models": {
            key: {
                "seed": training.seed,
                "rests_on": [below.key for below in trainings(training)[:-1]],
                "weights": outcome.weights.get(key, ""),
            }
            for key, training in plan.trainings.items()
        },
        "contrasts": {cell.name: _contents(cell.contrast) for cell in plan.cells if cell.contrast is not None},
        "checks": list(_checks(outcome)),
        "failures": failures,
        "damaged": outcome.damaged,
        **_census(outcome),
        "maps_kept": all(record.maps_kept or record.verdict for record in outcome.records.values()),
        "seconds": {stage: round(seconds, 3) for stage, seconds in outcome.seconds.items()},
        "verdicts": results["verdict"].value_counts().to_dict(),
    }


def _checks(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Every check of every cell, with its figure where it was measured; those of mended bugs are the bugs' own."""
    for number, cell in outcome.plan.contrasted:
        if MENDED in cell.bug:
            continue
        for check in cell.contrast.checks if cell.contrast is not None else ():
            figure = outcome.figures.get(number, {}).get(check.name)
            yield {
                "task": cell.task, "bug": cell.bug, "level": cell.level, "seed": cell.seed, "check": check.name,
                "figure": figure, "expected": check.bound, "holds": figure is not None and check.holds(figure),
            }  # fmt: skip


def _census(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """What is remarkable of maps and passes, by record."""
    cells = outcome.plan.cells
    named = {f"{cells[n].name} / {method}": record for (n, method), record in sorted(outcome.records.items())}
    return {
        "nonfinite_maps": {name: r.census.nonfinite for name, r in named.items() if r.census.nonfinite},
        "constant_maps": {name: r.census.constant for name, r in named.items() if r.census.constant},
        "imbalance": {name: round(r.census.imbalance, 6) for name, r in named.items() if r.census.promised},
        "halved_passes": {name: r.rows for name, r in named.items() if r.rows},
    }


def _contents(contrast: Contrast) -> dict[str, Any]:
    """What two runs that explained the same models on the same images share: a key, and these models' weights."""
    models = {t.key: None for model in contrast.models() for t in trainings(model)}
    return {"key": keys.digest(replace(contrast, checks=())), "models": list(models)}


def _pieces(plan: Plan) -> dict[str, dict[str, dict[str, Any]]]:
    """What tables need to know of bugs, methods, metrics and tasks, by kind and name: so that they can be compared and
    reported where the plugins that define them are not at hand."""
    controls, visible = main_controls(plan), visible_differences(plan)
    own: dict[str, dict[Entry, dict[str, Any]]] = {
        "bugs": {
            bug: {
                "primary": bug.primary, "control": controls[bug.name], "stage": bug.stage, "graded": bug.graded,
                "seen_in_predictions": bug.seen_in_predictions, **_explained(plan, bug.name),
            }
            for bug in plan.bugs.values()
        },
        "methods": {
            method: {"output": method.output, "explains": not method.is_yardstick, "bare": method.is_bare,
                     "headline": method.headline}
            for method, _ in plan.methods
        },
        "metrics": {
            metric: {"kind": metric.kind, "visible": visible[metric.name], "bounds": metric.bounds,
                     "reads": metric.reads, "asks_directly": metric.asks_directly, "reproduction": metric.reproduction}
            for metric, _ in plan.measured
        },
        "tasks": {tasks.get(name): _of_task(plan, name) for name in plan.suite.tasks},
        "panels": {panel: {"notes": list(plan.notes.get(panel.name, ()))} for panel in plan.panels.values()},
    }  # fmt: skip
    return {
        kind: {entry.name: {"summary": entry.summary, "paper": entry.paper, **facts} for entry, facts in pieces.items()}
        for kind, pieces in own.items()
    }


def _of_task(plan: Plan, name: str) -> dict[str, Any]:
    """Where its data come from, and what else there is to tell: its features' names, what was found about them."""
    more = {"features": plan.features.get(name), "notes": plan.notes.get(name)}
    given = {"given": plan.given[name]} if name in plan.given else {}
    return {
        "source": tasks.get(name).source,
        **given,
        **{key: list(told) for key, told in more.items() if told is not None},
    }


def _explained(plan: Plan, bug: str) -> dict[str, str | None]:
    """For which class a bug's examples are explained, and where relevance is expected."""
    contrast = next(
        (cell.contrast for _, cell in plan.contrasted if cell.bug == bug and cell.contrast is not None), None
    )
    return {} if contrast is None else {"target": contrast.target, "truth": contrast.truth}


def _revision() -> str | None:
    """Git revision of the source, when it is a checkout."""
    try:
        folder = Path(__file__).parent
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
