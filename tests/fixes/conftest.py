"""A lab that keeps its models in memory, and how often they are right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attribug.contracts.data import Examples
from attribug.contracts.models import ModelSpec
from attribug.models.lab import Lab
from attribug.models.memory import Memory


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab(Memory())


@pytest.fixture(scope="session")
def right(lab: Lab) -> Callable[[ModelSpec, Examples], float]:
    """The share of examples whose label a model predicts."""

    def share(model: ModelSpec, examples: Examples) -> float:
        return float((lab.outputs(model, examples).argmax(1) == lab.data(examples).labels).double().mean())

    return share
