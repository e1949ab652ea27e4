"""The null rows: edges against scikit-image and SciPy, random, predictions."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import filters
from torch import nn

import attribug
from attribug.streams import generator


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 1, 7, 11), (1, 2, 1, 5), (1, 1, 1, 1)])
def test_edges_are_scikit_images_sobel(shape):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = attribug.explain("edges", nn.Flatten(), inputs, torch.zeros(shape[0], dtype=torch.int64)).numpy()
    for example, row in enumerate(inputs.numpy()):
        for channel, plane in enumerate(row):
            np.testing.assert_allclose(found[example, channel], filters.sobel(plane), rtol=1e-10, atol=1e-14)


def test_edges_are_scipys_sobel_over_four_root_two():
    """SciPy smooths by (1, 2, 1), ours by a quarter of it; and the root is of the two directions' mean, not sum."""
    plane = torch.randn(9, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = attribug.explain("edges", nn.Flatten(), plane[None, None], torch.tensor([0]))[0, 0]
    both = np.hypot(ndimage.sobel(plane.numpy(), 0, mode="nearest"), ndimage.sobel(plane.numpy(), 1, mode="nearest"))
    np.testing.assert_allclose(found.numpy(), both / (4 * np.sqrt(2)), rtol=1e-10)


def test_edges_know_the_input_and_not_the_model(make_cnn, make_inputs):
    inputs, targets = make_inputs()
    one, other = (attribug.explain("edges", make_cnn(seed=seed), inputs, targets) for seed in (0, 1))
    assert torch.equal(one, other)
    assert not attribug.explain("edges", make_cnn(), torch.full_like(inputs, 0.7), targets).any()


def test_edges_of_vectors_are_refused():
    with pytest.raises(attribug.Unsupported, match=r"expected images \(N, C, H, W\), found \(2, 8\)"):
        attribug.explain("edges", nn.Linear(8, 3), torch.rand(2, 8), torch.tensor([0, 1]))


def test_random_knows_the_example_alone(make_cnn, make_inputs):
    (inputs, targets), (others, _) = make_inputs(), make_inputs(seed=9)
    ids = torch.tensor([5, 17, 3])
    one = attribug.explain("random", make_cnn(seed=0), inputs, targets, ids=ids)
    other = attribug.explain("random", make_cnn(seed=1), others, targets.flip(0), ids=ids)
    assert torch.equal(one, other)
    for row, example in enumerate(ids.tolist()):
        assert torch.equal(
            one[row], torch.randn(3, 16, 16, generator=generator("example", 0, "random", example)).double()
        )


def test_random_is_gaussian_and_independent_between_examples(make_cnn, make_inputs):
    (inputs, targets), values = make_inputs(), []
    for first in range(0, 60, 3):
        maps = attribug.explain("random", make_cnn(), inputs, targets, ids=torch.arange(first, first + 3))
        values.append(maps.flatten(1))
    flat = torch.cat(values)  # (60, 768)
    assert abs(float(flat.mean())) < 0.02
    assert abs(float(flat.std()) - 1) < 0.02
    between = torch.corrcoef(flat) - torch.eye(60)
    assert float(between.abs().max()) < 0.2  # 1,770 pairs of 768 values: six standard deviations are .22


def test_predictions_are_softmax_outputs(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    found = attribug.explain("predictions", model, inputs, targets)
    assert found.shape == (3, 3)
    torch.testing.assert_close(found, model(inputs).softmax(1).detach(), rtol=1e-12, atol=1e-14)
