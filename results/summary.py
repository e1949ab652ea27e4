"""From scores to the table of results, and from results to a matrix of methods and bugs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from attribug.results.schema import (
    KEYS,
    NUMBERS,
    OUTCOMES,
    PERTURBED,
    RESULT_COLUMNS,
    SCORE_COLUMNS,
    TableError,
    expect_columns,
    sort_results,
    typed,
)
from attribug.results.statistics import Kind, above_floor, estimate, has_headroom, tells, verdict

MATRIX_COLUMNS = ("task", "bug", "level", "method", "verdict", "effect")


def summarise(
    scores: pd.DataFrame,
    *,
    suite: str,
    seeds_total: int,
    kinds: Mapping[str, Kind],
    visible: Mapping[str, float],
    outcomes: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The results of a suite: one row for each combination of `KEYS` in scores or outcomes.

    Args:
        scores: columns `SCORE_COLUMNS`, one row an example and model triple, in any order.
        suite: its name, the first column.
        seeds_total: how many seeds the suite has; two seeds that are equal modulo it are one unit.
        kinds: by metric, `similarity` (a bug lowers it), `alignment` or `response` (a bug raises it).
        visible: by metric, the least difference that counts as one.
        outcomes: what has no scores: columns `KEYS`, verdict (of `OUTCOMES`), reason, seeds, n. Such a row has no
            numbers, also where other seeds of its key were scored; of several for one key, the first of `OUTCOMES`
            stands.

    Raises:
        TableError: other columns, an example twice in a triple, a missing key, or an outcome that is none.
        ValueError: a metric without kind or visible difference.
    """
    return tabulated(estimates(scores, seeds_total=seeds_total, kinds=kinds, visible=visible), suite, outcomes)


def tabulated(scored: pd.DataFrame, suite: str, outcomes: pd.DataFrame | None = None) -> pd.DataFrame:
    """The results of a suite from its estimates, of all scores or joined from parts, and outcomes: see `summarise`."""
    if outcomes is not None and len(outcomes):
        unscored = _unscored(outcomes)
        decided = pd.MultiIndex.from_frame(scored[list(KEYS)]).isin(pd.MultiIndex.from_frame(unscored[list(KEYS)]))
        scored = pd.concat([scored[~decided], unscored]) if not decided.all() else unscored
    return sort_results(typed(scored.assign(suite=suite)[list(RESULT_COLUMNS)]))


def matrix(
    results: pd.DataFrame,
    primary: Mapping[str, str],
    *,
    main_control: Mapping[str, str],
    headlines: Mapping[str, str],
) -> pd.DataFrame:
    """One row a task, bug, level and method: verdict and effect of the primary metric against the main control.

    Args:
        results: a table with `RESULT_COLUMNS`.
        primary: by bug, `metric@post`.
        main_control: by bug, the name of the control that its verdict is about.
        headlines: `metric@post` by method, of those that another one stands for than their bug's primary.

    Raises:
        TableError: columns of no results table.
        ValueError: a bug without primary metric or main control.
    """
    expect_columns(results.columns, RESULT_COLUMNS)
    wanted = is_headline(results, primary, main_control=main_control, headlines=headlines)
    return sort_results(results[wanted])[list(MATRIX_COLUMNS)]


def is_headline(
    rows: pd.DataFrame,
    primary: Mapping[str, str],
    *,
    main_control: Mapping[str, str],
    headlines: Mapping[str, str],
) -> pd.Series:
    """Whether each row, of any table with the columns `KEYS`, belongs to the matrix; arguments as of `matrix`."""
    expect_entries("bug", pd.unique(rows["bug"]), {"primary metric": primary, "main control": main_control})
    bug, method = rows["bug"].astype(str), rows["method"].astype(str)
    shown = bug.map(dict(primary))
    for name, own in headlines.items():
        shown = shown.mask(method == name, own)
    measured = rows["metric"].astype(str) + "@" + rows["post"].astype(str)
    return (measured == shown) & (rows["control"].astype(str) == bug.map(dict(main_control)))


def estimates(
    scores: pd.DataFrame, *, seeds_total: int, kinds: Mapping[str, Kind], visible: Mapping[str, float]
) -> pd.DataFrame:
    """The rows that scores give: keys, counts, numbers, verdict, reason; arguments and errors as of `summarise`. Scores
    may come in parts, each with all rows of its keys."""
    expect_columns(scores.columns, SCORE_COLUMNS)
    if seeds_total < 1:
        raise ValueError(f"expected at least one seed, found {seeds_total}")
    if scores.empty:
        return pd.DataFrame(columns=list(RESULT_COLUMNS[1:]))
    keys, rows = grouped(scores, kinds, visible)
    table = pd.concat([keys, estimate(rows, seeds_total)], axis=1)
    decisions = _decisions(table, kinds, visible)
    return table.drop(columns=["above_floor", "no_interval"]).assign(
        verdict=[text for text, _ in decisions], reason=[reason for _, reason in decisions]
    )


def grouped(
    scores: pd.DataFrame, kinds: Mapping[str, Kind], visible: Mapping[str, float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The keys that occur (one row each, text), and the rows of `estimate`, their `group` the key's number.

    Raises:
        TableError: other columns than `SCORE_COLUMNS`, or a missing key.
        ValueError: a metric without kind or visible difference.
    """
    expect_columns(scores.columns, SCORE_COLUMNS)
    if scores[list(KEYS)].isna().any(axis=None):
        raise TableError(f"expected text in every row of {', '.join(KEYS)}, found missing values")
    group = scores.groupby(list(KEYS), observed=True, sort=True).ngroup().to_numpy(np.int64)
    _, first = np.unique(group, return_index=True)
    keys = scores[list(KEYS)].iloc[first].reset_index(drop=True).astype(str).sort_values(list(KEYS))
    place = np.argsort(keys.index.to_numpy())  # categories may be in another order than their texts
    rows = scores.drop(columns=list(KEYS)).assign(group=place[group])  # unlike a choice of columns, no copy
    keys = keys.reset_index(drop=True)
    return keys, _told(rows, scores["metric"], kinds, visible)


def _told(
    rows: pd.DataFrame, metric: pd.Series, kinds: Mapping[str, Kind], visible: Mapping[str, float]
) -> pd.DataFrame:
    """The rows with their scores: tell and above_floor."""
    codes, names = pd.factorize(metric)
    expect_entries("metric", names, {"kind": kinds, "visible difference": visible})
    value, benign = rows["value"].to_numpy(np.float64), rows["benign"].to_numpy(np.float64)
    tell = np.empty(len(rows))
    for code, name in enumerate(names):
        at = codes == code
        tell[at] = tells(value[at], benign[at], visible[name], kinds[name])
    return rows.assign(tell=tell, above_floor=above_floor(benign, rows["floor"].to_numpy(np.float64)))


def _decisions(table: pd.DataFrame, kinds: Mapping[str, Kind], visible: Mapping[str, float]) -> list[tuple[str, str]]:
    """Verdict and reason of every row of estimates."""
    read = ("control", "metric", "effect", "ci_low", "ci_high", "above_floor", "benign", "undefined", "no_interval")
    decisions = []
    for control, metric, effect, low, high, above, benign, undefined, absent in zip(
        *(table[c] for c in read), strict=True
    ):
        missing = absent.replace("model", "draw") if control == PERTURBED else absent
        headroom = has_headroom(kinds[metric], above, benign, visible[metric])
        decisions.append(verdict(effect, low, high, headroom, undefined=undefined, no_interval=missing))
    return decisions


def _unscored(outcomes: pd.DataFrame) -> pd.DataFrame:
    """One row a key that has an outcome: the first of `OUTCOMES`, of equal ones the first reason by the alphabet."""
    expect_columns(outcomes.columns, (*KEYS, "verdict", "reason", "seeds", "n"))
    foreign = sorted(set(outcomes["verdict"]) - set(OUTCOMES))
    if foreign:
        raise TableError(f"expected an outcome ({', '.join(OUTCOMES)}), found {', '.join(map(repr, foreign))}")
    rank = outcomes["verdict"].map({name: place for place, name in enumerate(OUTCOMES)})
    ordered = outcomes.assign(rank=rank).sort_values(["rank", "reason", "seeds", "n"], kind="stable")
    rows = ordered.drop_duplicates(list(KEYS)).drop(columns="rank").astype(dict.fromkeys(KEYS, str))
    return rows.assign(**dict.fromkeys(NUMBERS, np.nan))


def expect_entries(what: str, names: object, tables: Mapping[str, Mapping[str, object]]) -> None:
    """Every name must have an entry in every table; raises `ValueError` with those that have none."""
    for title, table in tables.items():
        missing = sorted({str(name) for name in np.asarray(names, dtype=object)} - set(table))
        if missing:
            raise ValueError(f"expected a {title} of every {what}, found none of {', '.join(missing)}")
