"""What a run shows in the terminal beside its matrix: the reason of every open verdict, and advice in few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from attribug.results.headline import headline
from attribug.results.schema import read_results
from attribug.terminal.matrix import MOST_REASONS


def unexplained(shown: str, rows: pd.DataFrame) -> list[str]:
    """Open rows of the matrix that no line beginning with `?` explains."""
    lines = [line for line in shown.splitlines() if line.startswith("? ") and ": " in line]
    return [
        f"{row.bug} {row.level} {row.label}"
        for row in rows[rows["verdict"] == "inconclusive"].itertuples()
        if not any(f"{row.bug} {row.level}" in line and row.label in line.replace(",", "") for line in lines)
    ]


@pytest.fixture(scope="module")
def rows(tiny_run: Path) -> pd.DataFrame:
    facts = json.loads((tiny_run / "run.json").read_text())
    return headline(read_results(tiny_run / "results.csv"), facts["suite"], facts["pieces"])


@pytest.fixture(scope="module")
def shown(tiny_run: Path) -> str:
    return (tiny_run.parent / "stdout.txt").read_text()


def test_every_open_verdict_is_explained_below_the_matrix(shown: str, rows: pd.DataFrame) -> None:
    assert (rows["verdict"] == "inconclusive").any()
    assert unexplained(shown, rows) == []
    told = [line for line in shown.splitlines() if line.startswith("? ")]
    assert len(told) - 1 <= MOST_REASONS  # but for the legend, which begins alike


def test_the_check_rejects_a_matrix_without_reasons(shown: str, rows: pd.DataFrame) -> None:
    cut = "\n".join(line for line in shown.splitlines() if not line.startswith("? "))
    assert unexplained(cut, rows)
