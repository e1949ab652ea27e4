"""A toy task that trains in a blink, digits in small, and a Lab that keeps its models in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attribug.conformance.tasks import small
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import Task
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from doubles import mine

PIXELS = 12  # more than SSIM's window


class Scale(nn.Module):
    """A learnt factor whose own initialiser fills it with a number that no other initialiser gives."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(6))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.factor, 7.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor[:, None, None]


def toy_network(*, classes: int) -> nn.Sequential:
    """Layers from the input on: conv1 with norm1, scale, conv2 with norm2, dense1, dense2."""
    return nn.Sequential(OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(1, 6, 3, padding=1), norm1=nn.BatchNorm2d(6), relu1=nn.ReLU(), scale=Scale(),
        pool=nn.AvgPool2d(2), conv2=nn.Conv2d(6, 6, 3, padding=1), norm2=nn.GroupNorm(2, 6), relu2=nn.ReLU(),
        flatten=nn.Flatten(), dense1=nn.Linear(6 * 6 * 6, 16), relu3=nn.ReLU(), dense2=nn.Linear(16, classes),
    ))  # fmt: skip


def bars(*, split: str, size: int, classes: int) -> Data:
    """A bright bar in one of `classes` places on noise, (1, 12, 12); the bar is the mask."""
    first = 1000 * (split == "test")
    stream = torch.Generator().manual_seed(first + classes)
    inputs = torch.rand((size, 1, PIXELS, PIXELS), generator=stream) / 2
    labels = torch.arange(size) % classes
    masks = torch.zeros((size, PIXELS, PIXELS), dtype=torch.bool)
    for row, label in enumerate(labels.tolist()):
        masks[row, :, 3 * label : 3 * label + 2] = True
    inputs[masks[:, None]] += 0.5
    return Data(inputs, labels, torch.arange(first, first + size), masks)


def toy_task(name: str, *, classes: int, train: int = 103, shape: tuple[int, ...] = (1, PIXELS, PIXELS)) -> Task:
    """Where is the bar?"""

    def examples(split: str) -> Examples:
        return Examples.of(bars, split=split, size=train if split == "train" else 20, classes=classes)

    recipe = Recipe(partial(toy_network, classes=classes), epochs=2, batch=25)
    return Task(name, tuple(map(str, range(classes))), shape, recipe, examples, other_toy)


def other_toy(name: str) -> Task:
    """Another toy: `two` has two classes, `large` another shape of inputs."""
    shape = (1, 2 * PIXELS, 2 * PIXELS) if name == "large" else (1, PIXELS, PIXELS)
    return toy_task(name, classes=2, shape=shape)


@pytest.fixture(scope="session", autouse=True)
def _brought() -> None:
    """Bugs that no shipped task's network can have meet one that was brought."""
    mine.register(0)


@pytest.fixture(scope="session")
def digits() -> Task:
    return small("digits")


@pytest.fixture(scope="session")
def toy() -> Task:
    return toy_task("toy", classes=3)


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., Task]:
    return toy_task


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab(Memory())


@pytest.fixture
def same_models(lab: Lab) -> Lab:
    """A second lab that has nothing in memory but reads the same weights."""
    return Lab(lab.store)
