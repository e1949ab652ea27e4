"""A user's own training: what their function is asked for, and what is asked of the model that it leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attribug.contracts.objectives import cross_entropy
from attribug.errors import InputError, Unsupported, one_line
from attribug.models.brought import Function, describe_function
from attribug.models.own import function_of
from attribug.query.settings import ordinary_passes, settings_restored
from attribug.streams import generator, global_states_restored, seed_globally

if TYPE_CHECKING:
    from attribug.contracts.data import Data
    from attribug.contracts.models import Recipe
    from attribug.models.training import Progress

EXPECTED = "(model, inputs, labels, seed)"
DIGITS = 8  # of a digest, in a name
NAMED = 3  # of what is wrong, in a message


def named(name: Any) -> Function:
    """The user's function of a name, `FILE.py:FUNCTION` or `MODULE:FUNCTION`. Raises `InputError` where there is none,
    and for one that takes other arguments."""
    origin, _, function = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    if not (origin and function):
        raise InputError(f"--fit: expected FILE.py:FUNCTION or MODULE:FUNCTION, found {name!r}")
    return _described(function_of(origin, function, f"--fit {name}"), name)


def from_python(function: Callable[..., Any]) -> Function:
    """A function from Python, named by its own name and its code; raises as `named`."""
    own = getattr(function, "func", function)  # of a partial
    name = str(getattr(own, "__name__", type(own).__name__))
    content = _described(function, name).code
    return describe_function(function, f"{name} {content[:DIGITS]}")


def _described(function: Callable[..., Any], name: str) -> Function:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of one in C
        found = "one without a signature"
    else:
        try:
            signature.bind(None, None, None, seed=0)
        except TypeError:
            found = str(signature.replace(return_annotation=signature.empty))
        else:
            return describe_function(function, name)
    raise InputError(f"--fit {name}: expected a function of {EXPECTED}, found {found}")


def fitted(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    seed: int,
    *,
    trainable: Sequence[str] | None = None,
    progress: Progress = lambda epochs: None,
    function: Function,
) -> nn.Module:
    """Trains a model by the user's function, as `attribug.models.training.train` does: `Recipe.fit`, once `function` is
    set.

    It is called as `function(model, inputs, labels, seed=seed)`: the model in training mode on its device, nothing in
    it frozen; inputs (N, *shape), float32, and labels (N,), int64, on the same device; an integer. It returns the
    trained model, or None for the one that it was given. torch's, NumPy's and Python's global random states are seeded
    before, and put back afterwards, as torch's settings are.

    Raises `RuntimeError` where it raises; `ValueError` for what is no model, for other layers, for NaN, and for
    parameters that all are as they were; `Unsupported` where somebody else decides what learns, or what is minimised.
    """
    if trainable is not None or recipe.objective != cross_entropy:
        raise Unsupported(f"your function {function.name} decides itself what learns, and what is minimised")
    device, before = next(model.parameters()).device, _state(model)
    before = {name: value.clone() for name, value in before.items()}
    data = data.to(device)
    inputs, labels = data.inputs.clone(), data.labels.clone()  # others are trained on the same
    with global_states_restored(), settings_restored(), ordinary_passes():
        try:
            train = function()
            seed_globally(generator("fit", seed).initial_seed())
            answer = train(model.train(), inputs, labels, seed=seed)
        except (Exception, SystemExit) as error:
            raise RuntimeError(f"your function {function.name} raises {one_line(error)}") from error
    after = model if answer is None else answer
    wrong = _wrong(before, after)
    if wrong:
        raise ValueError(f"your function {function.name} {wrong}")
    progress(recipe.epochs)
    trained: nn.Module = after.to(device)
    return trained.eval()


def _wrong(before: Mapping[str, Tensor], model: Any) -> str:
    """What is wrong with a model that was trained, beside what it held before; empty where nothing is."""
    if not isinstance(model, nn.Module):
        return f"returns {type(model).__name__}: expected the trained model, or None for the one it was given"
    after = _state(model)
    names = [*before, *(name for name in after if name not in before)]
    others = [name for name in names if _form(before.get(name)) != _form(after.get(name))]
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        found = f"{', '.join(others[:NAMED])}{more}"
        return f"gives a model of other layers: expected weights of the same names, shapes and types, found {found}"
    damaged = [name for name in after if before[name].isfinite().all() and not after[name].isfinite().all()]
    if damaged:
        return f"leaves NaN or infinity in {', '.join(damaged[:NAMED])}"
    learning = {name for name, _ in model.named_parameters()} & set(after)
    if all(torch.equal(before[name], after[name].to(before[name].device)) for name in learning):
        return "leaves all weights as they were: expected some that it has trained"
    return ""


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _form(value: Tensor | None) -> Any:
    return None if value is None else (value.shape, value.dtype)
