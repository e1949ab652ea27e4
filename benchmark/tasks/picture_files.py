"""Files below a folder that are named as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def files(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[tuple[str, ...]]:
    """Of each picture below a folder the parts of its path, sorted; what is hidden stays aside."""
    found: list[tuple[str, ...]] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder).parts
        shown = (name for name in names if not name.startswith("."))
        found += [(*below, name) for name in shown if os.path.splitext(name)[1].lower() in suffixes]
    return sorted(found)


def written(parts: Sequence[str]) -> str:
    """The path below the folder, as text that can be written."""
    return "/".join(parts).encode(errors="replace").decode()
