"""The order in which layers run, which definition does not tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, vit_b_16

from attribug.models.order import running_order


class Twisted(nn.Module):
    """Defined from the end to the beginning, with a layer that has no part, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 3)
        self.again = nn.Linear(4, 4)
        self.first = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.again(self.again(self.first(x)).relu())
        self.unused(hidden)
        return self.head(hidden)


class Tokens(nn.Module):
    """Weights of its own before those of its parts; attention that uses the weights of a part that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, 4))
        self.head = nn.Linear(4, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.attention(x, x, x)[0][:, 0])


@pytest.mark.parametrize(
    ("model", "inputs", "order"),
    [
        (Twisted(), torch.rand(2, 2), ("first", "again", "head")),
        (Tokens(), torch.rand(2, 3, 4), ("", "attention", "attention.out_proj", "head")),
        (nn.Linear(2, 2), torch.rand(1, 2), ("",)),
        (nn.Sequential(nn.ReLU()), torch.rand(1, 2), ()),
    ],
    ids=["twisted", "tokens", "one layer", "no weights"],
)
def test_layers_stand_as_they_run(model: nn.Module, inputs: Tensor, order: tuple[str, ...]) -> None:
    assert running_order(model.requires_grad_(False), inputs) == order
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("build", "last"), [(resnet18, "fc"), (lambda: vit_b_16(image_size=32), "heads.head")])
def test_known_networks_end_with_their_heads(build: Any, last: str) -> None:
    model = build().eval()
    order = running_order(model, torch.rand(1, 3, 32, 32))
    assert order[-1] == last
    owners = {name for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    assert set(order) == owners
