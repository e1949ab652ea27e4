"""Which method explains which of torchvision's networks: a table in the docs, made by running this file, and tested.

python tests/methods/test_architectures.py        # writes docs/architectures.md
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import attribug
from attribug import methods

TABLE = Path(__file__).parents[2] / "docs" / "architectures.md"
FEW = {"samples": 4, "steps": 3, "segments": 2, "window": 32, "stride": 32}
NULL = ("random", "edges", "predictions")
INTRODUCTION = """# Which method explains which network

One image, few samples, random weights, torchvision's networks: ● runs, a number refers to the reason why a method
declines. A method never returns a map that its definition does not cover: before it runs, the model is looked at.
This table is written by `python tests/methods/test_architectures.py`, and a test compares it with what happens.
"""


def vit() -> nn.Module:
    """torchvision's vision transformer; its head is zero at first, and so would be every explanation."""
    model = models.vit_b_16(weights=None)
    nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vgg11": (lambda: models.vgg11(weights=None), 64),
    "resnet18": (lambda: models.resnet18(weights=None), 64),
    "mobilenet_v3_small": (lambda: models.mobilenet_v3_small(weights=None), 64),
    "vit_b_16": (vit, 224),
}
SMALL = ("resnet18", "mobilenet_v3_small")
EACH = [pytest.param(name, marks=[] if name in SMALL else pytest.mark.survival) for name in NETWORKS]


@cache
def outcomes(network: str) -> dict[str, str]:
    """What every method does with a network: an empty text, or why it declines."""
    torch.manual_seed(0)
    build, pixels = NETWORKS[network]
    model, inputs, train = build().eval(), torch.rand(1, 3, pixels, pixels), torch.rand(2, 3, pixels, pixels)
    found = {}
    for name in methods.names():
        known = inspect.signature(methods.get(name).function).parameters
        few = {parameter: value for parameter, value in FEW.items() if parameter in known}
        try:
            maps = attribug.explain(name, model, inputs, torch.tensor([3]), train_inputs=train, **few)
        except attribug.Unsupported as reason:
            found[name] = str(reason)
        else:
            found[name] = "" if name in NULL or sound(maps) else "NOT SOUND"
    return found


def sound(maps: Tensor) -> bool:
    """Whether maps are finite and say something."""
    return bool(maps.isfinite().all()) and float(maps.amax()) > float(maps.amin())


def table() -> str:
    """The page."""
    names = [name for name in methods.names() if name not in NULL]
    reasons = sorted({outcomes(network)[name] for network in NETWORKS for name in names} - {""})
    numbers = {reason: str(number) for number, reason in enumerate(reasons, start=1)} | {"": "●"}
    lines = ["| method | " + " | ".join(NETWORKS) + " |", "|---|" + "---|" * len(NETWORKS)]
    for name in names:
        cells = " | ".join(numbers[outcomes(network)[name]] for network in NETWORKS)
        lines.append(f"| `{name}` | {cells} |")
    legend = [f"{number}. {reason}" for reason, number in numbers.items() if reason]
    return "\n".join([INTRODUCTION, *lines, "", *legend, ""])


@pytest.mark.slow
@pytest.mark.parametrize("network", EACH)
def test_every_method_runs_or_says_why_not(network: str) -> None:
    found = outcomes(network)
    assert "NOT SOUND" not in found.values()
    assert all(not found[name] for name in ("gradient", "integrated_gradients", "lime", "occlusion", *NULL))


@pytest.mark.slow
@pytest.mark.parametrize("network", EACH)
def test_a_column_of_the_page_says_what_happens(network: str) -> None:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    reasons = dict(line.split(". ", 1) for line in lines if line[:1].isdigit()) | {"●": ""}
    column = cells[0].index(network)
    shown = {row[0].strip("`"): reasons[row[column]] for row in cells[2:]}
    assert shown == {name: why for name, why in outcomes(network).items() if name not in NULL}


@pytest.mark.survival
def test_the_page_says_what_happens() -> None:
    assert TABLE.read_text(encoding="utf-8") == table(), "run python tests/methods/test_architectures.py"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
