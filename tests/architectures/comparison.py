"""What every method makes of a specimen, against the truth."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

import attribug
from architectures.specimens import Form, Pair, Specimen, seeded
from attribug import methods
from attribug.errors import one_line


@dataclass(frozen=True)
class Cell:
    """How a method did on a network."""

    kind: Literal["right", "refused", "no truth", "wrong"]
    text: str = ""
    """The reason, or what is wrong."""


RIGHT, NO_TRUTH = Cell("right"), Cell("no truth")
Answer = Tensor | Cell
LAYER = "grad_cam"  # needs a convolution, which it looks for itself


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
            found = {name: cell for part in families() for name, cell in explained(part, pair).items()}
            found |= needless(found, pair) if specimen.plain else {}
            return {name: found[name] for name in methods.names()}
    finally:
        torch.set_num_threads(threads)


def unconditional() -> list[str]:
    """Methods that ask nothing of a network's layers."""
    return [name for name in methods.names() if not methods.get(name).needs and name != LAYER]


def families() -> list[list[str]]:
    """Methods that decline for the same reasons: those that never do, and those of one file."""
    found: dict[str, list[str]] = {"": unconditional()}
    for name in methods.names():
        if name not in found[""]:
            found.setdefault(methods.get(name).function.__module__, []).append(name)
    return [*found.values()]


def expect_one_function(name: str, pair: Pair) -> None:
    """Raises unless a network and its truth give the same logits."""
    found, expected = outputs(pair.model, pair.inputs), outputs(pair.truth.model, pair.truth.inputs(pair.inputs))
    away = deviation(found, expected)
    if not away <= pair.tolerance:
        raise AssertionError(f"{name}: the truth is another function, by {away:.1e} of its logits")


def explained(names: Sequence[str], pair: Pair) -> dict[str, Cell]:
    """What methods make of a pair, by name."""
    before = outputs(pair.model, pair.inputs)
    with pair.around():
        found = answers(names, Form(pair.model), pair)
    if not torch.equal(before, outputs(pair.model, pair.inputs)):
        return dict.fromkeys(names, Cell("wrong", "leaves another model behind"))
    maps = {name: answer for name, answer in found.items() if isinstance(answer, Tensor)}
    truths = true_maps([*maps], pair)
    told = {name: answer for name, answer in found.items() if isinstance(answer, Cell)}
    for name, answer in maps.items():
        truth = truths[name]
        told[name] = truth if isinstance(truth, Cell) else judged(answer, truth, pair.tolerance)
    return {name: told[name] for name in names}


def needless(found: Mapping[str, Cell], pair: Pair) -> dict[str, Cell]:
    """What methods decline that explain the truth, as wrong cells."""
    reasons = {name: cell.text for name, cell in found.items() if cell.kind == "refused"}
    truths = true_maps([*reasons], pair)
    kept = [name for name in reasons if isinstance(truths[name], Tensor)]
    return {name: Cell("wrong", f"declines a plain network: {reasons[name]}") for name in kept}


def true_maps(names: Sequence[str], pair: Pair) -> dict[str, Answer]:
    """Truths in the network's shape, or why there are none, by name: a network whose plain form a method declines is
    none that it may explain, unless the plain form is the stranger one."""
    drawing = [name for name in names if pair.drawing is not None and methods.get(name).stochastic]
    none = [name for name in names if name in pair.truth.unlike]
    others = [name for name in names if name not in {*drawing, *none}]
    told = _told(drawing, pair.drawing or pair.truth, pair) | _told(others, pair.truth, pair)
    return told | dict.fromkeys(none, NO_TRUTH)


def _told(names: Sequence[str], truth: Form, pair: Pair) -> dict[str, Answer]:
    told = answers(names, truth, pair)
    for name, found in told.items():
        if isinstance(found, Tensor):
            bare = methods.get(name).output == "probabilities"
            told[name] = found if bare else truth.maps(found)
        elif found.kind == "refused" and truth.stranger:
            told[name] = NO_TRUTH
        else:
            told[name] = Cell("wrong", f"explained, but not its truth: {found.text}")
    return told


def answers(names: Sequence[str], form: Form, pair: Pair) -> dict[str, Answer]:
    """What methods say of a pair in one of its forms: maps by name, or why there are none. They share their passes
    where none fails."""
    if not names:
        return {}
    known = {each for name in names for each in inspect.signature(methods.get(name).function).parameters}
    few = {parameter: value for parameter, value in (form.options or pair.options).items() if parameter in known}
    inputs, count = form.inputs(pair.inputs), len(pair.targets)
    given = (form.model, inputs[-count:], pair.targets)
    try:
        return dict(attribug.explain(names, *given, train_inputs=inputs[:-count], **few))
    except Exception as error:
        if len(names) == 1:
            declined = isinstance(error, attribug.Unsupported)
            reason = Cell("refused", str(error)) if declined else Cell("wrong", f"CRASH: {one_line(error)}")
            return {names[0]: reason}
    return {name: told for each in names for name, told in answers([each], form, pair).items()}


def judged(maps: Tensor, truth: Tensor, tolerance: float) -> Cell:
    """Whether maps agree with the truth."""
    if maps.shape != truth.shape:
        return Cell("wrong", f"shape {tuple(maps.shape)} in place of {tuple(truth.shape)}")
    flat = truth.detach().flatten(1)
    if not flat.isfinite().all():
        return Cell("wrong", "the truth is not finite")
    if not flat.any():
        return Cell("no truth", "the true map is zero")
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
