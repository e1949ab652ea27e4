"""What somebody brings, model and data, as every process of a run knows it: by content, wherever it lay."""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import torch
from torch import nn

from attribug import keys
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Given
from attribug.contracts.regions import Regions
from attribug.errors import InputError, one_line
from attribug.models.given import digest_of
from attribug.plugin_files import pickled_for_others

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.tasks import GivenModel

LIBRARIES = ("torch", "torchvision", "timm")
"""Their layers are told by version, all others by their code."""
SLOTS = frozenset(vars(nn.Module()))
"""What every module holds: weights, buffers and modules are told elsewhere."""
HOOKS = tuple(name for name in sorted(SLOTS) if name.endswith("_hooks"))
ADDRESS = re.compile(r"0x[0-9a-f]+")


@dataclass(frozen=True)
class Source:
    """Gives a copy of a model that was brought; known by its weights and its code."""

    weights: str
    code: str

    def __call__(self) -> nn.Module:
        """A model of its own for whoever asks."""
        model: nn.Module = pickle.loads(_PICKLED[self])
        return model


@dataclass(frozen=True)
class Function:
    """Gives a function that was brought; known by its code, whatever it is called."""

    name: str
    """As people are told it."""
    code: str

    def __content_key__(self) -> str:
        return self.code

    def __call__(self) -> Callable[..., Any]:
        """The function; where its module is not to be found in every process, one of its own for whoever asks."""
        function: Callable[..., Any] = pickle.loads(_PICKLED[self])
        return function


@dataclass(frozen=True)
class Brought:
    """A model and data, resolved: what a task asks of them."""

    given: GivenModel
    examples: Examples
    """In an order that nobody chose, labels as said or, where nobody says, as the model predicts."""
    classes: tuple[str, ...]
    """A name for each output."""
    start: Given | None = None
    """What is trained further; None: nothing can be."""
    last: str = ""
    """Its last layer."""
    taught: Examples | None = None
    """What it is trained on: the same inputs under the labels to learn."""
    kinds: tuple[str, ...] = ()
    """Names of these labels."""
    untaught: str = ""
    """Why nothing can be trained, if so."""
    fit: Function | None = None
    """What trains it, instead of our training: see `attribug.models.fitting`."""
    stranger: GivenModel | None = None
    """A second model, of another domain."""
    foreign: Brought | None = None
    """A second data set, of another domain, and what of the model learns it."""
    regions: Regions | None = None
    """What people marked on the examples, in their order, by name; None: nothing."""
    shape: tuple[int, ...] = ()
    """Of an input."""
    features: tuple[str, ...] = ()
    """Names of a vector's entries."""
    lines: tuple[str, ...] = ()
    """What was found when model and data were looked at, as people are told."""


REMEMBERED = 8
_PICKLED: dict[Source | Function, bytes] = {}
_DATA: dict[str, Data] = {}
_MASKS: dict[str, Mapping[str, Tensor]] = {}
_BROUGHT: dict[str, Brought] = {}


def describe(model: nn.Module) -> Given:
    """A description of a model, of which this process can from now on make copies; the model is left as it is.

    Raises `InputError` where it cannot be pickled: it could not reach a run's processes.
    """
    modules = {type(each).__module__ for each in model.modules()}
    try:
        content = pickled_for_others(model, modules)
        copy: nn.Module = pickle.loads(content)
        elsewhere = any(tensor.device.type != "cpu" for tensor in (*copy.parameters(), *copy.buffers()))
        if elsewhere or not all(parameter.requires_grad for parameter in copy.parameters()):
            content = pickled_for_others(_able(copy.cpu()), modules)  # nodes may have no GPU; copies may be trained
    except Exception as error:
        found = f"{type(model).__name__}: {one_line(error)}"
        raise InputError(f"model: expected one that can be pickled for a run's processes, found {found}") from error
    source = Source(digest_of(copy), _code(model))
    _PICKLED[source] = content
    return Given(source, source.weights)


def describe_function(function: Callable[..., Any], name: str) -> Function:
    """A description of a function, which this process can from now on give and ship.

    Raises `InputError` where it cannot be pickled, or its content cannot be told.
    """
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    try:
        content = pickled_for_others(function, [str(plain.__module__)])
        pickle.loads(content)
        described = Function(name, keys.digest(function))
    except Exception as error:
        found = one_line(error)
        raise InputError(f"--fit {name}: expected one that can be pickled for a run's processes: {found}") from error
    _PICKLED[described] = content
    return described


def examples(data: Data) -> Examples:
    """A handle to data that were brought, known by their content."""
    tensors = (data.inputs, data.labels, data.ids, *(() if data.masks is None else (data.masks,)))
    content = keys.digest("brought", *tensors)
    _DATA[content] = data
    return Examples.of(part, content=content, first=None)


def regions(masks: Mapping[str, Tensor]) -> Regions:
    """A handle to masks that were brought, by the names of their regions, (N, *spatial) bool each, the main one first;
    known by their content."""
    content = keys.digest("brought masks", masks)
    _MASKS[content] = dict(masks)
    return Regions.of(masks, marked, content=content)


def marked(*, content: str) -> Mapping[str, Tensor]:
    """Brought masks by the names of their regions."""
    return _MASKS[content]


def some(whole: Examples, first: int) -> Examples:
    """The first of brought examples."""
    return Examples.of(part, content=_content(whole), first=first)


def _content(whole: Examples | Regions) -> str:
    build: Any = whole.build
    content: str = build.keywords["content"]
    return content


def part(*, content: str, first: int | None) -> Data:
    """Brought data, all or the first of them."""
    data = _DATA[content]
    return data if first is None else data.select(torch.arange(min(first, len(data))))


def key(options: Mapping[str, Any], seed: int) -> str:
    """What names a brought model and its data: how they were asked for."""
    return keys.digest("asked for", dict(options), seed)


def register(name: str, brought: Brought) -> None:
    """Makes known here what was brought under the name that `key` gives; of what was brought before, the last few stay
    known."""
    _BROUGHT.pop(name, None)
    _BROUGHT[name] = brought
    if len(_BROUGHT) > REMEMBERED:
        del _BROUGHT[next(iter(_BROUGHT))]
        sources = {source for each in _BROUGHT.values() for source in _sources(each)}
        contents = {_content(handle) for each in _BROUGHT.values() for handle in _handles(each)}
        for source in set(_PICKLED) - sources:
            del _PICKLED[source]
        for content in set(_DATA) - contents:
            del _DATA[content]
        for content in set(_MASKS) - {_content(each.regions) for each in _BROUGHT.values() if each.regions is not None}:
            del _MASKS[content]


def find(options: Mapping[str, Any], seed: int) -> Brought | None:
    """What was brought under these options; None: nothing."""
    return _BROUGHT.get(key(options, seed))


def shipped(own: Brought) -> bytes:
    """What was brought, for other processes."""
    chosen = {name: each for name, each in _BROUGHT.items() if each is own}
    pickled = {source: _PICKLED[source] for source in _sources(own)}
    data = {_content(each): _DATA[_content(each)] for each in _handles(own)}
    masks = {} if own.regions is None else {_content(own.regions): own.regions.load()}
    content: bytes = cloudpickle.dumps((chosen, pickled, data, masks))
    return content


def _sources(brought: Brought) -> list[Source | Function]:
    """All that stands pickled here."""
    given = [each.spec for each in (brought.given, brought.stranger) if each is not None]
    specs = [*given, *([] if brought.start is None else [brought.start])]
    models = [spec.source for spec in specs if isinstance(spec.source, Source)]
    more = [] if brought.foreign is None else _sources(brought.foreign)
    return [*models, *([] if brought.fit is None else [brought.fit]), *more]


def _handles(brought: Brought) -> list[Examples]:
    found = [brought.examples, *([] if brought.taught is None else [brought.taught])]
    return found + ([] if brought.foreign is None else _handles(brought.foreign))


def unload(shipment: bytes) -> None:
    """Takes what another process shipped."""
    if shipment:
        chosen, sources, data, masks = pickle.loads(shipment)
        _BROUGHT.update(chosen)
        _PICKLED.update(sources)
        _DATA.update(data)
        _MASKS.update(masks)


def _able(model: nn.Module) -> nn.Module:
    """The model, in which nothing is frozen any more."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model


def _code(model: nn.Module) -> str:
    """Digest of what a model's weights do not tell: its layers, their code, hooks and all else that they hold."""
    told = []
    for name, module in model.named_modules():
        held = {key: _told(value) for key, value in vars(module).items() if key not in SLOTS}
        held |= {key: _told(module._buffers[key]) for key in module._non_persistent_buffers_set}
        held |= {key: [_told(hook) for hook in vars(module).get(key, {}).values()] for key in HOOKS}
        kind: Any = type(module)
        told.append([name, _kind(kind), ADDRESS.sub("", module.extra_repr()), held])
    return keys.digest("model", told)


def _told(value: Any) -> Any:
    """The content of what a module holds: a library's functions by name, of what has no plain content its pickle."""
    library = str(getattr(value, "__module__", "")).partition(".")[0]
    if library in LIBRARIES and hasattr(value, "__qualname__"):
        return f"{library} {keys.version(library)} {value.__qualname__}"
    try:
        return keys.told(value)
    except TypeError:  # it cannot be pickled alone
        return ADDRESS.sub("", repr(value))


@functools.cache
def _kind(kind: type) -> str:
    library = kind.__module__.partition(".")[0]
    if library in LIBRARIES:
        return f"{library} {keys.version(library)} {kind.__qualname__}"
    return keys.digest(kind)
