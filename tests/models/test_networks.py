"""mlp and plain_cnn by hand, whatever the inputs' shape, with the start that was asked for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from attribug.models.networks import mlp, plain_cnn


@pytest.mark.parametrize("shape", [(34,), (3, 5, 5), (2, 12)])
def test_mlp_is_relu_between_products_with_matrices(shape: tuple[int, ...]) -> None:
    network = mlp(shape=shape, classes=3).double()
    inputs = torch.randn(4, *shape, dtype=torch.float64)
    layers = dict(network.named_children())
    assert ("flatten" in layers) is (len(shape) > 1)
    signal = inputs.reshape(4, -1)
    for number, outputs in ((1, 50), (2, 30), (3, 3)):
        weight, bias = layers[f"dense{number}"].parameters()
        assert weight.shape == (outputs, signal.shape[1])
        signal = signal @ weight.T + bias
        signal = signal.clamp(min=0) if number < 3 else signal
    torch.testing.assert_close(network(inputs), signal, rtol=0, atol=1e-12)


def test_mlp_starts_with_its_gain() -> None:
    for gain in (0.2, 1.0):
        network = mlp(shape=(400,), hidden=(500,), gain=gain)
        for layer in (network.dense1, network.dense2):
            spread = float(layer.weight.detach().std()) * math.sqrt(layer.in_features)
            assert spread == pytest.approx(gain, rel=0.1)
            assert not layer.bias.any()
            layer.reset_parameters()
            assert float(layer.weight.detach().std()) * math.sqrt(layer.in_features) == pytest.approx(gain, rel=0.1)


def by_hand(images: torch.Tensor, layers: dict[str, nn.Module], stages: int) -> torch.Tensor:
    """Last maps of stages, place by place: products of patches and kernels, cut off at 0, largest of 2 × 2."""
    for number in range(1, stages + 1):
        weight, bias = layers[f"conv{number}"].parameters()
        n, _, height, width = images.shape
        padded = torch.zeros(n, images.shape[1], height + 2, width + 2, dtype=images.dtype)
        padded[:, :, 1:-1, 1:-1] = images
        maps = torch.empty(n, len(weight), height, width, dtype=images.dtype)
        for row in range(height):
            for column in range(width):
                patch = padded[:, None, :, row : row + 3, column : column + 3]
                maps[:, :, row, column] = (patch * weight).sum((2, 3, 4)) + bias
        maps = maps.clamp(min=0)[:, :, : height // 2 * 2, : width // 2 * 2]
        images = torch.stack([maps[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    return images


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 13, 8)])
def test_plain_cnn_is_stages_and_a_dense_layer(shape: tuple[int, int, int], pooled: bool) -> None:
    network = plain_cnn(shape=shape, classes=3, widths=(4, 5), pooled=pooled).double()
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    layers = dict(network.named_children())
    maps = by_hand(inputs, layers, 2)
    assert maps.shape[1:] == (5, shape[1] // 4, shape[2] // 4)
    seen = maps.mean((2, 3)) if pooled else maps.reshape(2, -1)
    weight, bias = layers["dense"].parameters()
    torch.testing.assert_close(network(inputs), seen @ weight.T + bias, rtol=0, atol=1e-10)


def test_plain_cnn_looks_at_averages_of_squares() -> None:
    inputs = torch.randn(2, 1, 13, 9, dtype=torch.float64)
    network = plain_cnn(shape=(1, 13, 9), classes=3, widths=(4,), shrink=3).double()
    smaller = torch.stack([inputs[:, :, i:12:3, j:9:3] for i in range(3) for j in range(3)]).mean(0)
    assert smaller.shape == (2, 1, 4, 3)
    torch.testing.assert_close(network(inputs), network[1:](smaller), rtol=0, atol=1e-12)


def test_plain_cnn_starts_with_its_gain() -> None:
    network = plain_cnn(shape=(64, 16, 16), classes=100, widths=(128,), gain=2.0)
    for layer in (network.conv1, network.dense):
        assert float(layer.weight.detach().std()) * layer.weight[0].numel() ** 0.5 == pytest.approx(2.0, rel=0.1)
