"""Outcome → files: results.csv, scores.parquet, costs.csv, analysis, run.json, figures; each whole or not at all."""

from __future__ import annotations

import datetime
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import attribug
from attribug import keys, tasks
from attribug.analysis import (
    Distilled,
    analyses,
    distilled,
    joined,
    main_controls,
    primary_metrics,
    visible_differences,
)
from attribug.attribution import Census
from attribug.contracts import Bug, Contrast, Entry, Method, Metric, trainings
from attribug.drawing import draw
from attribug.locations import Location
from attribug.plan import LIBRARIES, Cell, Plan
from attribug.registry import InputError, StorageError, one_line
from attribug.results.headline import PLACE
from attribug.results.schema import (
    KEYS,
    NUMBERS,
    RESULT_COLUMNS,
    SCHEMA_VERSION,
    SCORE_COLUMNS,
    read_results,
    sort_results,
    typed,
    write_results,
)
from attribug.results.summary import matrix, tabulated
from attribug.run_json import checksum
from attribug.runner import Outcome
from attribug.store import (
    ANALYSIS,
    COSTS,
    FIGURES,
    RESULTS,
    RUN,
    SCORES,
    claimed,
    make_folder,
    read_json,
    storing,
    write_atomically,
    write_json,
)

COST_COLUMNS = (
    "kind", "task", "bug", "level", "seed", "method", "key", "seconds", "scoring_seconds", "forward", "backward",
    "peak_megabytes", "images",
)  # fmt: skip
"""`images`: what a record explained, every example under every side and in every version that a metric reads."""
MOST_ROWS = 100_000  # of scores that tables are worked out of at a time, unless more belong to one row
TOLERANCE = 0.05  # share of the sums they promise (completeness, conservation) that maps may miss without a warning


@contextmanager
def prepare(place: Location, stored: Location, plan: Plan) -> Iterator[None]:
    """Makes the run's folder and the cache; a context in which no other run writes to the former.

    Raises:
        InputError: one cannot be written, holds another suite, or another run is writing there.
    """
    out, cache = place.folder, stored.folder
    place.note()
    stored.note()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: expected a folder, found a file")
    for name, folder in (("--out", out), ("--out", out / "records"), ("--out", out / "galleries"), ("cache", cache)):
        try:
            with storing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
        except StorageError as error:
            said = f"{name} {folder}: expected a folder that can be written, found: {error.found}"
            raise InputError(said) from error
    if place.remote is None:
        _expect_suite(out, plan)  # before anything is touched
    with claimed(out):
        for remote in (place, stored):
            remote.expect_writable()
        place.fetch_tables()
        if _expect_suite(out, plan) is None:
            write_json(out / RUN, {"schema": SCHEMA_VERSION, "suite": plan.suite.model_dump()})
            place.send_file(RUN)
        yield


def _expect_suite(out: Path, plan: Plan) -> str | None:
    """Name of the suite whose results a folder holds, if any; raises `InputError` where it is another."""
    before = _suite_of(out)
    if before not in {None, plan.suite.name}:
        raise InputError(f"--out {out}: expected results of suite {plan.suite.name!r}, found {before!r}")
    return before


def _suite_of(out: Path) -> str | None:
    """Name of the suite whose results a folder holds; None where there are none, or run.json is damaged."""
    before = read_json(out / RUN)
    suite = before.get("suite") if isinstance(before, dict) else None
    name = suite.get("name") if isinstance(suite, dict) else None
    return name if isinstance(name, str) else None


def finished(out: Path, plan: Plan, *, with_maps: bool = False) -> bool:
    """Whether the folder holds exactly this plan's tables and figures, with nothing failed; `with_maps`: and all maps
    were kept."""
    before = read_json(out / RUN)
    return (
        isinstance(before, dict) and before.get("plan") == plan.key and not before.get("failures")
        and (not with_maps or before.get("maps_kept") is True)
        and before.get("files") == _checksums(out)
    )  # fmt: skip


def _checksums(out: Path) -> dict[str, str]:
    """Checksums of tables and figures: a damaged or missing one makes the run unfinished."""
    folders = [path for folder in (ANALYSIS, FIGURES) for path in sorted((out / folder).glob("*"))]
    paths = [*(out / name for name in (RESULTS, SCORES, COSTS)), *folders]
    return {path.name: checksum(path) for path in paths if path.is_file()}


def write(outcome: Outcome, out: Path) -> pd.DataFrame:
    """Writes all files of a run; returns the results."""
    parts: list[Distilled] = []
    write_atomically(out / SCORES, lambda path: _write_scores(outcome, path, parts))
    found = joined(parts)
    results = results_of(outcome, found.estimates)
    _write_csv(costs_of(outcome), out / COSTS)
    with storing(out / RESULTS):
        write_results(results, out / RESULTS)
    unanalysed = _analyse(found, results, outcome.plan, out / ANALYSIS)
    facts = run_facts(outcome, results)
    missing = {"undrawn": draw(outcome, results, facts["pieces"], out), "unanalysed": unanalysed}
    write_json(out / RUN, facts | {"files": _checksums(out), **missing})
    return read_results(out / RESULTS)  # rounded as in the file, so that everyone reads the same numbers


def _write_scores(outcome: Outcome, path: Path, parts: list[Distilled]) -> None:
    """Writes all scores part by part, and adds what the tables need of each: memory holds one part at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    names = pa.dictionary(pa.int32(), pa.string())
    types = dict.fromkeys(SCORE_COLUMNS, pa.int64()) | dict.fromkeys(KEYS, names)
    schema = pa.schema(types | dict.fromkeys(("value", "benign", "floor"), pa.float64()))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in _together(scores_of(outcome)):
            parts.append(distilled(part, outcome.plan))
            writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))
    if not parts:
        parts.append(distilled(pd.DataFrame(columns=list(SCORE_COLUMNS)), outcome.plan))


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    write_atomically(path, lambda place: table.to_csv(place, index=False, float_format="%.6g", lineterminator="\n"))


def _analyse(found: Distilled, results: pd.DataFrame, plan: Plan, folder: Path) -> str:
    """Writes one file a table of the analysis; returns why there are none, for they are not worth the results."""
    if found.fault:
        return found.fault
    try:
        tables = analyses(found, results, plan)
    except Exception as error:
        return one_line(error)
    make_folder(folder)
    for name, table in tables.items():
        _write_csv(table, folder / f"{name}.csv")
    return ""


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


def headline(results: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The matrix of methods and bugs: verdict and effect of each bug's primary metric and main control."""
    return matrix(results, primary_metrics(plan), main_control=main_controls(plan))


def scores_of(outcome: Outcome) -> Iterator[pd.DataFrame]:
    """All scores with their keys, those of a task, bug, level and method at a time, or fewer where they are many: of
    cells in which the bug took and no method failed."""
    plan = outcome.plan
    places: dict[tuple[str, str, str], list[int]] = {}
    for number, cell in enumerate(plan.cells):
        if outcome.took(number):
            places.setdefault(_place(cell), []).append(number)
    for place, numbers in places.items():
        for method, _ in plan.methods:
            records = {number: outcome.records.get((number, method.name)) for number in numbers}
            scored = [number for number, record in records.items() if record is not None and not record.verdict]
            keys = {**dict(zip(PLACE, place, strict=True)), "method": method.name}
            for scores in _portions([outcome.scores(number, method.name) for number in scored]):
                yield _labelled(scores, keys)[list(SCORE_COLUMNS)]


def _portions(frames: list[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Rows of frames together where they are few, else those of one control, metric and post after the other."""
    frames = [frame for frame in frames if len(frame)]
    if sum(map(len, frames)) <= MOST_ROWS:
        if frames:
            yield pd.concat(frames, ignore_index=True)
        return
    measured = ["control", "metric", "post"]
    groups = [dict(iter(frame.groupby(measured, sort=False))) for frame in frames]
    for key in dict.fromkeys(key for group in groups for key in group):
        found = [group.pop(key).drop(columns=measured) for group in groups if key in group]
        yield _labelled(pd.concat(found, ignore_index=True), dict(zip(measured, map(str, key), strict=True)))


def _together(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """As many parts at a time as have few rows: working out a part costs more than its rows do."""
    waiting: list[pd.DataFrame] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + len(part) > MOST_ROWS:
            yield pd.concat(waiting, ignore_index=True)
            waiting = []
        waiting.append(part)
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def _labelled(rows: pd.DataFrame, keys: Mapping[str, str]) -> pd.DataFrame:
    """Rows with columns that say the same in each, in a byte a row."""
    code = np.zeros(len(rows), np.int8)
    return rows.assign(**{name: pd.Categorical.from_codes(code, [key]) for name, key in keys.items()})  # type: ignore[call-overload]


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
                yield from _empty_rows(plan, cell, method, verdict, reason, len(taken))
            elif record is not None and outcome.took(number):
                for row in _empty_rows(plan, cell, method, "", "", len(taken)):
                    lost = record.lost.get(f"{row['metric']}@{row['post']}")
                    if lost is not None:
                        yield row | {"verdict": lost[0], "reason": lost[1]}


def _planned(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Every row that the plan promises, as it stands where the models are too few for a single triple."""
    for cell in outcome.plan.cells:
        for method, _ in outcome.plan.methods:
            yield from _empty_rows(outcome.plan, cell, method, "inconclusive", "these models only", 0)


def _empty_rows(
    plan: Plan, cell: Cell, method: Method, verdict: str, reason: str, seeds: int
) -> Iterator[dict[str, Any]]:
    contrast = cell.contrast
    controls = [main_controls(plan)[cell.bug]] if contrast is None else list(contrast.control_sets)
    for metric, post in plan.measured:
        headline = contrast is None and plan.bugs[cell.bug].primary == f"{metric.name}@{post}"
        if metric.reads == method.output and (headline or metric.applies(contrast)):
            for control in controls:
                yield {
                    "task": cell.task, "bug": cell.bug, "level": cell.level, "control": control,
                    "method": method.name, "metric": metric.name, "post": post, "verdict": verdict, "reason": reason,
                    "seeds": seeds, "n": 0,
                }  # fmt: skip


def _place(cell: Any) -> tuple[str, str, str]:
    return cell.task, cell.bug, cell.level


def _mark_constructed(results: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Rows of `predictions` say so where what they measure is what the bug's checks are measured on."""
    outputs = {metric.name: metric for metric, _ in plan.measured if metric.reads == "probabilities"}
    constructed = {
        (cell.bug, name)
        for cell in plan.cells
        for name, metric in outputs.items()
        if cell.contrast is not None and _is_checked(plan.bugs[cell.bug], cell.contrast, metric)
    }
    found = pd.MultiIndex.from_frame(results[["bug", "metric"]]).isin(list(constructed))
    marked = found & (results["verdict"] == "detects")
    return results.assign(reason=results["reason"].mask(marked, "true by construction"))


def _is_checked(bug: Bug, contrast: Contrast, metric: Metric) -> bool:
    """Whether a metric of outputs reads what the bug's checks read: outputs explained, or the same other version."""
    versions = {metric.inputs, metric.beside} - {""}
    if not versions:
        return bug.seen_in_predictions
    return any(check.examples == contrast.extra.get(version) for check in contrast.checks for version in versions)


def _warn_of_imbalance(results: pd.DataFrame, outcome: Outcome) -> pd.DataFrame:
    """Rows of methods whose maps miss the sums that their definition promises say by how much."""
    found: dict[tuple[str, ...], Census] = {}
    for (number, method), record in outcome.records.items():
        if outcome.took(number):
            found.setdefault((*_place(outcome.plan.cells[number]), method), Census()).add(record.census)
    warnings = {
        place: f"maps miss the sum they promise by {census.imbalance:.0%}"
        for place, census in found.items()
        if census.imbalance > TOLERANCE
    }
    places = zip(*(results[name] for name in ("task", "bug", "level", "method")), strict=True)
    decided = ~results["verdict"].isin(["unsupported", "failed", "not taken"])
    texts = pd.Series([warnings.get(place, "") for place in places], index=results.index).where(decided, "")
    return results.assign(reason=(results["reason"] + "; " + texts).str.strip("; "))


def costs_of(outcome: Outcome) -> pd.DataFrame:
    """One row a training and a record, done now or earlier: seconds, passes, peak memory of the worker until then."""
    rows: list[dict[str, Any]] = []
    for key, cost in outcome.trainings.items():
        rows.append({"kind": "training", "seed": outcome.plan.trainings[key].seed, "key": key, **cost})
    methods = {method.name: method for method, _ in outcome.plan.methods}
    for (number, method), record in sorted(outcome.records.items()):
        cell = outcome.plan.cells[number]
        queries = 0 if cell.contrast is None else outcome.plan.queries(cell.contrast, methods[method])
        rows.append({
            "kind": "record", "task": cell.task, "bug": cell.bug, "level": cell.level, "seed": cell.seed,
            "method": method, "key": outcome.plan.record_key(cell, method), "seconds": record.cost.seconds,
            "scoring_seconds": record.scoring_seconds, "forward": record.cost.forward,
            "backward": record.cost.backward, "peak_megabytes": record.peak_megabytes,
            "images": queries * outcome.images.get((number, method), 0),
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
        {"cell": plan.cells[n].name, "method": method, "reason": reason} for n, method, reason in outcome.faults
    ]
    named = {f"{plan.cells[n].name} / {m}": record for (n, m), record in sorted(outcome.records.items())}
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
        "checks": checks,
        "failures": failures,
        "damaged": outcome.damaged,
        "nonfinite_maps": {name: r.census.nonfinite for name, r in named.items() if r.census.nonfinite},
        "constant_maps": {name: r.census.constant for name, r in named.items() if r.census.constant},
        "imbalance": {name: round(r.census.imbalance, 6) for name, r in named.items() if r.census.promised},
        "halved_passes": {name: r.rows for name, r in named.items() if r.rows},
        "maps_kept": all(record.maps_kept or record.verdict for record in outcome.records.values()),
        "seconds": {stage: round(seconds, 3) for stage, seconds in outcome.seconds.items()},
        "verdicts": results["verdict"].value_counts().to_dict(),
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
        "methods": {method: {"output": method.output} for method, _ in plan.methods},
        "metrics": {
            metric: {"kind": metric.kind, "visible": visible[metric.name], "bounds": metric.bounds,
                     "reads": metric.reads, "reproduction": metric.reproduction}
            for metric, _ in plan.measured
        },
        "tasks": {tasks.get(name): {"source": tasks.get(name).source} for name in plan.suite.tasks},
    }  # fmt: skip
    return {
        kind: {entry.name: {"summary": entry.summary, "paper": entry.paper, **facts} for entry, facts in pieces.items()}
        for kind, pieces in own.items()
    }


def _explained(plan: Plan, bug: str) -> dict[str, str | None]:
    """For which class a bug's examples are explained, and where relevance is expected."""
    contrast = next((cell.contrast for cell in plan.cells if cell.bug == bug and cell.contrast is not None), None)
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
