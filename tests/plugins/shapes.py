"""Tasks that are no images: vectors with named features of which half are noise, and sequences with a bump."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported

FEATURES = ("height", "width", "weight", "colour", "noise 1", "noise 2", "noise 3", "noise 4")
TOLD = 4  # features that tell the label
LENGTH, WIDE = 24, 5


@tasks.register("vectors", source="two Gaussian clouds", licence="none", size="0")
def vectors(*, seed: int, other: Callable[[str], Task], train: int = 120, test: int = 60, epochs: int = 8) -> Task:
    """Which of two clouds? (8,); the mask covers the features that tell."""
    return _task("vectors", ("left", "right"), (len(FEATURES),), dense, clouds, (train, test, epochs), seed, other)


@tasks.register("sequences", source="noise with a bump", licence="none", size="0")
def sequences(*, seed: int, other: Callable[[str], Task], train: int = 120, test: int = 60, epochs: int = 8) -> Task:
    """Does the bump rise or fall? (2, 24); the mask covers the bump."""
    return _task("sequences", ("falls", "rises"), (2, LENGTH), convolving, bumps, (train, test, epochs), seed, other)


def _task(
    name: str, classes: tuple[str, ...], shape: tuple[int, ...], network: Callable[[], nn.Module],
    draw: Callable[..., Data], sizes: tuple[int, int, int], seed: int, other: Callable[[str], Task],
) -> Task:  # fmt: skip
    train, test, epochs = sizes

    def examples(split: str, **variant: object) -> Examples:
        if variant:
            raise Unsupported(f"task {name} has no background")
        return Examples.of(draw, seed=seed, split=split, size={"train": train, "test": test}[split])

    features = FEATURES if name == "vectors" else ()
    recipe = Recipe(network, epochs=epochs, batch=20, learning_rate=3e-2)
    return Task(name, classes, shape, recipe, examples, other, features)


def clouds(*, seed: int, split: str, size: int) -> Data:
    """Two clouds apart in the first features, which have any scale."""
    stream, labels, ids = _drawing(seed, split, size)
    inputs = torch.randn(size, len(FEATURES), generator=stream)
    inputs[:, :TOLD] += 3.0 * labels[:, None] - 1.5
    masks = (torch.arange(len(FEATURES)) < TOLD).expand(size, -1).clone()
    return Data(inputs, labels, ids, masks)


def bumps(*, seed: int, split: str, size: int) -> Data:
    """Noise in two channels, and somewhere in the first a bump or a dent."""
    stream, labels, ids = _drawing(seed, split, size)
    starts = torch.randint(LENGTH - WIDE, (size, 1), generator=stream)
    places = torch.arange(LENGTH)
    masks = (places >= starts) & (places < starts + WIDE)
    inputs = 0.2 * torch.randn(size, 2, LENGTH, generator=stream)
    inputs[:, 0] += masks * (2.0 * labels[:, None] - 1.0)
    return Data(inputs, labels, ids, masks)


def _drawing(seed: int, split: str, size: int) -> tuple[torch.Generator, Tensor, Tensor]:
    """Stream, labels in turn, ids."""
    test = split == "test"
    return torch.Generator().manual_seed(2 * seed + test), torch.arange(size) % 2, torch.arange(size) + 100_000 * test


def dense() -> nn.Module:
    """Two dense layers."""
    return nn.Sequential(nn.Linear(len(FEATURES), 16), nn.ReLU(), nn.Linear(16, 2))


def convolving() -> nn.Module:
    """A convolution along the sequence, its mean, a dense layer."""
    layers = nn.Conv1d(2, 8, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, 2)
    return nn.Sequential(*layers)
