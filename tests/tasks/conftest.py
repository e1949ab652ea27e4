"""The task `own` has something to show: a small model and data that were brought."""

from __future__ import annotations

import pytest

from doubles import mine


@pytest.fixture(scope="session", autouse=True)
def _brought() -> None:
    for seed in (0, 3, 4):
        mine.register(seed)
