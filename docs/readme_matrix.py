"""The matrix that README shows: what `attribug run` prints, made from the reference table of `quick`.

python docs/readme_matrix.py      # writes it into README.md
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from attribug.api import planned
from attribug.reports.references import load_table
from attribug.terminal.matrix import matrix

README = Path(__file__).parent.parent / "README.md"
PLACE = re.compile(r"(<!-- docs/readme_matrix.py -->\n```\n).*?(```\n)", re.DOTALL)


def shown(suite: str = "quick", width: int = 200) -> str:
    """The matrix of a suite's reference, as the terminal prints it."""
    run = SimpleNamespace(plan=planned(suite), results=load_table(suite).results)
    console = Console(width=width, highlight=False, markup=False, color_system=None)
    with console.capture() as captured:
        for task in dict.fromkeys(run.results["task"]):
            console.print(matrix(task, run))  # type: ignore[arg-type]
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def filled(page: str) -> str:
    """README with the matrix of the reference in its place."""
    whole, places = PLACE.subn(lambda found: found[1] + shown() + found[2], page)
    if places != 1:
        raise SystemExit(f"{README.name}: expected one place for the matrix, found {places}")
    return whole


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
