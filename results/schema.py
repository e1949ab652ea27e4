"""The two tables: which columns they have, how a table of results is ordered, written and read."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

SCHEMA_VERSION = 1

KEYS = ("task", "bug", "level", "control", "method", "metric", "post")
"""What names a row of a suite's results. `level` is text: `%g` of a number, or a name."""

MENDED = "+"
"""In a bug's name, before the fix that mended it: what such rows measure is what is left of the bug."""


def is_mended(bugs: pd.Series) -> pd.Series:
    """Of names of bugs, those of what a fix left."""
    return bugs.astype(str).str.contains(MENDED, regex=False)


PERTURBED = "perturbed"
"""The control of a model that is given: copies with slightly disturbed weights. Its seeds count draws."""

COUNTS = ("seeds", "n")
"""Contaminated models, distinct examples."""

NUMBERS = ("undefined", "value", "sem", "benign", "floor", "effect", "ci_low", "ci_high")
"""Shares, metric values and effects; NaN where there is none, an empty field in the file."""

RESULT_COLUMNS = ("suite", *KEYS, *COUNTS, *NUMBERS, "verdict", "reason")

TRIPLE = ("seed", "draw", "reference", "control_seed")
"""What names a model triple: contaminated model and draw, reference (-1: none), control."""

SCORE_COLUMNS = (*KEYS, *TRIPLE, "example", "value", "benign", "floor")
"""One row an example and model triple."""

OUTCOMES = ("not taken", "unsupported", "failed")
"""Verdicts of rows without scores; where several apply, the first one stands."""

VERDICTS = ("detects", "blind", "inverted", "inconclusive", *OUTCOMES)

MOST_DIGITS = 18
"""Of a count in a file: what int64 holds."""

TEXTS = ("suite", *KEYS, "verdict", "reason")


class TableError(ValueError):
    """A table is not what it should be; the message is one line: expected …, found …."""


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """A results table with its columns' dtypes (text, int64, float64) and an index that counts from 0.

    Raises:
        TableError: other columns than `RESULT_COLUMNS`, in this order, or missing text.
    """
    expect_columns(frame.columns, RESULT_COLUMNS, exactly=True)
    missing = [name for name in TEXTS if bool(frame[name].isna().any())]
    if missing:
        raise TableError(f"expected text in every row of {', '.join(missing)}, found missing values")
    dtypes: dict[str, type] = dict.fromkeys(TEXTS, str)
    dtypes |= dict.fromkeys(COUNTS, np.int64)
    dtypes |= dict.fromkeys(NUMBERS, np.float64)
    return frame.astype(dtypes).reset_index(drop=True)


def expect_columns(found: Sequence[str] | pd.Index, expected: Sequence[str], *, exactly: bool = False) -> None:
    """Compare column names: all of `expected` must be there; `exactly`: nothing else, and in this order.

    Raises:
        TableError: names the columns that are missing and those that should not be there.
    """
    names = list(found)
    if names == list(expected):
        return
    missing = [name for name in expected if name not in names]
    foreign = [name for name in names if name not in expected]
    if missing:
        raise TableError(f"expected the columns {', '.join(expected)}, found none named {', '.join(missing)}")
    if exactly:
        detail = f"also {', '.join(map(repr, foreign))}" if foreign else f"the order {', '.join(names)}"
        raise TableError(f"expected exactly the columns {', '.join(expected)}, found {detail}")


def level_order(level: str) -> tuple[bool, float, str]:
    """Sort key of a level: numbers by their value, then names by the alphabet."""
    try:
        number = float(level)
    except ValueError:
        number = math.nan
    return (False, number, level) if math.isfinite(number) else (True, 0.0, level)


def sort_results(frame: pd.DataFrame) -> pd.DataFrame:
    """The table in its one order: by suite and keys, levels by `level_order`.

    Raises:
        TableError: two rows of the same suite and keys.
    """
    names = ["suite", *KEYS]
    twice = frame.duplicated(names)
    if bool(twice.any()):
        raise TableError(f"expected one row a key, found two of {_spelled(frame.loc[twice, names].iloc[0])}")
    keys = [tuple(level_order(text) if name == "level" else text for name, text in zip(names, row, strict=True))
            for row in frame[names].itertuples(index=False)]  # fmt: skip
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return frame.iloc[order].reset_index(drop=True)


def results_csv(frame: pd.DataFrame) -> bytes:
    """A results table as CSV: sorted, floats `%.6g`, NaN empty, "\\n" endings; equal tables give equal bytes.

    Raises:
        TableError: columns, missing text, repeated keys or verdicts that no results table has.
    """
    table = sort_results(typed(frame))
    for text in table["verdict"]:
        _verdict(text)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(RESULT_COLUMNS)
    columns = [[_field(entry) for entry in table[name].tolist()] for name in RESULT_COLUMNS]
    writer.writerows(zip(*columns, strict=True))
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def read_results(path: str | Path, *, empty: bool = False) -> pd.DataFrame:
    """Read what `results_csv` made; nothing else passes. `empty`: whether it may have no row, as where nothing but
    panels ran.

    A cut at the end of a line leaves a table that is whole in itself: only a comparison with the plan shows it.

    Raises:
        TableError: no such file, no row, a cut or malformed line, other columns, an unknown verdict or repeated keys;
            the message names the file, and the line where there is one.
    """
    place = Path(path)
    try:
        return sort_results(typed(_parse(_text(place), empty=empty)))
    except TableError as error:
        raise TableError(f"{place}: {error}") from None


def _spelled(keys: pd.Series) -> str:
    return " ".join(f"{name}={text}" for name, text in keys.items())


def _field(entry: str | int | float) -> str:
    if isinstance(entry, str):
        return " ".join(entry.splitlines())  # a row stays a line, whatever an exception's message held
    if isinstance(entry, int):
        return str(entry)
    return "" if math.isnan(entry) else f"{entry + 0.0:.6g}"  # + 0.0: -0 and 0 are the same bytes


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets put a mark before it
    except OSError as error:
        raise TableError(f"expected a results table, found {(error.strerror or 'no file').lower()}") from error
    except UnicodeDecodeError as error:
        raise TableError("expected UTF-8 text, found other bytes") from error
    if not text:
        raise TableError("expected a results table, found an empty file")
    if not text.endswith("\n"):
        raise TableError("expected a line break at the end, found a truncated line")
    return text


def _parse(text: str, *, empty: bool) -> pd.DataFrame:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader)
        expect_columns(header, RESULT_COLUMNS, exactly=True)
        rows = [_row(fields, reader.line_num) for fields in reader]
    except csv.Error as error:
        raise TableError(f"expected comma-separated fields, found {error} in line {reader.line_num}") from error
    if not rows and not empty:
        raise TableError("expected at least one row, found none")
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS))


def _row(fields: list[str], line: int) -> list[str | int | float]:
    if len(fields) != len(RESULT_COLUMNS):
        raise TableError(f"expected {len(RESULT_COLUMNS)} fields, found {len(fields)} in line {line}")
    try:
        return [PARSERS[name](text) for name, text in zip(RESULT_COLUMNS, fields, strict=True)]
    except TableError as error:
        raise TableError(f"{error} in line {line}") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise TableError(f"expected a count, found {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise TableError(f"expected a number, found {text!r}") from None


def _verdict(text: str) -> str:
    if text not in VERDICTS:
        raise TableError(f"expected a verdict ({', '.join(VERDICTS)}), found {text!r}")
    return text


PARSERS: dict[str, Callable[[str], str | int | float]] = {
    **dict.fromkeys(TEXTS, str),
    **dict.fromkeys(COUNTS, _count),
    **dict.fromkeys(NUMBERS, _number),
    "verdict": _verdict,
}
