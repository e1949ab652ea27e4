"""A model and data that somebody brings to a run: read once, looked at, and told to every process by content."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribug import keys, tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.options import check_options
from attribug.contracts.tasks import GivenModel
from attribug.errors import InputError, Unsupported
from attribug.maps import threads
from attribug.models import brought, perturbed
from attribug.models.brought import Brought
from attribug.models.order import running_order
from attribug.models.own import Own, own
from attribug.models.perturbed import Perturbation
from attribug.models.wrapped import with_new_head
from attribug.running.options import RunOptions
from attribug.storage.files import read_json, write_json
from attribug.storage.folders import cache_folder
from attribug.streams import generator
from attribug.suites.suite import Suite
from attribug.tasks import arrays
from attribug.tasks.folders import Prepared, taking_turns
from attribug.tasks.looking import Asked, Looked, look

TASK = "own"
ORDERED = 2
"""Examples that tell in which order layers run."""
LOOKED_AT = 64
"""Examples on which noise is searched for, and checks are measured."""
DRAWS = 5
"""Of a given model, that verdicts should rest on at least."""
DIGITS = 8  # of a digest, in a name
SEARCH = (perturbed.largest, perturbed.perturb)
"""The code that noise depends on."""
FEWEST = 3
"""Examples from which on a table says anything."""


@dataclass(frozen=True)
class Objects:
    """What came from Python instead of by name."""

    model: Own | None = None
    data: Prepared | None = None
    masks: Any = None


def from_python(options: RunOptions) -> tuple[RunOptions, Objects]:
    """Options in which names stand for the objects among them, which tables can tell; and these objects."""
    if not isinstance(options.model, str | nn.Module | None):
        found = type(options.model).__name__
        raise InputError(f"model: expected a torch.nn.Module or a name as FILE.py:FUNCTION, found {found}")
    model = named(options.model) if isinstance(options.model, nn.Module) else None
    data = arrays.of_python(options.data) if not isinstance(options.data, str | Path | None) else None
    masks = None if isinstance(options.masks, str | Path | None) else options.masks
    if isinstance(options.model, nn.Module) and options.weights:
        raise InputError(f"--weights {options.weights}: expected none beside a module from Python; load them into it")
    if not isinstance(options.against, str | None):
        raise InputError(f"--against: expected a name, found {type(options.against).__name__}")
    names: dict[str, Any] = {
        name: [*getattr(options, name).tolist()] for name in ("mean", "std", "classes")
        if hasattr(getattr(options, name), "tolist")
    }  # fmt: skip
    if model is not None:
        names["model"] = model.name
    if data is not None:
        content = keys.digest(data.inputs, data.labels)
        names["data"] = f"{len(data.inputs)} examples {content[:DIGITS]}"
    if masks is not None:
        names["masks"] = "given from Python"
    return replace(options, **names), Objects(model, data, masks)


def bring(suite: Suite, objects: Objects) -> Brought | None:
    """Reads and looks at what a suite's task `own` names; None of a suite without it. Raises `InputError`."""
    if TASK not in suite.tasks:
        return None
    source = tasks.get(TASK).function
    given = suite.task_options.get(TASK, {})
    check_options(f"task_options.{TASK}", source, given, skip={"seed", "other"})
    asked = asked_for(given)
    if not asked["model"] or not asked["data"]:
        missing = "--model" if not asked["model"] else "--data"
        raise InputError(f"task own: expected --model NAME and --data FOLDER, found no {missing}")
    with threads.one():
        found = _brought(suite, asked, objects)
    brought.register(brought.key(asked, suite.seed), found)
    return found


def _brought(suite: Suite, asked: Mapping[str, Any], objects: Objects) -> Brought:
    """Reads and looks at what is asked for."""
    mine = own(asked["model"], asked["weights"] or None) if objects.model is None else objects.model
    looked = look(mine, asked["data"] if objects.data is None else objects.data, _asked(asked, objects))
    if len(looked.read.inputs) < FEWEST:
        raise InputError(f"data: expected at least {FEWEST} examples, found {len(looked.read.inputs)}")
    labels = looked.labels
    given_labels = looked.outputs.argmax(1) if labels is None else labels
    order = _order(torch.tensor(looked.read.labels) if looked.read.labels else given_labels, suite.seed)
    masks = looked.read.masks
    data = Data(looked.read.inputs[order], given_labels[order], order, None if masks is None else masks[order])
    whole = brought.examples(data)
    mine_given, lines = _given(looked, whole, suite)
    stranger, more = _stranger(asked["against"], looked, whole, suite)
    return Brought(
        mine_given, whole, looked.classes, shape=tuple(data.inputs.shape[1:]), features=looked.read.features,
        stranger=stranger, lines=(*looked.lines, *lines, *more), **_lesson(looked, data, mine_given, suite),
    )  # fmt: skip


def _given(looked: Looked, whole: Examples, suite: Suite) -> tuple[GivenModel, list[str]]:
    """The model with its control, and what that does."""
    spec, some = brought.describe(looked.mine.model), brought.some(whole, LOOKED_AT)
    inputs = some.load().inputs
    noise = _noise(spec, inputs, suite)
    layers = running_order(spec.source().eval(), inputs[:ORDERED])
    if not layers:
        raise InputError(f"model {looked.mine.name!r}: expected weights that its outputs depend on, found none")
    mean, std = looked.scale or (None, None)
    model = GivenModel(spec, noise.sigma, whole, some, mean, std, len(looked.classes), layers)
    return model, _told(noise, suite)


def _stranger(name: str, looked: Looked, whole: Examples, suite: Suite) -> tuple[GivenModel | None, list[str]]:
    """The second model, looked at with the same inputs, and what was found."""
    if not name:
        return None, []
    other = look(own(name), replace(looked.read, folders=(), labels=()), Asked())  # whose classes are none of its own
    model, lines = _given(other, whole, suite)
    return model, [f"against {name}: {line}" for line in (*other.lines, *lines)]


def _lesson(looked: Looked, data: Data, given: GivenModel, suite: Suite) -> dict[str, Any]:
    """What training would start from and learn: the model and its classes; where folders are not these, a last layer
    for the folders."""
    read = looked.read
    if looked.labels is not None:
        return {"start": given.spec, "taught": given.examples, "last": given.layers[-1]}
    if not read.folders:
        return {"untaught": "nobody says the labels of these examples, so nothing can be trained on them"}
    try:
        stream = generator("own", "head", suite.seed)
        inputs = data.inputs[:ORDERED]
        start = with_new_head(given.spec.source().eval(), len(read.folders), stream, inputs)
        last = running_order(start, inputs)[-1]
    except Unsupported as error:
        return {"untaught": f"folders are not the model's classes, and it can learn none of its own: {error}"}
    labels = torch.tensor(read.labels)[data.ids]
    taught = brought.examples(replace(data, labels=labels))
    return {"start": brought.describe(start), "taught": taught, "kinds": read.folders, "last": last}


def asked_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """All that says what is brought, with defaults, as the task asks for it."""
    told = {"tune", "epochs", "learning_rate", "seed", "other"}
    parameters = inspect.signature(tasks.get(TASK).function).parameters
    return {name: given.get(name, each.default) for name, each in parameters.items() if name not in told}


def _asked(asked: Mapping[str, Any], objects: Objects) -> Asked:
    chosen: dict[str, Any] = {name: asked[name] for name in ("mean", "std", "bgr", "most", "strict")}
    chosen |= {name: asked[name] or None for name in ("pixels", "classes", "output", "masks")}
    return Asked(**chosen | ({} if objects.masks is None else {"masks": objects.masks}))


def named(model: nn.Module) -> Own:
    """A model from Python. Only a copy is looked at; raises `InputError` where none can be made."""
    spec = brought.describe(model)
    alike = spec.source().eval()
    return Own(f"{type(model).__name__} {spec.digest[:DIGITS]}", alike, weights="given from Python")


def _order(labels: Tensor, seed: int) -> Tensor:
    """Positions, at random, one of every class before the second ones."""
    shuffled = torch.randperm(len(labels), generator=generator("own", "order", seed))
    return shuffled[taking_turns(labels[shuffled].tolist())]


def _noise(spec: Any, inputs: Tensor, suite: Suite) -> Perturbation:
    """The noise that the model bears: searched for once, then read from the cache."""
    seeds = suite.model_seeds
    rule = (perturbed.AGREEMENT, perturbed.VARIATION, perturbed.MARGIN, perturbed.STEPS)
    name = keys.digest("noise", spec, inputs, seeds, rule, SEARCH, keys.version("torch"))
    path = cache_folder() / "given" / f"{name}.json"
    stored = _stored(path)
    if stored is not None:
        return stored
    try:
        found = perturbed.largest(spec.source().eval(), spec, inputs, seeds)
    except Unsupported as error:
        raise InputError(f"model: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"sigma": found.sigma, "agreement": found.agreement, "variation": found.variation})
    return found


def _stored(path: Path) -> Perturbation | None:
    try:
        values = read_json(path)
        return Perturbation(*(float(values[name]) for name in ("sigma", "agreement", "variation")))
    except (ValueError, KeyError, TypeError):  # absent, or damaged
        return None


def _told(noise: Perturbation, suite: Suite) -> list[str]:
    few = f"{suite.seeds} draws a side are few: verdicts should rest on at least {DRAWS} (--seeds {DRAWS})"
    return [
        f"control: copies whose weights are multiplied by 1 + {noise.sigma:.3g}·N(0, 1): they agree on "
        f"{noise.agreement:.2f} of the predictions, total variation {noise.variation:.3f}",
        *([few] if suite.seeds < DRAWS else []),
    ]
