"""What every method makes of a specimen, against the truth."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

import attribug
from architectures.specimens import TRAIN, Pair, Specimen, Truth, seeded
from attribug import methods
from attribug.errors import one_line

TARGETS = torch.tensor([2, 0])


@dataclass(frozen=True)
class Cell:
    """How a method did on a network."""

    kind: Literal["right", "refused", "no truth", "wrong"]
    text: str = ""
    """The reason, or what is wrong."""


RIGHT, NO_TRUTH = Cell("right"), Cell("no truth")
Answer = Tensor | Cell


@cache
def cells(specimen: Specimen) -> dict[str, Cell]:
    """What every method makes of a specimen, by name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pair = specimen.build()
            expect_one_function(specimen.name, pair)
            return {name: cell(name, pair) for name in methods.names()}
    finally:
        torch.set_num_threads(threads)


def expect_one_function(name: str, pair: Pair) -> None:
    """Raises unless a network and its truth give the same logits."""
    found, expected = outputs(pair.model, pair.inputs), outputs(pair.truth.model, pair.truth.inputs(pair.inputs))
    away = deviation(found, expected)
    if not away <= pair.tolerance:
        raise AssertionError(f"{name}: the truth is another function, by {away:.1e} of its logits")


def cell(name: str, pair: Pair) -> Cell:
    """What one method makes of a pair."""
    before = outputs(pair.model, pair.inputs)
    with pair.around():
        found = answer(name, pair.model, pair.inputs, pair.options)
    if not torch.equal(before, outputs(pair.model, pair.inputs)):
        return Cell("wrong", "leaves another model behind")
    if isinstance(found, Cell):
        return found
    expected = true_maps(name, pair)
    return expected if isinstance(expected, Cell) else judged(found, expected, pair.tolerance)


def true_maps(name: str, pair: Pair) -> Answer:
    """The truth in the network's shape, or that there is none."""
    drawing = pair.drawing is not None and methods.get(name).stochastic
    truth: Truth = pair.drawing if drawing else pair.truth  # type: ignore[assignment]
    found = answer(name, truth.model, truth.inputs(pair.inputs), truth.options or pair.options)
    if isinstance(found, Cell):
        return NO_TRUTH if found.kind == "refused" else Cell("wrong", f"the truth: {found.text}")
    bare = methods.get(name).output == "probabilities"
    return found if bare else truth.maps(found)


def answer(name: str, model: nn.Module, inputs: Tensor, options: Mapping[str, Any]) -> Answer:
    """Maps, or why there are none."""
    known = inspect.signature(methods.get(name).function).parameters
    few = {parameter: value for parameter, value in options.items() if parameter in known}
    count = min(len(inputs) - TRAIN, len(TARGETS)) if len(inputs) > TRAIN else 1
    train, explained = inputs[:-count], inputs[-count:]
    try:
        return attribug.explain(name, model, explained, TARGETS[:count], train_inputs=train, **few)
    except attribug.Unsupported as reason:
        return Cell("refused", str(reason))
    except Exception as error:
        return Cell("wrong", f"CRASH: {one_line(error)}")


def judged(maps: Tensor, truth: Tensor, tolerance: float) -> Cell:
    """Whether maps agree with the truth."""
    if maps.shape != truth.shape:
        return Cell("wrong", f"shape {tuple(maps.shape)} in place of {tuple(truth.shape)}")
    flat = truth.detach().flatten(1)
    if not flat.isfinite().all():
        return Cell("wrong", "the truth is not finite")
    if (flat.amax(1) == flat.amin(1)).all():
        return Cell("no truth", "the truth is constant")
    away = deviation(maps, truth)
    return RIGHT if away <= tolerance else Cell("wrong", f"off by {away:.1e}")


def deviation(found: Tensor, truth: Tensor) -> float:
    """Norm of the difference over that of the truth, of the worst example; infinite where something is not finite."""
    found, truth = found.detach().double().flatten(1), truth.detach().double().flatten(1)
    if not found.isfinite().all():
        return torch.inf
    size = truth.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    return float(((found - truth).norm(dim=1) / size).max())


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits in eval mode, which is undone."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return model(inputs.clone()).detach()
    finally:
        for module, mode in modes:
            module.training = mode
