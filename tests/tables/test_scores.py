"""Scores part by part: whatever the parts, the tables are those of all scores at once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribug import methods, metrics
from attribug.errors import InputError
from attribug.plans.plan import Plan
from attribug.results.schema import KEYS, SCORE_COLUMNS, TRIPLE
from attribug.running.outcome import KEPT, Outcome
from attribug.scores.measurement import COLUMNS
from attribug.scores.records import Record
from attribug.storage.records import Records
from attribug.tables import scores as tables_scores
from attribug.tables import writing
from attribug.tables.analysis import Distilled, distilled, joined
from attribug.tables.scores import MOST_ROWS, scores_of

MEASURED = (("spearman", "sum"), ("spearman", "abs_sum"), ("mass_accuracy", "abs_sum"))
METHODS = ("gradient", "random")
ORDER = [*KEYS, *TRIPLE, "example"]


def planned(seeds: int) -> Plan:
    """A plan of one bug, and of one cell a seed."""
    contrast = SimpleNamespace(control="clean", took=lambda figures: True)
    cells = [SimpleNamespace(name=f"cell {seed}", task="tiny", bug="shaken", level="1", seed=seed, contrast=contrast)
             for seed in range(seeds)]  # fmt: skip
    return cast(Plan, SimpleNamespace(
        suite=SimpleNamespace(name="tiny", seeds=seeds, visible=None), cells=cells,
        contrasted=list(enumerate(cells)),
        bugs={"shaken": SimpleNamespace(primary="spearman@sum")},
        methods=[(methods.get(name), {}) for name in METHODS],
        measured=[(metrics.get(metric), post) for metric, post in MEASURED],
        record_key=lambda cell, method: f"{method} of {cell.name}",
    ))  # fmt: skip


def rows_of(seed: int, seeds: int, images: int, stream: np.random.Generator) -> pd.DataFrame:
    """A record's scores: every triple of a contaminated model, some of them undefined or tied."""
    triples = [(metric, post, control, reference, other)
               for control in ("clean", "second") for metric, post in MEASURED
               for reference in (range(seeds) if metric == "spearman" else [-1])
               for other in range(seeds) if seed != reference != other]  # fmt: skip
    frame = pd.DataFrame([(metric, post, control, seed, 0, reference, other, example)
                          for metric, post, control, reference, other in triples for example in range(images)],
                         columns=COLUMNS[:-3])  # fmt: skip
    numbers = stream.normal(size=(len(frame), 3)).round(1)
    numbers[stream.random(numbers.shape) < 0.01] = np.nan
    return frame.assign(value=numbers[:, 0], benign=numbers[:, 1], floor=numbers[:, 2])


def finished(folder: Path, seeds: int, images: int, number: int) -> tuple[Outcome, pd.DataFrame]:
    """An outcome whose records are stored, and all of its scores."""
    plan, stream = planned(seeds), np.random.default_rng(number)
    outcome, frames = Outcome(plan, stored=Records(folder)), []
    for cell, (method, _) in ((cell, method) for cell in plan.cells for method in plan.methods):
        scores, key = rows_of(cell.seed, seeds, images, stream), plan.record_key(cell, method.name)
        if cell.seed == 1 and method.name == "random":
            scores = scores.iloc[::-1] if number % 2 else scores.head(0)  # another order, or a record without scores
        assert outcome.stored is not None
        outcome.stored.save(key, Record(scores=scores))
        outcome.keep(cell.seed, method.name, cast(Record, outcome.stored.load(key, KEPT)))
        frames.append(scores.assign(task="tiny", bug="shaken", level="1", method=method.name))
    return outcome, pd.concat(frames, ignore_index=True)[list(SCORE_COLUMNS)]


def ordered(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.astype(dict.fromkeys(KEYS, str)).sort_values(ORDER, ignore_index=True)


def expect_same(found: Distilled, expected: Distilled) -> None:
    """To the last bit."""
    assert found.fault == expected.fault == ""
    for name in ("estimates", "decisions"):
        one, other = (getattr(each, name).sort_values(list(KEYS), ignore_index=True) for each in (found, expected))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert found.evidence is not None
    assert expected.evidence is not None
    pd.testing.assert_frame_equal(found.evidence.keys, expected.evidence.keys)
    for name in ("effect", "left", "occurs", "image", "seeds", "undefined"):
        np.testing.assert_array_equal(getattr(found.evidence, name), getattr(expected.evidence, name))


@settings(max_examples=12, deadline=None)
@given(
    seeds=st.integers(2, 4), images=st.integers(1, 5), number=st.integers(0, 99),
    most=st.sampled_from([1, 20, 100, 300, MOST_ROWS]),
)  # fmt: skip
def test_parts_give_what_all_scores_give(seeds: int, images: int, number: int, most: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        outcome, scores = finished(Path(folder), seeds, images, number)
        patch.setattr(tables_scores, "MOST_ROWS", most)
        parts: list[Distilled] = []
        writing._write_scores(outcome, Path(folder) / "scores.parquet", parts)
        assert (len(parts) == 1) == (len(scores) <= most)
        found = pd.read_parquet(Path(folder) / "scores.parquet")
    pd.testing.assert_frame_equal(ordered(found), ordered(scores), check_exact=True)
    whole = distilled(scores, outcome.plan)
    expect_same(joined(parts), joined([whole]))
    with pytest.raises(AssertionError):
        expect_same(joined([distilled(scores[scores["seed"] > 0], outcome.plan)]), joined([whole]))


def test_a_part_has_all_rows_of_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: they belong to one row of the results."""
    outcome, _ = finished(tmp_path, 3, 4, 1)
    monkeypatch.setattr(tables_scores, "MOST_ROWS", 1)
    seen = [
        tuple(map(str, key)) for part in scores_of(outcome) for key in part[list(KEYS)].drop_duplicates().to_numpy()
    ]
    assert len(seen) == len(set(seen)) == 2 * len(MEASURED) * len(METHODS)


@pytest.mark.parametrize("most", [1, MOST_ROWS])
def test_a_record_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    outcome, _ = finished(tmp_path, 2, 2, 1)
    monkeypatch.setattr(tables_scores, "MOST_ROWS", most)
    (tmp_path / "records" / "gradient of cell 1.record").unlink()
    with pytest.raises(InputError, match="cell 1 / gradient: expected a stored record, found none; run the same"):
        list(scores_of(outcome))


def test_an_outcome_holds_no_scores(tmp_path: Path) -> None:
    outcome, scores = finished(tmp_path, 2, 3, 1)
    assert all(record.scores.empty and list(record.scores) == COLUMNS for record in outcome.records.values())
    assert set(outcome.images.values()) == {3}
    assert sum(outcome.rows.values()) == len(scores)


def test_some_of_a_records_scores(tmp_path: Path) -> None:
    """As they are stored, in their order."""
    outcome, _ = finished(tmp_path, 3, 4, 1)
    everything = outcome.scores(0, "gradient")
    of = {"control": "second", "metric": "spearman", "post": "abs_sum"}
    wanted = everything[np.logical_and.reduce([everything[name] == text for name, text in of.items()])]
    expected = wanted.drop(columns=list(of)).reset_index(drop=True)
    assert 0 < len(expected) < len(everything)
    pd.testing.assert_frame_equal(outcome.scores_of(0, "gradient", of), expected, check_exact=True)
    assert outcome.scores_of(0, "gradient", {**of, "post": "none"}).empty
    found: Any = outcome.scores(0, "gradient", ("example", "post"))
    assert set(found) == {"example", "post"}
