"""The page docs/architectures.md."""

from __future__ import annotations

from pathlib import Path

from architectures import families, forms, layers, precisions, rectifiers, scripts, shapes
from architectures.comparison import Cell, cells
from architectures.specimens import Group

GROUPS: tuple[Group, ...] = (
    layers.GROUP, forms.GROUP, rectifiers.GROUP, scripts.GROUP, precisions.GROUP, shapes.GROUP,
    families.TORCHVISION, families.TIMM,
)  # fmt: skip


def wrong(group: Group) -> list[str]:
    """Every wrong cell of a group, a line each."""
    found = []
    for specimen in group.specimens:
        told = cells(specimen)
        found += [f"{specimen.name} × {name}: {cell.text}" for name, cell in told.items() if cell.kind == "wrong"]
    return found
