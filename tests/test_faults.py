"""Injected faults: whatever breaks costs its own record, or stops the run in one line; nothing is lost, no number is
ever wrong. Every test counts the faults that really fired; `pytest -rP` shows the counts."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from attribug import api
from attribug.errors import InputError, StorageError, one_line
from attribug.query.query import Query
from attribug.results import figures, plots
from attribug.results.schema import read_results
from attribug.running import runner
from attribug.running.engine import JobFailed
from attribug.running.jobs import Done, Event, Job, Setup
from attribug.running.options import RunOptions
from attribug.running.workbench import Workbench
from attribug.storage import files, folders, models
from attribug.storage.files import write_json
from attribug.storage.folders import cache_folder
from attribug.storage.records import Records
from attribug.storage.tensors import Tensors

PLUGINS = Path(__file__).parent / "plugins"
TINY, SUITE = str(PLUGINS / "tiny.py"), str(PLUGINS / "tiny.yaml")
HOSTILE, PIECES = str(PLUGINS / "hostile.py"), str(PLUGINS / "hostile_pieces.py")
HONEST = ("gradient", "random", "edges", "predictions")
ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO)
REPLACED = "\N{REPLACEMENT CHARACTER}"
INTERRUPTED = "attribug: interrupted; the same command goes on from here"
AT_LEAST = {"calls": 150, "lasting": 12, "kills": 20}
"""How many faults of a kind must have fired."""
TIMEOUT = 8  # seconds of a record; honest ones need a fraction, also on a busy machine
SECONDS_TO_STOP = 5.0
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP)


def tables(run: Path, figures: bool = True) -> dict[str, bytes]:
    """Everything that a run promises to repeat."""
    names = ("results.csv", "scores.parquet", "analysis/*.csv", *(["figures/*"] if figures else []))
    return {str(path.relative_to(run)): path.read_bytes() for name in names for path in sorted(run.glob(name))}


def half_written(folder: Path) -> list[Path]:
    """Hidden files but locks."""
    hidden = [path for path in folder.rglob(".*") if path.is_file()]
    return [path for path in hidden if not path.name.endswith(folders.LOCK)]


# A run in this process


class InProcess:
    """An engine that does jobs at once and in this process, and answers as a worker does."""

    benches: dict[str, Workbench] = {}  # noqa: RUF012 - workers outlive a run that was stopped, for speed

    def __init__(self, setup: Setup, *_: object) -> None:
        key = f"{setup.plan} {setup.out} {setup.cache}"
        self.stopped = False
        self.bench = self.benches.get(key) or self.benches.setdefault(key, Workbench(setup))

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs any more."""

    def submit(self, job: Job, event: Event, timeout: float | None = None) -> Future[Done]:
        answer: Future[Done] = Future()
        if self.stopped:  # others, which would run beside it, get no turn
            return answer
        try:
            answer.set_result(self.bench.do(job, event))
        except StorageError as error:
            self.stopped = True
            answer.set_exception(error)
        except (Exception, SystemExit) as error:
            answer.set_exception(JobFailed(one_line(error)))
        return answer


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are `InProcess`."""
    monkeypatch.setattr(runner, "_engine_for", lambda setup, options, out, needs: InProcess(setup))
    monkeypatch.setattr(InProcess, "benches", {})
    monkeypatch.setattr(models, "SECONDS_TO_WRITE", 0)  # nobody else writes to these caches


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are a few bytes: drawing them would take most of the time. They are written all the same."""
    monkeypatch.setattr(figures, "gallery", lambda picture, **_: picture.write(b"picture" * 100))
    monkeypatch.setattr(plots, "drawings", lambda *_: dict.fromkeys(("effects_a.svg", "curve_b.svg"), lambda: "<svg/>"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(out: Path, *plugins: str, **options: Any) -> api.Run:
    """The tiny suite."""
    return api.run(SUITE, plugins=[TINY, *plugins], out=out, device="cpu", **options)


def stopped_by(out: Path) -> InputError | None:
    """What stops a run, or None where nothing does."""
    try:
        run(out)
    except InputError as error:
        return error
    return None


# Faults of the storage


class Faults:
    """Stands before the calls that store files below a folder, and lets some of them fail."""

    def __init__(self, folder: Path, choose: Callable[[str], int]) -> None:
        """`choose`: the error of a call, by its name and place; 0 for none."""
        self.folder = folder
        self.choose = choose
        self.fired: list[tuple[str, int]] = []

    def meet(self, call: str, path: object, spoil: Callable[[], object] = lambda: None) -> None:
        """Fails where it is this call's turn; what it had half done is then there."""
        place = Path(os.fsdecode(path))  # type: ignore[call-overload]
        if self.folder not in place.parents:
            return
        temporary = re.fullmatch(r"\.(.+?)\.(?:\w{8}|\d+\.[0-9a-f]{8}\.tmp)", place.name)
        name = place.with_name(temporary[1] if temporary else place.name).relative_to(self.folder)
        error = self.choose(f"{call} {name}")
        if error:
            self.fired.append((f"{call} {name}", error))
            choose, self.choose = self.choose, lambda _: 0
            spoil()
            self.choose = choose
            raise OSError(error, os.strerror(error), str(place))

    @contextmanager
    def before(self, patch: pytest.MonkeyPatch) -> Iterator[Faults]:
        """Puts itself before the calls."""
        with patch.context() as patched:
            mkstemp, fsync, replace, unlink, opened = tempfile.mkstemp, os.fsync, os.replace, os.unlink, Path.open
            acquire = folders.FileLock.acquire

            def meet_mkstemp(*args: Any, dir: Any = None, prefix: str = "", **more: Any) -> Any:
                self.meet("mkstemp", Path(dir or tempfile.gettempdir()) / f"{prefix}........".strip("."))
                return mkstemp(*args, dir=dir, prefix=prefix, **more)

            def meet_fsync(file: int) -> None:
                self.meet("fsync", os.readlink(f"/proc/self/fd/{file}"))
                fsync(file)

            def meet_replace(source: Any, target: Any, **more: Any) -> None:
                self.meet("replace", target)
                replace(source, target, **more)

            def meet_unlink(path: Any, **more: Any) -> None:
                self.meet("unlink", path)
                unlink(path, **more)

            def meet_open(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
                if set(mode) & set("wxa+"):
                    self.meet("open", path)
                return opened(path, mode, *args, **more)

            def meet_acquire(lock: Any, *args: Any, **more: Any) -> Any:
                self.meet("lock", lock.lock_file)
                return acquire(lock, *args, **more)

            patched.setattr(tempfile, "mkstemp", meet_mkstemp)
            patched.setattr(os, "fsync", meet_fsync)
            patched.setattr(os, "replace", meet_replace)
            patched.setattr(os, "unlink", meet_unlink)
            patched.setattr(Path, "open", meet_open)
            patched.setattr(folders.FileLock, "acquire", meet_acquire)
            for kind, name in ((Path, "write_bytes"), (Path, "write_text"), (pd.DataFrame, "to_csv"),
                               (pd.DataFrame, "to_parquet")):  # fmt: skip
                patched.setattr(kind, name, self._writing(getattr(kind, name)))
            yield self

    def _writing(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def meet(self_: Any, *args: Any, **more: Any) -> Any:
            path = self_ if isinstance(self_, Path) else args[0]

            def half() -> None:
                write(self_, *args, **more)
                os.truncate(path, path.stat().st_size // 2)

            if isinstance(path, Path):
                self.meet("write", path, half)
            return write(self_, *args, **more)

        return meet


def is_told(error: InputError, folder: Path, found: Sequence[int]) -> bool:
    """Whether an error is one line that names a path below a folder, and one of the reasons."""
    text = str(error)
    return "\n" not in text and str(folder) in text and any(os.strerror(number) in text for number in found)


def expect_whole(folder: Path, expected: dict[str, bytes]) -> None:
    """Whatever a run has left so far is whole: tables are the undisturbed ones, records and models can be read."""
    for name, content in tables(folder / "run", figures=False).items():
        assert content == expected[name], name
    records, models = Records(folder / "run"), Tensors(folder / "cache" / "models")
    for path in (folder / "run" / "records").glob("*.record"):
        assert records.load(path.stem) is not None, path
    for path in models.folder.glob("*.safetensors"):
        assert models.load(path.stem) is not None, path
    assert not list(folder.rglob(files.DAMAGED))


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "quick_pictures")
def test_every_storage_call_fails_once(
    tiny_run: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty cache on, the first call at every place fails, and the run is started again, until none is left."""
    expected, seen = tables(tiny_run, figures=False), set[str]()
    stopped, ridden_out = Counter[str](), 0

    def once(call: str) -> int:
        if call in seen:
            return 0
        seen.add(call)
        return ERRORS[len(seen) % len(ERRORS)]

    while True:
        before = half_written(tmp_path)
        with Faults(tmp_path, once).before(monkeypatch) as faults:
            error = stopped_by(tmp_path / "run")
        ridden_out += len(faults.fired) - (error is not None)
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
    assert stopped.total() >= AT_LEAST["calls"]
    assert {call.split()[0] for call in seen} == {"mkstemp", "write", "open", "fsync", "replace", "lock", "unlink"}
    assert tables(tmp_path / "run", figures=False) == expected
    assert not half_written(tmp_path)
    assert not json.loads((tmp_path / "run" / "run.json").read_text())["failures"]


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "quick_pictures")
def test_storage_that_stays_broken(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the n-th call on every call fails, those that clean up included; then the same run goes on."""
    draw, fired = random.Random(0), 0
    expected = tables(tiny_run, figures=False)
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "first" / "cache"))
    calls: list[str] = []
    with Faults(tmp_path / "first", lambda call: calls.append(call) or 0).before(monkeypatch):  # type: ignore[func-returns-value]
        run(tmp_path / "first" / "run")
    length = len(calls)
    for number in range(AT_LEAST["lasting"]):
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
    assert fired == AT_LEAST["lasting"]
    assert length > AT_LEAST["calls"]


@contextmanager
def small_disk(kilobytes: int) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A disk of a size, and how to mount it anew with other options; needs root."""
    place = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)], check=True)

    def again(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    try:
        yield place, again
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def can_mount() -> bool:
    """Whether this test may mount disks."""
    try:
        with small_disk(64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "cache", "quick_pictures")
def test_a_full_disk(tiny_run: Path, tmp_path: Path) -> None:
    """Where a disk can be mounted, one that fills up at every moment of a run, each time a little later; otherwise, and
    in any case, files that may not grow beyond a size."""
    told = 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = (tiny_run / "scores.parquet").stat().st_size  # it is written at the end of every run
    for size in (100, *(int(share * largest) for share in (0.2, 0.5, 0.7, 0.85, 0.98))):
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
                    kilobytes += 16
                    again(f"size={kilobytes}k")
            assert tables(disk / "run", figures=False) == tables(tiny_run, figures=False)
        assert told > 6 + 5, f"a run needs {kilobytes} kB"
    print(f"faults: {told} full disks")


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "quick_pictures")
@pytest.mark.parametrize("place", ["cache", "run"])
@pytest.mark.parametrize("moment", [
    "mkstemp cache/models", "mkstemp run/records", "mkstemp run/galleries", "mkstemp run/scores",
    "mkstemp run/costs", "open run/results", "mkstemp run/analysis", "mkstemp run/figures", "mkstemp run/run.json",
])  # fmt: skip
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


@pytest.mark.usefixtures("in_process")
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
    from attribug.running.jobs import Train

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


# The command line with workers


def start(folder: Path, *arguments: str, out: str = "run", **environment: str) -> subprocess.Popen[str]:
    """A run of the tiny suite with a cache of its own."""
    command = [sys.executable, "-m", "attribug", "run", SUITE, "--plugin", TINY, "--out", out, "--workers", "2"]
    return subprocess.Popen(
        [*command, *arguments], cwd=folder, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=os.environ | {"ATTRIBUG_CACHE": str(folder / "cache")} | environment,
    )  # fmt: skip


def await_(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Waits until something has happened, while a process runs."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def state(pid: int) -> tuple[str, int]:
    """One letter and the parent's number of a process; Z (a zombie) where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "Z", 0
    return fields[0], int(fields[1])


def workers_of(pid: int) -> list[int]:
    """Worker processes that a process has started and that live."""
    children = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for child in children:
        letter, parent = state(child)
        if parent == pid and letter != "Z":
            with suppress(OSError):
                if b"attribug.running.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def slow_plugin(folder: Path, body: str) -> str:
    """A plugin with a method `slow`."""
    path = folder / "slow.py"
    path.write_text(
        f"from attribug import methods\n\n@methods.register('slow', uses='slow')\ndef slow(query):\n    {body}\n"
    )
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["vanishes", "fills up"])
def test_workers_that_cannot_store_stop_the_run(tiny_run: Path, tmp_path: Path, fault: str) -> None:
    """One line on stderr and exit code 2; the same command goes on."""
    slow = slow_plugin(tmp_path, "import time; time.sleep(1); return query.gradient()")
    records = tmp_path / "run" / "records"
    process = start(tmp_path, "--plugin", slow, "--methods", ",".join((*HONEST, "slow")))
    await_(process, lambda: len(list(records.glob("*.record"))) > 2)
    if fault == "vanishes":
        (tmp_path / "run").rename(tmp_path / "gone")
    else:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
        for worker in workers_of(process.pid):
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (100, 100))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    found = {"vanishes": "No such file or directory", "fills up": "File too large"}[fault]
    path = rf"{re.escape(str(tmp_path / 'run'))}/\S+"
    said = rf"attribug: {path}: cannot be written: {found}; the same command goes on .*"
    assert re.fullmatch(said, err.splitlines()[-1])
    assert "Traceback" not in err
    assert (tmp_path / "run").exists() == (fault != "vanishes")
    assert fault == "vanishes" or (not half_written(tmp_path / "run") and len(list(records.glob("*.record"))) > 2)
    if fault != "vanishes":
        assert start(tmp_path).wait(200) == 0
        assert tables(tmp_path / "run") == tables(tiny_run)


@pytest.mark.slow
def test_a_zoo_of_methods(tiny_run: Path, tmp_path: Path) -> None:
    """All in one run with honest ones: every culprit fails alone and is named, or does no harm."""
    expected = runpy.run_path(str(PLUGINS / "hostile.py"), run_name="zoo")["EXPECTED"]
    process = start(tmp_path, "--plugin", HOSTILE, "--timeout", str(TIMEOUT))
    _, err = process.communicate(timeout=900)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    rows, honest = (read_results(folder / "results.csv") for folder in (tmp_path / "run", tiny_run))
    same_rows(rows, honest)
    scores, undisturbed = (pd.read_parquet(folder / "scores.parquet") for folder in (tmp_path / "run", tiny_run))
    for method in HONEST:
        mine, theirs = (table[table["method"] == method].astype({"method": str}) for table in (scores, undisturbed))
        pd.testing.assert_frame_equal(
            mine.reset_index(drop=True), theirs.reset_index(drop=True), check_exact=True, check_categorical=False
        )
    named = [failure["method"] for failure in json.loads((tmp_path / "run" / "run.json").read_text())["failures"]]
    gradient = honest[honest["method"] == "gradient"].drop(columns="method").reset_index(drop=True)
    for method, wanted in expected.items():
        mine = rows[rows["method"] == method]
        assert len(mine) == len(gradient), method
        verdicts, reasons = set(mine["verdict"]), set(mine["reason"])
        if wanted.startswith("failed: "):
            assert verdicts == {"failed"}, method
            assert all(reason.startswith(wanted.removeprefix("failed: ")) for reason in reasons), (method, reasons)
            assert all(len(reason) < 600 and reason.isprintable() for reason in reasons), method
            assert named.count(method) == 3, f"{method}: once a seed"
        else:
            assert named.count(method) == 0
            assert not verdicts & {"detects", "inverted", "failed"}, (method, verdicts)
        if wanted == "honest":
            pd.testing.assert_frame_equal(mine.drop(columns="method").reset_index(drop=True), gradient)
        if method in {"returns_nan", "returns_some_nan"}:
            assert (mine["undefined"] > 0).all()
    print(f"faults: {len(expected)} methods × 3 seeds: {dict(Counter(w.split(':')[0] for w in expected.values()))}")
    assert len(expected) * 3 > 150


@pytest.mark.parametrize("change", ["mode", "threads", "hook"])
def test_nobody_is_given_passes_of_a_changed_model(change: str) -> None:
    """Whoever asks while the model trains, torch is set otherwise, or all modules are hooked, does not answer for
    others."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 2)).eval()
    inputs = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    query, fresh = (Query(model, inputs, torch.zeros(4, dtype=torch.int64)) for _ in range(2))
    if change == "mode":
        model.train()
        changed = query.gradient()
        model.eval()
    elif change == "threads":
        torch.set_num_threads(threads + 1)
        changed = query.gradient() * 2  # at most last bits differ
        torch.set_num_threads(threads)
    else:
        handle = nn.modules.module.register_module_forward_hook(lambda module, given, outputs: outputs * 2)
        changed = query.gradient()
        handle.remove()
    with query.costing() as costing:
        maps = query.gradient()
    assert costing.cost.backward == 4
    assert not torch.equal(maps, changed)
    assert torch.equal(maps, fresh.gradient())
    before = query._passes.total.backward
    assert torch.equal(query.gradient(), maps)
    assert query._passes.total.backward == before, "the same model's are shared"


def same_rows(rows: pd.DataFrame, honest: pd.DataFrame, methods: Sequence[str] = HONEST) -> None:
    """The rows of honest methods and metrics on an honest bug and task are those of an undisturbed run."""
    place = (rows["task"] == "tiny") & (rows["bug"] == "shaken") & rows["metric"].isin(set(honest["metric"]))
    mine = rows[place & rows["method"].isin(methods)].reset_index(drop=True)
    theirs = honest[honest["method"].isin(methods)].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_metrics_that_break(tiny_run: Path, tmp_path: Path) -> None:
    """They cost their own rows."""
    broken = [f"metric_{name}" for name in
              ("raises", "is_full", "refuses", "of_one", "of_none", "complex", "huge", "nan", "spoils",
               "spoils_outputs", "masks")]  # fmt: skip
    done = run(tmp_path / "run", PIECES, metrics=[*broken, "spearman", "mass_accuracy", "total_variation"],
               bugs=["shaken"], tasks=["tiny"])  # fmt: skip
    same_rows(done.results, read_results(tiny_run / "results.csv"))
    assert not done.complete
    reasons = done.results[done.results["verdict"] == "failed"].groupby("metric")["reason"].agg(set).to_dict()
    starts = {
        "raises": "ValueError: no good",
        "is_full": "OSError: [Errno 28]",
        "refuses": "InputError: not yours",
        "of_one": "MetricFault",
        "of_none": "MetricFault",
        "complex": "MetricFault",
        "huge": "RuntimeError",
    }
    assert set(reasons) == {f"metric_{name}" for name in starts}
    for name, beginning in starts.items():
        assert all(reason.startswith(beginning) for reason in reasons[f"metric_{name}"]), reasons
    undefined = done.results[done.results["metric"] == "metric_nan"]
    assert len(undefined)
    assert (undefined["undefined"] == 1).all()
    assert not {"detects", "inverted"} & set(done.results["verdict"])
    told = " ".join(failure["reason"] for failure in done.facts["failures"])
    assert all(f"metric_{name}" in told for name in starts)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "cache")
def test_bugs_that_break(tiny_run: Path, tmp_path: Path) -> None:
    broken = {
        "raises": "ValueError: no good", "gives_nothing": "TypeError: expected a Contrast", "mixes": "ValueError",
        "is_full": "OSError: [Errno 28]", "stops": "SystemExit", "reshapes": "", "checks_text": "AttributeError",
        "is_undefined": "outputs move: nan, expected ≥ 0.1",
    }  # fmt: skip
    done = run(tmp_path / "run", PIECES, bugs=["shaken", *(f"bug_{name}" for name in broken)], tasks=["tiny"],
               metrics=["spearman", "mass_accuracy", "total_variation"])  # fmt: skip
    same_rows(done.results, read_results(tiny_run / "results.csv"))
    assert not done.complete
    for name, beginning in broken.items():
        rows = done.results[done.results["bug"] == f"bug_{name}"]
        assert len(rows)
        assert set(rows["verdict"]) <= {"not taken" if name == "is_undefined" else "failed"}, rows
        assert all(reason.startswith(beginning) for reason in rows["reason"]), rows["reason"]
        named = [failure for failure in done.facts["failures"] if f" bug_{name} " in failure["cell"]]
        assert bool(named) == (name != "is_undefined")


@pytest.mark.slow
@pytest.mark.usefixtures("in_process", "cache")
def test_tasks_that_break(tiny_run: Path, tmp_path: Path) -> None:
    broken = {
        "is_full": "OSError: [Errno 28]",
        "refuses": "InputError: not yours",
        "raises": "ValueError: no good",
        "of_text": "",
        "of_other_labels": "IndexError",
    }
    undefined = ("of_nan", "diverges")
    done = run(tmp_path / "run", PIECES, tasks=["tiny", *(f"task_{name}" for name in (*broken, *undefined))],
               bugs=["shaken"], metrics=["spearman", "mass_accuracy", "total_variation"])  # fmt: skip
    same_rows(done.results, read_results(tiny_run / "results.csv"))
    assert not done.complete
    for name, beginning in broken.items():
        rows = done.results[done.results["task"] == f"task_{name}"]
        assert len(rows)
        assert set(rows["verdict"]) == {"failed"}
        assert all(reason.startswith(f"training: {beginning}") for reason in rows["reason"]), rows["reason"]
        assert any(f"task_{name} /" in failure["cell"] for failure in done.facts["failures"])
    for name in undefined:
        rows = done.results[done.results["task"] == f"task_{name}"]
        rows = rows[rows["method"].isin(["gradient", "predictions"])]  # the others do not ask the model
        assert len(rows)
        assert set(rows["verdict"]) == {"inconclusive"}
        assert (rows["undefined"] == 1).all()


@pytest.mark.slow
def test_pieces_that_end_their_worker(tiny_run: Path, tmp_path: Path) -> None:
    """A metric, a bug in one seed, and a task: each costs what rests on it."""
    process = start(tmp_path, "--plugin", PIECES, "--tasks", "tiny,ends_when_read", "--bugs", "shaken,ends_the_first",
                    "--metrics", "spearman,mass_accuracy,total_variation,ends_beside_outputs",
                    "--methods", "gradient,predictions")  # fmt: skip
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    rows = read_results(tmp_path / "run" / "results.csv")
    same_rows(rows, read_results(tiny_run / "results.csv"), ["gradient"])
    failed = rows[rows["verdict"] == "failed"]
    assert failed["reason"].str.endswith("its worker ended with code 9").all()
    assert set(failed[failed["task"] == "ends_when_read"]["reason"]) == {"training: its worker ended with code 9"}
    places = {(row.task, row.bug, row.method) for row in failed.itertuples()}
    assert places >= {("tiny", "shaken", "predictions"), ("ends_when_read", "shaken", "gradient")}
    assert ("tiny", "shaken", "gradient") not in places
    failures = json.loads((tmp_path / "run" / "run.json").read_text())["failures"]
    assert sum("ends_the_first" in failure["cell"] and failure["method"] == "gradient" for failure in failures) == 1
    process = start(tmp_path, "--methods", "gradient,predictions")  # without them
    assert process.wait(200) == 0
    same_rows(read_results(tmp_path / "run" / "results.csv"), read_results(tiny_run / "results.csv"),
              ["gradient", "predictions"])  # fmt: skip


@pytest.mark.slow
def test_workers_killed_at_any_moment(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From outside, with any signal, while they start, train, explain or store: the run ends all the same, and what it
    lacks comes with the next one."""
    draw, killed = random.Random(0), Counter[str]()
    endings = Counter[bool]()

    def strike(ended: threading.Event, budget: int) -> None:
        while budget and not ended.wait(draw.random()):
            workers = workers_of(os.getpid())
            if workers:
                victim, number = draw.choice(workers), draw.choice(SIGNALS)
                with suppress(ProcessLookupError):
                    os.kill(victim, number)
                    killed[signal.Signals(number).name] += 1
                    budget -= 1
                    if number == signal.SIGSTOP:
                        time.sleep(0.2)
                        os.kill(victim, signal.SIGKILL)

    while killed.total() < AT_LEAST["kills"]:
        folder = tmp_path / f"try{killed.total()}"
        monkeypatch.setenv("ATTRIBUG_CACHE", str(folder / "cache"))
        budgets = [5, 3, 0]
        for budget in budgets:
            ended = threading.Event()
            killer = threading.Thread(target=strike, args=(ended, budget))
            killer.start()
            try:
                done = run(folder / "run", workers=2)
            finally:
                ended.set()
                killer.join()
            endings[done.complete] += 1
        assert done.complete
        assert tables(folder / "run") == tables(tiny_run)
        assert not half_written(folder / "run")
        shutil.rmtree(folder)
    print(f"faults: {killed.total()} workers killed: {dict(killed)}; runs that ended complete or not: {dict(endings)}")
    assert not workers_of(os.getpid())


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "starting": lambda folder: True,
    "training": lambda folder: any((folder / "cache" / "models").glob(".*.lock")),
    "storing models": lambda folder: any((folder / "cache" / "models").glob("*.safetensors")),
    "explaining": lambda folder: any((folder / "run" / "records").glob("*.record")),
    "writing tables": lambda folder: (folder / "run" / "scores.parquet").exists(),
    "drawing": lambda folder: (folder / "run" / "figures").exists(),
}


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: the run ends in time, says how to resume, and leaves no process behind."""
    workers = workers_of(process.pid)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == INTERRUPTED
    assert "Traceback" not in err
    assert took <= SECONDS_TO_STOP
    deadline = time.monotonic() + SECONDS_TO_STOP
    while any(state(worker)[0] != "Z" for worker in workers):
        assert time.monotonic() < deadline, "a worker has outlived its run"
        time.sleep(0.05)


@pytest.mark.slow
def test_interrupted_at_any_moment(tiny_run: Path, tmp_path: Path) -> None:
    """One run after the other goes on where the last one was stopped."""
    draw = random.Random(0)
    for name, reached in MOMENTS.items():
        process = start(tmp_path)
        if name == "starting":
            time.sleep(1.5)  # before that, it is Python's own start that is interrupted
        await_(process, lambda reached=reached: reached(tmp_path))  # type: ignore[misc]
        time.sleep(draw.random() * 0.2)
        interrupt(process)
    process = start(tmp_path)
    assert process.wait(200) == 0
    assert tables(tmp_path / "run") == tables(tiny_run)
    assert not half_written(tmp_path / "run")
    print(f"faults: {len(MOMENTS)} interrupts, {', '.join(MOMENTS)}")


@pytest.mark.slow
@pytest.mark.parametrize("body", [
    "import os, time; os.fork(); time.sleep(3600)",
    "sum(range(10**15))",
], ids=["sleeps twice", "in C"])  # fmt: skip
def test_interrupted_while_a_method_is_busy(tmp_path: Path, body: str) -> None:
    """Also where it never lets another thread run."""
    process = start(tmp_path, "--plugin", slow_plugin(tmp_path, body), "--methods", "gradient,slow")
    await_(process, lambda: any((tmp_path / "run" / "records").glob("*.record")))
    time.sleep(1)
    interrupt(process)
    assert not (tmp_path / "run" / "results.csv").exists()


@pytest.mark.slow
def test_whatever_swallows_an_interrupt(tmp_path: Path) -> None:
    """Code in the run's own process that goes on after Ctrl-C is ended."""
    (tmp_path / "deaf.py").write_text(
        "import pathlib, time\npathlib.Path('here').touch()\nwhile True:\n"
        "    try: time.sleep(3600)\n    except KeyboardInterrupt: pass\n"
    )
    process = start(tmp_path, "--plugin", "deaf.py")
    await_(process, (tmp_path / "here").exists)
    interrupt(process)


@pytest.mark.slow
def test_two_runs_with_one_cache(tmp_path: Path) -> None:
    """Nothing is trained twice, and the cost of a training is that of the run that did it."""
    arguments = ("--plugin", PIECES, "--tasks", "counted", "--bugs", "shaken", "--methods", ",".join(HONEST),
                 "--metrics", "spearman,mass_accuracy,total_variation")  # fmt: skip
    told = tmp_path / "trainings"
    runs = [start(tmp_path, *arguments, out=out, TRAININGS=str(told)) for out in ("one", "two")]
    await_(runs[0], told.exists)
    assert runs[1].poll() is None, "both run"
    for process in runs:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert len(told.read_text().splitlines()) == 3, "a training a seed"
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    costs = [pd.read_csv(tmp_path / out / "costs.csv").query("kind == 'training'") for out in ("one", "two")]
    pd.testing.assert_frame_equal(costs[0], costs[1])


@pytest.mark.usefixtures("in_process")
def test_a_wait_is_no_cost(tmp_path: Path, cache: Path) -> None:
    """A model that another run has trained meanwhile keeps its cost."""
    run(tmp_path / "run")
    (path, *_) = sorted((cache / "models").glob("*.json"))
    kept = path.read_bytes()
    plan = api.planned(SUITE, plugins=[TINY], device="cpu")
    from attribug.running.jobs import Train

    options = RunOptions(device="cpu", plugins=(TINY,))
    setup = Setup(plan.suite.model_dump(), plan.key, str(tmp_path / "run"), str(cache_folder()), b"", options)
    epochs: list[int] = []
    Workbench(setup).do(Train(path.stem), lambda stage, amount: epochs.append(amount))
    assert path.read_bytes() == kept
    assert sum(epochs) == plan.trainings[path.stem].recipe.epochs
