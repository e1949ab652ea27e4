"""The papers that pieces cite: title and address of each citation."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("literature.csv")
CITATION = re.compile(r"([A-Z][^\d;:]*?),? \(?(\d{4})\)?")
"""Somebody, and a year."""


@dataclass(frozen=True)
class Work:
    """A paper that is cited."""

    citation: str
    """As pieces write it: authors and year."""
    title: str
    link: str
    """Empty where it has no address."""


@cache
def works() -> dict[str, Work]:
    """All of literature.csv, by citation."""
    with FILE.open(encoding="utf-8", newline="") as lines:
        return {row["citation"]: Work(**row) for row in csv.DictReader(lines)}


def cited(paper: str) -> Iterator[tuple[str, Work | None]]:
    """What a piece's `paper` says, in parts whose concatenation it is; beside each the work that it cites, or None."""
    end = 0
    for found in CITATION.finditer(paper):
        work = works().get(f"{found[1]} {found[2]}")
        if work is not None:
            yield paper[end : found.start()], None
            yield found[0], work
            end = found.end()
    yield paper[end:], None
