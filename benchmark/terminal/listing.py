"""What there is: methods, bugs, metrics, tasks, panels, suites, read without importing torch where it is shipped."""

from __future__ import annotations

from typing import Any

from attribug.plugins import all_registries
from attribug.suites import suite

Rows = list[dict[str, Any]]


def listed(kind: str) -> Rows:
    """One row a piece: name, summary, facts, parameters."""
    if kind == "suites":
        return [_suite(name) for name in suite.shipped()]
    return next(registry for registry in all_registries().values() if registry.plural == kind).described()


def text(listed_rows: dict[str, Rows]) -> str:
    """The lists as plain text, a line a piece."""
    lines = []
    for kind, rows in listed_rows.items():
        lines.append(f"{kind}:")
        width = max((len(row["name"]) for row in rows), default=0)
        lines += [f"  {row['name']:<{width}}  {row['summary']}" for row in rows]
    return "\n".join(lines) + "\n"


def _suite(name: str) -> dict[str, Any]:
    loaded = suite.load(name)
    facts = loaded.model_dump(exclude={"name", "description"})
    return {"name": name, "summary": loaded.description, **facts}
