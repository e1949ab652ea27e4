"""A task in ten numbers of which the last two are a shortcut: models learn it in a blink."""

from collections.abc import Callable

import torch
from torch import nn

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task

FEATURES, TOLD = 10, 2
SIZES = {"train": 400, "test": 300, VALIDATION: 200}


@tasks.register("ten_numbers", source="noise", licence="none", size="0")
def ten_numbers(*, seed: int, other: Callable[[str], Task]) -> Task:
    """Which of the first two numbers is larger? Badly told; the last two tell it well, or nothing. (10,)"""

    def examples(split: str, *, share: float | None = None, swapped: bool = False) -> Examples:
        return Examples.of(numbers, seed=seed, split=split, share=share, swapped=swapped)

    recipe = Recipe(network, epochs=15, batch=32, learning_rate=0.01)
    return Task("ten_numbers", ("first", "second"), (FEATURES,), recipe, examples, other, splits=tuple(SIZES))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))


def numbers(*, seed: int, split: str, share: float | None, swapped: bool) -> Data:
    first = 1000 * list(SIZES).index(split)
    stream = torch.Generator().manual_seed(first + seed)
    size = SIZES[split]
    labels = torch.arange(size) % 2
    free, turn = torch.randint(0, 2, (size,), generator=stream), torch.rand(size, generator=stream)
    said = torch.where(turn < (share or 0.0), 1 - labels if swapped else labels, free)
    inputs = torch.randn((size, FEATURES), generator=stream)
    inputs[:, :TOLD] += 2.5 * nn.functional.one_hot(labels, 2)
    inputs[:, -TOLD:] *= 0.3
    if share is not None:
        inputs[:, -TOLD:] += 3.0 * nn.functional.one_hot(said, 2)
    annotations = torch.zeros(size, FEATURES, dtype=torch.bool)
    annotations[:, -TOLD:] = True
    ids = torch.arange(size) + first
    return Data(inputs, labels, ids, ~annotations, annotations, None if share is None else 2 * labels + said)
