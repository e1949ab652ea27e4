"""K-SSD, CCM and FAM: the same SSIM as scikit-image's, of the maps that each of them is about."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

import attribug
from attribug import metrics

NAMES = ["k_ssd", "ccm", "fam"]


def picture(maps):
    """Σ |channels| from 0 to 1, (H, W); None for a constant one."""
    values = np.abs(maps[0].double().numpy())
    values = (values / values.max() if values.any() else values).sum(0)
    return None if values.min() == values.max() else (values - values.min()) / (values.max() - values.min())


def skimages(a, b, **options):
    """Wang et al.'s SSIM, NaN where a picture is missing."""
    if a is None or b is None:
        return math.nan
    usual = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    return structural_similarity(a, b, **{**usual, **options})


def truth(masks):
    return masks[0].numpy().astype(float) if masks.any() else None


@pytest.mark.parametrize("name", ["ccm", "fam"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_ccm_and_fam_are_scikit_images(name, data, drawn_maps, same):
    pair = data.draw(drawn_maps(11, 21, 2))
    found = attribug.measure(name, *pair)
    same(found.item(), skimages(*map(picture, pair)), 1e-8)
    assert torch.equal(found.nan_to_num(7), attribug.measure("ssim@abs_sum_minmax", *pair).nan_to_num(7))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_k_ssd_is_scikit_images(data, masked_maps, same):
    maps, masks = data.draw(masked_maps(11, 21))
    same(attribug.measure("k_ssd", maps, masks).item(), skimages(picture(maps), truth(masks)), 1e-8)


MISTAKES = {
    "data range 2": lambda a, b: skimages(a, b, data_range=2),
    "sample covariances": lambda a, b: skimages(a, b, use_sample_covariance=True),
    "even weights": lambda a, b: skimages(a, b, gaussian_weights=False, win_size=11),
    "a number for nothing": lambda a, b: np.nan_to_num(skimages(a, b)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_another_similarity_is_found_out(mistake, masked_maps, is_found_out):
    def of_case(function):
        return lambda case: float(function(picture(case[0]), truth(case[1])))

    assert is_found_out(masked_maps(11, 21), of_case(MISTAKES[mistake]), of_case(skimages))


def maps_and_masks(count=4):
    stream = torch.Generator().manual_seed(5)
    masks = torch.zeros(count, 15, 18, dtype=torch.bool)
    masks[:, 3:9, 4:12] = True
    return torch.randn(count, 3, 15, 18, generator=stream), masks


def operands(name):
    maps, masks = maps_and_masks()
    return maps, masks if name == "k_ssd" else maps.flip(0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("nothing", [0.0, 0.3, math.nan])
def test_maps_without_a_range_are_undefined_for_them_alone(name, nothing):
    maps, other = operands(name)
    plain = attribug.measure(name, maps, other)
    broken = maps.clone()
    broken[1] = nothing
    found = attribug.measure(name, broken, other)
    assert found.isnan().tolist() == [False, True, False, False]
    assert torch.equal(found[[0, 2, 3]], plain[[0, 2, 3]])


def test_empty_masks_are_undefined():
    maps, masks = maps_and_masks()
    masks[2] = False
    assert attribug.measure("k_ssd", maps, masks).isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_scale_and_sign_do_not_matter(name):
    maps, other = operands(name)
    plain = attribug.measure(name, maps, other)
    for factor in (1e-30, -3.0, 1e30):
        scaled = attribug.measure(name, factor * maps.double(), other)
        torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-6)
    assert (attribug.measure(name, maps + 5, other) - plain).abs().min() > 1e-4


@pytest.mark.parametrize("name", ["ccm", "fam"])
def test_models_can_be_exchanged(name):
    maps, other = operands(name)
    found = attribug.measure(name, maps, other)
    torch.testing.assert_close(attribug.measure(name, other, maps), found, rtol=0, atol=1e-14)
    assert attribug.measure(name, maps, maps).eq(1).all()


def test_the_mask_itself_scores_one():
    _, masks = maps_and_masks()
    assert attribug.measure("k_ssd", masks[:, None].double(), masks).eq(1).all()
    assert (attribug.measure("k_ssd", (~masks)[:, None].double(), masks) < 0.2).all()
    assert attribug.measure("k_ssd", torch.ones(4, 1, 15, 18), masks).isnan().all()


@pytest.mark.parametrize("shape", [(4, 15, 17), (3, 15, 18), (4, 1, 15, 18)])
def test_masks_have_the_maps_shape(shape):
    maps, masks = maps_and_masks()
    with pytest.raises(attribug.InputError, match=r"expected masks \(4, 15, 18\) torch\.bool, found"):
        attribug.measure("k_ssd", maps, torch.ones(shape, dtype=torch.bool))
    with pytest.raises(attribug.InputError, match=r"expected masks .* torch\.bool, found \(4, 15, 18\) torch\.float32"):
        attribug.measure("k_ssd", maps, masks.float())


@pytest.mark.parametrize("name", NAMES)
def test_small_maps_are_declined(name):
    maps, other = (each[..., :10] for each in operands(name))
    with pytest.raises(attribug.Unsupported, match="ssim needs maps of more than 10 pixels a side, found"):
        attribug.measure(name, maps, other)


def test_each_is_about_other_maps():
    """K-SSD: the truth. CCM: clean inputs. FAM: the explained inputs; all where a bug says what is spurious."""
    required = {name: metrics.get(name).required for name in NAMES}
    assert required == {"k_ssd": {"truth"}, "ccm": {"truth", "clean_inputs"}, "fam": {"truth"}}
    assert {name: metrics.get(name).inputs for name in NAMES} == {"k_ssd": "", "ccm": "clean_inputs", "fam": ""}
    assert {name: metrics.get(name).kind for name in NAMES} == {
        "k_ssd": "alignment", "ccm": "similarity", "fam": "similarity",
    }  # fmt: skip
