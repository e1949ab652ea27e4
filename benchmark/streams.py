"""Random streams: named, independent of each other, the same on every machine and in every order of use."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from attribug.keys import stream_seed


def generator(*name: Any) -> torch.Generator:
    """A CPU generator for the stream that `name` (plain values) names."""
    return torch.Generator().manual_seed(stream_seed(*name))


@contextmanager
def global_states_restored() -> Iterator[None]:
    """Puts torch's, NumPy's and Python's global random states back as they were, also after an exception."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(states[1])
        random.setstate(states[2])


def seed_globally(seed: int) -> None:
    """Seeds the global random states, for foreign code that knows no other; only inside `global_states_restored`."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
