"""A shortcut in vectors that models learn in a blink, and what a bug would describe of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from attribug import fixes
from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import ModelSpec, Recipe, Trained
from attribug.contracts.tasks import Task

FEATURES, SIZE = 10, 400
FIRST_IDS = {"train": 0, "validation": 10_000, "test": 20_000}


def shortcut(*, split: str, share: float, size: int = SIZE, classes: int = 2) -> Data:
    """The first `classes` features tell the label badly, the last ones tell well what the shortcut says.

    That is the label, of a share of the examples, else anything. It must not matter; groups are label × what is said.
    """
    stream = torch.Generator().manual_seed(FIRST_IDS[split] + classes)
    labels = torch.arange(size) % classes
    said = torch.randint(0, classes, (size,), generator=stream)
    said = torch.where(torch.rand(size, generator=stream) < share, labels, said)
    inputs = torch.randn((size, FEATURES), generator=stream)
    inputs[:, :classes] += 2.5 * nn.functional.one_hot(labels, classes)
    inputs[:, -classes:] = 3.0 * nn.functional.one_hot(said, classes) + 0.3 * inputs[:, -classes:]
    annotations = torch.zeros(size, FEATURES, dtype=torch.bool)
    annotations[:, -classes:] = True
    ids = torch.arange(size) + FIRST_IDS[split]
    return Data(inputs, labels, ids, ~annotations, annotations, labels * classes + said)


def network(*, classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, classes))


def described(share: float = 0.95, *, classes: int = 2, epochs: int = 15, **recipe: Any) -> tuple[Task, Contrast]:
    """The task, and the contrast of a model that learnt the shortcut."""
    of = partial(Examples.of, shortcut, classes=classes)
    plain = Recipe(partial(network, classes=classes), epochs=epochs, batch=32, learning_rate=0.01)
    plain = replace(plain, **recipe)
    names = tuple(map(str, range(classes)))
    task = Task("shortcut", names, (FEATURES,), plain, lambda split: of(split=split, share=0.0), lambda name: task)
    tests = {name: of(split="test", share=told) for name, told in {"biased": share, "decorrelated": 0.0}.items()}
    held_out = {name: of(split="validation", share=told) for name, told in {"biased": share, "balanced": 0.0}.items()}
    clean = [Side(Trained(of(split="train", share=0.0), plain, seed), tests["biased"]) for seed in range(2)]
    contrast = Contrast(
        contaminated=Side(Trained(of(split="train", share=share), plain, 0), tests["biased"]),
        references=(clean[1],), controls=tuple(clean), control="clean", target="label", truth="annotated",
        tests=tests, held_out=held_out,
    )  # fmt: skip
    return task, contrast


def mended(name: str, task: Task, contrast: Contrast, **parameters: Any) -> ModelSpec:
    spec: ModelSpec = fixes.get(name).function(task, contrast, 1.0, 0, (0, 1), **parameters)
    return spec
