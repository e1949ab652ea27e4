"""How strong must a bug be before a method sees it? And do conclusions depend on the post-processing?"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from attribug.results.schema import OUTCOMES, RESULT_COLUMNS, expect_columns, sort_results

CURVE = ["task", "bug", "control", "method", "metric", "post"]
ROW = ["task", "bug", "level", "control", "method", "metric"]
DECIDED = ("detects", "blind", "inverted")
SEVERITY_COLUMNS = (*CURVE, "levels", "effects", "detected", "smallest_detected", "steady")
POST_COLUMNS = (*ROW, "posts", "verdicts", "lowest_effect", "highest_effect", "depends")


def severity(results: pd.DataFrame, graded: Collection[str]) -> pd.DataFrame:
    """One row a curve of effect against level, columns `SEVERITY_COLUMNS`, of bugs in `graded` with two levels or more.

    `levels`, `effects`, `detected` are texts joined by a space, weakest level first (numbers, then names); `-` stands
    for what does not exist (a bug that did not take, a method that failed) and tells nothing. `smallest_detected` is
    the weakest level whose verdict is `detects`, empty if there is none; `steady` is whether every stronger level that
    tells something is detected as well. A level that is not detected may be too weak or have too few models; intervals
    are those of the table.

    Raises:
        TableError: columns of no results table.
    """
    expect_columns(results.columns, RESULT_COLUMNS)
    rows = []
    ordered = sort_results(results[results["bug"].isin(list(graded))])
    for key, part in ordered.groupby(CURVE, sort=False):
        if len(part) > 1:
            seen = [_seen(verdict) for verdict in part["verdict"]]
            first = seen.index("yes") if "yes" in seen else None
            effects = " ".join("-" if pd.isna(effect) else f"{effect:.3f}" for effect in part["effect"])
            detected = " ".join(seen)
            smallest = "" if first is None else part["level"].iloc[first]
            steady = first is not None and "no" not in seen[first:]
            rows.append((*key, " ".join(part["level"]), effects, detected, smallest, steady))
    return pd.DataFrame(rows, columns=list(SEVERITY_COLUMNS))


def _seen(verdict: str) -> str:
    return "-" if verdict in OUTCOMES else "yes" if verdict == "detects" else "no"


def by_post(results: pd.DataFrame) -> pd.DataFrame:
    """One row a method, metric and cell that was measured under several posts, columns `POST_COLUMNS`.

    `depends` is whether two posts lead to verdicts that contradict each other: different ones among detects, blind,
    inverted. `inconclusive` contradicts nothing.

    Raises:
        TableError: columns of no results table.
    """
    expect_columns(results.columns, RESULT_COLUMNS)
    rows = []
    for key, part in results.groupby(ROW, sort=False):
        if len(part) > 1:
            verdicts = part["verdict"].tolist()
            depends = len({verdict for verdict in verdicts if verdict in DECIDED}) > 1
            spread = part["effect"].min(), part["effect"].max()
            rows.append((*key, " ".join(part["post"]), "; ".join(verdicts), *spread, depends))
    return pd.DataFrame(rows, columns=list(POST_COLUMNS))
