"""RISE against a slow loop from the paper, its enlargement written out by hand, and against what its masks promise."""

import math

import numpy as np
import pytest
import torch
from skimage.transform import resize
from torch import nn

import attribug
from attribug.methods.rise import soft_masks
from attribug.streams import generator

TARGETS = torch.tensor([2, 0, 1])


def bent(height: int, width: int) -> nn.Module:
    """A small network whose logits are no sums over pixels, float64."""
    layers = nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * height * width, 3)
    model, stream = nn.Sequential(*layers).double(), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=stream)
    return model


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def blend(coarse: int, fine: int) -> np.ndarray:
    """Weights (fine, coarse) of linear interpolation between the centres of cells, those at the border continued."""
    weights = np.zeros((fine, coarse))
    for place in range(fine):
        at = min(max((place + 0.5) * coarse / fine - 0.5, 0), coarse - 1)
        below = min(math.floor(at), coarse - 1)
        weights[place, below] += 1 - (at - below)
        weights[place, min(below + 1, coarse - 1)] += at - below
    return weights


def enlarged(coins: np.ndarray, height: int, width: int) -> np.ndarray:
    return blend(len(coins), height) @ coins @ blend(len(coins), width).T


def paper_masks(height: int, width: int, samples: int, cells: int, keep: float, seed: int) -> np.ndarray:
    """Section 3.2: a coarse grid of coin flips, enlarged to one cell more than the image, cut out at random."""
    stream = generator("rise", seed, samples, cells, keep)
    coins = (torch.rand(samples, 1, cells, cells, generator=stream) < keep).double().numpy()[:, 0]
    cell_height, cell_width = math.ceil(height / cells), math.ceil(width / cells)
    tops = torch.randint(cell_height, (samples,), generator=stream).tolist()
    lefts = torch.randint(cell_width, (samples,), generator=stream).tolist()
    masks = np.empty((samples, height, width))
    for m in range(samples):
        large = enlarged(coins[m], (cells + 1) * cell_height, (cells + 1) * cell_width)
        masks[m] = large[tops[m] : tops[m] + height, lefts[m] : lefts[m] + width]
    return masks


def paper_map(model: nn.Module, image: torch.Tensor, target: int, masks: np.ndarray, keep: float) -> np.ndarray:
    """Equation 6: the mean of masks weighted by what the model says under them, divided by their expected value."""
    total = np.zeros(masks.shape[1:])
    for mask in masks:
        total += model((image * torch.tensor(mask))[None])[0, target].item() * mask
    return total / (keep * len(masks))


@pytest.mark.parametrize(("fine", "coarse"), [(16, 3), (16, 7), (40, 7), (6, 5), (9, 1)])
def test_our_enlargement_by_hand_is_scikit_images(fine, coarse):
    coins = (np.random.default_rng(0).random((coarse, coarse)) < 0.5).astype(float)
    expected = resize(coins, (fine, fine + 2), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(enlarged(coins, fine, fine + 2), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("height", "width", "cells", "keep", "tolerance"),
    [
        (12, 12, 3, 0.5, 1e-10),  # cells of 4 pixels, enlarged to 16: thirds of sixteenths are exact in float32
        (14, 10, 7, 0.3, 1e-10),
        (12, 9, 3, 0.7, 1e-10),
        (16, 16, 7, 0.5, 1e-5),  # others carry the rounding of float32 masks
        (5, 11, 2, 0.6, 1e-5),
        (4, 4, 6, 0.5, 1e-5),  # cells smaller than a pixel
    ],
)
def test_is_the_papers_loop(height, width, cells, keep, tolerance):
    model, inputs, samples = bent(height, width), images(height, width), 30
    found = attribug.explain("rise", model, inputs, TARGETS, samples=samples, cells=cells, keep=keep, seed=4)
    assert torch.equal(found, found[:, :1].expand_as(found))
    masks = paper_masks(height, width, samples, cells, keep, seed=4)
    for row in range(3):
        expected = paper_map(model, inputs[row], int(TARGETS[row]), masks, keep)
        np.testing.assert_allclose(found[row].sum(0).numpy(), expected, rtol=tolerance, atol=tolerance)
        other = paper_map(model, inputs[row], int(TARGETS[row]), np.roll(masks, 1, axis=2), keep)
        assert np.abs(found[row].sum(0).numpy() - other).max() > 1e-2  # a shift by one pixel would be noticed


def test_defaults_are_the_papers_seven_cells_and_a_half():
    model, inputs = bent(16, 16), images(16, 16)
    given = attribug.explain("rise", model, inputs, TARGETS, samples=500, cells=7, keep=0.5)
    assert torch.equal(attribug.explain("rise", model, inputs, TARGETS), given)


@pytest.mark.parametrize("keep", [0.2, 0.5])
@pytest.mark.parametrize(("height", "width", "cells"), [(12, 12, 3), (10, 17, 7)])
def test_masks_keep_what_they_promise(height, width, cells, keep):
    """At every pixel the mean is `keep`, the border included; the variance is at most that of a coin."""
    samples = 6000
    masks = soft_masks(height, width, samples, cells, keep, torch.Generator().manual_seed(0)).double()
    assert masks.shape == (samples, height, width)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    score = (masks.mean(0) - keep) / (masks.std(0) / samples**0.5)
    assert score.abs().max() < 4.5
    assert ((masks.mean(0) - keep - 0.05) / (masks.std(0) / samples**0.5)).abs().min() > 4.5  # .05 off would be seen
    assert masks.var(0).max() < 1.1 * keep * (1 - keep)
    assert ((masks > 0.02) & (masks < 0.98)).double().mean() > 0.3  # soft


def test_every_shift_occurs():
    """Two cells give 16 grids of coins; what else tells masks apart are the 16 places to cut them out."""
    masks = soft_masks(8, 8, 400, 2, 0.5, torch.Generator().manual_seed(0))
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 100


@pytest.mark.parametrize("corner", [(0, 0), (0, 8), (8, 4)])
def test_of_a_linear_model_is_highest_where_its_weights_are(corner):
    top, left = corner
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 12 * 12, 1)).double()
    weights = torch.zeros(2, 12, 12, dtype=torch.float64)
    weights[:, top : top + 4, left : left + 4] = 1
    with torch.no_grad():
        model[1].weight.copy_(weights.reshape(1, -1))
        model[1].bias.zero_()
    ones, targets = torch.ones(1, 2, 12, 12, dtype=torch.float64), torch.tensor([0])
    found = attribug.explain("rise", model, ones, targets, samples=2000, cells=4)[0].sum(0)
    row, column = divmod(int(found.argmax()), 12)
    assert top <= row < top + 4
    assert left <= column < left + 4
    inside = weights[0].bool()
    assert found[inside].min() > found[~inside].mean()
    opposite = nn.Sequential(model, nn.Linear(1, 1)).double()
    with torch.no_grad():
        opposite[1].weight.fill_(-1), opposite[1].bias.zero_()
    turned = attribug.explain("rise", opposite, ones, targets, samples=2000, cells=4)[0].sum(0)
    torch.testing.assert_close(turned, -found, rtol=1e-10, atol=0)


def test_a_constant_logit_gives_a_flat_map_of_it():
    """In expectation: each mask counts the same, so the map is the mean mask over `keep`."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(288, 3)).double()
    with torch.no_grad():
        model[1].weight.mul_(1e-9)
        model[1].bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    found = attribug.explain("rise", model, images(12, 12), TARGETS, samples=3000, keep=0.25).sum(1)
    for row, logit in enumerate((3.0, 1.0, 2.0)):
        torch.testing.assert_close(found[row], torch.full_like(found[row], logit), rtol=0.12, atol=0)


def test_the_seed_decides_and_ids_do_not_matter():
    model, inputs = bent(12, 12), images(12, 12)

    def explained(**options):
        return attribug.explain("rise", model, inputs, TARGETS, samples=20, **options)

    assert torch.equal(explained(), explained(ids=torch.tensor([4, 5, 6])))
    assert not torch.allclose(explained(), explained(seed=1), rtol=1e-2)


@pytest.mark.parametrize("options", [{"samples": 0}, {"cells": 0}, {"keep": 0.0}, {"keep": 1.0}, {"keep": -0.5}])
def test_nothing_to_draw_is_refused(options):
    with pytest.raises(attribug.InputError, match="rise: expected samples, cells ≥ 1 and 0 < keep < 1, found"):
        attribug.explain("rise", bent(12, 12), images(12, 12), TARGETS, **options)


def test_vectors_are_refused():
    with pytest.raises(attribug.Unsupported, match=r"expected images \(N, C, H, W\), found \(2, 8\)"):
        attribug.explain("rise", nn.Linear(8, 3), torch.rand(2, 8), torch.tensor([0, 1]))
