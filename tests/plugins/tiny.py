"""A task that trains in a second and a bug that always takes: what tests of whole runs need."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from attribug import bugs, tasks
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Recipe
from attribug.contracts.tasks import Task

PIXELS = 16


@tasks.register("tiny", source="noise with a bright half", licence="none", size="0")
def tiny(*, seed: int, other: Callable[[str], Task], train: int = 64, test: int = 32) -> Task:
    """Is the left or the right half brighter? (3, 16, 16); the bright half is the mask."""
    sizes = {"train": train, "test": test}

    def examples(split: str) -> Examples:
        return Examples.of(halves, seed=seed, split=split, size=sizes[split])

    return Task("tiny", ("left", "right"), (3, PIXELS, PIXELS), Recipe(small_network, epochs=4), examples, other)


def halves(*, seed: int, split: str, size: int) -> Data:
    """Noise, brighter on the left (0) or the right (1)."""
    stream = torch.Generator().manual_seed(2 * seed + (split == "test"))
    labels = torch.arange(size) % 2
    masks = torch.zeros(size, PIXELS, PIXELS, dtype=torch.bool)
    masks[labels == 0, :, : PIXELS // 2] = True
    masks[labels == 1, :, PIXELS // 2 :] = True
    inputs = torch.rand(size, 3, PIXELS, PIXELS, generator=stream) * 0.5 + masks[:, None] * 0.3
    return Data(inputs, labels, torch.arange(size) + 1000 * (split == "test"), masks)


def small_network() -> nn.Module:
    """One convolution, one dense layer."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 2))


@bugs.register("shaken", stage="model", levels=(1.0,), primary="spearman@sum")
def shaken(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """Noise of `level` standard deviations on every weight; there is nothing to check."""
    test = task.examples("test")
    model = task.clean(seed)
    clean = {s: Side(task.clean(s), test) for s in seeds}
    return Contrast(
        contaminated=Side(Derived(model, partial(shake, level=level), seed), test),
        references=tuple(side for s, side in clean.items() if s != seed),
        controls=tuple(clean.values()),
        control="clean",
        target="label",
        truth="object",
    )


def shake(model: nn.Module, stream: torch.Generator, *, level: float) -> None:
    """Adds noise in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(level * parameter.std() * torch.randn(parameter.shape, generator=stream))
