"""What became of a row of two tables, in words: its place, its status, what happened."""

from __future__ import annotations

import numpy as np
import pandas as pd

STATUSES = ("worse", "verdict changed", "missing", "incompatible", "better", "new", "same")
REGRESSION, UNMEASURED = "regression", "unmeasured"


def order(words: str) -> int:
    """Where a status, told in words, stands among the others."""
    return next(number for number, name in enumerate(STATUSES) if words.removeprefix("✗ ").startswith(name))


def place(row: pd.Series) -> str:
    """A row's keys in words."""
    return f"{row['task']} / {row['bug']} {row['level']} / {row['method']} / {row['metric']}@{row['post']}" + (
        f" against {row['control']}"
    )


def told_status(row: pd.Series) -> str:
    """A row's status in words: one that fails the gate is marked, another verdict that does not is called harmless."""
    if row["alarm"]:
        return f"✗ {row['status']}" if row["alarm"] == REGRESSION else f"✗ {row['status']}, not measured"
    return "verdict changed, harmless" if row["status"] == "verdict changed" else str(row["status"])


def explained(row: pd.Series) -> str:
    """What happened to a row, in words."""
    verdict = str(row["verdict_new"])
    if row["verdict_old"] != row["verdict_new"] and row["status"] == "verdict changed":
        verdict = f"{row['verdict_old']} → {row['verdict_new']}"
    said = [] if row["status"] in {"missing", "incompatible"} else [verdict]
    for name, prefix in (("effect", "effect_"), ("value", "")):
        old, new = row[f"{prefix}old"], row[f"{prefix}new"]
        if not (np.isnan(old) or np.isnan(new)) and old != new:
            said.append(f"{name} {old:.4g} → {new:.4g}")
    return ", ".join([*said, *([str(row["note"])] if row["note"] else [])])
