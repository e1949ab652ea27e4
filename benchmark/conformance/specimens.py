"""What the checks of methods explain: small networks with lively gradients, awkward and failing ones, images,
vectors and sequences; a contrast without contamination; and the state of a model and its surroundings in values that
compare."""

from __future__ import annotations

import random
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Recipe, Trained
from attribug.models.networks import bvd_cnn
from attribug.query.query import as_logits

CLASSES, PIXELS = 3, 16
FEATURES, LENGTH = 7, 12
TARGETS = torch.tensor([2, 0, 1])


class OnPurpose(RuntimeError):
    """What a failing model raises."""


class Failing(nn.Module):
    """A model that counts its calls, and fails after some of them."""

    def __init__(self, model: nn.Module, after: int | None = None) -> None:
        super().__init__()
        self.model, self.after, self.calls = model, after, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, or `OnPurpose`."""
        self.calls += 1
        if self.after is not None and self.calls > self.after:
            raise OnPurpose(f"the model fails after {self.after} passes, on purpose")
        return as_logits(self.model(inputs))


def network(dtype: torch.dtype = torch.float64, *, channels: int = 3, pixels: int = PIXELS) -> nn.Module:
    """A BVD-CNN with lively gradients, in eval mode; the same weights at every call."""
    with torch.random.fork_rng(devices=[]):
        model = bvd_cnn(channels=channels, classes=CLASSES, pixels=pixels, width=4)
    return lively(model).to(dtype).eval()


def awkward(*, normalised: bool = True) -> nn.Sequential:
    """Batch normalisation (unless refused) and dropout, mixed modes, a frozen weight, a gradient, a user's hook."""
    with torch.random.fork_rng(devices=[]):
        convolution, pooling, dense = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Linear(4 * 8 * 8, CLASSES)
        normalisation = [nn.BatchNorm2d(4)] if normalised else []
        layers = [convolution, *normalisation, nn.ReLU(), pooling, nn.Dropout(), nn.Flatten(), dense]
    model = nn.Sequential(*layers).double()
    lively(model).train()
    model[1].eval()
    convolution.weight.requires_grad_(False)
    dense.weight.grad = torch.full_like(dense.weight, 0.5)
    pooling.register_forward_hook(keep)
    return model


def oblong(channels: int) -> nn.Module:
    """A network for images of any size."""
    with torch.random.fork_rng(devices=[]):
        layers = [
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, CLASSES),
        ]
    return lively(nn.Sequential(*layers)).double().eval()


def dense() -> nn.Module:
    """A network for vectors (N, D)."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, CLASSES)
    return lively(nn.Sequential(*layers)).double().eval()


def convolving() -> nn.Module:
    """A network for sequences (N, C, L)."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * LENGTH, CLASSES)
    return lively(nn.Sequential(*layers)).double().eval()


def lively(model: nn.Module) -> nn.Module:
    """He initialisation with positive biases, from a stream of its own: gradients do not vanish."""
    stream = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=stream)
        else:
            nn.init.normal_(parameter, 0.5, 0.1, generator=stream)
    return model


def keep(module: nn.Module, args: object, output: Tensor) -> None:
    """A hook that does nothing."""


def images(
    dtype: torch.dtype = torch.float64, *, channels: int = 3, size: tuple[int, int] = (PIXELS, PIXELS), seed: int = 1
) -> Tensor:
    """Noise in [0, 1), (3, channels, *size): one image a class."""
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(CLASSES, channels, *size, generator=stream, dtype=torch.float64).to(dtype)


def vectors(seed: int = 1) -> Tensor:
    """Noise in [0, 1), (3, 7) float64: one vector a class."""
    return torch.rand(CLASSES, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sequences(seed: int = 1) -> Tensor:
    """Noise in [0, 1), (3, 2, 12) float64: one sequence a class."""
    return torch.rand(CLASSES, 2, LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def state(model: nn.Module, tensors: Sequence[Tensor], *, gradients: bool = True) -> dict[str, Any]:
    """Everything that a method must leave alone, in values that compare, by what it is; without `gradients`, what
    torch itself leaves behind is left out: weights' accumulated gradients, the mark of a full backward hook."""
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    named = {f"module {name or 'at the top'}": _module(module, gradients) for name, module in model.named_modules()}
    named |= {f"weight or buffer {name}": _told(tensor, gradients) for name, tensor in weights.items()}
    named |= {("inputs", "targets", "ids", "training examples")[i]: _told(t) for i, t in enumerate(tensors)}
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return named | {
        "torch's global random state": torch.get_rng_state().tolist(),
        "torch's global random state on cuda": [state.tolist() for state in cuda],
        "NumPy's global random state": str(np.random.get_state()),
        "Python's global random state": random.getstate(),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what differs between two states."""
    return [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]


def _module(module: nn.Module, gradients: bool) -> tuple[Any, ...]:
    hooks = {name: dict(table) for name, table in vars(module).items() if "hook" in name and isinstance(table, dict)}
    mark = module._is_full_backward_hook if gradients else None
    return type(module), module.training, mark, sorted(vars(module)), hooks


def _told(tensor: Tensor, gradients: bool = True) -> tuple[Any, ...]:
    gradient = None if tensor.grad is None or not gradients else (id(tensor.grad), tensor.grad.tolist())
    return id(tensor), tensor.detach().tolist(), tensor.requires_grad, gradient, dict(tensor._backward_hooks or {})


class Witness:
    """Lives as long as an autograd graph that it was put into."""


class Watch:
    """A forward hook that puts a witness into every graph which passes its module."""

    def __init__(self) -> None:
        self.witnesses: list[weakref.ref[Witness]] = []

    def __call__(self, module: nn.Module, args: object, output: Tensor) -> None:
        node: Any = output.grad_fn
        if node is not None:
            witness = Witness()
            node.metadata["witness"] = witness
            self.witnesses.append(weakref.ref(witness))

    def __deepcopy__(self, memo: object) -> Watch:
        return self  # a copied model is watched as well

    def alive(self) -> int:
        """Graphs that something still holds."""
        return sum(witness() is not None for witness in self.witnesses)


def uncontaminated(seed: int) -> Contrast:
    """A contrast as at level 0 of a bug: its contaminated models are the clean ones, unchanged."""
    train, test = (Examples.of(bars, size=size, first=first) for size, first in ((60, 0), (6, 1000)))
    recipe = Recipe(partial(bvd_cnn, channels=1, classes=CLASSES, pixels=16, width=2), epochs=2, batch=20)
    clean = [Trained(train, recipe, s) for s in range(3)]
    return Contrast(
        contaminated=Side(Derived(clean[seed], _unchanged, seed), test),
        references=tuple(Side(model, test) for s, model in enumerate(clean) if s != seed),
        controls=tuple(Side(model, test) for model in clean),
        control="clean",
        target="label",
        truth="object",
    )


def _unchanged(model: nn.Module, stream: torch.Generator) -> None:
    """No change at all."""


def bars(*, size: int, first: int) -> Data:
    """A bright bar in one of three places on noise, (1, 16, 16); the bar is the mask."""
    inputs = torch.rand((size, 1, 16, 16), generator=torch.Generator().manual_seed(first)) / 2
    labels = torch.arange(size) % CLASSES
    masks = torch.zeros((size, 16, 16), dtype=torch.bool)
    for row, label in enumerate(labels.tolist()):
        masks[row, :, 5 * label : 5 * label + 3] = True
    inputs[masks[:, None]] += 0.5
    return Data(inputs, labels, torch.arange(first, first + size), masks)
