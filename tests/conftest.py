"""Fixtures shared by all tests."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from attribug.results.html_page import PageContents

PLUGINS = Path(__file__).parent / "plugins"
SMOKE_MODELS = Path(__file__).parent.parent / "results" / "reference" / "smoke"
Command = Callable[..., "subprocess.CompletedProcess[str]"]
HOSTILE = (
    "<script>document.title='owned'</script>", "</script><b>bold</b>", '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)", "{{ 7 * 7 }}", "$x_$ & $\\frac{1}{0}$", "\N{RIGHT-TO-LEFT OVERRIDE}abc", "מה זה",
    "漢字🙂", "a_very_long_name_" * 20,
)  # fmt: skip
"""Names that break pages which do not expect them."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell: its children ignore it as well
    signal.signal(signal.SIGINT, signal.default_int_handler)


for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # tests run beside each other
    os.environ[_name] = "1"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process a core; tests of one file run in this one, which is quicker."""
    one_file = len(config.args) == 1 and config.args[0].partition("::")[0].endswith(".py")
    return 0 if one_file else len(os.sched_getaffinity(0))


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _made_once(folder: Path) -> Iterator[bool]:
    """Whether a shared folder is still to be made; the other processes wait until it is."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(session_folder: Path) -> None:
    """No test reads or fills the user's cache; theirs has the models of the smoke suite's reference already."""
    cache = session_folder / "cache"
    with _made_once(cache) as missing:
        if missing:
            shutil.copytree(SMOKE_MODELS, cache / "models")
    os.environ["ATTRIBUG_CACHE"] = str(cache)


@pytest.fixture(autouse=True)
def _keys_stay() -> Iterator[None]:
    """No test leaves other content keys behind: what another one stores would no longer be found."""
    from attribug import artefacts, keys
    from attribug.contracts.data import DATA_LIBRARIES

    def told() -> list[object]:
        return [*(artefacts.code(kind) for kind in artefacts.CODE), keys.versions("torch", *DATA_LIBRARIES)]

    before = told()
    yield
    assert told() == before, "content keys are others than before this test"


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process, which is quicker: for input that is refused before anything starts."""
    from attribug.__main__ import main

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["attribug", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(stopped.value.code or 0), out, err)

    return command


@pytest.fixture
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry runs inside this process tell what there is to do, and not what it would take."""
    from attribug.running import dry_run
    from doubles.served import no_estimate

    monkeypatch.setattr(dry_run, "_estimated", no_estimate)


@pytest.fixture
def in_process() -> Iterator[None]:
    """Runs of this process have no workers: they do everything in it."""
    from doubles.engine import used

    with used():
        yield


@pytest.fixture(scope="session")
def tiny_run(session_folder: Path) -> Path:
    """The folder of a finished run of the tiny suite with one worker: read it, leave it as it is."""
    folder = session_folder / "tiny"
    command = [sys.executable, "-m", "attribug", "run", str(PLUGINS / "tiny.yaml"), "--workers", "1", "--out", "run"]
    with _made_once(folder) as missing:
        if missing:
            folder.mkdir(exist_ok=True)
            answer = subprocess.run(
                [*command, "--plugin", str(PLUGINS / "tiny.py")], cwd=folder, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            (folder / "stdout.txt").write_text(answer.stdout)
            assert answer.returncode == 0, answer.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def shared_run(session_folder: Path) -> Callable[..., Path]:
    """`shared_run(name, *arguments)`: the folder of a run that all processes of this session share, made once."""
    from doubles.served import started

    def made(name: str, *arguments: str) -> Path:
        folder = session_folder / name
        with _made_once(folder) as missing:
            if missing:
                told = started(["run", *arguments, "--out", str(folder)], session_folder).ended()
                assert told.returncode == 0, told.stderr + told.stdout
        return folder

    return made


@pytest.fixture(scope="session")
def smoke_models() -> Path:
    """The trained models that come with the smoke suite's reference."""
    return SMOKE_MODELS


@pytest.fixture(scope="session")
def smoke_run(shared_run: Callable[..., Path], smoke_models: Path) -> Path:
    """The folder of a finished run of the smoke suite, of its reference's models: read it, leave it as it is."""
    return shared_run("smoke", "smoke", "--models", str(smoke_models))


@pytest.fixture
def attribug(tmp_path: Path) -> Command:
    """Runs the command line in an empty directory, with the tiny plugin where `tiny=True`.

    In a process of its own that does all the work itself; with `workers=True` it starts those, with `start` it is what
    users type: the script or `python -m`. With `calibrated=False` dry runs tell nothing of time and memory.
    """
    from doubles.served import started

    def command(
        *arguments: str,
        tiny: bool = False,
        start: str = "",
        workers: bool = False,
        calibrated: bool = True,
        environment: dict[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        extra = ["--plugin", str(PLUGINS / "tiny.py")] if tiny else []
        typed, around = [*map(str, arguments), *extra], os.environ | (environment or {})
        if not start:
            served = started(typed, tmp_path, environment=around, workers=workers, calibrated=calibrated)
            return served.ended()
        script = str(Path(sys.executable).with_name("attribug"))
        starts = {"script": [script], "module": [sys.executable, "-m", "attribug"]}
        return subprocess.run(
            [*starts[start], *typed], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False, env=around
        )

    return command


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    """Names that break pages which do not expect them."""
    return HOSTILE


@pytest.fixture(scope="session")
def made_run() -> "Callable[..., PageContents]":
    """Builds what a page tells, from names alone: see `_made_run`."""
    return _made_run


NULL = ("random", "edges")


def _made_run(
    methods: Sequence[str] = ("gradient", "lime", "random", "edges", "predictions"),
    bugs: Mapping[str, Sequence[str]] = {"reinit": ("1", "3", "all"), "ood": ("textures",)},
    tasks: Sequence[str] = ("digits",),
    pixels: int = 8,
) -> "PageContents":
    """A run with every section: all verdicts that have numbers, checks, analysis, costs, galleries."""
    from attribug.results.html_page import PageContents

    generator = np.random.default_rng(0)
    places = [(task, bug, level) for task in tasks for bug, levels in bugs.items() for level in levels]
    measured = {"predictions": ["total_variation"]}
    rows = [
        _made_row(generator, place, name, metric)
        for place, name in product(places, methods)
        for metric in measured.get(name, ["spearman", "mass_accuracy"])
    ]
    rows += [_made_row(generator, places[0], "predictions", "background_swap")] if "predictions" in methods else []
    results = pd.DataFrame(rows)
    main = results[results["metric"].isin(["spearman", "total_variation"])]
    keys = ["task", "bug", "level", "control", "method", "metric", "post"]
    added = main[main["method"] != "predictions"][[*keys, "effect", "ci_low", "ci_high"]].assign(
        yardstick="total_variation", added=0.1, adds="undecided"
    )
    ranking = pd.DataFrame({
        "method": methods, "cells": len(places), "missing": 0, "mean_effect": 0.7, "ci_low": 0.6, "ci_high": 0.8,
        "rank_low": 1.0, "rank_high": float(len(methods)), "reason": "",
    })  # fmt: skip
    numbers = {"seconds": 2.0, "scoring_seconds": 1.0, "forward": 640.0, "backward": 320.0, "peak_megabytes": 900.0,
               "images": 320.0}  # fmt: skip
    records = [{"kind": "record", "task": task, "bug": bug, "level": level, "seed": 0, "method": name, "key": "k",
                **numbers} for (task, bug, level), name in product(places, methods)]  # fmt: skip
    costs = pd.DataFrame([{**dict.fromkeys(records[0], ""), "kind": "training", "seed": 0, **numbers}, *records])
    roles = ("reference", "control", "contaminated")
    maps = {
        name: {"inputs": generator.random((2, 3, pixels, pixels))}
        | {role: generator.normal(size=(2, pixels, pixels)) for role in roles}
        for name in methods
        if name != "predictions"
    }
    facts = _made_facts(methods, bugs, tasks, places)
    analysis = {"added": added, "ranking": ranking, "power": _made_power(main)}
    return PageContents(results, facts, analysis, costs, dict.fromkeys(places, maps))


def _made_power(main: pd.DataFrame) -> pd.DataFrame:
    """What would decide open verdicts: each way in which that is told, in turn."""
    from attribug.results import power

    opened = main[main["verdict"] == "inconclusive"].assign(se_models=0.1, se_images=0.1)
    told = [("detects", 7.0, ""), ("blind", np.nan, power.FAR), ("inverted", np.nan, power.FEW_IMAGES),
            ("", np.nan, "no headroom")]  # fmt: skip
    rows = [told[number % len(told)] for number in range(len(opened))]
    answers = pd.DataFrame(rows, columns=["toward", "models", "reason"], index=opened.index)
    return opened.drop(columns="reason").join(answers)[list(power.COLUMNS)]


def _made_row(generator: np.random.Generator, place: tuple[str, str, str], name: str, metric: str) -> dict[str, Any]:
    """A row of results; a null method is blind, the others get any verdict that has numbers."""
    effect = 0.5 if name in NULL else float(generator.random())
    verdict = "detects" if effect > 0.7 else "inverted" if effect < 0.3 else "inconclusive"
    post = {"spearman": "sum", "mass_accuracy": "abs_sum"}.get(metric, "none")
    low, high = max(effect - 0.1, 0), min(effect + 0.1, 1)
    return {
        "suite": "made", "task": place[0], "bug": place[1], "level": place[2], "control": "clean", "method": name,
        "metric": metric, "post": post, "seeds": 3, "n": 32, "undefined": 0.0, "value": 0.4, "sem": 0.01, "benign": 0.8,
        "floor": 0.1, "effect": effect, "ci_low": low, "ci_high": high,
        "verdict": "blind" if effect == 0.5 else verdict,
        "reason": "true by construction" if metric == "background_swap" and verdict == "detects" else "",
    }  # fmt: skip


def _made_role(name: str) -> dict[str, Any]:
    """What run.json would tell of a method's role."""
    bare = name == "predictions"
    return {"output": "probabilities" if bare else "attributions", "explains": name not in {*NULL, "predictions"},
            "bare": bare, "headline": "total_variation@none" if bare else ""}  # fmt: skip


def _made_facts(
    methods: Sequence[str], bugs: Mapping[str, Any], tasks: Sequence[str], places: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    """What run.json would tell."""
    bug = {"summary": "Breaks `level` layers.", "paper": "Nobody 2020", "primary": "spearman@sum", "control": "clean",
           "stage": "model", "graded": True, "seen_in_predictions": True, "target": "label", "truth": None}  # fmt: skip
    metric = {"summary": "A number.", "paper": "", "kind": "similarity", "visible": 0.1, "bounds": [-1, 1],
              "reads": "attributions", "asks_directly": False, "reproduction": False}  # fmt: skip
    asked = {"kind": "response", "reads": "probabilities", "asks_directly": True}
    checks = [{"task": task, "bug": name, "level": level, "seed": seed, "check": "outputs move", "figure": 0.5,
               "expected": "≥ 0.1", "holds": True} for task, name, level in places for seed in range(3)]  # fmt: skip
    described = {"summary": "What it does.", "paper": "Somebody 2019"}
    return {
        "schema": 1, "written": "2026-01-02T03:04:05+00:00", "plan": "0" * 32, "device": "cpu", "revision": None,
        "suite": {"name": "made", "tasks": list(tasks), "bugs": list(bugs), "methods": list(methods), "seeds": 3},
        "machine": {"system": "Linux"}, "versions": {"attribug": "0.1.0", "torch": "2.9"}, "seconds": {"wall": 60.0},
        "checks": checks, "failures": [], "constant_maps": {}, "nonfinite_maps": {}, "imbalance": {},
        "halved_passes": {}, "undrawn": {}, "unanalysed": "",
        "pieces": {
            "bugs": dict.fromkeys(bugs, bug), "methods": {name: described | _made_role(name) for name in methods},
            "metrics": {"spearman": metric, "mass_accuracy": metric, "background_swap": metric | asked,
                        "total_variation": metric | {"reads": "probabilities"}},
            "tasks": dict.fromkeys(tasks, described | {"source": "made"}),
        },
    }  # fmt: skip
