"""Other people's methods as attribug's: captum classes, zennit composites, plain functions."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

from attribug import keys, sources
from attribug.contracts.pieces import Method
from attribug.errors import InputError, Unsupported
from attribug.registry import REGISTRIES

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.query.query import Query

HOOKS = ("relu_modules",)
NEEDS = {
    "GuidedBackprop": HOOKS, "Deconvolution": HOOKS, "GuidedGradCam": HOOKS, "LRP": (*HOOKS, "plain_layers"),
    "DeepLift": (*HOOKS, "layers_run_once"), "DeepLiftShap": (*HOOKS, "layers_run_once"),
}  # fmt: skip
"""What captum's classes need of a model that they would otherwise explain wrongly without a word."""
DRAWS = {"NoiseTunnel", "LimeBase", "GradientShap", "ShapleyValueSampling"}
"""captum's classes that draw from global random states, and whatever inherits from them."""
MIXES = "FeaturePermutation"
"""captum's class that permutes examples of a batch among each other: no map of one example."""


def from_function(name: str, function: Callable[..., Any], **facts: Any) -> None:
    """Registers a plain function `f(model, inputs, targets, **parameters)` that returns maps of the inputs' shape, a
    tensor or an array; it gets the logit model and detached inputs (N, *shape), and targets (N,).

    `facts` as in `methods.register`. With `stochastic=True` the function is asked for one example at a time, under
    global seeds of that example, so that maps do not depend on the batch.
    """
    one_by_one = bool(facts.get("stochastic"))
    _enter(name, ("function", function, one_by_one), as_method(function, one_by_one=one_by_one), facts)


def from_captum(name: str, build: Callable[..., Any], **arguments: Any) -> None:
    """Registers a captum attribution: a class, or a function that makes an instance from a model; a new one is made for
    every query.

    `arguments` go where captum has them, to the constructor (a `layer` may be a module's name) or to `attribute`; a
    function of one parameter `query` is called for its value (`baselines=lambda query: query.train.inputs[:20]`). Facts
    as in `methods.register` are told apart by name. Classes that hook modules refuse models in which hooks would miss
    a rectifier, unless `needs` says otherwise; classes that draw at random get one example at a time, under seeds of
    that example (say `stochastic=True` where `build` is a function).
    """
    facts, arguments = _facts(arguments)
    kind, trusted = getattr(build, "__name__", ""), "needs" in facts
    facts.setdefault("needs", _needs(build))
    facts.setdefault("stochastic", _draws(build))
    if MIXES in _kinds(build):
        raise InputError(f"method {name!r}: {MIXES} mixes the examples of a batch; its maps belong to no single one")
    if not callable(build):
        raise InputError(f"method {name!r}: expected a captum class, found {type(build).__name__}")

    def captum_method(query: Query) -> Tensor:
        given = {key: value(query) if _asks(value) else value for key, value in arguments.items()}
        known = inspect.signature(build).parameters
        constructor = {key: value for key, value in given.items() if key in known}
        if isinstance(constructor.get("layer"), str):
            constructor["layer"] = _layer(query.model, constructor["layer"])
        rest = {key: value for key, value in given.items() if key not in constructor}
        instance = build(query.model, **constructor)
        if not trusted:
            _look_at(instance, query, name, facts["stochastic"])

        def attribute(model: Any, inputs: Tensor, targets: Tensor) -> Any:
            return instance.attribute(inputs, target=targets, **rest)

        return as_method(attribute, one_by_one=facts["stochastic"])(query)

    captum_method.__doc__ = f"captum's {kind}."
    told = {key: keys.told(value) for key, value in arguments.items()}
    _enter(name, ("captum", build, told, facts["stochastic"], trusted), captum_method, facts)


def _kinds(attribution: Any) -> set[str]:
    """Names of a class, or of an object's class, and of what it inherits from."""
    kind = attribution if isinstance(attribution, type) else type(attribution)
    return {each.__name__ for each in kind.__mro__}


def _needs(attribution: Any) -> tuple[str, ...]:
    return max((NEEDS.get(kind, ()) for kind in _kinds(attribution)), key=len)


def _draws(attribution: Any) -> bool:
    return bool(_kinds(attribution) & DRAWS)


def _layer(model: Any, name: str) -> Any:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise Unsupported(f"the model has no layer {name!r}") from None


def _look_at(attribution: Any, query: Query, name: str, stochastic: bool) -> None:
    """Refuses models that captum's classes would explain wrongly, and draws that nobody declared."""
    from attribug.query.preflight import preflight

    for each in (attribution, getattr(attribution, "attribution_method", None)):
        preflight(query, _needs(each))
        if _draws(each) and not stochastic:
            kind = type(each).__name__
            raise InputError(f"method {name!r}: captum's {kind} draws at random; register it with stochastic=True")


def from_zennit(
    name: str,
    composite: Callable[..., Any],
    canonizers: Sequence[Any] = (),
    *,
    start: Literal["logit", "one"] = "logit",
    every_operation: bool = True,
    **facts: Any,
) -> None:
    """Registers a zennit composite: a class or function that takes `canonizers=[…]`, or one that takes nothing.

    canonizers: zennit's classes or instances. `start`: what the target's output is given. `every_operation`: refuse
    models in which an operation has no rule. Facts as in `methods.register`.
    """
    takes = _takes(composite, "canonizers")
    if canonizers and not takes:
        raise InputError(f"method {name!r}: expected a composite that takes canonizers, found one that does not")

    instances = [canonizer() if isinstance(canonizer, type) else canonizer for canonizer in canonizers]

    def make() -> Any:
        return composite(canonizers=instances) if takes else composite()

    def zennit_method(query: Query) -> Tensor:
        from attribug.methods.composites import relevance

        return relevance(query, make, start=start, every_operation=every_operation)

    zennit_method.__doc__ = f"zennit's {getattr(composite, '__name__', 'composite')}."
    key = ("zennit", composite, [keys.told(canonizer) for canonizer in instances], start, every_operation)
    _enter(name, key, zennit_method, {"needs": ("relu_modules",), "conserves": every_operation, **facts})


def as_method(function: Callable[..., Any], *, one_by_one: bool = False) -> Callable[..., Tensor]:
    """A function of (model, inputs, targets) as a function of a query."""
    import torch

    from attribug.streams import global_states_restored, seed_globally

    def method(query: Query, **parameters: Any) -> Tensor:
        streams = query.generators("global seeds") if one_by_one else []
        parts = []
        for start in range(0, len(query.inputs), 1 if one_by_one else query.rows):
            part = slice(start, start + (1 if one_by_one else query.rows))
            with global_states_restored() if one_by_one else nullcontext():
                if one_by_one:
                    seed_globally(streams[start].initial_seed())
                maps = function(query.model, query.inputs[part].clone(), query.targets[part].clone(), **parameters)
            parts.append(_tensor(maps, query))
        return torch.cat(parts)

    _dress(method, function, getattr(function, "__module__", "") or "")
    method.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)
    return method


def _tensor(maps: Any, query: Query) -> Tensor:
    import torch

    try:
        tensor: Tensor = torch.as_tensor(maps)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"expected maps as a tensor or an array, found {type(maps).__name__}") from None
    if not tensor.is_floating_point():
        return tensor  # whole numbers are refused, not turned
    return query.exactly(tensor.detach().to(query.inputs.device))


def _enter(name: str, content: Any, method: Callable[..., Tensor], facts: dict[str, Any]) -> None:
    content = (content, sources.code("attribug.methods.adapters"))
    _dress(method, content, sys._getframe(2).f_globals.get("__name__", ""))
    REGISTRIES["method"].register(name, **facts)(method)


def _dress(method: Callable[..., Tensor], content: Any, module: str) -> None:
    """Whose the method is, and the content its key tells."""
    method.__module__ = module
    method.__wrapped_function__ = content  # type: ignore[attr-defined]


def _facts(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = set(Method.__dataclass_fields__) - {"name", "function"}
    facts = {key: value for key, value in arguments.items() if key in names}
    return facts, {key: value for key, value in arguments.items() if key not in names}


def _asks(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and _takes(value, "query")


def _takes(function: Callable[..., Any], parameter: str) -> bool:
    try:
        return parameter in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
