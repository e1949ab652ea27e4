"""What there is: methods, bugs, metrics, tasks, suites, read without importing torch where it is shipped."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from attribug import suite
from attribug.registry import all_registries

Rows = list[dict[str, Any]]
HIDDEN = {"function", "prepare", "missing"}


def listed(kind: str) -> Rows:
    """One row a piece: name, summary, facts, parameters."""
    if kind == "suites":
        return [_suite(name) for name in suite.shipped()]
    registry = all_registries()[kind.removesuffix("s")]
    rows = []
    for name in registry.names():
        shipped = registry.declared().get(name)
        if shipped is not None:
            defaults = {f.name: f.default for f in fields(registry.entry) if f.name not in HIDDEN | {"name"}}
            facts = {**defaults, **{k: v for k, v in shipped.facts.items() if k not in HIDDEN}}
            rows.append({
                "name": name,
                "summary": shipped.summary,
                **facts,
                "parameters": shipped.parameters,
                "from": shipped.module,
            })
            continue
        entry = registry.get(name)
        facts = {f.name: getattr(entry, f.name) for f in fields(entry) if f.name not in HIDDEN}
        rows.append({**facts, "summary": entry.summary, "from": entry.function.__module__})
    return rows


def text(found: dict[str, Rows]) -> str:
    """The lists as plain text, a line a piece."""
    lines = []
    for kind, rows in found.items():
        lines.append(f"{kind}:")
        width = max((len(row["name"]) for row in rows), default=0)
        lines += [f"  {row['name']:<{width}}  {row['summary']}" for row in rows]
    return "\n".join(lines) + "\n"


def _suite(name: str) -> dict[str, Any]:
    loaded = suite.load(name)
    facts = loaded.model_dump(exclude={"name", "description"})
    return {"name": name, "summary": loaded.description, **facts}
