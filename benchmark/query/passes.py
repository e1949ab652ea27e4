"""Passes that methods share: memoised primitives, and what each would have cost alone."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from torch import Tensor

from attribug.query.hooks import hooks
from attribug.query.settings import settings

if TYPE_CHECKING:
    from attribug.query.query import Query

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Cost:
    """What a method has cost: as if it had run alone, so shared passes count for each method that needs them."""

    seconds: float = 0.0
    forward: int = 0
    """Examples passed forward."""
    backward: int = 0
    """Examples passed backward."""

    def add(self, other: Cost) -> None:
        """Adds another cost to this one."""
        self.seconds += other.seconds
        self.forward += other.forward
        self.backward += other.backward


@dataclass
class Passes:
    """Counts of this query, and the price list of its memoised primitives."""

    total: Cost = field(default_factory=Cost)
    saved: Cost = field(default_factory=Cost)
    prices: dict[Any, Cost] = field(default_factory=dict)
    charged: set[Any] = field(default_factory=set)
    """Primitives that the method being measured has paid for."""


def primitive(function: Callable[Concatenate[Query, P], R]) -> Callable[Concatenate[Query, P], R]:
    """Memoises a method of `Query` by its (hashable) arguments and keeps what it cost for whoever else asks. Everyone
    gets a copy, so that nobody can change what others get; and whoever hooks the model, puts it into training mode or
    changes torch's settings gets passes of its own."""

    @functools.wraps(function)
    def remembered(self: Query, *args: P.args, **kwargs: P.kwargs) -> R:
        arguments = [(name, _identity(value)) for name, value in [*enumerate(args), *sorted(kwargs.items())]]
        modes = tuple(module.training for module in self.model.modules())
        key = (function.__name__, tuple(arguments), hooks(self.model), modes, settings(), self.channels_last)
        if key in self._memo:
            if key not in self._passes.charged:
                self._passes.saved.add(self._passes.prices[key])
                self._passes.charged.add(key)
            known: R = copy.deepcopy(self._memo[key][0])
            return known
        value, self._passes.prices[key] = self.priced(lambda: function(self, *args, **kwargs))
        self._passes.charged.add(key)
        self._memo[key] = value, args, kwargs  # arguments too, so that no other tensor gets the identity of theirs
        return copy.deepcopy(value)

    return cast("Callable[Concatenate[Query, P], R]", remembered)


def _identity(value: Any) -> Any:
    """What tells an argument of a primitive: of a tensor, which one it is and how often it was changed."""
    return ("tensor", id(value), value._version) if isinstance(value, Tensor) else value


class Costing:
    """Measures what a method would cost alone; the figure is `cost` after the block."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self.cost = Cost()

    def __enter__(self) -> Costing:
        self._passes.total, self._passes.saved, self._passes.charged = Cost(), Cost(), set()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cost = Cost(time.perf_counter() - self._started, self._passes.total.forward, self._passes.total.backward)
        self.cost.add(self._passes.saved)
