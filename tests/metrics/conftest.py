"""Maps of every awkward kind, as Hypothesis draws them, and how two lists of values are told apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning, NoSuchExample
from torch import Tensor

SCALES = [1.0, 2.0**-100, 2.0**100]  # about 10 to the ±30; powers of two, so that ties stay ties in every order of sums
EXTREME = [*SCALES, 2.0**-664, 2.0**664]  # of float64, about 10 to the ±200
KINDS = ["random", "sparse", "tied", "negative", "heavy", "spike", "constant", "zero", "channels cancel"]
SHARES = [0.0, 0.2, 0.5, 1.0]


def pattern(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A map (C, H, W) of a kind."""
    values = rng.standard_normal(shape)
    spike = np.zeros(values.size)
    spike[rng.integers(values.size)] = rng.choice([-1, 1])
    return {
        "random": values,
        "sparse": values * (rng.random(shape) < 0.1),
        "tied": rng.integers(-2, 3, shape).astype(float),
        "negative": -np.abs(values),
        "heavy": values**7,
        "spike": spike.reshape(shape),
        "constant": np.full(shape, 0.3),
        "zero": np.zeros(shape),
        "channels cancel": values - values.mean(0),
    }[kind]


@st.composite
def _maps(draw: Any, smallest: int, largest: int, count: int) -> list[Tensor]:
    """So many maps (1, C, H, W) of one shape and precision, each of its own kind and scale."""
    sides = st.integers(smallest, largest)
    shape = draw(st.sampled_from([1, 3])), draw(sides), draw(sides)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    scales = SCALES if dtype == torch.float32 else EXTREME
    drawn = []
    for _ in range(count):
        rng = np.random.default_rng(draw(st.integers(0, 10**6)))
        values = pattern(draw(st.sampled_from(KINDS)), shape, rng) * draw(st.sampled_from(scales))
        drawn.append(torch.from_numpy(values).to(dtype)[None])
    return drawn


@st.composite
def _masked(draw: Any, smallest: int, largest: int) -> tuple[Tensor, Tensor]:
    """A map (1, C, H, W), and a mask (1, H, W)."""
    (one,) = draw(_maps(smallest, largest, 1))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    mask = rng.random(one.shape[2:]) < draw(st.sampled_from(SHARES))
    return one, torch.from_numpy(mask)[None]


@pytest.fixture(scope="session")
def drawn_maps() -> Callable[..., st.SearchStrategy[list[Tensor]]]:
    """`drawn_maps(smallest, largest, count)`: maps between so many pixels a side."""
    return _maps


@pytest.fixture(scope="session")
def masked_maps() -> Callable[..., st.SearchStrategy[tuple[Tensor, Tensor]]]:
    """`masked_maps(smallest, largest)`: a map and a mask."""
    return _masked


def differs(found: float, expected: float, tolerance: float = 1e-9) -> bool:
    """Whether two numbers are not the same; NaN is the same as NaN only."""
    if math.isnan(found) or math.isnan(expected):
        return math.isnan(found) != math.isnan(expected)
    return abs(found - expected) > tolerance


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """`same(found, expected, tolerance=1e-9)` fails where `differs`."""

    def expect(found: float, expected: float, tolerance: float = 1e-9) -> None:
        assert not differs(found, expected, tolerance), f"expected {expected!r}, found {found!r}"

    return expect


@pytest.fixture(scope="session")
def is_found_out() -> Callable[..., bool]:
    """Whether what Hypothesis draws shows that a wrong function is not the right one.

    `is_found_out(strategy, wrong, right)`: both take a drawn case; a right answer of None leaves the case out.
    """

    def found(strategy: st.SearchStrategy[Any], wrong: Callable[[Any], float], right: Callable[[Any], Any]) -> bool:
        def shows(case: Any) -> bool:
            expected = right(case)
            return expected is not None and differs(wrong(case), expected)

        quick = settings(
            max_examples=300, phases=[Phase.generate], database=None, derandomize=True, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)  # maps are long to write down
            try:
                find(strategy, shows, settings=quick)
            except NoSuchExample:
                return False
        return True

    return found
