"""Effect, interval, verdict and table, against plain loops over the formulas."""

import math
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attribug.results.schema import (
    KEYS,
    OUTCOMES,
    RESULT_COLUMNS,
    SCORE_COLUMNS,
    TRIPLE,
    TableError,
    level_order,
    read_results,
    typed,
    write_results,
)
from attribug.results.statistics import Kind, above_floor, has_headroom, tells, verdict
from attribug.results.summary import matrix, summarise

NAN = math.nan
VISIBLE = 0.125  # like every score below a multiple of 1/16: differences of exactly δ occur
KINDS: dict[str, Kind] = {"spearman": "similarity", "iou": "alignment"}
DELTAS = dict.fromkeys(KINDS, VISIBLE)
KEY = {"task": "digits", "bug": "reinit", "level": "1", "control": "clean", "method": "lime", "post": "sum"}
Rows = list[dict[str, Any]]


def mean(numbers: list[float]) -> float:
    defined = [number for number in numbers if not math.isnan(number)]
    return sum(defined) / len(defined) if defined else NAN


def plain_tell(row: dict[str, Any]) -> float:
    v, b = row["value"], row["benign"]
    if math.isnan(v) or math.isnan(b):
        return 0.5
    if KINDS[row["metric"]] == "similarity":
        return float(v < b - VISIBLE) + 0.5 * float(abs(v - b) <= VISIBLE)
    return float(v > b + VISIBLE) + 0.5 * float(abs(v - b) <= VISIBLE)


def plain_above(row: dict[str, Any]) -> float:
    b, floor = row["benign"], row["floor"]
    return 0.5 if math.isnan(b) or math.isnan(floor) else float(b > floor) + 0.5 * float(b == floor)


def models_means(rows: Rows, score: Any) -> list[float]:
    """For every q: the mean over its triples of the mean over their examples."""
    means = []
    for q in sorted({row["seed"] for row in rows}):
        triples: dict[tuple[int, ...], list[float]] = {}
        for row in rows:
            if row["seed"] == q:
                triples.setdefault(tuple(row[name] for name in TRIPLE), []).append(score(row))
        means.append(mean([mean(scores) for scores in triples.values()]))
    return means


def plain_interval(rows: Rows, seeds_total: int) -> tuple[float, float]:
    def units(row: dict[str, Any]) -> set[int]:
        return {row[role] % seeds_total for role in ("seed", "reference", "control_seed") if row[role] >= 0}

    effect = mean(models_means(rows, plain_tell))
    everyone = sorted(set().union(*(units(row) for row in rows)))
    kept = [[row for row in rows if unit not in units(row)] for unit in everyone]
    examples = sorted({row["example"] for row in rows})
    seeds = len({row["seed"] for row in rows})
    if seeds <= 2 or len(examples) < 2 or not all(kept):
        return NAN, NAN
    without = [mean(models_means(rest, plain_tell)) for rest in kept]
    centre = sum(without) / len(without)
    factor = (len(everyone) - 1) / len(everyone)
    scores = [mean([plain_tell(row) for row in rows if row["example"] == example]) for example in examples]
    images = sum((score - mean(scores)) ** 2 for score in scores) / (len(scores) - 1)
    variance = factor * sum((e - centre) ** 2 for e in without) + images / len(scores)
    half = stats.t.ppf(0.975, seeds - 1) * math.sqrt(variance)
    return max(0.0, effect - half), min(1.0, effect + half)


def plain_row(rows: Rows, seeds_total: int) -> dict[str, float]:
    """Every number of a row of results, straight from its definition."""
    low, high = plain_interval(rows, seeds_total)
    of_models = [m for m in models_means(rows, lambda row: row["value"]) if not math.isnan(m)]
    spread = np.std(of_models, ddof=1) / math.sqrt(len(of_models)) if len(of_models) > 1 else NAN
    undefined = [float(math.isnan(row["value"]) or math.isnan(row["benign"])) for row in rows]
    nested = {name: mean(models_means(rows, lambda row, name=name: row[name])) for name in ("value", "benign", "floor")}
    return nested | {
        "seeds": len({row["seed"] for row in rows}), "n": len({row["example"] for row in rows}),
        "undefined": mean(undefined), "sem": float(spread), "effect": mean(models_means(rows, plain_tell)),
        "ci_low": low, "ci_high": high,
    }  # fmt: skip


scores16 = st.one_of(st.just(NAN), st.integers(-4, 16).map(lambda number: number / 16))


@st.composite
def groups(draw: st.DrawFn) -> tuple[Rows, int]:
    """Scores of one row of results: any triples, any examples in them, and the number of seeds."""
    seeds_total = draw(st.integers(1, 4))
    metric = draw(st.sampled_from(sorted(KINDS)))
    seed, clean = st.integers(0, 2 * seeds_total - 1), st.integers(0, seeds_total - 1)
    reference = clean if metric == "spearman" else st.just(-1)
    triples = draw(st.lists(st.tuples(seed, st.integers(0, 1), reference, seed), min_size=1, max_size=9, unique=True))
    rows = []
    for triple in triples:
        for example in sorted(draw(st.sets(st.integers(0, 4), min_size=1, max_size=3))):
            numbers = dict(
                zip(("value", "benign", "floor"), draw(st.tuples(scores16, scores16, scores16)), strict=True)
            )
            rows.append({
                **KEY,
                "metric": metric,
                **dict(zip(TRIPLE, triple, strict=True)),
                "example": example,
                **numbers,
            })
    return rows, seeds_total


def frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def summary(rows: Rows, seeds_total: int, outcomes: pd.DataFrame | None = None) -> pd.DataFrame:
    return summarise(
        frame(rows), suite="quick", seeds_total=seeds_total, kinds=KINDS, visible=DELTAS, outcomes=outcomes
    )


def similarity_rows(seeds: int, value: Any, benign: Any, images: int = 6, **key: Any) -> Rows:
    """Rows of all triples r ≠ q, t ≠ r; `value(q, r, t, i)` and `benign(q, r, t, i)` give the scores."""
    return [
        {**KEY, "metric": "spearman", "seed": q, "draw": 0, "reference": r, "control_seed": t, "example": i,
         "value": value(q, r, t, i), "benign": benign(q, r, t, i), "floor": 0.0, **key}
        for q, r, t, i in product(range(seeds), range(seeds), range(seeds), range(images)) if r not in {q, t}
    ]  # fmt: skip


# ---- scores of examples


@pytest.mark.parametrize(
    ("value", "benign", "similarity"),
    [(0.2, 0.5, 1.0), (0.5, 0.2, 0.0), (0.375, 0.5, 0.5), (0.5, 0.375, 0.5), (0.5, 0.5, 0.5), (0.37, 0.5, 1.0),
     (NAN, 0.5, 0.5), (0.5, NAN, 0.5), (NAN, NAN, 0.5), (math.inf, math.inf, 0.5), (-math.inf, 0.0, 1.0)],
)  # fmt: skip
def test_tells(value: float, benign: float, similarity: float) -> None:
    assert tells([value], [benign], VISIBLE, "similarity") == [similarity]
    assert tells([value], [benign], VISIBLE, "alignment") == [1 - similarity]


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1))
def test_swapping_the_sides_swaps_the_answer(a: float, b: float, visible: float) -> None:
    """Whatever rounding does: exactly one of the three cases holds, so exchanged sides add up to 1."""
    assert tells(a, b, visible, "similarity") + tells(b, a, visible, "similarity") == 1


def test_tells_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="expected kind 'similarity' or 'alignment', found 'distance'"):
        tells([0.0], [0.0], 0.1, "distance")  # type: ignore[arg-type]
    for visible in (-0.1, NAN):
        with pytest.raises(ValueError, match=f"expected a visible difference of at least 0, found {visible}"):
            tells([0.0], [0.0], visible, "similarity")


def test_above_floor_counts_ties_and_nan_one_half() -> None:
    assert above_floor([0.5, 0.1, 0.2, NAN, 0.2], [0.1, 0.5, 0.2, 0.2, NAN]).tolist() == [1, 0, 0.5, 0.5, 0.5]


# ---- estimates


@settings(max_examples=250, deadline=None)
@given(groups())
def test_a_row_is_what_the_formulas_say(case: tuple[Rows, int]) -> None:
    rows, seeds_total = case
    result = summary(rows, seeds_total).iloc[0]
    for name, number in plain_row(rows, seeds_total).items():
        assert result[name] == pytest.approx(number, abs=1e-9, nan_ok=True), name
    above = mean(models_means(rows, plain_above))
    room = above > 0.6 if rows[0]["metric"] == "spearman" else result["benign"] < 1 - VISIBLE
    decided = verdict(result["effect"], result["ci_low"], result["ci_high"], room, undefined=result["undefined"])
    assert result["verdict"] == decided[0]
    assert (result["reason"] == "") == (result["verdict"] != "inconclusive")


@settings(max_examples=50, deadline=None)
@given(groups(), groups(), st.randoms(use_true_random=False))
def test_rows_depend_on_nothing_beside_them(one: tuple[Rows, int], two: tuple[Rows, int], random: Any) -> None:
    """Neither the order of scores nor another method's scores change a bit."""
    rows, seeds_total = one
    other = [row | {"method": "another"} for row in two[0]]
    mixed = rows + other
    random.shuffle(mixed)
    together = summary(mixed, seeds_total)
    alone = summary(rows, seeds_total)
    kept = together[together["method"] == "lime"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone, check_exact=True)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_control_set_itself_has_effect_one_half(seeds: int) -> None:
    """Level 0: the contaminated models are the controls, similarities are symmetric."""
    drawn = np.random.default_rng(seeds).normal(0.5, 0.3, (seeds, seeds, 7))
    both = np.round(drawn + drawn.swapaxes(0, 1), 2)
    rows = similarity_rows(seeds, lambda q, r, t, i: both[r, q, i], lambda q, r, t, i: both[r, t, i], images=7)
    result = summary(rows, seeds).iloc[0]
    assert result["effect"] == pytest.approx(0.5, abs=1e-15)
    assert result["verdict"] not in {"detects", "inverted"}


def test_equal_maps_everywhere_are_exactly_one_half() -> None:
    """Random and edge maps: v = b, no interval to speak of."""
    result = summary(similarity_rows(3, lambda *_: 0.7, lambda *_: 0.7), 3).iloc[0]
    assert (result["effect"], result["ci_low"], result["ci_high"], result["verdict"]) == (0.5, 0.5, 0.5, "blind")


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_models_decide_nothing(seeds: int) -> None:
    result = summary(similarity_rows(seeds, lambda *_: 0.0, lambda *_: 1.0), seeds).iloc[0]
    assert result["effect"] == 1
    if seeds == 2:
        assert (result["verdict"], result["reason"]) == ("inconclusive", "these models only")
        assert math.isnan(result["ci_low"])
        assert math.isnan(result["ci_high"])
    else:
        assert (result["verdict"], result["reason"], result["ci_low"]) == ("detects", "", 1.0)


def test_one_example_gives_no_interval() -> None:
    result = summary(similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0, images=1), 3).iloc[0]
    assert (result["verdict"], result["reason"]) == ("inconclusive", "one example only")
    assert math.isnan(result["ci_low"])


def test_a_model_in_every_triple_gives_no_interval() -> None:
    rows = [row for row in similarity_rows(4, lambda *_: 0.0, lambda *_: 1.0) if row["reference"] == 0]
    result = summary(rows, 4).iloc[0]
    assert (result["verdict"], result["reason"]) == ("inconclusive", "no triple without one of the models")
    assert math.isnan(result["ci_low"])


def test_a_seed_is_left_out_in_every_role() -> None:
    """Contaminated seeds S … 2S−1 fall on the units of the clean ones, and models left out as q still are units."""
    rows = similarity_rows(4, lambda q, r, t, i: float(i < 8 + r), lambda *_: 0.5, images=48)
    moved = [row | {"seed": row["seed"] + 4, "control_seed": row["control_seed"] + 4} for row in rows]
    without = [row for row in rows if row["seed"] != 1]
    low, high = plain_interval(rows, 4)
    assert summary(rows, 4)["ci_low"][0] == pytest.approx(low, abs=1e-12)
    assert summary(moved, 4)["ci_low"][0] == pytest.approx(low, abs=1e-12)
    assert summary(moved, 8)["ci_low"][0] != pytest.approx(low, abs=1e-3)
    assert summary(without, 4)["ci_high"][0] == pytest.approx(plain_interval(without, 4)[1], abs=1e-12)
    assert 0 < low < high < 1  # not clipped: the comparisons above compare widths


# ---- verdicts


@pytest.mark.parametrize(
    ("low", "high", "room", "expected"),
    [
        (0.61, 0.9, True, ("detects", "")),
        (0.61, 0.9, False, ("detects", "")),
        (0.6, 0.9, True, ("inconclusive", "effect .550, interval [.600, .900] undecided")),
        (0.41, 0.59, True, ("blind", "")),
        (0.41, 0.59, False, ("inconclusive", "no headroom")),
        (0.4, 0.59, True, ("inconclusive", "effect .550, interval [.400, .590] undecided")),
        (0.41, 0.6, True, ("inconclusive", "effect .550, interval [.410, .600] undecided")),
        (0.41, 0.77, False, ("inconclusive", "effect .550, interval [.410, .770] undecided")),
        (0.0, 0.39, True, ("inverted", "")),
        (0.0, 0.39, False, ("inverted", "")),
        (0.0, 0.4, True, ("inconclusive", "effect .550, interval [.000, .400] undecided")),
        (0.0, 1.0, True, ("inconclusive", "effect .550, interval [.000, 1.000] undecided")),
        (1.0, 1.0, True, ("detects", "")),
        (NAN, NAN, True, ("inconclusive", "no interval")),
    ],
)
def test_verdict(low: float, high: float, room: bool, expected: tuple[str, str]) -> None:
    assert verdict(0.55, low, high, room) == expected


def test_too_much_undefined_decides_nothing() -> None:
    assert verdict(0.9, 0.8, 1.0, True, undefined=0.1) == ("detects", "")
    assert verdict(0.9, 0.8, 1.0, True, undefined=0.23) == ("inconclusive", "undefined 23 %")
    assert verdict(0.9, 0.8, 1.0, True, undefined=0.104) == ("inconclusive", "undefined 10.4 %")
    assert verdict(0.9, NAN, NAN, True, undefined=0.23, no_interval="these models only")[1] == "these models only"


def test_headroom() -> None:
    assert has_headroom("similarity", 0.61, NAN, 0.1)
    assert not has_headroom("similarity", 0.6, 1.0, 0.1)
    assert has_headroom("alignment", 0.0, 0.89, 0.1)
    assert not has_headroom("alignment", 1.0, 0.9, 0.1)
    assert not has_headroom("alignment", 1.0, NAN, 0.1)


def test_maps_that_do_not_agree_with_themselves_are_not_blind() -> None:
    rows = similarity_rows(3, lambda *_: 0.0, lambda *_: 0.0)
    result = summary(rows, 3).iloc[0]
    assert (result["verdict"], result["reason"]) == ("inconclusive", "no headroom")


# ---- rows without scores


def outcome(verdict: str, reason: str, seeds: int = 2, **key: str) -> dict[str, Any]:
    return {**KEY, "metric": "spearman", **key, "verdict": verdict, "reason": reason, "seeds": seeds, "n": 5}


def test_outcomes_take_the_place_of_numbers() -> None:
    rows = similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0)
    rows += similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0, method="gradient")
    outcomes = pd.DataFrame([
        outcome("failed", "b"), outcome("unsupported", "z"), outcome("unsupported", "no ReLU"), outcome("failed", "a"),
        outcome("not taken", "accuracy .97 > .5", method="rise", level="0"),
        outcome("failed", "", method="rise", level="0"),
    ])  # fmt: skip
    results = summary(rows, 3, outcomes)
    assert list(results["method"]) == ["rise", "gradient", "lime"]  # level 0 before level 1
    assert list(results["verdict"]) == ["not taken", "detects", "unsupported"]
    assert list(results["reason"]) == ["accuracy .97 > .5", "", "no ReLU"]
    assert list(results["seeds"]) == [2, 3, 2]
    assert results.loc[[0, 2], ["undefined", "value", "effect", "ci_low"]].isna().all(axis=None)
    reversed_order = summary(rows[::-1], 3, outcomes[::-1])
    pd.testing.assert_frame_equal(results, reversed_order, check_exact=True)


def test_outcomes_alone_and_nothing_at_all() -> None:
    alone = summary([], 3, pd.DataFrame([outcome("failed", "out of memory")]))
    assert list(alone.columns) == list(RESULT_COLUMNS)
    assert alone[["suite", "verdict", "reason"]].to_numpy().tolist() == [["quick", "failed", "out of memory"]]
    nothing = summary([], 3)
    assert list(nothing.columns) == list(RESULT_COLUMNS)
    assert nothing.empty


def test_summarise_refuses_tables_it_cannot_read() -> None:
    rows = similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0)
    with pytest.raises(TableError, match="expected every example once in a triple, found one twice"):
        summary([*rows, rows[4]], 3)
    with pytest.raises(TableError, match=r"expected the columns .*, found none named draw$"):
        summarise(frame(rows).drop(columns="draw"), suite="s", seeds_total=3, kinds=KINDS, visible=DELTAS)
    with pytest.raises(TableError, match=r"expected text in every row of task, .*, found missing values"):
        summary([row | {"level": None} for row in rows], 3)
    with pytest.raises(TableError, match="expected a contaminated model's seed of at least 0, found -1"):
        summary([row | {"seed": row["seed"] - 1} for row in rows], 3)
    with pytest.raises(ValueError, match="expected a kind of every metric, found none of ssim"):
        summary([row | {"metric": "ssim"} for row in rows], 3)
    with pytest.raises(ValueError, match="expected at least one seed, found 0"):
        summary(rows, 0)
    with pytest.raises(TableError, match=r"expected an outcome .*, found 'blind'"):
        summary(rows, 3, pd.DataFrame([outcome("blind", "")]))
    with pytest.raises(TableError, match="found none named reason"):
        summary(rows, 3, pd.DataFrame([outcome("failed", "")]).drop(columns="reason"))


# ---- matrix


def test_matrix_shows_the_primary_metric_against_the_main_control() -> None:
    def detected(**key: Any) -> Rows:
        return similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0, **key)

    def unseen(**key: Any) -> Rows:
        return similarity_rows(3, lambda *_: 1.0, lambda *_: 1.0, **key)

    rows = detected() + unseen(post="abs") + unseen(control="noisy_training") + unseen(metric="total_variation")
    rows += unseen(method="predictions") + detected(method="predictions", metric="total_variation", post="none")
    results = summarise(frame(rows), suite="quick", seeds_total=3, kinds=KINDS | {"total_variation": "similarity"},
                        visible=DELTAS | {"total_variation": 0.01},
                        outcomes=pd.DataFrame([outcome("failed", "", method="rise")]))  # fmt: skip
    shown = matrix(results, {"reinit": "spearman@sum"}, main_control={"reinit": "clean"})
    assert list(shown.columns) == ["task", "bug", "level", "method", "verdict", "effect"]
    assert list(shown["method"]) == ["lime", "predictions", "rise"]
    assert list(shown["verdict"]) == ["detects", "detects", "failed"]
    assert shown["effect"].tolist()[:2] == [1.0, 1.0]
    with pytest.raises(ValueError, match="expected a primary metric of every bug, found none of reinit"):
        matrix(results, {}, main_control={"reinit": "clean"})
    with pytest.raises(ValueError, match="expected a main control of every bug, found none of reinit"):
        matrix(results, {"reinit": "spearman@sum"}, main_control={})


# ---- the table's file


def results_table() -> pd.DataFrame:
    rows: Rows = []
    for level, method in product(("10", "2", "0.5", "top", "all"), ("lime", "gradient")):
        rows += similarity_rows(3, lambda q, r, t, i: 1 / (1 + q + i), lambda *_: 1 / 3, level=level, method=method)
    reasons = ["a, b", 'say "no"', "NA", "nan", "", "null", "é"]
    failed = pd.DataFrame([outcome("failed", text, method=f"m{place}") for place, text in enumerate(reasons)])
    return summary(rows, 3, failed)


def test_written_tables_are_read_back(tmp_path: Path) -> None:
    table = results_table()
    write_results(table.sample(frac=1, random_state=0), tmp_path / "results.csv")
    back = read_results(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(back, table, rtol=1e-5)
    assert (back.dtypes == table.dtypes).all()
    assert list(dict.fromkeys(back["level"])) == ["0.5", "1", "2", "10", "all", "top"]
    assert list(back.loc[back["verdict"] == "failed", "reason"]) == ["a, b", 'say "no"', "NA", "nan", "", "null", "é"]
    assert (back.loc[back["verdict"] == "detects", "reason"] == "").all()
    write_results(back, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "results.csv").read_bytes()


def test_the_file_is_plain(tmp_path: Path) -> None:
    table = summary(similarity_rows(2, lambda *_: 1 / 3, lambda *_: 2 / 3), 2)
    table["reason"] = "two\nlines"
    table["floor"] = -0.0
    write_results(table, tmp_path / "results.csv")
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
    write_results(results_table(), whole)
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
    write_results(summary(similarity_rows(3, lambda *_: 0.0, lambda *_: 1.0), 3), path)
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


def test_tables_that_break_the_schema_are_not_written(tmp_path: Path) -> None:
    table = results_table()
    path = tmp_path / "results.csv"
    with pytest.raises(TableError, match="found none named sem"):
        write_results(table.drop(columns="sem"), path)
    with pytest.raises(TableError, match="expected text in every row of reason"):
        write_results(table.assign(reason=None), path)
    with pytest.raises(TableError, match="found 'perhaps'"):
        write_results(table.assign(verdict="perhaps"), path)
    with pytest.raises(TableError, match="expected one row a key"):
        write_results(pd.concat([table, table]), path)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.csv"
    table = results_table()
    write_results(table, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_results(table.head(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_schema_is_consistent() -> None:
    assert set(KEYS) < set(SCORE_COLUMNS)
    assert RESULT_COLUMNS[-2:] == ("verdict", "reason")
    assert len(OUTCOMES) == 3
    with pytest.raises(TableError, match="found the order reason"):
        typed(results_table()[list(reversed(RESULT_COLUMNS))])
