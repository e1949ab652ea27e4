"""Networks for other shapes than images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from architectures.specimens import CLASSES, EXAMPLES, FEW, Form, Group, Pair, Specimen, copied, lively

LENGTH, CHANNELS, FEATURES, TOKENS = 12, 2, 7, 5
Pooling = Callable[[Any], Any]


class Folded(nn.Module):
    """A layer for vectors, applied to every token (N, T, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        """As on every token alone."""
        return self.layer(inputs.reshape(-1, inputs.shape[-1])).reshape(*inputs.shape[:-1], -1)


class Mean(nn.Module):
    """The mean token."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, T, C) → (N, C)."""
        return inputs.mean(1)


def convolving(axes: int, pooling: str, size: int, *, normalised: bool = False) -> nn.Sequential:
    """A network for sequences, or the same on images of height 1, or volumes of depth and height 1."""
    conv, norm = getattr(nn, f"Conv{axes}d"), getattr(nn, f"BatchNorm{axes}d")
    pool = getattr(nn, f"{pooling}{axes}d")
    flat = (1,) * (axes - 1)
    kernel, padding = (*flat, 3), (*(0 for _ in flat), 1)
    norms = [norm(4)] if normalised else []
    layers = [conv(CHANNELS, 4, kernel, padding=padding), *norms, nn.ReLU(), pool((*flat, size))]
    width = 4 * (size if pooling.startswith("Adaptive") else LENGTH // size)
    return lively(nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, CLASSES)))


def sequence(pooling: str, size: int, *, axes: int = 1, normalised: bool = False) -> Pair:
    """A network beside its form for images of height 1."""
    model = convolving(axes, pooling, size, normalised=normalised)
    truth = convolving(2, pooling, size, normalised=normalised)
    state = {name: value.reshape(truth.state_dict()[name].shape) for name, value in model.state_dict().items()}
    truth.load_state_dict(state)
    shape = (CHANNELS, *(1,) * (axes - 1), LENGTH)
    inputs = torch.rand(EXAMPLES, *shape, dtype=torch.float64)
    forth, back = (lambda x: x.reshape(len(x), CHANNELS, 1, LENGTH)), (lambda maps: maps.reshape(len(maps), *shape))
    return Pair(model, Form(truth, forth, back), inputs)


def tokens(*, flattened: bool) -> Pair:
    """Dense layers on every token (N, T, C), beside the same on all tokens as one batch."""
    last = [nn.Flatten(), nn.Linear(6 * TOKENS, CLASSES)] if flattened else [Mean(), nn.Linear(6, CLASSES)]
    model = lively(nn.Sequential(nn.Linear(CHANNELS, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), *last))
    start = [Folded(layer) if isinstance(layer, nn.Linear) else layer for layer in copied(model)[:4]]
    inputs = torch.rand(EXAMPLES, TOKENS, CHANNELS, dtype=torch.float64)
    return Pair(model, Form(nn.Sequential(*start, *copied(model)[4:]).eval()), inputs)


def vectors(*, normalised: bool = False) -> Pair:
    """A network for vectors, beside the same on images of one row."""
    norms = [nn.BatchNorm1d(16)] if normalised else []
    model = lively(nn.Sequential(nn.Linear(FEATURES, 16), *norms, nn.ReLU(), nn.Linear(16, CLASSES)))
    inputs = torch.rand(EXAMPLES, FEATURES, dtype=torch.float64)
    truth = Form(
        nn.Sequential(nn.Flatten(), *copied(model)).eval(),
        lambda x: x.reshape(len(x), 1, 1, FEATURES),
        lambda maps: maps.reshape(len(maps), FEATURES),
        {**FEW, "segments": FEATURES},  # on vectors every entry is one
    )
    return Pair(model, truth, inputs)


def oblong() -> Pair:
    """Images of one row, beside themselves in channels of a batch of another layout."""
    pair = sequence("MaxPool", 2, axes=2)
    return Pair(pair.model, Form(pair.truth.model), pair.inputs.transpose(1, 3).contiguous().transpose(1, 3))


GROUP = Group(
    "Sequences, tokens, vectors, volumes",
    "Truth: the same weights on images of height 1 (sequences, volumes), on all tokens as one batch of vectors, on "
    "images of one row (vectors).",
    (
        Specimen("Conv1d, MaxPool1d", partial(sequence, "MaxPool", 2)),
        Specimen("Conv1d, AvgPool1d", partial(sequence, "AvgPool", 2)),
        Specimen("Conv1d, AdaptiveAvgPool1d", partial(sequence, "AdaptiveAvgPool", 3)),
        Specimen("Conv1d, AdaptiveMaxPool1d", partial(sequence, "AdaptiveMaxPool", 3)),
        Specimen("Conv1d, BatchNorm1d, AvgPool1d", partial(sequence, "AvgPool", 2, normalised=True)),
        Specimen("images of one row, strided", oblong),
        Specimen("Linear on tokens (N, T, C), flattened", partial(tokens, flattened=True)),
        Specimen("Linear on tokens (N, T, C), averaged", partial(tokens, flattened=False)),
        Specimen("Linear on vectors (N, D)", vectors),
        Specimen("Linear on vectors, BatchNorm1d", partial(vectors, normalised=True)),
        Specimen("Conv3d on volumes (N, C, D, H, W)", partial(sequence, "MaxPool", 2, axes=3)),
    ),
    always=False,
)
