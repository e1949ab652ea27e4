"""Passes that methods share: memoised primitives, and what each would have cost alone."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from torch import Tensor

from attribug.query.hooks import hooks
from attribug.query.settings import ambient, settings

if TYPE_CHECKING:
    from torch import nn

P = ParamSpec("P")
R = TypeVar("R")
Q = TypeVar("Q", bound="Remembering")


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


class Remembering(Protocol):
    """What a primitive needs of the query that it is asked of."""

    model: nn.Module
    channels_last: bool
    memo: dict[Any, Any]
    """Values of primitives, with their arguments."""
    passes: Passes

    def priced(self, make: Callable[[], R]) -> tuple[R, Cost]:
        """What `make` makes, and what it costs."""


def primitive(function: Callable[Concatenate[Q, P], R]) -> Callable[Concatenate[Q, P], R]:
    """Memoises a function of a query by its (hashable) arguments and keeps what it cost for whoever else asks: a method
    of `Query`, or a function whose first argument is one. Everyone gets a copy, so that nobody can change what others
    get; and whoever hooks the model, puts it into training mode or changes torch's settings gets passes of its own."""
    name = (function.__module__, function.__qualname__)

    @functools.wraps(function)
    def remembered(query: Q, *args: P.args, **kwargs: P.kwargs) -> R:
        arguments = [(place, _identity(value)) for place, value in [*enumerate(args), *sorted(kwargs.items())]]
        modes = tuple(module.training for module in query.model.modules())
        key = (name, tuple(arguments), hooks(query.model), modes, settings(), ambient(), query.channels_last)
        if key in query.memo:
            if key not in query.passes.charged:
                query.passes.saved.add(query.passes.prices[key])
                query.passes.charged.add(key)
            known: R = copy.deepcopy(query.memo[key][0])
            return known
        value, query.passes.prices[key] = query.priced(lambda: function(query, *args, **kwargs))
        query.passes.charged.add(key)
        query.memo[key] = value, args, kwargs  # arguments too, so that no other tensor gets the identity of theirs
        return copy.deepcopy(value)

    return cast("Callable[Concatenate[Q, P], R]", remembered)


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
