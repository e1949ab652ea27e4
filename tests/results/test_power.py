"""How many models would decide: against simulated runs that are read by the functions that read real ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attribug.results import power
from attribug.results.evidence import evidence
from attribug.results.power import CHANCE, FAR, FEW_IMAGES, MOST_MODELS, Spread, chances, models_needed, sentence
from attribug.results.schema import KEYS
from attribug.results.statistics import estimate, verdict
from attribug.results.summary import summarise

RUNS = 2500
IMAGES = 24
TOLERANCE = 4 * math.sqrt(CHANCE * (1 - CHANCE) / RUNS)
"""Four standard errors of a simulated share, .032."""
LAWS = {
    "detects, by models": (0.72, 0.12, 0.0),
    "detects, images count too": (0.7, 0.1, 0.012),
    "inverted": (0.25, 0.16, 0.01),
    "blind": (0.5, 0.11, 0.008),
    "blind, beside the middle": (0.54, 0.07, 0.004),
}
"""Effect, standard deviation of a model's own effect, standard error over images."""


def share_decided(law: tuple[float, float, float], models: int, *, own_images: bool = False) -> float:
    """How many runs decide what their effect stands for: models and images are drawn, then `estimate` and `verdict`.

    With images of its own, a model has as many as all models share else; `images` of the law is of three models.
    """
    effect, of_models, of_images = law
    random = np.random.default_rng(models)
    images = models * IMAGES if own_images else IMAGES
    scatter = of_images * math.sqrt((3 if own_images else 1) * IMAGES)
    model, image = random.normal(0, of_models, (RUNS, models)), random.normal(0, scatter, (RUNS, images))
    runs, seeds, examples = np.meshgrid(np.arange(RUNS), np.arange(models), np.arange(IMAGES), indexing="ij")
    at = seeds * IMAGES + examples if own_images else examples
    tell = effect + model[runs, seeds] + image[runs, at]
    columns = {"group": runs, "seed": seeds, "example": at, "tell": tell}
    rows = pd.DataFrame({name: column.ravel() for name, column in columns.items()})
    rows = rows.assign(draw=0, reference=-1, control_seed=-1, value=0.0, benign=0.0, floor=0.0, above_floor=1.0)
    found = estimate(rows, models)
    said = [verdict(row.effect, row.ci_low, row.ci_high, True)[0] for row in found.itertuples()]  # type: ignore[arg-type]
    return float(np.mean(np.array(said) == power.toward(effect)))


def spread(law: tuple[float, float, float], seeds: int = 3, **more: Any) -> Spread:
    """Of a run of so many models from that law; images of its own make a model's effect scatter."""
    own = seeds * law[2] ** 2 if more.get("own_images") else 0.0
    return Spread((law[1] ** 2 + own) / seeds, law[2] ** 2, seeds, **more)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_the_predicted_number_decides_with_the_promised_chance(name: str) -> None:
    law = LAWS[name]
    models = models_needed(law[0], spread(law))
    assert models is not None
    assert 3 < models < 20, "a case that tests something"
    assert share_decided(law, models) >= CHANCE - TOLERANCE
    assert share_decided(law, models - 1) < CHANCE + TOLERANCE
    for tried in (models - 1, models, models + 3):
        assert share_decided(law, tried) == pytest.approx(chances(law[0], spread(law))[tried - 3], abs=TOLERANCE)


@pytest.mark.slow
def test_images_of_its_own_come_with_every_model() -> None:
    law = (0.7, 0.06, 0.03)
    own, shared = models_needed(law[0], spread(law, own_images=True)), models_needed(law[0], spread(law))
    assert own is not None
    assert own < (shared or MOST_MODELS)
    found = chances(law[0], spread(law, own_images=True))[own - 3]
    assert share_decided(law, own, own_images=True) == pytest.approx(found, abs=TOLERANCE)
    assert share_decided(law, own) < CHANCE - TOLERANCE, "the other formula is wrong here"


def normal_quantile(effect: float, of: Spread) -> float:
    """As if the interval were ± 1.96 standard errors, whatever the number of models."""
    needed = (stats.norm.ppf(0.975) + stats.norm.ppf(CHANCE)) / abs(effect - 0.6)
    return math.ceil(of.over_models * of.seeds * needed**2)


def half_a_chance(effect: float, of: Spread) -> float:
    """The least S whose expected interval just reaches the boundary."""
    half = (stats.t.ppf(0.975, s - 1) * math.sqrt(of.over_models * of.seeds / s) for s in range(3, MOST_MODELS))
    return next(s for s, reach in enumerate(half, 3) if reach < abs(effect - 0.6))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [normal_quantile, half_a_chance])
def test_a_formula_that_promises_too_much_is_found_out(wrong: Callable[[float, Spread], float]) -> None:
    law = LAWS["detects, by models"]
    assert share_decided(law, int(wrong(law[0], spread(law)))) < CHANCE - TOLERANCE


@given(
    st.floats(0.0, 1.0), st.floats(0.0, 0.2), st.floats(0.0, 0.05), st.integers(3, 10),
)  # fmt: skip
def test_more_spread_never_decides_sooner(effect: float, models: float, images: float, seeds: int) -> None:
    found = chances(effect, Spread(models**2, images**2, seeds))
    assert found.shape == (MOST_MODELS - 2,)
    assert ((found >= 0) & (found <= 1)).all()
    needed = models_needed(effect, Spread(models**2, images**2, seeds))
    assert needed is None or needed > seeds
    if needed is not None:
        more = models_needed(effect, Spread((models + 0.05) ** 2, images**2, seeds))
        assert more is None or more >= needed
    mirrored = chances(1 - effect, Spread(models**2, images**2, seeds))
    assert mirrored == pytest.approx(found, abs=1e-9) or abs(abs(effect - 0.5) - 0.1) < 1e-9


@pytest.mark.parametrize("df", [2, 4, 11])
def test_without_images_the_chance_is_that_of_the_noncentral_t(df: int) -> None:
    """Then P(t > t(.975)) has a closed form."""
    for effect, of_models in ((0.8, 0.1), (0.65, 0.05), (0.95, 0.3)):
        error = of_models / math.sqrt(df + 1)
        exact = stats.nct.sf(stats.t.ppf(0.975, df), df, (effect - 0.6) / error)
        found = chances(effect, Spread(of_models**2 / 3, 0.0, 3))[df - 2]
        assert found == pytest.approx(exact, abs=0.003)


# ---- the table


def scores(plain: SimpleNamespace, layout: str = "similarity", seeds: int = 3, images: int = 8, **facts: Any) -> Any:
    return plain.scores(np.random.default_rng(0), layout, seeds, images, **facts)


def tabled(plain: SimpleNamespace, rows: Any, seeds: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and their table."""
    told = plain.settings(seeds)
    frame = plain.frame(rows)
    results = summarise(frame, suite="made", **told)
    return results, power.power(evidence(frame, **told), results)


def test_an_open_verdict_has_the_number_of_its_own_spread(plain: SimpleNamespace) -> None:
    """Its standard errors are those of its interval."""
    results, table = tabled(plain, scores(plain))
    [row], [of] = table.to_dict("records"), results.to_dict("records")
    assert tuple(table.columns) == power.COLUMNS
    assert of["verdict"] == "inconclusive"
    half = stats.t.ppf(0.975, 2) * math.hypot(row["se_models"], row["se_images"])
    assert row["effect"] - half == pytest.approx(plain.interval(scores(plain), 3, plain.tell)[0])
    assert {name: row[name] for name in (*KEYS, "effect", "ci_low", "ci_high", "seeds")} == {
        name: of[name] for name in (*KEYS, "effect", "ci_low", "ci_high", "seeds")
    }


def test_a_decided_verdict_is_not_in_the_table(plain: SimpleNamespace) -> None:
    results, table = tabled(plain, scores(plain, fall=2.0))
    assert results["verdict"].tolist() == ["detects"]
    assert table.empty
    assert tuple(table.columns) == power.COLUMNS


@pytest.mark.parametrize(
    ("seeds", "facts", "reason"),
    [
        (3, {"undefined": 0.3}, "undefined "),
        (2, {}, "2 models; an interval needs 3"),
        (3, {"images": 1}, "only 1 example"),
    ],
)
def test_what_more_models_would_not_decide_says_why(
    plain: SimpleNamespace, seeds: int, facts: dict[str, Any], reason: str
) -> None:
    results, table = tabled(plain, scores(plain, seeds=seeds, **facts), seeds)
    [row] = table.to_dict("records")
    assert math.isnan(row["models"])
    assert row["toward"] == ""
    assert row["reason"].startswith(reason)
    assert row["reason"] == results["reason"].iloc[0]


def made(effect: float, of_models: float, of_images: float, **facts: Any) -> dict[str, Any]:
    """What would decide a row."""
    row = {"effect": effect, "seeds": 3, "undefined": 0.0, "se_models": of_models, "se_images": of_images,
           "headroom": True, "own_images": False, "reason": "undecided", **facts}  # fmt: skip
    return power._needed(SimpleNamespace(**row))


def test_every_reason() -> None:
    assert made(0.5, 0.05, 0.0)["toward"] == "blind"
    assert made(0.5, 0.05, 0.0, headroom=False) == {"toward": "", "models": pytest.approx(math.nan, nan_ok=True),
                                                     "reason": "no headroom"}  # fmt: skip
    assert made(0.8, 0.05, 0.0, headroom=False)["toward"] == "detects", "headroom matters to blindness alone"
    assert made(0.61, 0.1, 0.0)["reason"] == FAR
    assert made(0.61, 0.001, 0.02)["reason"] == FEW_IMAGES
    assert made(0.61, 0.001, 0.02, own_images=True)["reason"] in {"", FAR}
    assert made(0.6, 0.0, 0.0)["reason"] == FAR, "on the boundary nothing decides"
    assert made(math.nan, math.nan, math.nan)["reason"] == "undecided"


def test_the_sentence_counts(plain: SimpleNamespace) -> None:
    rows = pd.DataFrame({"verdict": ["detects", "blind", *["inconclusive"] * 5, "unsupported"]})
    table = pd.DataFrame({"models": [4.0, 5.0, 12.0, math.nan, math.nan]})
    assert sentence(rows, table) == (
        "2 of 7 verdicts are decided. Of the 5 open ones, 5 models a side would decide 2 with 80 % chance, 20 models 3."
    )
    assert sentence(rows, table.assign(models=math.nan)).endswith(
        "50 models a side would decide none with 80 % chance."
    )
    assert sentence(rows[:2], table[:0]) == "2 of 2 verdicts are decided."
    assert sentence(rows[7:], table[:0]) == ""


def test_images_are_of_each_model_where_no_two_share_one(plain: SimpleNamespace) -> None:
    for layout, own in (("similarity", False), ("flips", True), ("alignment", False)):
        told = evidence(plain.frame(scores(plain, layout)), **plain.settings(3))
        assert told.own_images.tolist() == [own]
    first, second = (next(row["example"] for row in scores(plain, "flips") if row["seed"] == seed) for seed in (3, 4))
    shared = [row | {"example": first} if row["example"] == second else row for row in scores(plain, "flips")]
    assert evidence(plain.frame(shared), **plain.settings(3)).own_images.tolist() == [False]
    assert replace(told, own_images=~told.own_images).select([0]).own_images.tolist() == [True]
