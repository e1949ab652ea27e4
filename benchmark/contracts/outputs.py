"""Kinds of output: what methods give and metrics read, and what may be done with each.

A new kind is one entry here, or one `register` in a plugin, beside a method that gives it and a metric that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attribug.errors import InputError

if TYPE_CHECKING:
    from torch import Generator, Tensor

FEW = 4  # classes, or columns, of specimens


def _of_other_examples(one: Tensor, other: Tensor) -> str:
    """Nothing but the number of examples has to agree."""
    if len(one) == len(other):
        return ""
    return f"expected results of the same examples, found {tuple(one.shape)} and {tuple(other.shape)}"


def _normal(stream: Generator, examples: int, shape: tuple[int, ...]) -> Tensor:
    """Gaussian scores, (N, 4) float64."""
    import torch

    return torch.randn(examples, FEW, generator=stream, dtype=torch.float64)


def _scaled(usual: Tensor) -> list[Tensor]:
    """Other signs, magnitudes and precision, and nothing at all."""
    kinds = [usual, -usual, usual.abs(), usual * 0, usual * 0 + 1, usual * 1e-30, usual * 1e30]
    return [*kinds, usual.float()]


@dataclass(frozen=True)
class Output:
    """A kind of output, which `Method.output` and `Metric.reads` name. The first axis of a result is the examples'."""

    name: str
    wrong: Callable[[Tensor, Tensor, int | None], str] = field(repr=False)
    """What is wrong with a floating-point result for inputs (N, *shape) of a model with K classes (None: unknown);
    empty where nothing is."""
    explains: bool = True
    """Whether it explains the model; otherwise it is what the model itself says, which a bug's checks may measure."""
    maps: bool = False
    """Whether it is maps of the inputs, (N, *shape): metrics read them after post-processing, studies disturb them, and
    they are kept in as many bytes as the inputs. Anything else is read as it is."""
    halved: bool = False
    """Whether a run may keep it in half the precision."""
    gallery: bool = False
    """Whether figures show it, where it is (N, C, H, W)."""
    free: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    """A result for given inputs that costs nothing, to time metrics on; None: as a method of the plan gives it."""
    unlike: Callable[[Tensor, Tensor], str] = field(default=_of_other_examples, repr=False)
    """Why two results cannot be compared; empty where they can."""
    ordinary: Callable[[Generator, int, tuple[int, ...]], Tensor] = field(default=_normal, repr=False)
    """What metrics are checked on: a result for N inputs of a shape, float64, from a random stream."""
    awkward: Callable[[Tensor], list[Tensor]] = field(default=_scaled, repr=False)
    """Results of every odd kind, given an ordinary one: a metric keeps its bounds on them."""

    @property
    def content(self) -> tuple[Any, ...]:
        """What of it decides numbers: part of the content keys of whatever rests on it."""
        return self.name, self.wrong, self.explains, self.maps, self.halved, self.gallery


_KNOWN: dict[str, Output] = {}


def register(output: Output) -> Output:
    """Enters a kind and returns it; its module may enter it again. Raises `InputError` for another module's name."""
    before = _KNOWN.get(output.name)
    if before is not None and before.wrong.__module__ != output.wrong.__module__:
        raise InputError(f"output {output.name!r} is taken by {before.wrong.__module__}; choose another name")
    _KNOWN[output.name] = output
    return output


def names() -> tuple[str, ...]:
    """All names, in the order in which they were entered."""
    return tuple(_KNOWN)


def get(name: str) -> Output:
    """The kind of that name; raises `InputError` with the known ones."""
    if name not in _KNOWN:
        raise InputError(f"output: expected one of {', '.join(_KNOWN)}, found {name!r}")
    return _KNOWN[name]


def forget(name: str) -> None:
    """Removes what was entered under a name."""
    _KNOWN.pop(name, None)


def _wrong_maps(result: Tensor, inputs: Tensor, classes: int | None) -> str:
    """Maps have the inputs' shape, type and device."""
    if result.shape != inputs.shape:
        return f"expected maps {tuple(inputs.shape)}, found {tuple(result.shape)}"
    if (result.dtype, result.device) != (inputs.dtype, inputs.device):
        expected, found = (f"{tensor.dtype} on {tensor.device}" for tensor in (inputs, result))
        return f"expected {expected}, found {found}"
    return ""


def _unlike_maps(one: Tensor, other: Tensor) -> str:
    if one.shape == other.shape:
        return ""
    return f"expected two maps of one shape, found {tuple(one.shape)} and {tuple(other.shape)}"


def _noise(inputs: Tensor) -> Tensor:
    import torch

    return torch.randn_like(inputs)


def _normal_maps(stream: Generator, examples: int, shape: tuple[int, ...]) -> Tensor:
    """Gaussian maps (N, *shape)."""
    import torch

    return torch.randn(examples, *shape, generator=stream, dtype=torch.float64)


def _awkward_maps(usual: Tensor) -> list[Tensor]:
    """Of one sign, sparse, a spike, tied, heavy-tailed, nearly constant, tiny, huge, nothing, in single precision."""
    import torch

    spike = torch.zeros_like(usual)
    spike[:, 0, 4, 5] = 1
    nearly = 1 + 1e-15 * usual.round()
    return [
        usual, -usual, usual.abs(), -usual.abs(), usual * (usual > 2), spike, -spike, usual.round(), usual**7, nearly,
        usual * 1e-30, usual * 1e30, torch.zeros_like(usual), torch.ones_like(usual), usual.float(),
        (usual * 1e-38).float(),
    ]  # fmt: skip


def _wrong_probabilities(result: Tensor, inputs: Tensor, classes: int | None) -> str:
    """Probabilities (N, K), of any type."""
    if result.ndim == 2 and len(result) == len(inputs) and classes in {None, result.shape[1]}:
        return ""
    return f"expected probabilities ({len(inputs)}, {classes or 'K'}), found {tuple(result.shape)}"


def _unlike_probabilities(one: Tensor, other: Tensor) -> str:
    """Models of different tasks have different classes."""
    if one.ndim == other.ndim == 2 and len(one) == len(other):
        return ""
    return f"expected probabilities (N, K) of the same examples, found {tuple(one.shape)} and {tuple(other.shape)}"


def _softmax(stream: Generator, examples: int, shape: tuple[int, ...]) -> Tensor:
    """Softmax of Gaussian logits, (N, 4)."""
    return _normal(stream, examples, shape).softmax(1)


def _awkward_probabilities(usual: Tensor) -> list[Tensor]:
    """Certain, rounded to a sum of a little more than 1, even, and of fewer classes."""
    import torch

    classes = usual.shape[1]
    certain = torch.eye(classes, dtype=torch.float64)[torch.arange(len(usual)) % classes]
    rounded = (certain.roll(1, 1) + 1e-7).float()
    even, fewer = torch.full_like(usual, 1 / classes), usual[:, :2].softmax(1)
    return [usual, certain, certain.roll(1, 1), rounded, even, fewer]


ATTRIBUTIONS = register(Output(
    "attributions", _wrong_maps, maps=True, halved=True, gallery=True, free=_noise, unlike=_unlike_maps,
    ordinary=_normal_maps, awkward=_awkward_maps,
))  # fmt: skip
"""Signed, unreduced attributions (N, *shape)."""
PROBABILITIES = register(Output(
    "probabilities", _wrong_probabilities, explains=False, unlike=_unlike_probabilities, ordinary=_softmax,
    awkward=_awkward_probabilities,
))  # fmt: skip
"""Softmax outputs (N, K)."""
