"""Writes docs/architectures.md, unless a cell is wrong: then it lists those."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from architectures.page import GROUPS, PAGE, page, wrong


def main() -> None:
    """Writes the page; ends with a message where a library is missing, or a map is wrong."""
    missing = sorted({group.library for group in GROUPS if group.library and find_spec(group.library) is None})
    if missing:
        sys.exit(f"the page shows networks of {', '.join(missing)}: pip install {' '.join(missing)}")
    faults = [f"{group.title}: {line}" for group in GROUPS for line in wrong(group)]
    if faults:
        sys.exit("\n".join([*faults, f"{PAGE.name} is left as it was: no cell may be wrong"]))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
