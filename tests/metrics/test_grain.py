"""grain: the width of a map's specks, against SciPy's correlation, and on maps whose specks are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

from attribug.metrics.grain import grain


def slow(plane: np.ndarray) -> float:
    """From SciPy's autocorrelation, averaged over rings of whole pixels, half of it interpolated between rings."""
    values = np.abs(plane) - np.abs(plane).mean()
    correlated = signal.correlate2d(values, values)
    height, width = values.shape
    far = np.hypot(*np.meshgrid(np.arange(-height + 1, height), np.arange(-width + 1, width), indexing="ij"))
    rings = np.rint(far).astype(int)
    zeros = np.hypot(*np.meshgrid(np.arange(-height, height), np.arange(-width, width), indexing="ij"))
    counts = np.bincount(np.rint(zeros).astype(int).ravel(), minlength=rings.max() + 2)
    sums = np.bincount(rings.ravel(), weights=correlated.ravel(), minlength=len(counts))
    profile = sums / np.maximum(counts, 1) / correlated.max()
    below = int(np.argmax(profile <= 0.5))
    return 2 * (below - 1 + (profile[below - 1] - 0.5) / (profile[below - 1] - profile[below]))


@pytest.mark.parametrize("shape", [(12, 12), (9, 14)])
@pytest.mark.parametrize("blur", [0.0, 0.8, 2.0])
def test_is_the_width_of_scipys_autocorrelation(shape: tuple[int, int], blur: float) -> None:
    noise = np.random.default_rng(0).normal(size=shape)
    plane = ndimage.gaussian_filter(noise, blur) if blur else noise
    assert float(grain(torch.as_tensor(plane)[None])[0]) == pytest.approx(slow(plane), rel=1e-9)


@pytest.mark.parametrize(("cells", "low", "high"), [(28, 0.9, 1.1), (7, 3.5, 5.5), (3, 8.0, 11.0)])
def test_of_interpolated_cells_it_is_about_a_cell(cells: int, low: float, high: float) -> None:
    stream = torch.Generator().manual_seed(0)
    coarse = torch.rand(100, 1, cells, cells, generator=stream)
    maps = torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear")[:, 0]
    assert low < float(grain(maps).median()) < high


def test_coarser_maps_have_larger_grains() -> None:
    noise = np.random.default_rng(1).normal(size=(32, 32))
    found = [float(grain(torch.as_tensor(ndimage.gaussian_filter(noise, blur))[None])) for blur in (0.5, 1, 2, 3)]
    assert found == sorted(found)


def test_constant_maps_have_none() -> None:
    assert torch.isnan(grain(torch.ones(2, 6, 6))).all()
    assert torch.isnan(grain(torch.zeros(1, 6, 6))).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-20, 1e20), st.integers(0, 1000))
def test_size_and_sign_do_not_matter_and_maps_do_not_meet(factor: float, seed: int) -> None:
    maps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    alone = torch.cat([grain(each[None]) for each in maps])
    torch.testing.assert_close(grain(maps), alone)
    torch.testing.assert_close(grain(-factor * maps), alone)
