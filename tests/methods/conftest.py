"""What the tests of methods explain: a small BVD-CNN with lively gradients, and a linear model whose maps are known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attribug.models.networks import bvd_cnn

CLASSES = 3


@pytest.fixture
def make_cnn() -> Callable[..., nn.Module]:
    """Builds a BVD-CNN in eval mode, four filters wide; the same weights at every call with the same arguments."""

    def make(dtype: torch.dtype = torch.float64, *, channels: int = 3, pixels: int = 16, seed: int = 0) -> nn.Module:
        model = bvd_cnn(channels=channels, classes=CLASSES, pixels=pixels, width=4)
        lively(model, seed)
        return model.to(dtype).eval()

    return make


@pytest.fixture
def make_inputs() -> Callable[..., tuple[Tensor, Tensor]]:
    """Builds three images (3, channels, pixels, pixels) in [0, 1] and one target each."""

    def make(
        dtype: torch.dtype = torch.float64, *, channels: int = 3, pixels: int = 16, seed: int = 1
    ) -> tuple[Tensor, Tensor]:
        stream = torch.Generator().manual_seed(seed)
        inputs = torch.rand(3, channels, pixels, pixels, generator=stream, dtype=torch.float64)
        return inputs.to(dtype), torch.tensor([2, 0, 1])

    return make


@pytest.fixture
def linear() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model, inputs (4, 2, 3, 5), targets, and the weights of each target's logit, of the inputs' shape."""
    stream = torch.Generator().manual_seed(2)
    layer = nn.Linear(30, CLASSES).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=stream, dtype=torch.float64))
    inputs = torch.randn(4, 2, 3, 5, generator=stream, dtype=torch.float64)
    targets = torch.tensor([0, 2, 1, 2])
    return nn.Sequential(nn.Flatten(), layer), inputs, targets, layer.weight.detach()[targets].reshape(inputs.shape)


def lively(model: nn.Module, seed: int) -> None:
    """He initialisation from a stream of its own: gradients neither vanish nor depend on the global seed."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=stream)
        else:
            nn.init.normal_(parameter, std=0.1, generator=stream)
