"""A user's own model: what builds it, and the weights that go into it."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribug import plugin_files, sources
from attribug.errors import InputError, near_misses, one_line
from attribug.models.preparation import Transform
from attribug.models.pretrained import PRETRAINED, classes

NESTED = ("state_dict", "model_state_dict", "model", "net")
"""Where checkpoints keep the weights among other things."""
PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
"""What wrappers put before every name: DataParallel, Lightning, torch.compile, habit."""
RANDOM = "random: no file was given, and none was downloaded before"
NAMED = 3  # of what does not fit, in a message


_READ: dict[str, bytes] = {}
"""What files held when they were imported, by module."""


@dataclass(frozen=True)
class Own:
    """A model that somebody brings, and what is known of it."""

    name: str
    """As it was asked for."""
    model: nn.Module
    """In eval mode."""
    transform: Transform | None = None
    """How the model's makers prepare a picture; None where nobody says."""
    classes: tuple[str, ...] | None = None
    """Names of the outputs of its makers' weights, where these tell them: of those of others only where there are as
    many."""
    weights: str = "as built"
    """Where they come from."""


def names_a_model(name: str) -> bool:
    """Whether a name has the form of a model's."""
    origin, _, what = name.rpartition(":")
    return name in PRETRAINED or bool(origin and what)


def own(name: str, weights: str | Path | None = None) -> Own:
    """The model of a name: `FILE.py:FUNCTION`, `MODULE:FUNCTION`, `torchvision:NAME`, `timm:NAME`, or one of those in
    `attribug.models.pretrained`, which have their weights from a package.

    A function takes nothing and returns a module, or a module and its transform. `weights`: a file of safetensors, or a
    state dict that `torch.load(weights_only=True)` reads, nested and prefixed as checkpoints are. A library's model of
    another number of classes is built with as many as the file has; without a file it gets the library's weights where
    these were downloaded before, random ones elsewhere. Nothing is downloaded.

    Raises `InputError` where there is no such model, and where weights do not fit.
    """
    origin, _, what = name.rpartition(":")
    if not names_a_model(name):
        expected = f"FILE.py:FUNCTION, MODULE:FUNCTION, torchvision:NAME, timm:NAME, {' or '.join(PRETRAINED)}"
        raise InputError(f"model {name!r}: expected {expected}")
    state = None if weights is None else read_weights(weights)
    if name in PRETRAINED:
        found = _pretrained(name, state)
    else:
        found = LIBRARIES[origin](what, state) if origin in LIBRARIES else _of_function(name, origin, what)
    origin_of_weights = found.weights
    if state is not None:
        origin_of_weights = str(weights)
        fill(found.model, state, origin_of_weights)
    return replace(found, name=name, model=found.model.eval(), weights=origin_of_weights)


# --- who builds it ---


def function_of(origin: str, function: str, told: str) -> Callable[..., Any]:
    """A function of a file or module. Raises `InputError`, whose line starts with `told`, where there is none."""
    try:
        module = _imported(origin)
    except (Exception, SystemExit) as error:
        raise InputError(f"{told}: {origin} does not import: {one_line(error)}") from error
    found: Callable[..., Any] | None = getattr(module, function, None)
    if not callable(found):
        known = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise InputError(f"{told}: {origin} has no function {function!r}{near_misses(function, known)}")
    return found


def _of_function(name: str, origin: str, function: str) -> Own:
    build = function_of(origin, function, f"model {name!r}")
    try:
        made = build()
    except (Exception, SystemExit) as error:
        raise InputError(f"model {name!r}: {function} raises {one_line(error)}") from error
    model, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module) or not (transform is None or callable(transform)):
        parts = made if isinstance(made, tuple) else (made,)
        given = ", ".join(type(each).__name__ for each in parts)
        expected = "a torch.nn.Module, or one and a transform"
        raise InputError(f"model {name!r}: expected {expected} from {function}(), found {given}")
    return Own(name, model, transform)


def _imported(origin: str) -> Any:
    if not origin.endswith(".py"):
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.insert(0, os.getcwd())  # as `python -m` does
        return importlib.import_module(origin)
    path = Path(origin)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {origin}")
    name = plugin_files.announce(path)
    content = path.read_bytes()
    if _READ.get(name) == content and name in sys.modules:
        return sys.modules[name]
    if name in sys.modules:  # it was edited since
        del sys.modules[name]
        sources.forget()
    _READ[name] = content
    importlib.import_module("attribug.plugins")  # files are imported as if they lay there
    return importlib.import_module(name)


def _torchvision(what: str, state: Mapping[str, Tensor] | None) -> Own:
    import torchvision

    known = torchvision.models.list_models(torchvision.models)
    if what not in known:
        raise InputError(f"model 'torchvision:{what}': torchvision has no such classifier{_close(what, known)}")
    published = torchvision.models.get_model_weights(what)
    makers = published.DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = [each for each in (makers, *published) if (folder / each.url.rpartition("/")[2]).is_file()]
    build: Callable[..., nn.Module] = _quiet(what)
    classes = tuple(makers.meta["categories"])
    if state is None and cached:
        model = build(what, weights=cached[0])
        return Own(what, model, cached[0].transforms(), classes, f"torchvision's {cached[0]}")
    model = _as_large(lambda **size: build(what, weights=None, **size), "num_classes", state)
    return Own(what, model, makers.transforms(), classes, RANDOM)


def _close(what: str, known: list[str]) -> str:
    """The names that are like one, where there are any: a library's are too many to list."""
    close = near_misses(what, known)
    return close if "did you mean" in close else f", one of {len(known)}"


def _quiet(what: str) -> Callable[..., nn.Module]:
    """torchvision's builder; for two networks it warns of its own defaults."""
    from torchvision.models import get_model

    extra = {"init_weights": True} if what in {"googlenet", "inception_v3"} else {}
    return lambda *args, **options: get_model(*args, **options, **(extra if options.get("weights") is None else {}))


def _timm(what: str, state: Mapping[str, Tensor] | None) -> Own:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        absent = "expected timm, which is not installed: pip install 'attribug[timm]'"
        raise InputError(f"model 'timm:{what}': {absent}") from None
    known = [*timm.list_models(), *timm.list_models(pretrained=True)]
    if what not in known:
        raise InputError(f"model 'timm:{what}': timm has no such model{_close(what, known)}")
    model = _as_large(lambda **size: timm.create_model(what, pretrained=False, **size), "num_classes", state)
    origin = RANDOM
    if state is None and (cached := _cached_by_hub(model)) is not None:
        fill(model, read_weights(cached), cached)
        origin = f"timm's {what}, downloaded before"
    settings = timm.data.resolve_model_data_config(model)
    return Own(what, model, timm.data.create_transform(**settings, is_training=False), None, origin)


def _cached_by_hub(model: nn.Module) -> str | None:
    """The file of timm's own weights, where it was downloaded before."""
    repository = getattr(model, "pretrained_cfg", {}).get("hf_hub_id")
    if not repository:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "model.safetensors")
    return found if isinstance(found, str) else None


def _pretrained(name: str, state: Mapping[str, Tensor] | None) -> Own:
    made = PRETRAINED[name]
    model = _as_large(made.network, "num_classes", state)
    if state is None:
        fill(model, made.weights(name, model), made.package)
    return Own(name, model, made.transform, classes(), f"those of the package {made.package}")


LIBRARIES: dict[str, Callable[[str, Mapping[str, Tensor] | None], Own]] = {
    "torchvision": _torchvision, "timm": _timm,
}  # fmt: skip


def _as_large(build: Callable[..., nn.Module], size: str, state: Mapping[str, Tensor] | None) -> nn.Module:
    """A library's network with as many classes as the weights are for."""
    model = build()
    if state is None:
        return model
    state = _unprefixed(state, model.state_dict())
    sizes = ((value.shape, state[name].shape) for name, value in model.state_dict().items() if name in state)
    other = {found[0] for ours, found in sizes if found != ours and found and found[1:] == ours[1:]}
    return build(**{size: other.pop()}) if len(other) == 1 else model


# --- its weights ---


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU. Raises `InputError` where it holds no state dict, or more than one."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"weights {path}: expected safetensors: {one_line(error)}") from error
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"weights {path}: expected a state dict, found something else, as a whole model; save model.state_dict()"
        ) from error
    except Exception as error:  # whatever a damaged file makes of the reader
        raise InputError(f"weights {path}: expected a state dict saved by torch.save: {one_line(error)}") from error
    return _state(held, path)


def _state(held: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(held, Mapping):
        inner = next((held[name] for name in NESTED if isinstance(held.get(name), Mapping)), None)
        if inner is None:
            tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
            raise InputError(f"weights {path}: expected tensors by name, found {', '.join(map(str, [*held][:NAMED]))}")
        held = inner
    raise InputError(f"weights {path}: expected tensors by name, found {type(held).__name__}")


def fill(model: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Loads weights into a model in place. Raises `InputError` that names what does not fit; then nothing is loaded."""
    expected = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    if any(nn.parameter.is_lazy(value) for value in expected.values()):
        raise InputError(f"weights {path}: {type(model).__name__} has lazy layers without sizes; let it run once")
    state = _unprefixed(state, expected)
    wrong = [
        f"{name} {tuple(value.shape)} in the model, {tuple(state[name].shape)} in the file"
        for name, value in expected.items() if name in state and state[name].shape != value.shape
    ]  # fmt: skip
    told = [
        _listed("missing", [name for name in expected if name not in state]),
        _listed("unexpected", [name for name in state if name not in expected]),
        _listed("of another shape", wrong),
    ]
    if any(told):
        raise InputError(f"weights {path}: do not fit {type(model).__name__}: {'; '.join(filter(None, told))}")
    model.load_state_dict(dict(state), strict=False)  # what is no tensor stays as it was built


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMED])}{more})" if names else ""


def _unprefixed(state: Mapping[str, Tensor], expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state without the prefixes that keep its names from being the model's."""
    state = dict(state)
    while not set(state) & set(expected):
        prefix = next((each for each in PREFIXES if state and all(name.startswith(each) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
