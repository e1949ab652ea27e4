"""Planted methods and a planted bug come out as they must: in a run of the smoke suite, and in 200 simulated runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from attribug import metrics
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe, Trained
from attribug.plugins import load_plugin
from attribug.results.schema import SCORE_COLUMNS, read_results
from attribug.results.summary import summarise
from attribug.scores.blocks import score_block
from attribug.scores.records import Settings

PLUGIN = Path(__file__).parents[1] / "plugins" / "planted.py"
BLINDFOLDED = ("constant", "edges", "input_itself", "random")
BUGS = ("spurious_background", "label_flips", "reinit", "never_takes")
METHODS = ("knows_the_truth", "painted_softmax", *BLINDFOLDED, "predictions")


@pytest.fixture(scope="module")
def run(shared_run: Callable[..., Path]) -> Path:
    """The folder of a smoke run of planted methods."""
    metrics = "spearman,ssim,pearson,iou,auroc,mass_accuracy,total_variation,background_swap"
    return shared_run(
        "planted", "smoke", "--plugin", str(PLUGIN), "--bugs", ",".join(BUGS), "--methods", ",".join(METHODS),
        "--metrics", metrics,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(run: Path) -> pd.DataFrame:
    return read_results(run / "results.csv")


@pytest.mark.slow
def test_the_truth_is_detected(results):
    rows = results[(results["method"] == "knows_the_truth") & (results["bug"] == "spurious_background")]
    by_metric = rows.set_index("metric")["verdict"]
    assert by_metric["mass_accuracy"] == "detects"
    assert by_metric["auroc"] == "inconclusive", "a uniform map has no ranks: the control is undefined, no free hit"
    assert rows.set_index("metric")["reason"]["auroc"].startswith("undefined 100 %")


@pytest.mark.slow
@pytest.mark.parametrize("method", BLINDFOLDED)
def test_what_does_not_look_at_the_model_is_never_a_detector(results, method):
    rows = results[(results["method"] == method) & (results["bug"] != "never_takes")]
    assert set(rows["bug"]) == {"spurious_background", "label_flips", "reinit"}
    assert set(rows["verdict"]) <= {"blind", "inconclusive"}
    assert (rows["effect"] == 0.5).all()


@pytest.mark.slow
def test_a_painted_softmax_is_unmasked(run, results):
    """It `detects` bugs that predictions show, adds nothing to them, and is blind where they are."""
    painted = results[results["method"] == "painted_softmax"]
    detected = painted.loc[painted["verdict"] == "detects", ["bug", "control"]].drop_duplicates()
    assert "label_flips" in set(detected["bug"])
    bare = results[results["metric"] == "total_variation"].set_index(["bug", "control"])["verdict"]
    seen = [bare[place] for place in detected.itertuples(index=False, name=None)]
    assert set(seen) == {"detects"}, "it sees nothing that predictions do not"
    added = pd.read_csv(run / "analysis" / "added.csv")
    mine = added[(added["method"] == "painted_softmax") & (added["yardstick"] == "total_variation")]
    assert len(mine)
    assert not (mine["adds"] == "more").any()
    truth = added[(added["method"] == "knows_the_truth") & (added["metric"] == "mass_accuracy")]
    against = truth.set_index(["bug", "yardstick"])["adds"]
    assert against["spurious_background", "total_variation"] == "more", "the same column can say so"
    assert against["spurious_background", "background_swap"] != "more", "asking directly tells as much"


@pytest.mark.slow
def test_the_direct_query_sees_the_background(results):
    rows = results[(results["bug"] == "spurious_background") & (results["method"] == "predictions")]
    rows = rows.set_index("metric")
    assert rows["verdict"]["background_swap"] == "detects"
    assert rows["reason"]["background_swap"] == "true by construction"
    assert rows["verdict"]["total_variation"] != "detects"


@pytest.mark.slow
def test_a_bug_that_did_not_take_gets_no_verdict(run, results):
    rows = results[results["bug"] == "never_takes"]
    assert set(rows["method"]) == set(METHODS)
    assert set(rows["verdict"]) == {"not taken"}
    assert rows["effect"].isna().all()
    assert rows["reason"].str.contains("impossible").all()
    for table in ("headline", "added"):
        assert "never_takes" not in set(pd.read_csv(run / "analysis" / f"{table}.csv").dropna(subset="effect")["bug"])


# --- 200 runs of noise ---

RUNS, SEEDS, IMAGES, PIXELS = 200, 3, 8, 24
NOISY = ("spearman@sum", "ssim@sum_minmax", "pearson@abs_sum", "top_k_intersection@abs_sum", "mass_accuracy@abs_sum",
         "iou@abs_sum", "auroc@abs_sum")  # fmt: skip


def squares() -> Data:
    inputs = torch.zeros(IMAGES, 3, PIXELS, PIXELS)
    masks = torch.zeros(IMAGES, PIXELS, PIXELS, dtype=torch.bool)
    masks[:, 6:15, 6:15] = True
    return Data(inputs, torch.zeros(IMAGES, dtype=torch.int64), torch.arange(IMAGES), masks)


EXPLAINED = Examples("squares", squares)


class Untrained:
    """Stands in for a `Lab`: models are random weights that their description seeds."""

    device = torch.device("cpu")

    def data(self, examples: Examples) -> Data:
        return examples.load()

    def training_data(self, spec: Trained) -> Callable[[], Data]:
        return spec.examples.load

    def kept(self, spec: Trained) -> dict[Any, Any]:
        return {}

    def below(self, spec: Trained) -> None:
        return None

    def model(self, spec: Trained) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * PIXELS**2, 2))
        stream = torch.Generator().manual_seed(int(spec.key, 16) % 2**62)
        with torch.no_grad():
            model[1].weight.normal_(generator=stream)
        return model.eval()


def simulated(number: int) -> pd.DataFrame:
    """Scores of one run: three contaminated models that differ from clean ones as these differ among themselves."""
    recipe = Recipe(nn.Identity, epochs=1)

    def side(name: str, seed: int) -> Side:
        return Side(Trained(Examples(f"{name} {number}", squares), recipe, seed), EXPLAINED)

    frames = []
    method = [(load_and_get("hash_of_weights"), {})]
    measured = [pair for name in NOISY for pair in metrics.measured_as(name)]
    for seed in range(SEEDS):
        clean = [side("clean", s) for s in range(SEEDS)]
        contrast = Contrast(
            side("bad", seed), tuple(c for c in clean if c.seed != seed), tuple(clean), "clean", "label",
            truth="background",
        )  # fmt: skip
        settings = Settings(seed=number, examples=IMAGES, chunk=IMAGES, rows=IMAGES)
        record = score_block(contrast, method, measured, Untrained(), settings)["hash_of_weights"]  # type: ignore[arg-type]
        assert not record.verdict, record.reason
        frames.append(record.scores)
    scores = pd.concat(frames, ignore_index=True)
    return scores.assign(task="t", bug="b", level=str(number), method="hash_of_weights")[list(SCORE_COLUMNS)]


def load_and_get(name: str) -> Any:
    from attribug import methods

    load_plugin(str(PLUGIN))
    return methods.get(name)


@pytest.fixture(scope="module")
def noise() -> pd.DataFrame:
    return pd.concat([simulated(number) for number in range(RUNS)], ignore_index=True)


@pytest.mark.slow
@pytest.mark.parametrize("visible", [None, 0.0])
def test_noise_of_the_weights_is_no_evidence(noise, visible):
    """Effect .5 within its interval in at least 92 % of the runs, `detects` in at most 2 %, whatever the metric."""
    kinds = {name: metrics.get(name).kind for name in noise["metric"].unique()}
    least = {name: metrics.get(name).visible if visible is None else visible for name in kinds}
    table = summarise(noise, suite="s", seeds_total=SEEDS, kinds=kinds, visible=least)
    covered = (table["ci_low"] <= 0.5) & (table["ci_high"] >= 0.5)
    rates = covered.groupby(table["metric"]).mean()
    false = (table["verdict"] == "detects").groupby(table["metric"]).mean()
    print(pd.DataFrame({"covered": rates, "detects": false, "mean effect": table.groupby("metric")["effect"].mean()}))
    assert table.groupby("metric").size().eq(RUNS).all()
    assert rates.min() >= 0.92, rates
    assert false.max() <= 0.02, false


@pytest.mark.slow
def test_a_fall_in_similarity_is_not_mistaken_for_noise(noise):
    """The same runs with a planted fall: the test above can fail."""
    part = noise[noise["metric"] == "spearman"].copy()
    part["value"] -= 0.3
    table = summarise(part, suite="s", seeds_total=SEEDS, kinds={"spearman": "similarity"}, visible={"spearman": 0.1})
    assert (table["verdict"] == "detects").mean() > 0.95
    assert not np.any((table["ci_low"] <= 0.5) & (table["ci_high"] >= 0.5))
