"""The tables of methods, metrics and bugs in the docs: each with its sentence and its paper, from the registries.

python docs/pieces.py      # writes them into the pages
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from attribug.plugins import all_registries
from attribug.results.literature import cited

DOCS = Path(__file__).parent
PAGES = {"methods.md": "method", "metrics.md": "metric", "bugs.md": "bug"}
PLACE = re.compile(r"(<!-- docs/pieces.py -->\n).*?(?=\n(?!\|)|\Z)", re.DOTALL)


def table(kind: str) -> str:
    """A line a piece: name, the first sentence of its docstring, its paper with a link."""
    registry = all_registries()[kind]
    lines = [f"| {kind} | what it does | from |", "|---|---|---|"]
    for name in registry.declared():
        piece = registry.get(name)
        sentence = (inspect.getdoc(piece.function) or "").partition("\n")[0]
        told = "".join(linked(part, work) for part, work in cited(piece.paper))
        lines.append(f'| <a id="{name}"></a>`{name}` | {sentence} | {told} |')
    return "\n".join(lines)


def linked(part: str, work) -> str:
    """A part of what a piece says of its paper, with a link where there is one."""
    part = part.replace("|", "\\|")
    return part if work is None or not work.link else f"[{part}]({work.link})"


def filled(page: str, kind: str) -> str:
    """A page with its table in its place."""
    whole, places = PLACE.subn(lambda found: found[1] + table(kind), page)
    if places != 1:
        raise SystemExit(f"{kind}: expected one place for the table, found {places}")
    return whole


if __name__ == "__main__":
    for page, kind in PAGES.items():
        (DOCS / page).write_text(filled((DOCS / page).read_text(), kind))
