"""Measures whole runs: `python tests/benchmarks/runs.py memory | estimates SUITE…`.

`memory`: largest resident sizes of the process that plans and makes tables, and of a worker, as images, methods and
models grow. `estimates`: what a dry run says, over what the run then takes; first with nothing cached, then with
trained models; what the run takes beside its jobs, and its second call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from attribug.running.resources import default_workers

PLUGINS = Path(__file__).parent.parent / "plugins"
MODELS = Path(__file__).parent.parent.parent / "results" / "reference" / "smoke"
ONE = """
import json, resource, sys
import pandas
from attribug import api
run = api.run(**json.loads(sys.argv[1]))
worker = pandas.read_csv(run.folder / "costs.csv")["peak_megabytes"].max()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, worker)
"""
TINY = {"name": str(PLUGINS / "tiny.yaml"), "plugins": [str(PLUGINS / "tiny.py")]}
DIGITS = {"name": "smoke", "bugs": ["reinit"], "models": str(MODELS)}
CHUNK = 32


def memory() -> None:
    """Ratios to the first line of a block; an empty run folder each time."""
    many = {"task_options.tiny": {"test": 1000}, "chunk": CHUNK}
    few = ["gradient", "random"]
    cases = {
        "digits, 32 images, 2 methods": DIGITS | {"examples": 32, "methods": few, "changes": {"chunk": CHUNK}},
        "digits, 1,000 images, 2 methods": DIGITS | {"examples": 1000, "methods": few, "changes": {"chunk": CHUNK}},
        "digits, 1,000 images, 6 methods": DIGITS | {"examples": 1000, "changes": {"chunk": CHUNK}},
        "tiny, 32 images, 3 models": TINY | {"examples": 32, "changes": many},
        "tiny, 1,000 images, 3 models": TINY | {"examples": 1000, "changes": many},
        "tiny, 1,000 images, 9 models": TINY | {"examples": 1000, "seeds": 9, "changes": many},
    }
    first: list[float] = []
    for name, arguments in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            asked = arguments | {"out": f"{folder}/run", "workers": 1}
            environment = os.environ | {"ATTRIBUG_CACHE": f"{folder}/cache"}
            answer = subprocess.run([sys.executable, "-c", ONE, json.dumps(asked)], env=environment,
                                    stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
            sizes = [float(text) for text in answer.stdout.split()[-2:]]
            first = sizes if "32 images" in name else first
            told = ", ".join(f"{what} {size:.0f} MB ({size / base:.2f}×)"
                             for what, size, base in zip(("tables", "worker"), sizes, first, strict=True))  # fmt: skip
            print(f"{name}: {told}", flush=True)


def command(*arguments: str, folder: Path) -> tuple[str, float]:
    """What a command prints, and its seconds."""
    started = time.perf_counter()
    environment = os.environ | {"ATTRIBUG_CACHE": str(folder / "cache")}
    answer = subprocess.run([sys.executable, "-m", "attribug", *arguments], cwd=folder, env=environment, check=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    return answer.stdout, time.perf_counter() - started


def size(folder: Path) -> float:
    """Megabytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def estimates(suites: list[str]) -> None:
    """What is estimated, what is found, and the ratio."""
    for suite in suites:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for state in ("cold", "with models"):
                told, seconds = command("run", suite, "--dry-run", folder=folder)
                wall, unit, gigabytes, run = re.search(  # type: ignore[union-attr]
                    r"here: ([\d.]+) (s|minutes|hours) with.*?memory: ([\d.]+) GB.*?disk: (\d+) MB", told, re.DOTALL
                ).groups()
                expected = float(wall) * {"s": 1, "minutes": 60, "hours": 3600}[unit]
                _, found = command("run", suite, folder=folder)
                peak = pd.read_csv(folder / "runs" / suite / "costs.csv")["peak_megabytes"].max() / 1000
                disk = size(folder / "runs" / suite)
                print(
                    f"{suite}, {state}: time {expected:.0f} s, found {found:.0f} ({expected / found:.2f}×); memory "
                    f"{gigabytes} GB, found {peak:.2f} ({float(gigabytes) / peak:.2f}×); disk {run} MB, found "
                    f"{disk:.1f} ({float(run) / disk:.2f}×); the dry run took {seconds:.0f} s", flush=True,
                )  # fmt: skip
                facts = json.loads((folder / "runs" / suite / "run.json").read_text())["seconds"]
                jobs = sum(seconds for stage, seconds in facts.items() if stage != "wall") / default_workers()
                around, beside = found - facts["wall"], facts["wall"] - jobs
                _, again = command("run", suite, folder=folder)
                print(f"    jobs {jobs / found:.1%}, starting, waiting and scheduling {beside / found:.1%}, planning, "
                      f"tables and figures {around / found:.1%}; second call {again:.1f} s", flush=True)  # fmt: skip
                shutil.rmtree(folder / "runs")


if __name__ == "__main__":
    kind, *names = sys.argv[1:]
    {"memory": lambda names: memory(), "estimates": estimates}[kind](names)
