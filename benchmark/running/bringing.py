"""A model and data that somebody brings to a run: read once, looked at, and told to every process by content."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribug import keys, tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Given
from attribug.contracts.options import check_options
from attribug.contracts.tasks import GivenModel
from attribug.errors import InputError, Unsupported
from attribug.maps import threads
from attribug.models import brought, fitting
from attribug.models.brought import Brought, Function
from attribug.models.noise import in_words, noise
from attribug.models.order import running_order
from attribug.models.own import Own, names_a_model, own
from attribug.models.perturbed import Perturbation
from attribug.models.pretrained import PRETRAINED
from attribug.models.wrapped import with_new_head
from attribug.running.options import RunOptions
from attribug.streams import generator
from attribug.suites.suite import Suite
from attribug.tasks import arrays
from attribug.tasks.folders import PACKAGED, Prepared, taking_turns
from attribug.tasks.looking import Asked, Looked, are_pictures, look, look_beside, scale_of

TASK = "own"
ORDERED = 2
"""Examples that tell in which order layers run."""
LOOKED_AT = 64
"""Examples on which noise is searched for, and checks are measured."""
DRAWS = 5
"""Of a given model, that verdicts should rest on at least."""
DIGITS = 8  # of a digest, in a name
OF_OUR_TRAINING = ("tune", "epochs", "learning_rate")
"""Options of the task that mean nothing to a function that trains."""
FEWEST = 3
"""Examples from which on a table says anything."""


@dataclass(frozen=True)
class Objects:
    """What came from Python instead of by name."""

    model: Own | None = None
    data: Prepared | None = None
    masks: Any = None
    against: Prepared | None = None
    fit: Function | None = None


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
    if not (options.fit is None or isinstance(options.fit, str) or callable(options.fit)):
        raise InputError(f"--fit: expected a function or a name as FILE.py:FUNCTION, found {options.fit!r}")
    fit = fitting.from_python(options.fit) if callable(options.fit) else None
    if isinstance(options.against, nn.Module):
        found = type(options.against).__name__
        raise InputError(f"--against: expected a model's name, or data, found the module {found}")
    against = arrays.of_python(options.against) if not isinstance(options.against, str | Path | None) else None
    names: dict[str, Any] = {
        name: [*getattr(options, name).tolist()] for name in ("mean", "std", "classes")
        if hasattr(getattr(options, name), "tolist")
    }  # fmt: skip
    if model is not None:
        names["model"] = model.name
    for name, given in (("data", data), ("against", against)):
        if given is not None:
            content = keys.digest(given.inputs, given.labels)
            names[name] = f"{len(given.inputs)} examples {content[:DIGITS]}"
    if masks is not None:
        names["masks"] = "given from Python"
    if fit is not None:
        names["fit"] = fit.name
    return replace(options, **names), Objects(model, data, masks, against, fit)


def bring(suite: Suite, objects: Objects) -> Brought | None:
    """Reads and looks at what a suite's task `own` names; None of a suite without it. Raises `InputError`."""
    if TASK not in {*suite.tasks, *suite.panels}:
        return None
    source = tasks.get(TASK).function
    given = suite.task_options.get(TASK, {})
    check_options(f"task_options.{TASK}", source, given, skip={"seed", "other"})
    asked = asked_for(given)
    _refuse_two_trainings(given)
    if not asked["model"] or not asked["data"]:
        missing = "--model" if not asked["model"] else "--data"
        raise InputError(f"task own: expected --model NAME and --data FOLDER, found no {missing}")
    with threads.one():
        found = _brought(suite, asked, objects)
    brought.register(brought.key(asked, suite.seed), found)
    return found


def _refuse_two_trainings(given: Mapping[str, Any]) -> None:
    ours = [name for name in OF_OUR_TRAINING if name in given]
    if given.get("fit") and ours:
        decides = "which decides itself what learns, and for how long"
        raise InputError(f"--fit {given['fit']}: expected no {' or '.join(ours)} beside your function, {decides}")


def _brought(suite: Suite, asked: Mapping[str, Any], objects: Objects) -> Brought:
    """Reads and looks at what is asked for."""
    mine = own(asked["model"], asked["weights"] or None) if objects.model is None else objects.model
    fit = objects.fit or (fitting.named(asked["fit"]) if asked["fit"] else None)
    looked = look(mine, asked["data"] if objects.data is None else objects.data, _asked(asked, objects))
    if len(looked.read.inputs) < FEWEST:
        raise InputError(f"data: expected at least {FEWEST} examples, found {len(looked.read.inputs)}")
    labels = looked.labels
    given_labels = looked.outputs.argmax(1) if labels is None else labels
    order = _order(torch.tensor(looked.read.labels) if looked.read.labels else given_labels, suite.seed)
    marked = {name: masks[order] for name, masks in looked.read.regions.items()}
    data = Data(looked.read.inputs[order], given_labels[order], order, next(iter(marked.values()), None))
    whole = brought.examples(data)
    mine_given, lines = _given(looked, whole, suite)
    trained = [] if fit is None else [f"where a bug needs training, copies are trained by your function {fit.name}"]
    found = Brought(
        mine_given, whole, looked.classes, shape=tuple(data.inputs.shape[1:]), features=looked.read.features,
        fit=fit, regions=brought.regions(marked) if marked else None,
        lines=(*looked.lines, *lines, *trained), **_lesson(looked, data, mine_given, suite),
    )  # fmt: skip
    return _beside(found, looked, asked, objects, suite) if asked["against"] else found


def _given(looked: Looked, whole: Examples, suite: Suite) -> tuple[GivenModel, list[str]]:
    """The model with its control, and what that does."""
    spec, some = brought.describe(looked.mine.model), brought.some(whole, LOOKED_AT)
    inputs = some.load().inputs
    found = _noise(spec, inputs, suite) if TASK in suite.tasks else None  # panels have no control
    layers = running_order(spec.source().eval(), inputs[:ORDERED])
    if not layers:
        raise InputError(f"model {looked.mine.name!r}: expected weights that its outputs depend on, found none")
    mean, std = looked.scale or (None, None)
    known = None if looked.labels is None else whole
    model = GivenModel(
        spec,
        0.0 if found is None else found.sigma,
        whole,
        some,
        mean,
        std,
        len(looked.classes),
        layers,
        known,
        called=looked.mine.name,
    )
    return model, [] if found is None else _told(found, suite)


def _beside(first: Brought, looked: Looked, asked: Mapping[str, Any], objects: Objects, suite: Suite) -> Brought:
    """What was brought, with that which it stands against: a second model, or the data that one is trained on."""
    place = str(asked["against"])
    if objects.against is not None or _is_data(place):
        foreign = replace(_foreign(first, looked, asked, objects, suite), fit=first.fit)
        return replace(first, foreign=foreign, lines=(*first.lines, *_named_as(place, foreign.lines)))
    if not names_a_model(place):
        expected = "a model (FILE.py:FUNCTION, torchvision:NAME …) or data (a folder, .npz, .safetensors)"
        raise InputError(f"--against {place}: expected {expected}, found neither")
    other = look(own(place), replace(looked.read, folders=(), labels=()), Asked())  # whose classes are none of its own
    model, lines = _given(other, first.examples, suite)
    scale = scale_of(other.mine.transform)
    its_own = ", not its own" if scale is not None and scale != looked.scale else ""
    told = _named_as(place, [*other.lines, f"its inputs are prepared as the first model's{its_own}", *lines])
    return replace(first, stranger=model, lines=(*first.lines, *told))


def _is_data(place: str) -> bool:
    """Whether a place holds data, and is no model's name."""
    named = place.startswith(PACKAGED) or Path(place).suffix in arrays.SUFFIXES
    return place not in PRETRAINED and (named or (Path(place).exists() and not place.endswith(".py")))


def _named_as(place: str, lines: Sequence[str]) -> list[str]:
    return [f"against {place}: {line}" for line in lines]


def _foreign(first: Brought, looked: Looked, asked: Mapping[str, Any], objects: Objects, suite: Suite) -> Brought:
    """A second data set, and the model with a last layer for its classes, which learns it."""
    place = asked["against"] if objects.against is None else objects.against
    given = asked["data"] if objects.data is None else objects.data
    read = look_beside(looked, place, _asked({**asked, "masks": ""}, Objects()), pictures=are_pictures(given))
    kept, labels = torch.tensor(read.labels).unique(return_inverse=True)
    kinds = tuple(read.folders[k] if read.folders else str(k) for k in kept.tolist())
    order = _order(labels, suite.seed)
    taught = brought.examples(Data(read.inputs[order], labels[order], order))
    counted = f"{len(order)} {'pictures' if read.folders else 'examples'} of {len(kinds)} classes ({', '.join(kinds)})"
    lines = (
        f"{counted}: half of them teach copies of the model with a last layer for these classes",
        "its inputs are prepared as the first data are" if read.folders else "its inputs are taken as they are",
    )
    learnt = _with_head(first.given, kinds, taught.load(), suite) | {"taught": taught, "kinds": kinds}
    return Brought(first.given, taught, kinds, shape=first.shape, features=first.features, lines=lines, **learnt)


def _lesson(looked: Looked, data: Data, given: GivenModel, suite: Suite) -> dict[str, Any]:
    """What training would start from and learn: the model and its classes; where folders are not these, a last layer
    for the folders."""
    read = looked.read
    if looked.labels is not None:
        return {"start": given.spec, "taught": given.examples, "last": given.layers[-1]}
    if not read.folders:
        return {"untaught": "nobody says the labels of these examples, so nothing can be trained on them"}
    head = _with_head(given, read.folders, data, suite)
    if "untaught" in head:
        reason = head["untaught"]
        return {"untaught": f"folders are not the model's classes, and it can learn none of its own: {reason}"}
    labels = torch.tensor(read.labels)[data.ids]
    return head | {"taught": brought.examples(replace(data, labels=labels)), "kinds": read.folders}


def _with_head(given: GivenModel, kinds: Sequence[str], data: Data, suite: Suite) -> dict[str, Any]:
    """The model with a last layer for other classes, as what training starts from; or why there is none."""
    inputs = data.inputs[:ORDERED]
    try:
        stream = generator("own", "head", suite.seed)
        start = with_new_head(given.spec.source().eval(), len(kinds), stream, inputs)
        return {"start": brought.describe(start), "last": running_order(start, inputs)[-1]}
    except Unsupported as error:
        return {"untaught": str(error)}


def asked_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """All that says what is brought, with defaults, as the task asks for it."""
    told = {*OF_OUR_TRAINING, "seed", "other"}
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


def _noise(spec: Given, inputs: Tensor, suite: Suite) -> Perturbation:
    try:
        return noise(spec, inputs, suite.model_seeds)
    except Unsupported as error:
        raise InputError(f"model: {error}") from error


def _told(found: Perturbation, suite: Suite) -> list[str]:
    few = f"{suite.seeds} draws a side are few: verdicts should rest on at least {DRAWS} (--seeds {DRAWS})"
    return [in_words(found), *([few] if suite.seeds < DRAWS else [])]
