"""mlp: dense layers by hand, whatever the inputs' shape, with the start that was asked for."""

from __future__ import annotations

import math

import pytest
import torch

from attribug.models.networks import mlp


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
