"""Does the interval keep its promises? Models drawn from a known law, read by the functions that read real scores.

Scores are Gaussian, with effects of the single model, of the pair, of the image under a model, and noise; a bug lowers
similarities (raises alignments) by a shift that differs between images. So the true effect is known exactly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from attribug.results.comparison import ComparedTable, compare
from attribug.results.schema import KEYS, RESULT_COLUMNS, typed
from attribug.results.statistics import DETECTS, Kind, estimate, tells, verdict
from attribug.results.summary import summarise

Floats = npt.NDArray[np.float64]

VISIBLE = 0.1
IMAGES = 32
NEAR_ONE = 0.02
"""How far above .9, where intervals are short and lopsided, the truth may lie outside."""


@dataclass(frozen=True)
class Law:
    """Standard deviations of what scores are made of; `twin` correlates clean and contaminated models of one seed."""

    model: float
    pair: float
    interaction: float  # of a model with an image
    noise: float
    strength: float = 0.0  # of the bug, over images
    twin: float = 0.0


LAWS = {
    "independent": Law(model=0.035, pair=0.02, interaction=0.05, noise=0.05),
    "twins": Law(model=0.05, pair=0.03, interaction=0.05, noise=0.05, twin=0.7),
}
RUNS = {3: 1000, 5: 300}
HIDDEN, PLANTED, STRONG = (0.5,), (0.5, 0.6, 0.7, 0.8), (0.93, 0.97)


def twins(draw: Floats, again: Floats, correlation: float) -> Floats:
    """What contaminated models have, given what clean models of the same seeds have: both of one standard deviation."""
    return correlation * draw + math.sqrt(1 - correlation**2) * again


def symmetric(square: Floats) -> Floats:
    """(runs, S, S, …): the same number for (a, b) and (b, a), as similarities have it."""
    upper = np.triu(np.ones(square.shape[1:3])).reshape(square.shape[1:3] + (1,) * (square.ndim - 3))
    return np.where(upper > 0, square, np.swapaxes(square, 1, 2))


def similarities(law: Law, seeds: int, shift: float, runs: int, rng: np.random.Generator) -> pd.DataFrame:
    """Scores of `runs` independent suites: all q, r ≠ q, t ≠ r."""
    one, two = (runs, seeds), (runs, seeds, seeds)
    clean = rng.normal(0, law.model, one)[..., None] + rng.normal(0, law.interaction, (*one, IMAGES))
    buggy = twins(
        clean, rng.normal(0, law.model, one)[..., None] + rng.normal(0, law.interaction, (*one, IMAGES)), law.twin
    )
    pair = symmetric(rng.normal(0, law.pair, two))
    buggy_pair = twins(pair, rng.normal(0, law.pair, two), law.twin)
    image = rng.normal(0.5, 0.15, (runs, 1, 1, IMAGES))
    bug = rng.normal(shift, law.strength, (runs, 1, 1, IMAGES))
    noise = symmetric(rng.normal(0, law.noise, (*two, IMAGES)))
    benign = image + clean[:, :, None] + clean[:, None] + pair[..., None] + noise  # (runs, r, t, images)
    value = image + clean[:, :, None] + buggy[:, None] + buggy_pair[..., None] - bug  # (runs, r, q, images)
    value += rng.normal(0, law.noise, value.shape)
    triples = np.array([(q, r, t) for q, r, t in product(range(seeds), repeat=3) if r not in {q, t}])
    q, r, t = triples.T
    return table(triples, value[:, r, q], benign[:, r, t], "similarity")


def alignments(law: Law, seeds: int, shift: float, runs: int, rng: np.random.Generator) -> pd.DataFrame:
    """Scores of `runs` independent suites: all q × t, no reference."""
    one, own = (runs, seeds), np.hypot(law.interaction, law.noise)
    clean = rng.normal(0, law.model, one)[..., None] + rng.normal(0, own, (*one, IMAGES))
    buggy = twins(clean, rng.normal(0, law.model, one)[..., None] + rng.normal(0, own, (*one, IMAGES)), law.twin)
    image = rng.normal(0.3, 0.1, (runs, 1, IMAGES))
    bug = rng.normal(shift, law.strength, (runs, 1, IMAGES))
    triples = np.array([(q, -1, t) for q, t in product(range(seeds), repeat=2)])
    q, _, t = triples.T
    return table(triples, (image + buggy + bug)[:, q], (image + clean)[:, t], "alignment")


def table(triples: npt.NDArray[np.int64], value: Floats, benign: Floats, kind: Kind) -> pd.DataFrame:
    """Scores (runs, triples, images) as rows; a run is a group."""
    group, triple, example = np.indices(value.shape).reshape(3, -1)
    q, r, t = triples[triple].T
    return pd.DataFrame({
        "group": group, "seed": q, "draw": 0, "reference": r, "control_seed": t, "example": example,
        "value": value.ravel(), "benign": benign.ravel(), "floor": 0.0, "above_floor": 1.0,
        "tell": tells(value.ravel(), benign.ravel(), VISIBLE, kind),
    })  # fmt: skip


Simulate = Callable[[Law, int, float, int, np.random.Generator], pd.DataFrame]
LAYOUTS: dict[str, Simulate] = {"similarity": similarities, "alignment": alignments}


def truth(law: Law, seeds: int, shift: float, layout: str) -> float:
    """The mean effect over all suites of a law: of every triple, E[score] = ½Φ((β−δ)/σ) + ½Φ((β+δ)/σ)."""
    shared = law.model**2 + law.interaction**2
    shared += law.pair**2 if layout == "similarity" else law.noise**2
    apart = law.noise**2 if layout == "similarity" else 0.0
    share = 1 / (seeds - 1) if layout == "similarity" else 1 / seeds  # of triples where q and t have one seed
    effect = 0.0
    for weight, correlation in ((share, law.twin), (1 - share, 0.0)):
        spread = np.sqrt(2 * (1 - correlation) * shared + 2 * apart + law.strength**2)
        effect += weight * (norm.cdf((shift - VISIBLE) / spread) + norm.cdf((shift + VISIBLE) / spread)) / 2
    return float(effect)


def planted(law: Law, seeds: int, effect: float, layout: str, runs: int) -> pd.DataFrame:
    """Estimates of `runs` suites whose true effect is `effect`."""
    shift = brentq(lambda guess: truth(law, seeds, guess, layout) - effect, -1, 3)
    rows = LAYOUTS[layout](law, seeds, shift, runs, np.random.default_rng([seeds, round(100 * effect)]))
    return estimate(rows, seeds)


def covered(estimates: pd.DataFrame, effect: float, margin: float = 0.0) -> float:
    """Share of the intervals that hold the effect, or miss it by no more than the margin."""
    return float(((estimates["ci_low"] - margin <= effect) & (effect <= estimates["ci_high"] + margin)).mean())


cases = pytest.mark.parametrize(
    ("layout", "seeds", "law"),
    [pytest.param(layout, seeds, name, id=f"{layout}-{seeds}-{name}")
     for layout, seeds, name in product(LAYOUTS, RUNS, LAWS)],
)  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_the_law_is_as_noisy_as_real_models(law: str) -> None:
    """Without any bug one pair's raw effect over images strays by .2; all pairs of 3 + 3 models, with δ, far less."""
    rows = similarities(LAWS[law], 3, 0.0, 1000, np.random.default_rng(0))
    raw = rows.assign(tell=tells(rows["value"], rows["benign"], 0.0, "similarity"))
    one = raw[(raw["seed"] == 0) & (raw["reference"] == 1) & (raw["control_seed"] == 2)]
    assert one.groupby("group")["tell"].mean().std() == pytest.approx(0.22, abs=0.05)
    assert rows.groupby("group")["tell"].mean().std() == pytest.approx(0.065, abs=0.02)


@cases
def test_the_truth_is_the_mean_of_many_suites(layout: str, seeds: int, law: str) -> None:
    for effect in (0.5, 0.8):
        effects = planted(replace(LAWS[law], strength=0.05), seeds, effect, layout, RUNS[seeds])["effect"]
        assert effects.mean() == pytest.approx(effect, abs=4 * effects.std() / np.sqrt(len(effects)))


@cases
def test_no_bug_is_hardly_ever_detected(layout: str, seeds: int, law: str) -> None:
    estimates = planted(LAWS[law], seeds, 0.5, layout, 2 * RUNS[seeds])
    false = float((estimates["ci_low"] > DETECTS).mean())
    assert false <= 0.02, f"{false:.1%} of suites without a bug detect one, expected at most 2 %"


@cases
@pytest.mark.parametrize("effect", PLANTED)
def test_the_interval_covers_planted_effects(layout: str, seeds: int, law: str, effect: float) -> None:
    estimates = planted(replace(LAWS[law], strength=0.05), seeds, effect, layout, RUNS[seeds])
    share = covered(estimates, effect)
    assert share >= 0.90, f"{share:.1%} of intervals hold the effect {effect}, expected 90 %"


@cases
@pytest.mark.parametrize("effect", STRONG)
def test_strong_effects_lie_near_the_interval(layout: str, seeds: int, law: str, effect: float) -> None:
    estimates = planted(replace(LAWS[law], strength=0.05), seeds, effect, layout, RUNS[seeds])
    share = covered(estimates, effect, NEAR_ONE)
    assert share >= 0.90, f"{share:.1%} of intervals come within {NEAR_ONE} of {effect}, expected 90 %"
    assert (estimates["ci_low"] > DETECTS).mean() > 0.7, "a strong bug should be detected as a rule"


def test_an_interval_over_images_alone_would_fail() -> None:
    """The bars reject: models' spread ignored, intervals miss the truth far too often."""
    rows = similarities(LAWS["independent"], 3, 0.0, 500, np.random.default_rng(0))
    images = rows.groupby(["group", "example"])["tell"].mean().groupby("group").agg(["mean", "sem"])
    naive = pd.DataFrame({"ci_low": images["mean"] - 2 * images["sem"], "ci_high": images["mean"] + 2 * images["sem"]})
    assert covered(naive, 0.5) < 0.80


def test_a_suite_of_methods_gets_the_same_estimates() -> None:
    """The whole way from a table of scores gives what `estimate` gives."""
    rows = similarities(LAWS["twins"], 3, 0.2, 20, np.random.default_rng(0))
    keys = dict.fromkeys(KEYS, "any") | {"metric": "spearman"}
    scores = rows.drop(columns=["group", "tell", "above_floor"]).assign(**keys)
    scores["method"] = [f"method{group:02d}" for group in rows["group"]]
    results = summarise(scores.sample(frac=1, random_state=0), suite="simulated", seeds_total=3,
                        kinds={"spearman": "similarity"}, visible={"spearman": VISIBLE})  # fmt: skip
    numbers = ["seeds", "n", "value", "sem", "benign", "floor", "effect", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(results[numbers], estimate(rows, 3)[numbers], check_exact=True)


PAIRS = {3: 30, 5: 15}  # of tables that are compared, both ways
PER_CASE = 8  # rows of a table for each law, layout and effect
TOLD = {"similarity": "spearman", "alignment": "iou"}
METRIC_KINDS = {metric: kind for kind, metric in TOLD.items()}


def tables_of_rows(seeds: int, number: int) -> list[pd.DataFrame]:
    """Results of independent suites, every row of models of its own: 192 rows of every law, layout and effect."""
    parts = []
    for law, layout, effect in product(LAWS, LAYOUTS, PLANTED + STRONG):
        estimates = planted(replace(LAWS[law], strength=0.05), seeds, effect, layout, number * PER_CASE)
        row = np.arange(len(estimates))
        verdicts = [verdict(e, low, high, True) for e, low, high in
                    zip(estimates["effect"], estimates["ci_low"], estimates["ci_high"], strict=True)]  # fmt: skip
        facts = {
            "suite": "drawn", "task": "task", "bug": "bug", "level": "1", "control": "clean", "metric": TOLD[layout],
            "post": "sum", "method": [f"{law} {effect} {each}" for each in row % PER_CASE],
            "verdict": [text for text, _ in verdicts], "reason": [reason for _, reason in verdicts],
        }  # fmt: skip
        parts.append(estimates.assign(**facts, table=row // PER_CASE))
    return [typed(rows[list(RESULT_COLUMNS)]) for _, rows in pd.concat(parts).groupby("table")]


@pytest.mark.parametrize("seeds", PAIRS)
@pytest.mark.parametrize("only_verdicts", [False, True])
def test_two_suites_of_one_law_raise_no_alarm(seeds: int, only_verdicts: bool) -> None:
    """Whole tables, in which one false alarm is one too many; and an effect that collapses is noticed in them."""
    tables = tables_of_rows(seeds, 2 * PAIRS[seeds])
    false, noticed, compared = 0, 0, 0
    for old, new in zip(tables[::2], tables[1::2], strict=True):
        for one, two in ((old, new), (new, old)):
            options = {"kinds": METRIC_KINDS, "only_verdicts": only_verdicts}
            found = compare(ComparedTable("one", one), ComparedTable("two", two), **options)
            false += not found.ok
            at = (one["verdict"] == "detects") & (one["effect"] > 0.9)
            broken = two.copy()
            broken.loc[at.idxmax(), ["effect", "ci_low", "ci_high", "verdict"]] = [0.5, 0.45, 0.55, "blind"]
            noticed += compare(ComparedTable("one", one), ComparedTable("two", broken), **options).code == 1
            compared += 1
    assert false <= 0.05 * compared
    assert noticed == compared
