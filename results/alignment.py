"""The table of alignment: how far explanations agree with what people marked, model by model and mask by mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribug.results import alignment_intervals as intervals
from attribug.results.alignment_intervals import Floats
from attribug.results.statistics import FEWEST_MODELS, UNDEFINED

KEYS = ("panel", "model", "data", "mask", "method", "metric", "post")
COLUMNS = (
    "model", "data", "mask", "method", "metric", "value", "ci_low", "ci_high", "random", "n", "undefined",
    "panel", "post", "units", "accuracy", "accuracy_low", "accuracy_high", "above_random",
    "mask_rank_low", "mask_rank_high", "model_rank_low", "model_rank_high", "grain", "mask_side", "reason",
)  # fmt: skip
"""A row a model, data, mask, method, metric and post; or, with a reason alone, what could not be measured."""
TEXTS = (*KEYS, "above_random", "reason")
COUNTS = ("n", "units")
SCORES = (
    *KEYS, "unit", "example", "label", "predicted", "correct", "value", "random", "pixels", "total", "grain", "case",
)  # fmt: skip
"""A row a model's unit and example: see `table`."""
ACCURACY = ("panel", "model", "data", "unit", "accuracy", "tested")
LACKING = ("panel", "model", "data", "method", "reason")
CASE_COLUMNS = ("panel", "model", "data", "mask", "method", "case", "correct", "n", "share")
IOU, POINTING = "iou", "pointing_game"
MAIN = (POINTING, IOU)
"""Metrics of which pages and terminals show every row."""
FAMILIAR = ("gradient", "integrated_gradients", "smoothgrad", "grad_cam", "input_x_gradient")
"""Methods that are shown first, where not all can be."""
ABOVE, BELOW, UNDECIDED = "above", "below", "open"
CASES = {
    "human aligned": 1, "sufficient subset": 1, "sufficient context": 1, "context dependent": 1,
    "confuser": 0, "insufficient subset": 0, "distracted": 0, "context confusion": 0,
}  # fmt: skip
"""Shared Interest's cases (Boggust et al. 2022, section 4), with whether the prediction is right."""
NO_CASE = "none of the eight"

Key = tuple[str, ...]
Part = dict[str, npt.NDArray[Any]]
"""Columns of the scores of one row of the table, sorted by unit and example."""


@dataclass(frozen=True)
class Block:
    """The scores of one row of the table: units × examples, NaN where undefined or absent."""

    examples: npt.NDArray[np.int64]  # (n,) ascending
    units: npt.NDArray[np.int64]  # (U,) ascending
    value: Floats  # (U, n)
    random: Floats  # (U, n)

    @property
    def lift(self) -> Floats:
        """Values less those of a map that knows nothing, (U, n)."""
        return self.value - self.random

    def lift_at(self, other: Block) -> Floats:
        """The lift at the units and examples that another one has as well."""
        if np.array_equal(self.units, other.units) and np.array_equal(self.examples, other.examples):
            return self.lift
        return self.lift[np.ix_(np.isin(self.units, other.units), np.isin(self.examples, other.examples))]

    def value_on(self, examples: npt.NDArray[np.int64]) -> Floats:
        """Values of all units on some of its examples."""
        return self.value[:, np.isin(self.examples, examples)]


def table(scores: pd.DataFrame, accuracy: pd.DataFrame, lacking: pd.DataFrame) -> pd.DataFrame:
    """alignment.csv: columns `COLUMNS`, in the order of their names, whatever the order of the rows.

    A value is a mean over units (seeds of a model) of means over examples, with its 95 % interval: see
    `alignment_intervals`. Masks are ranked within a model, by value − random, for they differ in size; models within a
    mask, by value. A rank is a range: `low` is 1 + the number of those that are higher for certain (the 95 % interval
    of the paired difference lies above 0), `high` the number of all less those that are lower for certain.

    Args:
        scores: columns `SCORES`. `random`: the metric of a Gaussian map and the same mask; `pixels`: of the mask, 0
            where it is empty; `grain`: width at half height of the map's autocorrelation, in pixels; NaN: undefined.
        accuracy: columns `ACCURACY`, a row a model and unit; `tested`: the number of labelled examples.
        lacking: columns `LACKING`: what could not be measured; no method: nothing of the model.

    Raises `ValueError` for a column that is missing, or an example twice in a unit.
    """
    _expect(scores, SCORES, "scores")
    _expect(accuracy, ACCURACY, "accuracy")
    _expect(lacking, LACKING, "lacking")
    if scores.duplicated([*KEYS, "unit", "example"]).any():
        raise ValueError("scores: expected an example once in a unit, found one twice")
    parts = _parts(scores)
    blocks = {key: _block(part) for key, part in parts.items()}
    right = {tuple(map(str, key)): part for key, part in accuracy.groupby(["panel", "model", "data"], sort=True)}
    masks = _ranks(blocks, KEYS.index("mask"), _mask_sign)
    models = _ranks(blocks, KEYS.index("model"), _model_sign)
    rows = []
    for key, part in parts.items():
        row = dict(zip(KEYS, key, strict=True)) | _measured(part, blocks[key]) | _accuracy(right.get(key[:3]))
        low, high = masks.get(key, (math.nan, math.nan))
        row |= {"mask_rank_low": low, "mask_rank_high": high}
        low, high = models.get(key, (math.nan, math.nan))
        rows.append(row | {"model_rank_low": low, "model_rank_high": high})
    rows += [_absent(each, right) for each in lacking[list(LACKING)].fillna("").itertuples(index=False, name=None)]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    found = found.astype(dict.fromkeys(COUNTS, "int64") | dict.fromkeys(TEXTS, str))
    numbers = [name for name in COLUMNS if name not in {*COUNTS, *TEXTS}]
    return found.astype(dict.fromkeys(numbers, "float64")).sort_values([*KEYS, "reason"]).reset_index(drop=True)


def read_alignment(text: Any) -> pd.DataFrame:
    """A table of alignment, from a path or a buffer; raises `ValueError` for another one."""
    types: dict[str, Any] = dict.fromkeys(TEXTS, str)
    found = pd.read_csv(text, dtype=types, keep_default_na=False, na_values=[""])
    if list(found.columns) != list(COLUMNS):
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}, found {', '.join(map(str, found.columns))}")
    found = found.fillna(dict.fromkeys(TEXTS, ""))
    numbers = [name for name in COLUMNS if name not in TEXTS]
    for name in numbers:
        if not (pd.api.types.is_numeric_dtype(found[name]) or found[name].isna().all()):
            raise ValueError(f"{name}: expected numbers, found {_first_text(found[name])!r}")
    if found[list(COUNTS)].isna().any(axis=None):
        raise ValueError("expected n and units in every row, found none in one")
    strange = set(found["above_random"]) - {ABOVE, BELOW, UNDECIDED, ""}
    if strange:
        raise ValueError(f"above_random: expected {ABOVE}, {BELOW} or {UNDECIDED}, found {min(strange)!r}")
    if found[found["metric"] != ""].duplicated(list(KEYS)).any():
        raise ValueError(f"expected one row for each {', '.join(KEYS)}, found two")
    types = dict.fromkeys(numbers, "float64") | dict.fromkeys(COUNTS, "int64")
    return found.astype(types)


def readable(row: Any) -> bool:
    """Whether maps are fine enough for their mask: their grain is at most the mask's side. Unknown ones are not."""
    return bool(row.grain <= row.mask_side)


def cases(scores: pd.DataFrame) -> pd.DataFrame:
    """Shares of Shared Interest's cases, a row for each that occurs: columns `CASE_COLUMNS`, `n` the examples of them.

    Of examples of which IoU is defined and the prediction known to be right or wrong; those in no case are
    `NO_CASE`, once right and once wrong. Means over units. Of several posts the first by name counts.
    """
    _expect(scores, SCORES, "scores")
    place = ["panel", "model", "data", "mask", "method"]
    known = scores[(scores["metric"] == IOU) & scores["value"].notna() & scores["correct"].notna()]
    known = known[known["post"] == known.groupby(place)["post"].transform("min")]
    known = known.assign(case=known["case"].fillna("").replace("", NO_CASE))
    totals = known.groupby([*place, "unit"]).size()
    units = known.groupby(place)["unit"].nunique()
    counts = known.groupby([*place, "case", "correct", "unit"]).size().rename("count").reset_index()
    of_unit = pd.MultiIndex.from_frame(counts[[*place, "unit"]])
    of_place = pd.MultiIndex.from_frame(counts[place])
    shares = counts["count"].to_numpy(float) / totals.reindex(of_unit).to_numpy(float)
    counts = counts.assign(share=shares / units.reindex(of_place).to_numpy(float))
    found = counts.groupby([*place, "case", "correct"])["share"].sum().reset_index()
    n = known.groupby([*place, "case", "correct"])["example"].nunique().rename("n").reset_index()
    found = found.merge(n, on=[*place, "case", "correct"])
    return found.sort_values([*place, "case", "correct"]).reset_index(drop=True)[list(CASE_COLUMNS)]


def disagreements(table: pd.DataFrame) -> list[str]:
    """Where metrics put different masks first for certain, a sentence a model, data and method."""
    certain = table[(table["mask_rank_low"] == 1) & (table["mask_rank_high"] == 1)]
    posts = {str(metric): part.nunique() for metric, part in table.groupby("metric")["post"]}
    sentences = []
    for (panel, model, data, method), part in certain.groupby(["panel", "model", "data", "method"]):
        first: dict[str, list[str]] = {}
        for row in part.itertuples():
            name = f"{row.metric}@{row.post}" if posts[str(row.metric)] > 1 else str(row.metric)
            first.setdefault(str(row.mask), []).append(name)
        if len(first) > 1:
            (mask, names), *others = sorted(first.items(), key=lambda each: (-len(each[1]), each[1]))
            told = [f"{_listed(names)} {'puts' if len(names) == 1 else 'put'} {mask} first"]
            told += [f"{_listed(names)} {mask}" for mask, names in others]
            sentences.append(f"{panel}, {model} on {data}, {method}: {', '.join(told)}")
    return sentences


def chosen(
    table: pd.DataFrame, most: int, preferred: Sequence[str] = FAMILIAR, leave: Iterable[str] = ("random",)
) -> list[str]:
    """Some methods of a table, the preferred ones first, then as they come; `leave`: those that explain nothing."""
    there = table.loc[table["metric"] != "", "method"]
    names = dict.fromkeys([*(name for name in preferred if name in set(there)), *there])
    return [name for name in names if name not in {*leave}][:most]


def told_metrics(table: pd.DataFrame) -> list[str]:
    """The two metrics that stand for the others: pointing game and IoU, or the first ones where these are absent."""
    there = list(dict.fromkeys(table.loc[table["metric"] != "", "metric"]))
    return [*(name for name in (POINTING, IOU) if name in there), *(name for name in there if name not in MAIN)][:2]


def ranked(rows: pd.DataFrame) -> str:
    """Masks in the order of what they gain over random, with the ranks that stay open: `1 block, 2–3 digit`; empty for
    one mask. rows: of one model, data, method, metric and post."""
    known = rows.dropna(subset="mask_rank_low")
    known = known.assign(gain=known["value"] - known["random"])
    by = ["mask_rank_low", "mask_rank_high", "gain", "mask"]
    ordered = known.sort_values(by, ascending=[True, True, False, True])[[*by[:2], "mask"]]
    return ", ".join(f"{_range(low, high)} {mask}" for low, high, mask in ordered.itertuples(index=False, name=None))


def _range(low: float, high: float) -> str:
    return f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"


def _expect(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{name}: expected the columns {', '.join(columns)}, found no {', '.join(missing)}")


def _first_text(column: pd.Series) -> str:
    return str(column[pd.to_numeric(column, errors="coerce").isna() & column.notna()].iloc[0])


def _parts(scores: pd.DataFrame) -> dict[Key, Part]:
    """Scores by key, in the order of keys."""
    if scores.empty:
        return {}
    ordered = scores.sort_values([*KEYS, "unit", "example"], kind="stable")
    number = ordered.groupby(list(KEYS), sort=True).ngroup().to_numpy()
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    keys = ordered[list(KEYS)].iloc[starts].astype(str).itertuples(index=False, name=None)
    types = dict.fromkeys(("unit", "example"), np.int64) | dict.fromkeys(("value", "random", "pixels", "grain"), float)
    columns = {name: np.split(ordered[name].to_numpy(kind), starts[1:]) for name, kind in types.items()}
    return {key: {name: parts[at] for name, parts in columns.items()} for at, key in enumerate(keys)}


def _block(part: Part) -> Block:
    units, row = np.unique(part["unit"], return_inverse=True)
    examples, column = np.unique(part["example"], return_inverse=True)
    value, random = np.full((2, len(units), len(examples)), np.nan)
    value[row, column] = part["value"]
    random[row, column] = part["random"]
    return Block(examples, units, value, random)


def _measured(part: Part, block: Block) -> dict[str, Any]:
    found = intervals.spread(block.value)
    low, high = intervals.interval(block.value)
    over = intervals.sign(intervals.paired(block.lift))
    side, grain = part["pixels"][part["pixels"] > 0], part["grain"][~np.isnan(part["grain"])]
    undefined = float(np.isnan(part["value"]).mean())
    return {
        "value": found.value, "ci_low": low, "ci_high": high, "random": intervals.spread(block.random).value,
        "n": len(found.images), "undefined": undefined, "units": len(block.units),
        "above_random": {1: ABOVE, -1: BELOW, 0: UNDECIDED}[over],
        "grain": float(np.median(grain)) if len(grain) else math.nan,
        "mask_side": float(np.median(side)) ** 0.5 if len(side) else math.nan,
        "reason": "; ".join(_reasons(part, block, found, undefined)),
    }  # fmt: skip


def _reasons(part: Part, block: Block, found: intervals.Spread, undefined: float) -> list[str]:
    """What a reader of the row must know."""
    units, empty = found.units or len(block.units), len(np.unique(part["example"][part["pixels"] == 0]))
    told = []
    if units < FEWEST_MODELS:
        told.append("this model only" if units == 1 else f"{units} models only")
    if len(found.images) < 2:
        told.append("one example only" if len(found.images) else "nothing is defined")
    if empty:
        told.append(f"{empty} of {len(block.examples)} masks {'is' if empty == 1 else 'are'} empty")
    if undefined > UNDEFINED:
        told.append(f"{100 * undefined:.3g} % undefined")
    return told


def _accuracy(part: pd.DataFrame | None) -> dict[str, float]:
    """Mean over units; Wilson's interval over the tested examples, with three units or more the wider one of it and
    Student's over units."""
    names = ("accuracy", "accuracy_low", "accuracy_high")
    known = None if part is None else part.sort_values("unit").dropna(subset="accuracy")
    if known is None or known.empty:
        return dict.fromkeys(names, math.nan)
    shares = known["accuracy"].to_numpy(float)
    mean = float(shares.mean())
    low, high = intervals.wilson(mean, int(known["tested"].min()))
    if len(shares) >= FEWEST_MODELS:
        least, most = intervals.over_models(shares)
        low, high = np.fmin(low, least), np.fmax(high, most)
    return dict(zip(names, (mean, float(low), float(high)), strict=True))


def _absent(row: tuple[Any, ...], right: dict[tuple[str, ...], pd.DataFrame]) -> dict[str, Any]:
    """The row of something that could not be measured."""
    told = dict(zip(LACKING, map(str, row), strict=True))
    place = (told["panel"], told["model"], told["data"])
    nothing = dict.fromkeys(("mask", "metric", "post", "above_random"), "") | dict.fromkeys(COUNTS, 0)
    return told | nothing | _accuracy(right.get(place))


def _ranks(blocks: dict[Key, Block], at: int, compare: Callable[[Block, Block], int]) -> dict[Key, tuple[float, float]]:
    """Range of ranks of every key that has a value, among those that differ from it in one place alone."""
    groups: dict[Key, list[Key]] = {}
    for key, block in blocks.items():
        if not np.isnan(block.value).all():
            groups.setdefault((*key[:at], *key[at + 1 :]), []).append(key)
    found: dict[Key, tuple[float, float]] = {}
    for keys in groups.values():
        signs = np.zeros((len(keys), len(keys)), np.int64)
        for i, one in enumerate(keys):
            for j in range(i):
                signs[i, j] = compare(blocks[one], blocks[keys[j]])
                signs[j, i] = -signs[i, j]
        found |= dict(zip(keys, zip(*map(np.ndarray.tolist, intervals.rank_ranges(signs)), strict=True), strict=True))
    return found


def _mask_sign(one: Block, other: Block) -> int:
    """Whether one mask's lift is higher for certain; 2 is the most that two lifts of hits differ by."""
    return intervals.sign(intervals.paired(one.lift_at(other) - other.lift_at(one), reach=2))


def _model_sign(one: Block, other: Block) -> int:
    """Whether one model's value is higher for certain: on the examples that both have, where they share any."""
    shared = np.intersect1d(one.examples, other.examples)
    if len(shared):
        return intervals.sign(intervals.between(one.value_on(shared), other.value_on(shared)))
    return intervals.sign(intervals.unpaired(one.value, other.value))


def _listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
