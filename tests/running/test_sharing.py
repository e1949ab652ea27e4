"""What several contrasts ask is explained once a run; sharing moves no byte of a table."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attribug import api
from attribug.maps.asked import question
from attribug.models.lab import Lab
from attribug.query.below import Below
from attribug.running.jobs import Block, Explain
from attribug.running.options import RunOptions
from attribug.running.schedule import Schedule
from attribug.scores import blocks
from attribug.storage.folders import SHARED
from attribug.storage.records import Records
from attribug.storage.tensors import Spare
from doubles.tiny import HONEST, SUITE, TINY, run, tables


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """How often a method was run on a model."""
    times: Counter[tuple[str, int]] = Counter()
    explain = blocks.explained

    def counted(method: Any, query: Any, parameters: Any) -> Any:
        times[method.name, id(query.model)] += 1
        return explain(method, query, parameters)

    monkeypatch.setattr(blocks, "explained", counted)
    return times


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Blocks explain everything themselves."""
    return lambda: monkeypatch.setattr(Schedule, "_plan_sharing", lambda *_: None)


def passes(folder: Path) -> pd.DataFrame:
    """What every record costs, as if it had run alone."""
    return pd.read_csv(folder / "costs.csv")[["kind", "seed", "method", "forward", "backward", "images"]]


@pytest.mark.usefixtures("in_process")
def test_a_side_that_several_cells_ask_about_is_explained_once(
    tmp_path: Path, tiny_run: Path, explained: Counter[tuple[str, int]], alone: Callable[[], None]
) -> None:
    run(tmp_path / "with")
    assert set(explained.values()) == {1}
    assert len(explained) == len(HONEST) * (3 + 3)  # clean and shaken models
    explained.clear()
    alone()
    run(tmp_path / "without")
    assert Counter(explained.values()) == {3: 3 * len(HONEST), 1: 3 * len(HONEST)}
    assert tables(tmp_path / "with") == tables(tmp_path / "without") == tables(tiny_run)
    pd.testing.assert_frame_equal(passes(tmp_path / "with"), passes(tmp_path / "without"))
    assert not (tmp_path / "with" / SHARED).exists()


@pytest.mark.usefixtures("in_process")
def test_where_no_room_is_left_blocks_explain_themselves(
    tmp_path: Path, tiny_run: Path, explained: Counter[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spare, "ROOM", float("inf"))
    run(tmp_path / "run")
    assert max(explained.values()) == 4  # one more than without sharing
    assert tables(tmp_path / "run") == tables(tiny_run)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("fresh", [False, True])
def test_what_a_killed_run_leaves_is_used_damaged_or_not(
    tmp_path: Path, tiny_run: Path, explained: Counter[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    def ends(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "score_block", ends)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
    left = sorted((tmp_path / "run" / SHARED).iterdir())
    assert len(left) == 3 * len(HONEST)
    left[0].write_bytes(left[1].read_bytes())  # another's
    left[2].write_bytes(left[2].read_bytes()[:-1])
    explained.clear()
    run(tmp_path / "run", fresh=fresh)
    assert len(explained) == len(HONEST) * 6 if fresh else 3 * len(HONEST) + 2
    assert tables(tmp_path / "run") == tables(tiny_run)
    assert not (tmp_path / "run" / SHARED).exists()


@pytest.mark.usefixtures("in_process")
def test_a_method_that_fails_fails_once_a_cell_and_is_named_there(tmp_path: Path) -> None:
    def fails(model: Any, inputs: Any, targets: Any) -> Any:
        raise ValueError("as planned")

    made = api.run(SUITE, plugins=[TINY], out=tmp_path / "run", methods=[fails, "gradient"], device="cpu")
    assert made.outcome is not None
    assert [(method, reason) for _, method, reason in made.outcome.faults] == [("fails", "ValueError: as planned")] * 3
    assert set(made.results[made.results["method"] == "gradient"]["verdict"]) - {"failed"}


DAMAGED = """
name: damaged
tasks: [digits]
bugs: [reinit]
levels: {reinit: [1, 3]}
methods: [gradient, pattern_net, occlusion, random]
metrics: [spearman, total_variation]
seeds: 2
examples: 4
task_options: {digits: {train: 60, test: 60, epochs: 1, width: 2}}
"""


@pytest.mark.slow
def test_what_damage_leaves_untouched_is_computed_once(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes and patterns below the first changed layer, in one process and in two workers."""
    (tmp_path / "damaged.yaml").write_text(DAMAGED)
    shared: Counter[int] = Counter()
    outputs = Below.outputs

    def counted(below: Below, *arguments: Any) -> Any:
        shared[below.count] += 1
        return outputs(below, *arguments)

    monkeypatch.setattr(Below, "outputs", counted)
    api.run(str(tmp_path / "damaged.yaml"), out=tmp_path / "with", device="cpu")
    assert set(shared) == {14, 18}
    command = [sys.executable, "-m", "attribug", "run", "damaged.yaml", "--workers", "2", "--out", "workers"]
    subprocess.run([*command, "--device", "cpu"], cwd=tmp_path, check=True, capture_output=True)
    shared.clear()
    monkeypatch.setattr(Lab, "below", lambda *_: None)
    api.run(str(tmp_path / "damaged.yaml"), out=tmp_path / "without", device="cpu")
    assert not shared
    assert tables(tmp_path / "with") == tables(tmp_path / "workers") == tables(tmp_path / "without")
    pd.testing.assert_frame_equal(passes(tmp_path / "with"), passes(tmp_path / "without"))


def schedule(tmp_path: Path, **options: Any) -> Schedule:
    """Of a run of whose trainings none is done."""
    plan = api.planned(SUITE, plugins=[TINY], device="cpu")

    class Nothing:
        given = None

        def load_weights(self, key: str) -> None:
            """None."""

    return Schedule(plan, Records(tmp_path), Nothing(), RunOptions(**options))  # type: ignore[arg-type]


def test_jobs_answer_what_is_asked_twice_and_nothing_else(tmp_path: Path) -> None:
    made = schedule(tmp_path)
    plan, askers = made.plan, Counter[tuple[str, str]]()
    for job in made.waiting:
        if isinstance(job, Block):
            contrast = plan.cells[job.cell].contrast
            assert contrast is not None
            askers.update((question(contrast, side), name) for side in contrast.sides for name in job.methods)
    answered = []
    for job, needs in made.waiting.items():
        if isinstance(job, Explain):
            contrast = plan.cells[job.cell].contrast
            assert contrast is not None
            side = contrast.sides[job.side]
            answered += [(question(contrast, side), name) for name in job.methods]
            assert {need.key for need in needs} == {side.model.key}  # type: ignore[union-attr]
    assert sorted(answered) == sorted(asked for asked, times in askers.items() if times > 1)
    assert 0 < len(answered) < len(askers)


def test_nodes_of_a_cluster_share_no_disk(tmp_path: Path) -> None:
    assert not [job for job in schedule(tmp_path, engine="ray").waiting if isinstance(job, Explain)]


def test_classes_and_kept_examples_are_part_of_a_question() -> None:
    from dataclasses import replace

    plan = api.planned(SUITE, plugins=[TINY], device="cpu")
    first, second = (cell.contrast for cell in plan.cells[:2])
    assert first is not None
    assert second is not None
    side = first.controls[2]
    asked = question(first, side)
    assert question(second, side) == asked
    assert question(first, first.controls[1]) != asked
    own, reference = (replace(first, target=target) for target in ("own", "reference"))
    kept = replace(first, keep=side.examples)
    others = [question(own, side), question(reference, side), question(kept, side)]
    assert len({asked, *others}) == 4
    assert question(own, reference.references[0]) == question(reference, reference.references[0])
