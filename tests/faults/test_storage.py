"""Faults of the storage: whatever breaks stops the run in one line; nothing is lost, no number is ever wrong. The tests
count the faults that really fired; `pytest -rP` shows the counts."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from attribug.errors import InputError, StorageError
from attribug.running.jobs import Setup, Train
from attribug.running.options import RunOptions
from attribug.storage import files
from attribug.storage.files import write_json
from doubles.storage import Faults, can_mount, expect_whole, is_told, small_disk
from doubles.tiny import half_written, run, stopped_by, tables

ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO)
AT_LEAST = {"calls": 150, "kinds": 40}
"""How many faults must have stopped a run."""
MOMENTS = ("mkstemp cache/models", "mkstemp run/records", "mkstemp run/galleries", "mkstemp run/scores",
           "mkstemp run/costs", "open run/results", "mkstemp run/analysis", "mkstemp run/figures",
           "mkstemp run/run.json")  # fmt: skip
SOME = {("cache", MOMENTS[0]), ("run", MOMENTS[0]), ("run", MOMENTS[1]), ("cache", MOMENTS[1]), ("run", MOMENTS[-1])}
VANISHING = [
    pytest.param(place, moment, marks=[] if (place, moment) in SOME else pytest.mark.survival)
    for place in ("cache", "run") for moment in MOMENTS
]  # fmt: skip


def kind(call: str) -> str:
    """A storage call and the kind of what it stores."""
    name, place = call.split(maxsplit=1)
    path = Path(place)
    return call if path.parent.name in {"", "run"} else f"{name} {path.parent}/*{path.suffix}"


@pytest.mark.slow
@pytest.mark.usefixtures("lone", "quick_pictures", "cache")
@pytest.mark.parametrize(("as_one", "least"), [
    pytest.param(kind, AT_LEAST["kinds"], id="of a kind"),
    pytest.param(str, AT_LEAST["calls"], id="at a place", marks=pytest.mark.survival),
])  # fmt: skip
def test_every_storage_call_fails_once(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_one: Callable[[str], str], least: int
) -> None:
    """From an empty cache on, the first call of every kind, or at every place, fails, and the run is started again,
    until none is left."""
    expected, seen = tables(tiny_run, figures=False), set[str]()
    stopped, ridden_out, fired = Counter[str](), 0, set[str]()

    def once(call: str) -> int:
        if as_one(call) in seen:
            return 0
        seen.add(as_one(call))
        return ERRORS[len(seen) % len(ERRORS)]

    while True:
        before = half_written(tmp_path)
        with Faults(tmp_path, once).before(monkeypatch) as faults:
            error = stopped_by(tmp_path / "run")
        ridden_out += len(faults.fired) - (error is not None)
        fired |= {call for call, _ in faults.fired}
        if error is not None:
            serious = [fault for fault in faults.fired if not fault[0].startswith("unlink")] or faults.fired[:1]
            assert len(serious) == 1, f"the first one stops the run: {faults.fired}"
            ((call, number),) = serious
            assert is_told(error, tmp_path, [number]), error
            stopped[f"{call.split()[0]} {errno.errorcode[number]}"] += 1
        elif not faults.fired:
            break
        assert set(half_written(tmp_path)) <= set(before) or "unlink" in str(faults.fired)
        expect_whole(tmp_path, expected)
    print(f"faults: {stopped.total()} stopped a run, {ridden_out} cost nothing: {dict(sorted(stopped.items()))}")
    assert stopped.total() >= least
    assert {call.split()[0] for call in seen} == {"mkstemp", "write", "open", "fsync", "replace", "lock", "unlink"}
    assert tables(tmp_path / "run", figures=False) == expected
    left = [str(path.relative_to(tmp_path)) for path in half_written(tmp_path)]
    named = {"unlink " + re.sub(r"/\.(.+)\.\w{8}$", r"/\1", path) for path in left}
    assert named <= fired, "what could not be removed"
    assert as_one is kind or not left, "the next one who writes there sweeps"
    assert not json.loads((tmp_path / "run" / "run.json").read_text())["failures"]


@pytest.mark.slow
@pytest.mark.usefixtures("lone", "quick_pictures")
@pytest.mark.parametrize("times", [2, pytest.param(12, marks=pytest.mark.survival)])
def test_storage_that_stays_broken(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """From the n-th call on every call fails, those that clean up included; then the same run goes on."""
    draw, fired = random.Random(0), 0
    expected = tables(tiny_run, figures=False)
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "first" / "cache"))
    calls: list[str] = []
    with Faults(tmp_path / "first", lambda call: calls.append(call) or 0).before(monkeypatch):  # type: ignore[func-returns-value]
        run(tmp_path / "first" / "run")
    length = len(calls)
    for number in range(times):
        folder, error = tmp_path / str(number), ERRORS[number % len(ERRORS)]
        monkeypatch.setenv("ATTRIBUG_CACHE", str(folder / "cache"))
        left = [draw.randrange(10, length)]

        def lasting(_: str, error: int = error, left: list[int] = left) -> int:
            left[0] -= 1
            return error if left[0] < 0 else 0

        with Faults(folder, lasting).before(monkeypatch) as faults, pytest.raises(InputError) as told:
            run(folder / "run")
        assert is_told(told.value, folder, [error])
        fired += bool(faults.fired)
        expect_whole(folder, expected)
        run(folder / "run")
        assert tables(folder / "run", figures=False) == expected
        assert not half_written(folder)
        shutil.rmtree(folder)
    print(f"faults: {fired} lasting ones, at some of {length} calls")
    assert fired == times
    assert length > AT_LEAST["calls"]


@pytest.mark.slow
@pytest.mark.usefixtures("lone", "cache", "quick_pictures")
@pytest.mark.parametrize(("shares", "step"), [
    ((0.5,), 160), pytest.param((0.2, 0.5, 0.7, 0.85, 0.98), 16, marks=pytest.mark.survival),
], ids=["at some moments", "at every moment"])  # fmt: skip
def test_a_full_disk(tiny_run: Path, tmp_path: Path, shares: Sequence[float], step: int) -> None:
    """Where a disk can be mounted, one that fills up at every moment of a run, each time a little later; otherwise, and
    in any case, files that may not grow beyond a size."""
    told = 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = (tiny_run / "scores.parquet").stat().st_size  # it is written at the end of every run
    for size in (100, *(int(share * largest) for share in shares)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            error = stopped_by(tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error is not None
        assert is_told(error, tmp_path, [errno.EFBIG])
        assert not half_written(tmp_path)
        told += 1
    run(tmp_path / "run")
    assert tables(tmp_path / "run", figures=False) == tables(tiny_run, figures=False)
    if can_mount():
        kilobytes, finished = 40, False
        with small_disk(kilobytes) as (disk, again):
            while not finished:
                error = stopped_by(disk / "run")
                finished = error is None
                if error is not None:
                    assert is_told(error, disk, [errno.ENOSPC])
                    assert not half_written(disk)
                    told += 1
                    kilobytes += step
                    again(f"size={kilobytes}k")
            assert tables(disk / "run", figures=False) == tables(tiny_run, figures=False)
        assert told > len(shares) + (6 if step == 16 else 2), f"a run needs {kilobytes} kB"
    print(f"faults: {told} full disks")


@pytest.mark.slow
@pytest.mark.usefixtures("lone", "quick_pictures")
@pytest.mark.parametrize(("place", "moment"), VANISHING)
def test_a_folder_that_vanishes(
    tiny_run: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, place: str, moment: str
) -> None:
    """The output folder or the cache is deleted at some moment: one line, and no new one with half of the files."""
    gone: list[str] = []
    begun = False

    def vanish(call: str) -> int:
        nonlocal begun
        begun = begun or call.startswith("lock")
        if begun and not gone and call.startswith(moment):
            gone.append(call)
            (tmp_path / place).rename(tmp_path / "gone")
        return 0

    needed = moment.split()[1].startswith(place)  # from here on, the other may be of no more use
    with Faults(tmp_path, vanish).before(monkeypatch):
        if needed or "cache" in moment:
            with pytest.raises(InputError) as error:
                run(tmp_path / "run")
            assert is_told(error.value, tmp_path / place, [errno.ENOENT])
        else:
            with suppress(InputError):
                run(tmp_path / "run")
    assert gone
    assert not (tmp_path / place).exists()
    run(tmp_path / "run")
    assert tables(tmp_path / "run", figures=False) == tables(tiny_run, figures=False)


@pytest.mark.usefixtures("lone")
def test_a_read_only_folder(tmp_path: Path, cache: Path) -> None:
    """From the start: refused before anything is computed."""
    if os.geteuid():
        (tmp_path / "run").mkdir(mode=0o500)
        with pytest.raises(InputError) as error:
            run(tmp_path / "run")
        assert is_told(error.value, tmp_path / "run", [errno.EACCES])
        return
    with small_disk(64) as (disk, again):
        again("ro")
        with pytest.raises(InputError) as error:
            run(disk / "run")
        assert is_told(error.value, disk / "run", [errno.EROFS])


def test_other_files_than_a_runs(tmp_path: Path, inside: Callable[..., Any], tiny_run: Path) -> None:
    """A report whose place cannot be written is one line too."""
    (tmp_path / "file").write_text("")
    answer = inside("report", str(tiny_run), "--output", "file/page.html")
    assert answer.returncode == 2
    found = "(File exists|Not a directory)"
    assert re.fullmatch(rf"attribug: file/page.html: cannot be written: {found}; .*\n", answer.stderr)


def test_a_node_of_a_cluster_that_cannot_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says so in the kind of answer that stops the run."""
    ray_engine = pytest.importorskip("attribug.running.ray_engine")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    setup = Setup({}, "plan", str(tmp_path), str(tmp_path), b"", RunOptions(device="cpu"))
    kind, content, *_ = ray_engine.perform(setup, Train("key"), None, [])
    assert kind == "storage"
    assert str(StorageError(*content)).startswith(f"{tmp_path / 'gone'}: cannot be written: No such file or directory")
    engine = object.__new__(ray_engine.RayEngine)
    with pytest.raises(StorageError, match="cannot be written"):
        engine._keep((kind, content, [], {}), lambda stage, amount: None)


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone/file: cannot be written: No such file or directory; the same"):
        write_json(tmp_path / "gone" / "file", {})
    with pytest.raises(StorageError, match="gone/deeper: cannot be written: No such file or directory"):
        files.make_folder(tmp_path / "gone" / "deeper")
    assert not (tmp_path / "gone").exists()
