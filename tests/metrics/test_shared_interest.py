"""Shared Interest: overlaps are scikit-learn's Jaccard, recall and precision; the eight cases, one by one."""

import itertools
import math
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from sklearn.metrics import jaccard_score, precision_score, recall_score

import attribug
from attribug.metrics.shared_interest import Case, above_deviation, above_half, cases, coverages

ORACLES = {"iou": jaccard_score, "ground_truth_coverage": recall_score, "saliency_coverage": precision_score}
NAMES = [*ORACLES, *(f"{name}_half" for name in ORACLES)]


def salient(values, half):
    """Which pixels (H, W) are salient; None where one lies on the threshold but for rounding, and either would do."""
    if half:
        values = values / 2 - values.min() / 2  # huge values do not overflow
        values = values / values.max()
        threshold = 0.5
    else:
        values = values / np.abs(values).max()
        mean = math.fsum(values.ravel()) / values.size
        threshold = mean + math.sqrt(math.fsum((values.ravel() - mean) ** 2) / values.size)
    return None if (abs(values - threshold) < 1e-12).any() else values > threshold


def overlap(name, values, inside, pixels=salient):
    """scikit-learn's word on salient pixels as a prediction of the mask; None where rounding decides."""
    if not inside.any() or values.min() == values.max():
        return math.nan
    found = pixels(values, name.endswith("_half"))
    if found is None:
        return None
    return float(ORACLES[name.removesuffix("_half")](inside.ravel(), found.ravel())) if found.any() else math.nan


def summed(maps):
    return maps[0].double().abs().sum(0).numpy()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_is_scikit_learns(name, data, masked_maps, same):
    maps, masks = data.draw(masked_maps(1, 9))
    expected = overlap(name, summed(maps), masks[0].numpy())
    if expected is not None:
        same(attribug.measure(name, maps, masks).item(), expected)


def sample_deviation(values, half):
    values = values / np.abs(values).max()
    return values > values.mean() + values.std(ddof=1)


MISTAKES = {
    "iou": lambda v, m: overlap("iou", v, m, sample_deviation),
    "ground_truth_coverage": lambda v, m: overlap("saliency_coverage", v, m),
    "saliency_coverage": lambda v, m: overlap("saliency_coverage", v, m, lambda v, half: v > v.mean()),
    "iou_half": lambda v, m: overlap("iou_half", v, m, lambda v, half: v > np.median(v)),
    "ground_truth_coverage_half": lambda v, m: np.nan_to_num(overlap("ground_truth_coverage_half", v, m) or 0),
    "saliency_coverage_half": lambda v, m: overlap("iou_half", v, m),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_found_out(name, masked_maps, is_found_out):
    def wrong(case):
        found = MISTAKES[name](summed(case[0]), case[1][0].numpy())
        return math.nan if found is None else float(found)

    with np.errstate(all="ignore"):
        assert is_found_out(masked_maps(1, 9), wrong, lambda case: overlap(name, summed(case[0]), case[1][0].numpy()))


# --- by hand ---

MASK = torch.tensor([[[True, True, False], [False, False, False]]])


def measured(name, rows, mask=MASK):
    return attribug.measure(name, torch.tensor(rows, dtype=torch.float64)[None, None], mask).item()


def test_by_hand():
    """Mean 1, standard deviation √2 in all: the two 3s are salient."""
    assert [measured(name, [[3, 3, 0], [0, 0, 0]]) for name in ORACLES] == [1, 1, 1]
    assert [measured(name, [[3, 0, 0], [0, 3, 0]]) for name in ORACLES] == [pytest.approx(1 / 3), 0.5, 0.5]
    assert [measured(name, [[0, 0, 0], [3, 3, 0]]) for name in ORACLES] == [0, 0, 0]
    assert [measured(f"{name}_half", [[3, 2, 1], [1, 1, 1]]) for name in ORACLES] == [0.5, 0.5, 1]  # 2 is half-way
    assert [measured(f"{name}_half", [[9, 6, 6], [6, 1, 1]]) for name in ORACLES] == [0.5, 1, 0.5]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-200, 1e-30, 0.1, 0.3, 0.7, 1.0, 1e30, 1e200])
def test_the_scale_does_not_matter(name, scale, same):
    """Not even to a map with pixels on the threshold: half of them 1, mean + deviation 1, none above."""
    binary = scale * np.array([[1.0, 1, 1], [0, 0, 0]])
    expected = {"iou_half": 2 / 3, "ground_truth_coverage_half": 1, "saliency_coverage_half": 2 / 3}
    same(measured(name, binary), expected.get(name, math.nan))
    graded = scale * np.array([[9.0, 6, 6], [6, 1, 1]])
    same(measured(name, graded), measured(name, graded / scale))


def test_of_noise_a_sixth_is_salient():
    """Φ(−1) = 15.9 %, as the rule's docstring says; and so the IoU of noise with a mask of a fifth is about .10."""
    noise = torch.randn(400, 1, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert above_deviation(noise[:, 0].flatten(1)).double().mean().item() == pytest.approx(0.1587, abs=0.003)
    masks = torch.zeros(400, 20, 20, dtype=torch.bool)
    masks[:, :4] = True
    assert attribug.measure("iou@sum", noise, masks).mean().item() == pytest.approx(0.097, abs=0.005)


# --- undefined ---


@pytest.mark.parametrize("name", NAMES)
def test_undefined_is_nan_and_no_hit(name):
    for rows in ([[0, 0, 0], [0, 0, 0]], [[2, 2, 2], [2, 2, 2]], [[math.nan, 1, 0], [0, 0, 0]]):
        assert math.isnan(measured(name, rows))
    assert math.isnan(measured(name, [[3, 1, 0], [0, 0, 0]], torch.zeros_like(MASK)))


def test_nothing_salient_is_undefined():
    maps, masks = torch.rand(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    found = coverages(maps, masks, lambda pixels: pixels > torch.tensor([[0.0], [2.0]]))
    assert list(found) == list(ORACLES)
    for values in found.values():
        assert values.isnan().tolist() == [False, True]
    assert cases(maps, masks, torch.tensor([True, True]), lambda pixels: pixels > 2) == [None, None]


# --- a rule of one's own ---


def otsu(pixels):
    """Above Otsu's threshold, map by map."""
    return torch.stack([row > threshold_otsu(row.numpy()) for row in pixels])


def test_a_rule_of_ones_own():
    stream = torch.Generator().manual_seed(2)
    maps, masks = torch.randn(8, 9, 11, generator=stream).double(), torch.rand(8, 9, 11, generator=stream) < 0.4
    found = coverages(maps, masks, otsu)
    for row in range(8):
        chosen = maps[row].numpy() > threshold_otsu(maps[row].numpy())
        for name, oracle in ORACLES.items():
            assert found[name][row].item() == pytest.approx(oracle(masks[row].ravel(), chosen.ravel()), abs=1e-12)
    assert not torch.equal(found["iou"], coverages(maps, masks)["iou"])
    right = torch.ones(8, dtype=torch.bool)
    assert cases(masks.double(), masks, right, otsu) == ["human aligned"] * 8
    assert cases(maps, masks, right, otsu) != cases(maps, masks, right)


# --- the eight cases ---


def drawn_case(both, salient_only, mask_only, correct=True):
    """The case of a map whose salient pixels and mask share so many pixels, and have so many of their own."""
    maps, masks = torch.zeros(1, 20, 60), torch.zeros(1, 20, 60, dtype=torch.bool)
    maps.view(-1)[: both + salient_only] = 1
    masks.view(-1)[salient_only : both + salient_only + mask_only] = True
    return cases(maps, masks, torch.tensor([correct]), above_half)[0]


TABLE = [  # pixels that both have, salient ones alone, the mask's alone; the case of a right and of a wrong prediction
    ((13, 4, 3), "human aligned", "confuser"),  # IoU .65
    ((130, 41, 30), None, None),  # just below: neither high nor low
    ((13, 7, 52), "sufficient subset", "insufficient subset"),  # coverage of the mask .2, of the salient pixels .65
    ((13, 8, 52), "sufficient context", "distracted"),  # coverage of the salient pixels just below
    ((13, 7, 51), "sufficient context", "distracted"),  # coverage of the mask just above
    ((13, 52, 7), "context dependent", "context confusion"),
    ((13, 52, 8), "sufficient context", "distracted"),
    ((13, 51, 7), "sufficient context", "distracted"),
    ((4, 8, 8), "sufficient context", "distracted"),  # IoU .2
    ((41, 80, 80), None, None),  # just above
    ((0, 5, 5), "sufficient context", "distracted"),
    ((5, 0, 0), "human aligned", "confuser"),
]  # fmt: skip


@pytest.mark.parametrize(("pixels", "right", "wrong"), TABLE)
def test_cases_at_their_thresholds(pixels, right, wrong):
    assert (drawn_case(*pixels), drawn_case(*pixels, correct=False)) == (right, wrong)


def read_off(both, salient_only, mask_only, correct):
    """The docstring, word by word, in exact fractions."""
    iou = Fraction(both, both + salient_only + mask_only)
    covered, precise = Fraction(both, both + mask_only), Fraction(both, both + salient_only)
    low, high = Fraction(1, 5), Fraction(13, 20)
    holds = [
        (iou >= high, "human aligned", "confuser"),
        (covered <= low and precise >= high, "sufficient subset", "insufficient subset"),
        (covered >= high and precise <= low, "context dependent", "context confusion"),
    ]
    assert sum(each[0] for each in holds) <= 1
    names = [each[1:] for each in [*holds, (iou <= low, "sufficient context", "distracted")] if each[0]]
    return names[0][0 if correct else 1] if names else None


def test_cases_of_every_overlap():
    counts = [n for n in itertools.product((0, 1, 2, 5, 13, 20), (0, 1, 4, 7, 20, 52), (0, 1, 3, 7, 20, 52)) if any(n)]
    counts = [n for n in counts if n[0] + n[1] and n[0] + n[2]]  # both sets have pixels
    found = {(n, right): drawn_case(*n, correct=right) for n in counts for right in (True, False)}
    assert found == {(n, right): read_off(*n, right) for n, right in found}
    assert set(found.values()) == {*get_args(Case), None}
    assert found != {(n, right): read_off(n[0], n[2], n[1], right) for n, right in found}  # coverages exchanged


def test_undefined_examples_have_no_case():
    maps, masks = torch.zeros(4, 6, 6), torch.zeros(4, 6, 6, dtype=torch.bool)
    maps[:, 0, 0], masks[:, 0, 0] = 1, True
    maps[1], masks[2], maps[3, 1, 1] = 7, False, math.nan
    assert cases(maps, masks, torch.ones(4, dtype=torch.bool)) == ["human aligned", None, None, None]


@pytest.mark.parametrize("correct", [torch.ones(3).bool(), torch.ones(2), torch.ones(2, 1).bool()])
def test_correct_is_one_flag_an_example(correct):
    with pytest.raises(attribug.InputError, match=r"correct: expected \(2,\) torch.bool, found \("):
        cases(torch.rand(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool), correct)


@pytest.mark.parametrize("name", [*ORACLES, "iou_half"])
def test_other_shapes_and_posts_are_refused(name):
    maps = torch.rand(2, 3, 4, 4)
    with pytest.raises(attribug.InputError, match=r"expected masks \(2, 4, 4\) torch.bool, found \(2, 4, 5\)"):
        attribug.measure(name, maps, torch.ones(2, 4, 5, dtype=torch.bool))
    with pytest.raises(attribug.InputError, match="needs a map in" if "half" in name else "keeps the channels"):
        attribug.measure(f"{name}@{'abs_sum' if 'half' in name else 'abs'}", maps, torch.ones(2, 4, 4).bool())


# --- which pixels are above the deviation: torch's word, to the last bit ---


def by_torch(maps):
    """The rule as it reads; a constant map has no such pixels."""
    scaled = maps / maps.abs().amax(1, keepdim=True)
    above = scaled > scaled.mean(1, keepdim=True) + scaled.std(1, correction=0, keepdim=True)
    return above & (maps.amax(1) > maps.amin(1))[:, None]


def on_the_threshold(pixels, high, low):
    """Maps of two values, half and half: mean + deviation is the higher value, but for rounding."""
    maps = torch.full((3, pixels), low, dtype=torch.float64)
    maps[:, ::2] = high
    return maps


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_the_deviation_is_torchs(data):
    pixels = data.draw(st.integers(1, 400))
    numbers = st.sampled_from([0.0, 1.0, 2.0, 1 / 3, -1.0, 1e-300, 1e300, math.inf, math.nan]) | st.floats(-1e3, 1e3)
    few = data.draw(st.lists(numbers, min_size=1, max_size=5))
    stream = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    maps = torch.tensor(few, dtype=torch.float64)[torch.randint(len(few), (4, pixels), generator=stream)]
    assert torch.equal(above_deviation(maps), by_torch(maps))


@pytest.mark.parametrize("pixels", [2, 10, 1024, 50_176])
def test_pixels_on_the_threshold_are_decided_as_torch_decides(pixels):
    found = []
    for high, low in itertools.product([1.0, 0.7, 1 / 3, 3e5], [0.0, 0.1, 1 / 7, -0.2]):
        maps = on_the_threshold(pixels, high, low)
        found.append(by_torch(maps).any().item())
        assert torch.equal(above_deviation(maps), by_torch(maps))
    assert pixels < 1024 or set(found) == {True, False}  # last bits decide, either way
