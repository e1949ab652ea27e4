"""Maps of vectors (N, D) and sequences (N, C, L): which metrics take them, and SciPy, scikit-learn and NumPy on the
same numbers laid out flat."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

import attribug
from attribug import metrics
from attribug.contracts.shapes import KINDS, channel_axis, expect_images, kind, spatial
from attribug.metrics.alignment import flat
from attribug.metrics.postprocessing import postprocess

torch.set_num_threads(1)
FOR_IMAGES = {
    "ccm", "fam", "gt1_ssim", "gt2_ssim", "k_ssd", "pointing_game_tolerant", "ssim", "ssim_range2",
}  # fmt: skip
SIMILARITIES = {
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "cosine": lambda a, b: a @ b / (np.linalg.norm(a) * np.linalg.norm(b)),
}
ALIGNMENTS = {
    "mass_accuracy": lambda a, inside: a[inside].sum() / a.sum(),
    "rank_accuracy": lambda a, inside: inside[np.argsort(-a)[: inside.sum()]].mean(),
    "pointing_game": lambda a, inside: float(inside[a.argmax()]),
    "auroc": lambda a, inside: roc_auc_score(inside, a),
    "average_precision": lambda a, inside: average_precision_score(inside, a),
    "iou": lambda a, inside: np.sum(above(a) & inside) / np.sum(above(a) | inside) if above(a).any() else math.nan,
    "ground_truth_coverage": lambda a, inside: above(a)[inside].mean() if above(a).any() else math.nan,
}


def above(values):
    return values > values.mean() + values.std()


@st.composite
def pairs(draw):
    """Two maps of vectors or sequences and a mask that is neither empty nor full; with the channels summed by NumPy."""
    places, channels = draw(st.integers(3, 30)), draw(st.sampled_from([0, 1, 3]))
    shape = (4, channels, places) if channels else (4, places)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    one, other = (rng.standard_normal(shape) for _ in range(2))
    masks = rng.random((4, places)) < 0.4
    masks[:, 0], masks[:, -1] = True, False
    return one, other, masks


@pytest.mark.parametrize("name", SIMILARITIES)
@given(case=pairs())
@settings(max_examples=20, deadline=None)
def test_similarities_are_those_of_the_flat_maps(name, case):
    one, other, _ = case
    found = attribug.measure(f"{name}@sum", torch.from_numpy(one), torch.from_numpy(other))
    a, b = (each.sum(1) if each.ndim == 3 else each for each in (one, other))
    np.testing.assert_allclose(found, [SIMILARITIES[name](*rows) for rows in zip(a, b, strict=True)], atol=1e-9)


@pytest.mark.parametrize("name", ALIGNMENTS)
@given(case=pairs())
@settings(max_examples=20, deadline=None)
def test_alignments_are_those_of_the_flat_maps(name, case):
    one, _, masks = case
    found = attribug.measure(f"{name}@abs_sum", torch.from_numpy(one), torch.from_numpy(masks))
    relevance = np.abs(one).sum(1) if one.ndim == 3 else np.abs(one)
    np.testing.assert_allclose(
        found, [ALIGNMENTS[name](*rows) for rows in zip(relevance, masks, strict=True)], atol=1e-9
    )


@pytest.mark.parametrize("name", [name for name in metrics.names() if metrics.get(name).reads == "attributions"])
@pytest.mark.parametrize("shape", [(3, 40), (3, 2, 40)])
def test_metrics_of_images_alone_decline_and_all_others_measure(name, shape):
    stream = torch.Generator().manual_seed(0)
    metric = metrics.get(name)
    one, other = (torch.randn(shape, generator=stream) for _ in range(2))
    masks = torch.arange(40).expand(3, 40) < 15
    given_ = [masks if metric.kind == "alignment" else other, *([other] if metric.beside else [])]
    assert metric.images == (name in FOR_IMAGES)
    for post in metric.posts:
        if metric.images:
            with pytest.raises(
                attribug.Unsupported, match=rf"metric '{name}': expected images \(N, C, H, W\), found \(3"
            ):
                attribug.measure(f"{name}@{post}", one, *given_)
        else:
            values = attribug.measure(f"{name}@{post}", one, *given_)
            low, high = metric.bounds
            assert ((values >= low) & (values <= high)).all()


def test_percentile_and_minmax_are_taken_over_a_whole_sequence():
    sequences = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 9)))
    for found, one in zip(postprocess(sequences, "minmax_sum"), sequences.numpy(), strict=True):
        np.testing.assert_allclose(found, ((one - one.min()) / (one.max() - one.min())).sum(0), atol=1e-12)
    for found, one in zip(postprocess(sequences, "percentile"), sequences.numpy(), strict=True):
        np.testing.assert_allclose(found, np.clip(one / np.quantile(np.abs(one), 0.99), -1, 1), atol=1e-12)


def test_undefined_values_are_nan():
    zero, vector, mask = torch.zeros(1, 6), torch.arange(6.0)[None], torch.arange(6)[None] < 2
    assert attribug.measure("spearman@sum", zero, vector).isnan().all()
    assert attribug.measure("mass_accuracy", zero, mask).isnan().all()
    assert attribug.measure("mass_accuracy", vector, mask & False).isnan().all()


def test_axes_and_what_is_spatial():
    assert [kind(shape) for shape in ((2, 3, 4, 5), (2, 3, 4), (2, 3))] == list(KINDS.values())
    assert [channel_axis(shape) for shape in ((2, 3, 4, 5), (2, 3, 4), (2, 3))] == [1, 1, None]
    assert [spatial(torch.Size(shape)) for shape in ((2, 3, 4, 5), (2, 3, 4), (2, 3))] == [(4, 5), (4,), (3,)]
    for read in (kind, channel_axis, spatial):
        with pytest.raises(attribug.Unsupported, match=r"expected images .* or vectors \(N, D\), found \(2,\)"):
            read((2,))
    with pytest.raises(attribug.Unsupported, match=r"expected images \(N, C, H, W\), found \(2, 3\)"):
        expect_images((2, 3))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 4, 4)])
def test_an_alignment_alone_refuses_maps_with_channels(shape):
    with pytest.raises(attribug.Unsupported, match=r"alignment needs maps and masks \(N, H, W\), \(N, L\) or \(N, D\)"):
        flat(torch.ones(shape), torch.ones(shape, dtype=torch.bool))


def test_oracles_tell_wrong_layouts():
    """Summing positions instead of channels gives other numbers."""
    one, other = (torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 5, 5))) for seed in range(2))
    right = attribug.measure("spearman@sum", one, other)
    assert not torch.allclose(right, attribug.measure("spearman@none", one.sum(2), other.sum(2)))
    assert not any(math.isnan(value) for value in right.tolist())
