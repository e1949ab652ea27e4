"""Pictures prepared otherwise: mistakes are those of the name, and what is harmless is not seen."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from torchvision.transforms import functional

from attribug.models.preprocessing import HALVES, IMAGENET, OTHERS, WRONG, harmless, raw, scaled

UNSEEN = {"jpeg": 35.0, "larger": 25.0}  # decibels
NUMBERS = st.floats(-3, 3)
SPREADS = st.floats(0.125, 3)


def pictures(pixels: int = 64) -> torch.Tensor:
    """Photographs, (2, 3, H, W) in [0, 1]."""
    found = [Image.fromarray(each).resize((pixels, pixels)) for each in (data.astronaut(), data.coffee())]
    return torch.stack([functional.to_tensor(each) for each in found])


@given(st.integers(1, 4), st.integers(0, 10), st.data())
def test_raw_and_scaled_undo_each_other(channels: int, seed: int, draws: st.DataObject) -> None:
    count = draws.draw(st.sampled_from([1, channels]))
    mean, std = (draws.draw(st.lists(each, min_size=count, max_size=count)) for each in (NUMBERS, SPREADS))
    inputs = torch.rand((2, channels, 3, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(raw(scaled(inputs, mean, std), mean, std), inputs)
    torch.testing.assert_close(scaled(raw(inputs, mean, std), mean, std), inputs)


def test_scaled_is_torchvisions_normalisation() -> None:
    torch.testing.assert_close(scaled(pictures(), *IMAGENET), functional.normalize(pictures(), *IMAGENET))


def test_mistakes_are_those_of_their_names() -> None:
    found = {name: make(pictures(), *IMAGENET) for name, make in WRONG.items()}
    torch.testing.assert_close(found["bgr"], functional.normalize(pictures()[:, [2, 1, 0]], *IMAGENET))
    torch.testing.assert_close(found["normalisation"], pictures())
    torch.testing.assert_close(found["bytes"], functional.normalize(pictures() * 255, *IMAGENET))
    small = pictures().reshape(2, 3, 32, 2, 32, 2).mean((3, 5))
    large = functional.resize(small, [64, 64], antialias=False)
    torch.testing.assert_close(found["half_size"], functional.normalize(large, *IMAGENET), atol=1e-5, rtol=1e-5)
    for name in ("imagenet", "halves"):
        expected = functional.normalize(pictures(), *{"imagenet": IMAGENET, "halves": HALVES}[name])
        torch.testing.assert_close(OTHERS[name][1](pictures(), [0.1], [0.2]), expected)


@pytest.mark.parametrize("pixels", [(1, 1), (3, 5), (7, 2)])
def test_small_and_odd_pictures_keep_their_shape(pixels: tuple[int, int]) -> None:
    given_ones = torch.rand((2, 3, *pixels), generator=torch.Generator().manual_seed(0))
    for make in WRONG.values():
        assert make(given_ones, [0.5], [0.5]).shape == given_ones.shape
    for number in range(6):
        assert harmless(given_ones, number).shape == given_ones.shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", range(7))
def test_what_is_harmless_is_not_seen(channels: int, number: int) -> None:
    before = pictures()[:, :channels]
    after = harmless(before, number)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    assert 0 <= after.min() <= after.max() <= 1
    assert not torch.equal(after, before)
    least = UNSEEN["larger" if number % 2 else "jpeg"]
    assert peak_signal_noise_ratio(before.numpy(), after.numpy(), data_range=1) > least


def test_every_number_stores_otherwise() -> None:
    found = [harmless(pictures(), number) for number in range(7)]
    assert len({each.numpy().tobytes() for each in found}) == len(found)


@pytest.mark.parametrize(("number", "quality"), [(0, 95), (2, 94), (4, 93)])
def test_even_numbers_are_pillows_jpeg(number: int, quality: int) -> None:
    stored = io.BytesIO()
    functional.to_pil_image(pictures()[0]).save(stored, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(stored), np.float32) / 255
    np.testing.assert_allclose(harmless(pictures(), number)[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
