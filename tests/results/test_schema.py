"""The table of results as a file: written whole, read back or refused."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attribug.results.schema import (
    KEYS,
    NUMBERS,
    OUTCOMES,
    RESULT_COLUMNS,
    SCORE_COLUMNS,
    TableError,
    level_order,
    read_results,
    results_csv,
    sort_results,
    typed,
)


def results_row(**columns: Any) -> dict[str, Any]:
    numbers = {"undefined": 0.0, "value": 1 / 3, "sem": 1e-7, "benign": 2 / 3, "floor": -0.0, "effect": 1.0,
               "ci_low": 0.7, "ci_high": 1.0}  # fmt: skip
    keys = {"suite": "quick", "task": "digits", "bug": "reinit", "level": "1", "control": "clean", "method": "lime",
            "metric": "spearman", "post": "sum"}  # fmt: skip
    return {**keys, "seeds": 3, "n": 6, **numbers, "verdict": "detects", "reason": "", **columns}


def results_table() -> pd.DataFrame:
    rows = [results_row(level=level, method=method)
            for level, method in product(("10", "2", "0.5", "top", "all"), ("lime", "gradient"))]  # fmt: skip
    failed = results_row(verdict="failed", **dict.fromkeys(NUMBERS, math.nan))
    reasons = ["a, b", 'say "no"', "NA", "nan", "", "null", "é"]
    rows += [failed | {"method": f"m{place}", "reason": text} for place, text in enumerate(reasons)]
    return sort_results(typed(pd.DataFrame(rows)[list(RESULT_COLUMNS)]))


def test_written_tables_are_read_back(tmp_path: Path) -> None:
    table = results_table()
    (tmp_path / "results.csv").write_bytes(results_csv(table.sample(frac=1, random_state=0)))
    back = read_results(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(back, table, rtol=1e-5)
    assert (back.dtypes == table.dtypes).all()
    assert list(dict.fromkeys(back["level"])) == ["0.5", "1", "2", "10", "all", "top"]
    assert list(back.loc[back["verdict"] == "failed", "reason"]) == ["a, b", 'say "no"', "NA", "nan", "", "null", "é"]
    assert (back.loc[back["verdict"] == "detects", "reason"] == "").all()
    (tmp_path / "again.csv").write_bytes(results_csv(back))
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "results.csv").read_bytes()


def test_the_file_is_plain(tmp_path: Path) -> None:
    row = results_row(sem=0.0, seeds=2, ci_low=math.nan, ci_high=math.nan, verdict="inconclusive", reason="two\nlines")
    (tmp_path / "results.csv").write_bytes(results_csv(pd.DataFrame([row])))
    header, row = (tmp_path / "results.csv").read_text().splitlines()
    assert header == ",".join(RESULT_COLUMNS)
    assert row == "quick,digits,reinit,1,clean,lime,spearman,sum,2,6,0,0.333333,0,0.666667,0,1,,,inconclusive,two lines"
    assert b"\r" not in (tmp_path / "results.csv").read_bytes()


def test_levels_sort_by_value_then_by_name() -> None:
    assert sorted(["b", "10", "a", "nan", "9", "-1", "1e-3"], key=level_order) == [
        "-1",
        "1e-3",
        "9",
        "10",
        "a",
        "b",
        "nan",
    ]


def test_a_cut_file_is_noticed_wherever_the_cut_falls_within_a_line(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    whole.write_bytes(results_csv(results_table()))
    content = whole.read_bytes()
    for length in range(0, len(content), 7):
        if content[:length].endswith(b"\n"):
            continue
        cut.write_bytes(content[:length])
        with pytest.raises(TableError, match=r"cut\.csv: expected .*, found .*"):
            read_results(cut)


def damaged(content: str) -> dict[str, tuple[str, str]]:
    """Foreign and malformed tables: content and what the message must say."""
    lines = content.splitlines()
    header, first = lines[0], lines[1]
    fields = first.split(",")

    def changed(column: str, text: str) -> str:
        place = RESULT_COLUMNS.index(column)
        return "\n".join([header, ",".join([*fields[:place], text, *fields[place + 1 :]]), ""])

    return {
        "empty": ("", "found an empty file"),
        "header only": (header + "\n", "expected at least one row, found none"),
        "missing column": (content.replace("effect", "effects", 1), "found none named effect"),
        "further column": (f"{header},more\n{first},1\n", "found also 'more'"),
        "other order": (header.replace("suite,task", "task,suite") + f"\n{first}\n", "found the order task, suite"),
        "prose": ("not a table\n", "found none named suite"),
        "short line": (f"{header}\n{','.join(fields[:-1])}\n", "expected 20 fields, found 19 in line 2"),
        "long line": (f"{header}\n{first},\n", "expected 20 fields, found 21 in line 2"),
        "blank line": (content + "\n", "expected 20 fields, found 0"),
        "open quote": (f'{header}\n{first}"open\n', "found unexpected end of data in line 2"),
        "word": (changed("effect", "high"), "expected a number, found 'high' in line 2"),
        "fraction": (changed("seeds", "2.5"), "expected a count, found '2.5' in line 2"),
        "superscript": (changed("seeds", "³"), "expected a count, found '³' in line 2"),
        "no int64": (changed("seeds", "9" * 19), "expected a count, found '999"),
        "no count": (changed("n", ""), "expected a count, found '' in line 2"),
        "verdict": (changed("verdict", "sees"), "found 'sees' in line 2"),
        "twice": (f"{header}\n{first}\n{first}\n", "expected one row a key, found two of suite=quick task=digits"),
    }


@pytest.mark.parametrize("case", list(damaged(",".join(RESULT_COLUMNS) + "\n" + "," * 19)))
def test_foreign_files_are_rejected(case: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(results_csv(pd.DataFrame([results_row()])))
    content, message = damaged(path.read_text())[case]
    path.write_bytes(content.encode())
    with pytest.raises(TableError) as caught:
        read_results(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: expected ")
    assert message in text
    assert "\n" not in text


def test_other_bytes_and_absent_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(TableError, match="expected UTF-8 text, found other bytes"):
        read_results(tmp_path / "results.csv")
    with pytest.raises(TableError, match="expected a results table, found no such file"):
        read_results(tmp_path / "absent.csv")


def test_what_a_spreadsheet_puts_around_a_table_says_nothing(tmp_path: Path) -> None:
    """A byte-order mark before it, and its own line breaks."""
    written = results_csv(results_table())
    (tmp_path / "plain.csv").write_bytes(written)
    (tmp_path / "saved.csv").write_bytes(b"\xef\xbb\xbf" + written.replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_results(tmp_path / "saved.csv"), read_results(tmp_path / "plain.csv"))


def test_tables_that_break_the_schema_are_not_written(tmp_path: Path) -> None:
    table = results_table()
    path = tmp_path / "results.csv"
    with pytest.raises(TableError, match="found none named sem"):
        path.write_bytes(results_csv(table.drop(columns="sem")))
    with pytest.raises(TableError, match="expected text in every row of reason"):
        path.write_bytes(results_csv(table.assign(reason=None)))
    with pytest.raises(TableError, match="found 'perhaps'"):
        path.write_bytes(results_csv(table.assign(verdict="perhaps")))
    with pytest.raises(TableError, match="expected one row a key"):
        path.write_bytes(results_csv(pd.concat([table, table])))
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_consistent() -> None:
    assert set(KEYS) < set(SCORE_COLUMNS)
    assert RESULT_COLUMNS[-2:] == ("verdict", "reason")
    assert len(OUTCOMES) == 3
    with pytest.raises(TableError, match="found the order reason"):
        typed(results_table()[list(reversed(RESULT_COLUMNS))])
