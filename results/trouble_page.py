"""What a page says of costs, and of what failed, was declined or is doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from attribug.results.narrative import counted

IMBALANCE = 0.05  # share of the sums that maps promise, by which they may miss them
View = dict[str, Any]


def records(table: pd.DataFrame | None) -> list[View]:
    """A table's rows."""
    return [] if table is None else [dict(row) for _, row in table.astype(object).iterrows()]


def costs_told(costs: pd.DataFrame | None) -> list[View]:
    """One row a method: sums over its records, and the same an explained image; cheapest first."""
    if costs is None:
        return []
    rows = costs[(costs["kind"] == "record") & costs["seconds"].notna()]
    names = ["seconds", "scoring_seconds", "forward", "backward", "images"]
    sums = rows.groupby("method", sort=False)[names].sum()
    sums["peak_megabytes"] = rows.groupby("method")["peak_megabytes"].max()
    sums["records"] = rows.groupby("method").size()
    explained = rows[rows["images"] > 0].groupby("method")[names].sum()  # not what broke down on its way
    each = {f"{name}_each": explained[name] / explained["images"] for name in ("seconds", "forward", "backward")}
    return records(sums.assign(**each).reset_index().sort_values("seconds", kind="stable"))


def trainings_told(costs: pd.DataFrame | None) -> View | None:
    rows = costs[costs["kind"] == "training"] if costs is not None else pd.DataFrame()
    if rows.empty:
        return None
    known = rows["seconds"].dropna()
    return {"count": len(rows), "known": len(known), "seconds": known.sum(), "each": known.median()}


def trouble(facts: Mapping[str, Any], results: pd.DataFrame) -> View:
    """What failed, was declined or is doubtful."""
    warned = results[results["reason"].str.contains("maps miss the sum", regex=False)]
    told = {
        "failures": facts.get("failures", []),
        "absent": {verdict: _reasons(results[results["verdict"] == verdict])
                   for verdict in ("failed", "unsupported", "not taken")},
        "constant": _by_method(facts.get("constant_maps", {})),
        "nonfinite": _by_method(facts.get("nonfinite_maps", {})),
        "imbalance": _imbalance(facts.get("imbalance", {})) if len(warned) else [],
        "halved": facts.get("halved_passes", {}),
        "undrawn": facts.get("undrawn", {}),
        "unanalysed": facts.get("unanalysed", ""),
    }  # fmt: skip
    absent = told["absent"].values()
    return told | {"any": any(absent) or any(each for name, each in told.items() if name != "absent")}


def _reasons(rows: pd.DataFrame) -> list[View]:
    """Rows without numbers, grouped by bug, method and reason."""
    views = []
    for (bug, level, method, reason), part in rows.groupby(["bug", "level", "method", "reason"], sort=False):
        metrics = list(dict.fromkeys(part["metric"] + "@" + part["post"]))
        views.append({"bug": bug, "level": level, "method": method, "reason": reason, "metrics": metrics})
    return views


def _by_method(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Method and how many maps; facts name a record `task / bug level / seed n / method`."""
    totals: dict[str, list[int]] = {}
    for name, count in counts.items():
        totals.setdefault(_method(name), []).append(int(count))
    return [
        (method, f"{counted(sum(each), 'map')} in {counted(len(each), 'record')}")
        for method, each in sorted(totals.items())
    ]


def _imbalance(shares: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Method, least and largest share by which a record's maps miss their sum, of those that miss it by too much."""
    shares_by_method: dict[str, list[float]] = {}
    for name, share in shares.items():
        shares_by_method.setdefault(_method(name), []).append(float(share))
    return [
        (method, min(each), max(each)) for method, each in sorted(shares_by_method.items()) if max(each) > IMBALANCE
    ]


def _method(record: str) -> str:
    return record.rpartition(" / ")[2]
