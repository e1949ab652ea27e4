"""Alignment in the terminal: what is printed fits, and says what is open."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pandas as pd
import pytest
from rich.console import Console

from attribug.results import alignment
from attribug.terminal.aligned import tables
from doubles.aligned import accuracy, lacking, scores, study, together

REGIONS = ("eyes", "mouth", "hair", "nose", "ears", "brows", "background")


def printed(table: pd.DataFrame, methods: Sequence[str] = ()) -> str:
    console = Console(width=100, file=io.StringIO(), markup=False, highlight=False)
    for each in tables(table, methods):
        console.print(each)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def words(lines: Sequence[str]) -> str:
    """Text in one line, for captions are as wide as their table."""
    return " ".join(" ".join(lines).split())


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return alignment.table(*study())


def test_a_panel_fits_into_a_hundred_columns(table: pd.DataFrame) -> None:
    text = printed(table)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    titles = [line.split(":")[1].split(",")[0].strip() for line in text.splitlines() if line.startswith("alignment:")]
    assert titles == ["mnist_block", "models"]


def test_cells_tell_values_and_what_is_not_above_random(table: pd.DataFrame) -> None:
    row = table.query("model == 'spurious' and mask == 'digit' and method == 'grad_cam' and metric == 'iou'").iloc[0]
    assert row["above_random"] == "open"
    lines = printed(table, ["grad_cam"]).splitlines()
    (block,) = [number for number, line in enumerate(lines) if line.strip().startswith("spurious  ")]
    digit = lines[block + 1].split()
    assert digit[0] == "digit"
    assert digit[-1] == "·.09", "IoU of the chosen method, for the same model"
    assert "·" not in lines[block], "the block is above random"
    assert "· not above a random map (column random) for certain" in words(lines)


def test_masks_are_ranked_in_words(table: pd.DataFrame) -> None:
    text = printed(table)
    assert "  spurious on decorrelated: 1 block, 2 digit" in text
    assert "squeezenet on photographs: 1" not in text, "one mask has no order"


def test_what_could_not_be_measured_is_said(table: pd.DataFrame) -> None:
    assert "Not measured: squeezenet on photographs, lrp_epsilon: no rule for this layer" in printed(table)
    alone = alignment.table(scores([[0.1]]).head(0), accuracy(), lacking(("regions", "m", "faces", "", "no faces")))
    text = printed(alone)
    assert "alignment: regions" in text
    assert words([text]).endswith("m faces no faces")


def test_methods_can_be_chosen_and_others_are_counted(table: pd.DataFrame) -> None:
    text = printed(table, ["grad_cam", "lime"])
    assert "cam" in text
    assert "integrated" not in text
    assert "2 further methods" in text
    many = together(*(scores([[0.1, 0.2]], method=f"m{number}") for number in range(7)))
    assert "3 further methods" in words([printed(alignment.table(many, accuracy(), lacking()))])


def test_seven_regions_have_a_row_each() -> None:
    parts = together(*(scores([[0.1 * number, 0.2, 0.3]], mask=name) for number, name in enumerate(REGIONS)))
    text = printed(alignment.table(parts, accuracy(), lacking()))
    assert all(f" {name} " in text for name in REGIONS)
    assert "holds for these models only" in words(text.splitlines())
