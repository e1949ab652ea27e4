"""Given models: loaded from their source whenever they are needed, recognised by their weights, never trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import nn

from attribug.contracts.models import Given
from attribug.errors import InputError
from attribug.sources import DIGEST_CHARACTERS


def given(source: Callable[[], nn.Module]) -> Given:
    """Describes the model that `source` loads. Raises `InputError` where that is no model."""
    return Given(source, digest_of(_loaded(source)))


def load(spec: Given) -> nn.Module:
    """The model, in eval mode. Raises `InputError` where its source gives another one than was described."""
    model = _loaded(spec.source)
    found = digest_of(model)
    if found != spec.digest:
        raise InputError(f"given model: expected weights and buffers of digest {spec.digest}, found {found}")
    return model.eval()


def digest_of(model: nn.Module) -> str:
    """Digest of all that a model's state dict holds: names, types, shapes and values."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            values = tensor.detach().cpu().contiguous()
            total.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            total.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            total.update(f"{name} {tensor!r}\n".encode())
    return total.hexdigest()[:DIGEST_CHARACTERS]


def _loaded(source: Callable[[], nn.Module]) -> nn.Module:
    model = source()
    if not isinstance(model, nn.Module):
        raise InputError(f"given model: expected a torch.nn.Module from its source, found {type(model).__name__}")
    return model
