"""Dry runs: what would be done, from a calibration that changes nothing, scheduled as a run is."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribug.plans.plan import Plan
from attribug.plans.planning import load_suite, make
from attribug.plugins import load_plugin
from attribug.running import estimate
from attribug.running.dry_run import _declined
from attribug.running.estimate import makespan
from attribug.running.jobs import Block, Explain, Job, MeasureChecks, Train
from attribug.suites.suite import load

PLUGINS = Path(__file__).parents[1] / "plugins"
TINY = ("run", str(PLUGINS / "tiny.yaml"))
JOBS: list[Job] = [Train(str(number)) for number in range(8)]


@st.composite
def graphs(draw: Any) -> tuple[dict[Job, set[Job]], dict[Job, float]]:
    """Jobs that wait for some of those before them, and what they take."""
    jobs = JOBS[: draw(st.integers(1, len(JOBS)))]
    waiting: dict[Job, set[Job]] = {jobs[0]: set()}
    for at, job in enumerate(jobs[1:], 1):
        waiting[job] = set(draw(st.lists(st.sampled_from(jobs[:at]), max_size=3)))
    return waiting, {job: draw(st.integers(0, 50)) / 4 for job in jobs}


def longest_chain(waiting: dict[Job, set[Job]], seconds: dict[Job, float]) -> float:
    ends: dict[Job, float] = {}
    for job, needed in waiting.items():
        ends[job] = seconds[job] + max((ends[other] for other in needed), default=0.0)
    return max(ends.values())


@given(graphs(), st.integers(1, 9))
def test_schedules_keep_their_bounds(graph: Any, workers: int) -> None:
    """One worker does all; as many as there are jobs wait for the longest chain only; between them Graham's bound."""
    waiting, seconds = graph
    total, chain = sum(seconds.values()), longest_chain(waiting, seconds)
    assert makespan(waiting, seconds, 1) == pytest.approx(total)
    assert makespan(waiting, seconds, len(waiting)) == pytest.approx(chain)
    found = makespan(waiting, seconds, workers)
    assert max(chain, total / workers) - 1e-9 <= found <= total / workers + chain * (1 - 1 / workers) + 1e-9
    assert all(makespan({job: set(needed) for job, needed in waiting.items()}, seconds, workers) == found for _ in "ab")


def test_a_schedule_by_hand() -> None:
    a, b, c, d = JOBS[:4]
    waiting = {a: set(), b: set(), c: {a}, d: {b}}
    assert makespan(waiting, {a: 3, b: 1, c: 2, d: 5}, 2) == 6
    assert makespan(waiting, {a: 3, b: 1, c: 2, d: 5}, 1) == 11
    assert makespan({}, {}, 3) == 0


@pytest.fixture(scope="module")
def tiny() -> Plan:
    load_plugin(str(PLUGINS / "tiny.py"))
    return make(load(str(PLUGINS / "tiny.yaml"), {"methods": ["gradient", "expected_gradients"]}))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_fits_are_counted_once_a_worker_that_meets_the_model(tiny: Plan, workers: int) -> None:
    """Against jobs that are dealt at random; one side is explained for a block by a job of its own."""
    waiting: dict[Job, set[Job]] = {Block(number, ("expected_gradients",)): set() for number in range(len(tiny.cells))}
    waiting[Explain(0, 0, ("expected_gradients",))] = set()
    waiting[Block(0, ("expected_gradients",))] = {Explain(0, 0, ("expected_gradients",))}
    rates = {f"fit {estimate.cost_group(cell)} expected_gradients": 2.0 for cell in tiny.cells}
    found = sum(estimate._fits(tiny, waiting, rates, workers).values())
    draw, rounds, dealt = random.Random(0), 4000, []
    models = [[model for _, model, _ in estimate._met(tiny, job, estimate.shared(waiting, job))] for job in waiting]
    for _ in range(rounds):
        met = {(worker, model) for each in models for worker in [draw.randrange(workers)] for model in each}
        dealt.append(2.0 * len(met))
    assert found == pytest.approx(np.mean(dealt), abs=5 * np.std(dealt) / rounds**0.5 + 1e-9)
    assert estimate._fits(tiny, {MeasureChecks(0): set()}, rates, workers)[MeasureChecks(0)] == 0


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@pytest.mark.slow
class TestTiny:
    @pytest.fixture
    def lines(self, attribug: Callable[..., Any], tmp_path: Path) -> Callable[..., list[str]]:
        def told(*more: str, calibrated: bool = False, **environment: str) -> list[str]:
            environment = {"ATTRIBUG_CACHE": str(tmp_path / "cache"), **environment}
            answer = attribug(*TINY, "--out", "run", "--dry-run", *more, tiny=True, calibrated=calibrated,
                              environment=environment)  # fmt: skip
            assert answer.returncode == 0, answer.stderr
            assert answer.stderr == ""
            lines: list[str] = answer.stdout.splitlines()
            return lines

        return told

    def test_nothing_is_written_and_more_workers_than_jobs_do_not_help(
        self, lines: Callable[..., list[str]], tmp_path: Path
    ) -> None:
        told = lines("--workers", "50", calibrated=True)
        assert "to do: 3 trainings, 12 records" in told
        assert files(tmp_path) == {}
        (line,) = (line for line in told if line.startswith("estimate"))
        one, most = re.search(r"here: (\d+) s with 50 workers, (\d+) s with", line).groups()  # type: ignore[union-attr]
        assert one == most

    def test_what_is_stored_is_not_to_do(
        self, lines: Callable[..., list[str]], tiny_run: Path, attribug: Callable[..., Any], tmp_path: Path
    ) -> None:
        own = {"ATTRIBUG_CACHE": str(tmp_path / "cache")}
        assert attribug(*TINY, "--out", "run", tiny=True, environment=own).returncode == 0
        assert "to do: 0 trainings, 0 records" in lines()
        assert not [line for line in lines(calibrated=True) if "estimate" in line]
        assert "to do: 3 trainings, 12 records" in lines("--fresh")
        assert "to do: 0 trainings, 12 records" in lines("--keep-maps")
        for path in sorted((tmp_path / "run" / "records").glob("*.record"))[:5]:
            path.write_bytes(b"damaged")
        before = files(tmp_path)
        assert "to do: 0 trainings, 5 records" in lines()
        assert files(tmp_path) == before, "damaged files stay where they are"
        shutil.rmtree(tmp_path / "cache")
        assert "to do: 3 trainings, 5 records" in lines()

    def test_remote_places_are_looked_at(
        self, lines: Callable[..., list[str]], attribug: Callable[..., Any], tmp_path: Path
    ) -> None:
        """What lies there is not to do; where nothing answers, everything is."""
        own = {"ATTRIBUG_CACHE": str(tmp_path / "cache")}
        (tmp_path / "remote").mkdir()
        remote = ("--out", f"file://{tmp_path}/remote/run")
        assert attribug(*TINY, *remote, tiny=True, environment=own).returncode == 0
        shutil.rmtree(tmp_path / "cache")
        before = files(tmp_path / "remote")
        assert "to do: 3 trainings, 0 records" in lines(*remote)
        assert files(tmp_path / "remote") == before
        told = lines("--out", "s3://bucket/run", AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_ACCESS_KEY_ID="none",
                     AWS_SECRET_ACCESS_KEY="none")  # fmt: skip
        assert "to do: 3 trainings, 12 records" in told
        assert any(line.startswith("not reached: --out s3://bucket/run: ") for line in told)

    def test_disk_is_told_before_it_is_taken(
        self, lines: Callable[..., list[str]], attribug: Callable[..., Any], tmp_path: Path
    ) -> None:
        """Within 35 %, kept maps as well."""
        own = {"ATTRIBUG_CACHE": str(tmp_path / "cache")}
        more = ("--examples", "32", "--set", "chunk=8", "--set", "seeds=4")
        dry = [line for maps in ([], ["--keep-maps"]) for line in lines(*more, *maps, calibrated=True)]
        told = [line for line in dry if line.startswith("memory")]
        expected = [float(re.search(r"disk: (\d+) MB of", line)[1]) for line in told]  # type: ignore[index]
        for maps, wanted in zip(([], ["--keep-maps"]), expected, strict=True):
            assert attribug(*TINY, *more, *maps, "--out", "run", tiny=True, environment=own).returncode == 0
            assert abs(wanted - size(tmp_path / "run")) < 0.35 * size(tmp_path / "run") + 0.5
            shutil.rmtree(tmp_path / "run")

    def test_what_is_missing_is_told_instead(self, lines: Callable[..., list[str]], tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "other.safetensors").touch()
        told = lines("--models", "models")
        assert "no estimate: models are missing" in told
        assert any(line.startswith("missing models: --models ") for line in told)
        (tmp_path / "absent.py").write_text(
            "from attribug import tasks\n\n@tasks.register('absent', source='', licence='', size='', "
            "missing=lambda: 'ask its owner')\ndef absent(*, seed, other):\n"
            "    'Nobody has it.'\n    return other('tiny')\n"
        )
        told = lines("--plugin", str(tmp_path / "absent.py"), "--tasks", "absent")
        assert "no estimate: data are missing" in told
        assert "missing data: absent: ask its owner" in told

    @pytest.mark.parametrize(("body", "found"), [
        ("raise ValueError('on purpose')", "estimate, from"),
        ("import os; os._exit(7)", "no estimate: its worker ended with code 7"),
    ])  # fmt: skip
    def test_methods_that_break(self, lines: Callable[..., list[str]], tmp_path: Path, body: str, found: str) -> None:
        path = tmp_path / "broken.py"
        path.write_text(
            f"from attribug import methods\n\n@methods.register('broken')\ndef broken(query):\n    'No.'\n    {body}\n"
        )
        assert any(line.startswith(found) for line in lines("--plugin", str(path), calibrated=True))


def test_what_one_reason_keeps_away_is_told_once() -> None:
    plan = make(load_suite("right-reasons", {"tasks": ["iris_cancer"], "fixes": ["rrr", "dfr", "p_clarc"], "seeds": 3}))
    (line,) = _declined(plan)
    assert line.startswith("unsupported: iris_cancer / shortcut+dfr 1, shortcut+p_clarc 1: expected balanced examples")
    (line,) = _declined(replace(plan, cells=tuple(cell for cell in plan.cells if cell.seed != 1)))
    assert " / seed 0, 2: expected" in line
    assert not _declined(replace(plan, cells=tuple(cell for cell in plan.cells if not cell.verdict)))
