"""The page docs/architectures.md: a table a group, networks down, methods that agree throughout it side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from architectures import families, forms, layers, precisions, rectifiers, scripts, shapes
from architectures.comparison import Cell, cells, unconditional
from architectures.specimens import TOLERANCE, Group
from attribug import methods

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
COMMAND = "cd tests && python -m architectures"
GROUPS: tuple[Group, ...] = (
    families.TORCHVISION, families.TIMM, layers.GROUP, forms.GROUP, rectifiers.GROUP, scripts.GROUP, precisions.GROUP,
    shapes.GROUP,
)  # fmt: skip
FLOATS = [*TOLERANCE.values()]
INTRODUCTION = f"""# Which method explains which network

People write the same network in many ways, and a method that looks at the wrong place returns a wrong map without a
word. So every method is tried on many networks, and its maps are compared with those of the *truth*: the same function
in a plain form that every method is known to explain rightly, with the same few samples and the same random draws.

● the map is that of the truth · a number: the method declines, for the reason below the table · – there is a map, and
no truth to compare it with. No cell is wrong: a test fails when one is, or when this page says anything else than what
happens.

A map is that of the truth when the norm of their difference, over the norm of the truth, is at most {FLOATS[0]:g} in
float64, {FLOATS[1]:g} in float32, {FLOATS[2]:g} in float16 and {FLOATS[3]:g} in bfloat16, for every input; for whole
architectures, {families.TOLERANCE:g}. Networks are small, their weights random, and float64 where nothing else is said.
Methods that share a column do the same on every network of that table.

This page is written by `{COMMAND}`.
"""
SIGNS = {"right": "●", "no truth": "–", "wrong": "**WRONG**"}


def page() -> str:
    """All of it."""
    return "\n".join([INTRODUCTION, *map(section, GROUPS)])


def section(group: Group) -> str:
    """A group's table, and its reasons."""
    rows = {specimen.name: cells(specimen) for specimen in group.specimens if not specimen.closed}
    reasons = sorted({cell.text for row in rows.values() for cell in row.values() if cell.kind == "refused"})
    signs = {reason: str(number) for number, reason in enumerate(reasons, start=1)}
    columns = [*alike([*rows.values()])]
    lines = [f"| network | {' | '.join('<br>'.join(f'`{name}`' for name in names) for names in columns)} |"]
    lines += ["|---|" + "---|" * len(columns)]
    for network, row in rows.items():
        shown = [signs.get(cell.text) or SIGNS[cell.kind] for cell in (row[names[0]] for names in columns)]
        lines.append(f"| {network} | {' | '.join(shown)} |")
    legend = [f"{number}. {reason}" for reason, number in signs.items()]
    return "\n".join([f"## {group.title}", "", group.introduction, "", *lines, "", *legend, ""])


def alike(rows: list[dict[str, Cell]]) -> Iterator[list[str]]:
    """Methods that agree in all rows, those with most names first."""
    same: dict[tuple[Cell, ...], list[str]] = {}
    for name in methods.names():
        same.setdefault(tuple(Cell(row[name].kind, row[name].text) for row in rows), []).append(name)
    yield from sorted(same.values(), key=lambda names: (-len(names), names))


def wrong(group: Group) -> list[str]:
    """Every wrong cell of a group, a line each."""
    found = []
    for specimen in group.specimens:
        texts: dict[str, list[str]] = {}
        for name, cell in cells(specimen).items():
            if cell.kind == "wrong":
                texts.setdefault(cell.text, []).append(name)
        found += [f"{specimen.name}: {text}: {', '.join(names)}" for text, names in texts.items()]
    return found


def declined(group: Group) -> list[str]:
    """Where methods decline that ask nothing of a network's layers."""
    rows = {specimen.name: cells(specimen) for specimen in group.specimens if not specimen.closed}
    told = [(network, name, row[name]) for network, row in rows.items() for name in unconditional()]
    return [f"{network}: {name}: {cell.text}" for network, name, cell in told if cell.kind == "refused"]
