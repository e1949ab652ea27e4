"""The calibration in the docs is what its script computes, and says what the docs say of it."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import attribug
from attribug.metrics.postprocessing import postprocess
from attribug.metrics.surrogates import LAWS

DOCS = Path(__file__).parents[2] / "docs"
SSIM = ("ssim_range2@minmax", "ssim@sum_minmax", "ssim@abs_sum_minmax")
LARGEST = {"calibration.svg": 200_000, "calibration_maps.svg": 200_000, "high_ssim.svg": 100_000}  # bytes


def script():
    """`docs/calibration.py` as a module."""
    spec = importlib.util.spec_from_file_location("calibration", DOCS / "calibration.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibration"] = module
    spec.loader.exec_module(module)
    return module


calibration = script()
TABLE = pd.read_csv(calibration.TABLE)
MEANS = TABLE.set_index(["maps", "pair", "pixels", "metric"])["mean"].sort_index()


@pytest.mark.parametrize("pixels", [28, 64])
@pytest.mark.parametrize("law", LAWS)
def test_the_table_is_what_the_script_computes(law, pixels):
    written = TABLE[(TABLE["maps"] == law) & (TABLE["pixels"] == pixels)].reset_index(drop=True)
    computed = pd.DataFrame(calibration.noise(law, pixels), columns=calibration.COLUMNS)
    pd.testing.assert_frame_equal(written, computed, rtol=1e-3, atol=1e-3)


def test_the_table_is_complete():
    noise = {(law, "noise", px, m) for law in LAWS for px in calibration.SIZES for m in calibration.METRICS}
    maps = {
        (method, pair, px, m)
        for method in calibration.METHODS for pair in calibration.BARS
        for px in calibration.MAP_SIZES for m in calibration.METRICS
    }  # fmt: skip
    assert set(MEANS.index) == noise | maps
    assert len(TABLE) == len(noise | maps)
    assert set(calibration.LINES) == set(LAWS)
    assert (
        TABLE["pairs"] == [calibration.PAIRS if pair == "noise" else calibration.IMAGES for pair in TABLE["pair"]]
    ).all()
    assert ((TABLE["p5"] <= TABLE["mean"]) & (TABLE["mean"] <= TABLE["p95"])).all()


# --- what the docs say ---


@pytest.mark.parametrize(
    ("law", "similarities"),
    [("gaussian", {28: 0.08, 128: 0.12, 224: 0.13}), ("student t3", {28: 0.41, 128: 0.77, 224: 0.85})],
)
def test_ssim_of_noise_grows_with_tails_and_resolution(law, similarities):
    """Under the published pipeline, which keeps the channels and takes a data range of 2."""
    for pixels, expected in similarities.items():
        assert MEANS[law, "noise", pixels, "ssim_range2@minmax"] == pytest.approx(expected, abs=0.02)


def test_correlations_of_noise_are_nought():
    noise = TABLE[(TABLE["pair"] == "noise") & TABLE["metric"].str.contains("spearman|pearson")]
    assert noise["mean"].abs().max() < 0.05


@pytest.mark.parametrize("metric", SSIM)
@pytest.mark.parametrize("pixels", calibration.MAP_SIZES)
@pytest.mark.parametrize("method", calibration.GRADIENTS)
def test_ssim_of_gradient_maps_of_two_images_is_that_of_noise(method, pixels, metric):
    floor, noise = (MEANS[method, pair, pixels, metric] for pair in ("floor", "matched noise"))
    assert abs(floor - noise) < 0.12


# --- the parts of the script ---


def test_summaries_leave_out_what_is_undefined():
    values = torch.tensor([0.0, torch.nan, 1.0, 0.5], dtype=torch.float64)
    row = calibration.summary("x", "floor", 32, "spearman@sum", values)
    assert list(row) == calibration.COLUMNS
    assert (row["pairs"], row["mean"], row["p5"], row["p95"]) == (3, 0.5, pytest.approx(0.05), pytest.approx(0.95))


def fakes(seed: int, size: int = 16) -> dict[str, torch.Tensor]:
    """Maps of nothing, as if of every method."""
    stream = torch.Generator().manual_seed(seed)
    shape = (calibration.IMAGES, 3, size, size)
    return {method: LAWS["student t3"](shape, stream) for method in calibration.METHODS}


@pytest.mark.parametrize("post", ["none", "sum", "abs_sum"])
def test_matched_noise_has_the_values_that_a_metric_reads(post):
    maps = fakes(0)["gradient"]
    noise = calibration.matched(maps, post, "gradient", 16)
    read = postprocess(maps, post).reshape(noise.shape)
    assert torch.equal(noise.flatten(2).sort().values, read.flatten(2).sort().values)
    assert attribug.measure("pearson@none", noise, read).abs().mean() < 0.1


def test_comparisons_tell_images_noise_and_networks_apart():
    maps = fakes(0)["gradient"]
    rows = {(row["pair"], row["metric"]): row["mean"] for row in calibration.compared("x", 16, maps, maps)}
    for metric in calibration.METRICS:
        assert rows["benign", metric] == pytest.approx(1)
        assert rows["floor", metric] < 0.5
        assert rows["matched noise", metric] != rows["floor", metric]


def test_the_example_is_the_most_similar_pair_that_does_not_correlate():
    one, other = fakes(0), fakes(1)
    found = calibration.striking(one, other)
    best = -1.0
    for method in calibration.METHODS:
        for shift in range(1, calibration.IMAGES):
            pair = one[method], other[method].roll(-shift, 0)
            unlike = (attribug.measure("spearman@sum", *pair).abs() < calibration.UNCORRELATED["spearman"]) & (
                attribug.measure("pearson@sum", *pair).abs() < calibration.UNCORRELATED["pearson"]
            )
            best = max([best, *attribug.measure("ssim@sum_minmax", *pair)[unlike].tolist()])
    assert found.scores["ssim@sum_minmax"] == pytest.approx(best)
    i, j = found.images
    for metric, score in found.scores.items():
        assert attribug.measure(metric, one[found.method][[i]], other[found.method][[j]]).item() == score


# --- the figures ---


@pytest.mark.parametrize("name", LARGEST)
def test_figures_are_small_and_name_no_day(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST[name]
    assert "dc:date" not in text


def test_the_drawn_example_is_a_high_ssim_without_correlation():
    text = (DOCS / "high_ssim.svg").read_text(encoding="utf-8")
    scores = {metric: float(text.split(f"{metric} ")[1][:4]) for metric in ("ssim@sum_minmax", "spearman@sum")}
    assert scores["ssim@sum_minmax"] > 0.8
    assert abs(scores["spearman@sum"]) <= 0.05


def test_drawing_twice_gives_the_same_bytes(tmp_path):
    one, other = fakes(0), fakes(1)
    example, inputs = calibration.striking(one, other), torch.rand(2, 3, 16, 16)
    written: dict[str, set[bytes]] = {}
    for _ in range(2):
        calibration.write_figures(tmp_path, TABLE, example, inputs, one["lime"][0], other["lime"][1])
        for path in tmp_path.iterdir():
            written.setdefault(path.name, set()).add(path.read_bytes())
    assert set(written) == set(LARGEST)
    assert all(len(contents) == 1 for contents in written.values())
