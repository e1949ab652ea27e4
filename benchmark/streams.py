"""Random streams: named, independent of each other, the same on every machine and in every order of use."""

from __future__ import annotations

from typing import Any

import torch

from attribug.keys import stream_seed


def generator(*name: Any) -> torch.Generator:
    """A CPU generator for the stream that `name` (plain values) names."""
    return torch.Generator().manual_seed(stream_seed(*name))
