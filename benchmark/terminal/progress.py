"""Progress bars, or a few lines where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

STEPS = 10  # of a stage: how often a log without a terminal gets a line
LONGEST = 60.0  # seconds without a line, as long as anything gets done


class Bars:
    """Progress of training, explaining and scoring on stderr: bars with time left, or a few lines where there is no
    terminal. A `Reporter`; also a context."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self._console,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._counts: dict[str, list[int]] = {}
        self._lock = threading.Lock()
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def note(self, line: str) -> None:
        """Prints a line, where the table will stand."""
        print(line, flush=True)

    def begin(self, totals: Mapping[str, int]) -> None:
        """Shows a bar for every stage that has work."""
        self._started = self._told = time.monotonic()
        for stage, total in totals.items():
            if total:
                self._counts[stage] = [0, total]
                if self._console.is_terminal:
                    self._tasks[stage] = self._progress.add_task(stage, total=total)
        if self._tasks:
            self._progress.start()

    def advance(self, stage: str, amount: int) -> None:
        """Moves a bar; called from several threads."""
        with self._lock:
            if stage not in self._counts:
                return
            done, total = self._counts[stage]
            self._counts[stage][0] = done + amount
            if stage in self._tasks:
                self._progress.advance(self._tasks[stage], amount)
            elif done * STEPS // total < (done + amount) * STEPS // total or time.monotonic() - self._told > LONGEST:
                self._told = time.monotonic()
                share, since = min(100, 100 * (done + amount) // total), int(self._told - self._started)
                line = f"attribug: {stage} {share} %, after {since // 60}:{since % 60:02}"
                print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Stops the bars, if there are any; another run may begin."""
        if self._tasks:
            self._progress.stop()
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        self._counts.clear()
