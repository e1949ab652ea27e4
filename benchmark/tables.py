"""Outcome → files: results.csv, scores.parquet, costs.csv, run.json, figures; each whole or not at all."""

from __future__ import annotations

import datetime
import hashlib
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

import attribug
from attribug import keys
from attribug.contracts import trainings
from attribug.plan import LIBRARIES, Plan
from attribug.registry import InputError
from attribug.results import figures
from attribug.results.schema import SCHEMA_VERSION, SCORE_COLUMNS, read_results, write_results
from attribug.results.summary import matrix, summarise
from attribug.runner import Outcome
from attribug.store import Records, cache_folder, read_json, write_atomically, write_json

RESULTS, SCORES, COSTS, RUN, FIGURES = "results.csv", "scores.parquet", "costs.csv", "run.json", "figures"
COST_COLUMNS = (
    "kind", "task", "bug", "level", "seed", "method", "key", "seconds", "scoring_seconds", "forward", "backward",
    "peak_megabytes",
)  # fmt: skip
NO_CONTROL = "-"
__all__ = ["cache_folder", "finished", "headline", "prepare", "write"]


def prepare(out: Path, plan: Plan) -> None:
    """Makes the run's folder; raises `InputError` when it is a file, not writable, or another suite's."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: expected a folder, found a file")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / ".writable", lambda path: None)
        (out / ".writable").unlink()
    except OSError as error:
        raise InputError(f"--out {out}: expected a folder that can be written, found: {error.strerror}") from error
    before = read_json(out / RUN)
    if isinstance(before, dict) and before.get("suite", {}).get("name") not in {None, plan.suite.name}:
        raise InputError(
            f"--out {out}: expected results of suite {plan.suite.name!r}, found {before['suite']['name']!r}"
        )
    if (out / RUN).exists() and before is None:
        return  # a damaged file counts as absent
    if before is None:
        write_json(out / RUN, {"schema": SCHEMA_VERSION, "suite": plan.suite.model_dump()})


def finished(out: Path, plan: Plan) -> bool:
    """Whether the folder holds exactly this plan's tables, with nothing failed."""
    before = read_json(out / RUN)
    return (
        isinstance(before, dict) and before.get("plan") == plan.key and not before.get("failures")
        and before.get("files") == _checksums(out)
    )  # fmt: skip


def _checksums(out: Path) -> dict[str, str | None]:
    """Checksums of the tables: a damaged one counts as absent."""
    names = (RESULTS, SCORES, COSTS)
    present = {name: out / name for name in names if (out / name).is_file()}
    return {name: hashlib.sha256(present[name].read_bytes()).hexdigest() if name in present else None for name in names}


def write(outcome: Outcome, out: Path) -> pd.DataFrame:
    """Writes all files of a run; returns the results."""
    plan = outcome.plan
    scores = scores_of(outcome)
    facts = {metric.name: metric for metric, _ in plan.measured}
    default = plan.suite.visible
    results = summarise(
        scores,
        suite=plan.suite.name,
        seeds_total=plan.suite.seeds,
        kinds={name: metric.kind for name, metric in facts.items()},
        visible={name: metric.visible if default is None else default for name, metric in facts.items()},
        outcomes=pd.DataFrame(
            list(_outcomes(outcome)), columns=[*SCORE_COLUMNS[:7], "verdict", "reason", "seeds", "n"]
        ),
    )
    results = _mark_constructed(results, plan)
    write_atomically(out / SCORES, lambda path: scores.to_parquet(path, compression="zstd", index=False))
    costs = costs_of(outcome)
    write_atomically(
        out / COSTS, lambda path: costs.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    )
    _draw(outcome, results, out)
    write_results(results, out / RESULTS)
    write_json(out / RUN, run_facts(outcome, results) | {"files": _checksums(out)})
    return read_results(out / RESULTS)  # rounded as in the file, so that everyone reads the same numbers


def headline(results: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The matrix of methods and bugs: verdict and effect of each bug's primary metric and main control."""
    primary = {name: bug.primary for name, bug in plan.bugs.items()}
    control = {cell.bug: cell.contrast.control for cell in plan.cells if cell.contrast is not None}
    return matrix(results, primary, main_control={name: control.get(name, NO_CONTROL) for name in plan.bugs})


def scores_of(outcome: Outcome) -> pd.DataFrame:
    """All scores with their keys; rows of cells in which the bug took and no method failed."""
    frames = []
    for (number, method), record in sorted(outcome.records.items()):
        cell = outcome.plan.cells[number]
        if outcome.took(number) and not record.verdict and len(record.scores):
            frames.append(record.scores.assign(task=cell.task, bug=cell.bug, level=cell.level, method=method))
    if not frames:
        return pd.DataFrame(columns=list(SCORE_COLUMNS))
    scores = pd.concat(frames, ignore_index=True)[list(SCORE_COLUMNS)]
    return scores.astype(dict.fromkeys(("task", "bug", "level", "control", "method", "metric", "post"), "category"))


def _outcomes(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Rows without numbers: bugs that took in no model, methods that declined or failed."""
    plan = outcome.plan
    for number, cell in enumerate(plan.cells):
        cells = [n for n, other in enumerate(plan.cells) if _place(other) == _place(cell)]
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
                yield from _empty_rows(outcome, number, method.name, verdict, reason, len(taken))


def _empty_rows(
    outcome: Outcome, number: int, name: str, verdict: str, reason: str, seeds: int
) -> Iterator[dict[str, Any]]:
    cell = outcome.plan.cells[number]
    method = next(m for m, _ in outcome.plan.methods if m.name == name)
    controls = [NO_CONTROL] if cell.contrast is None else list(cell.contrast.control_sets)
    truth = cell.contrast is not None and cell.contrast.truth is not None
    for metric, post in outcome.plan.measured:
        if metric.reads == method.output and (metric.kind == "similarity" or truth):
            for control in controls:
                yield {
                    "task": cell.task, "bug": cell.bug, "level": cell.level, "control": control, "method": name,
                    "metric": metric.name, "post": post, "verdict": verdict, "reason": reason, "seeds": seeds, "n": 0,
                }  # fmt: skip


def _place(cell: Any) -> tuple[str, str, str]:
    return cell.task, cell.bug, cell.level


def _mark_constructed(results: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Rows of `predictions` say so where the bug's checks are measured on predictions themselves."""
    bugs = [name for name, bug in plan.bugs.items() if bug.seen_in_predictions]
    outputs = [method.name for method, _ in plan.methods if method.output == "probabilities"]
    marked = results["bug"].isin(bugs) & results["method"].isin(outputs) & (results["verdict"] == "detects")
    return results.assign(reason=results["reason"].mask(marked, "true by construction"))


def costs_of(outcome: Outcome) -> pd.DataFrame:
    """One row a training and a record, done now or earlier: seconds, passes, peak memory of the worker until then."""
    rows: list[dict[str, Any]] = []
    for key, cost in outcome.trainings.items():
        rows.append({"kind": "training", "seed": outcome.plan.trainings[key].seed, "key": key, **cost})
    for (number, method), record in sorted(outcome.records.items()):
        cell = outcome.plan.cells[number]
        rows.append({
            "kind": "record", "task": cell.task, "bug": cell.bug, "level": cell.level, "seed": cell.seed,
            "method": method, "key": outcome.plan.record_key(cell, method), "seconds": record.cost.seconds,
            "scoring_seconds": record.scoring_seconds, "forward": record.cost.forward,
            "backward": record.cost.backward, "peak_megabytes": record.peak_megabytes,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(COST_COLUMNS))


def run_facts(outcome: Outcome, results: pd.DataFrame) -> dict[str, Any]:
    """What run.json tells: everything needed to judge and repeat the run."""
    plan = outcome.plan
    checks = []
    for number, cell in enumerate(plan.cells):
        for check in cell.contrast.checks if cell.contrast is not None else ():
            figure = outcome.figures.get(number, {}).get(check.name)
            checks.append({
                "task": cell.task, "bug": cell.bug, "level": cell.level, "seed": cell.seed, "check": check.name,
                "figure": figure, "expected": check.bound, "holds": figure is not None and check.holds(figure),
            })  # fmt: skip
    failures = [
        {"cell": plan.cells[number].name, "method": method, "reason": reason}
        for (number, method), reason in sorted(outcome.failures.items())
    ]
    failures += [
        {"cell": cell.name, "method": "", "reason": cell.reason} for cell in plan.cells if cell.verdict == "failed"
    ]
    nonfinite = {
        f"{plan.cells[n].name} / {m}": record.nonfinite
        for (n, m), record in sorted(outcome.records.items())
        if record.nonfinite
    }
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
        "versions": {"attribug": attribug.__version__, **keys.versions(*LIBRARIES, "pandas")},
        "revision": _revision(),
        "primary": {name: bug.primary for name, bug in plan.bugs.items()},
        "models": {
            key: {"seed": t.seed, "rests_on": [b.key for b in trainings(t)[:-1]]} for key, t in plan.trainings.items()
        },
        "checks": checks,
        "failures": failures,
        "nonfinite_maps": nonfinite,
        "seconds": {stage: round(seconds, 3) for stage, seconds in outcome.seconds.items()},
        "verdicts": results["verdict"].value_counts().to_dict(),
    }


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


def _draw(outcome: Outcome, results: pd.DataFrame, out: Path) -> None:
    """One gallery a task, bug and level, from the first seed's pictures."""
    plan, records = outcome.plan, Records(out)
    folder = out / FIGURES
    drawn = set()
    verdicts = headline(results, plan)
    for number, cell in enumerate(plan.cells):
        if _place(cell) in drawn or cell.contrast is None:
            continue
        drawn.add(_place(cell))
        shown = {}
        for method, _ in plan.methods:
            record = outcome.records.get((number, method.name))
            gallery = records.galleries.load(plan.record_key(cell, method.name)) if record is not None else None
            if gallery:
                shown[method.name] = {role: tensor.numpy() for role, tensor in gallery.items()}
        if shown:
            rows = verdicts[
                (verdicts["task"] == cell.task) & (verdicts["bug"] == cell.bug) & (verdicts["level"] == cell.level)
            ]
            name = f"gallery_{cell.task}_{cell.bug}_{cell.level}.png"
            write_atomically(
                folder / name,
                lambda path, shown=shown, rows=rows, cell=cell: figures.gallery(  # type: ignore[misc]
                    path, shown, rows.set_index("method"), bug=cell.bug, level=cell.level, control=cell.contrast.control
                ),
            )
