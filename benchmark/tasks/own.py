"""Task `own`: a model that somebody brings, and the examples that come with it."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from attribug import tasks
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Given, Recipe
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models import brought
from attribug.models.fitting import fitted
from attribug.models.order import only
from attribug.models.preprocessing import scaled
from attribug.streams import generator
from attribug.tasks.surfaces import KINDS, crop, photograph

BATCHES = (16, 15, 14, 13)
"""Examples of a step: the first of these that leaves no single one over."""
STEPS = 160
"""Of the optimiser, where nobody says how many epochs."""
RATES = {"head": 5e-3, "all": 3e-3}
"""Peak learning rates by what learns; with a tenth of the latter, pretrained features stay as they are, and no shortcut
is taken."""
MOST = 200
"""Examples, where nobody says how many."""
SCENE: dict[str, Any] = {"share": 0.0, "swapped": False, "foreground": True}
GOLDEN = 0.618034  # of the circle of hues, between the tints of two classes
FEWEST = 2  # examples of a class that training takes: one to learn from, one to ask about


@tasks.register(
    "own",
    source="your model, your images: attribug run own --model … --data …",
    licence="yours",
    size="yours",
)
def own(
    *,
    seed: int,
    other: Callable[[str], Task],
    model: str = "",
    weights: str = "",
    data: str = "",
    masks: str = "",
    classes: str = "",
    pixels: int = 0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    bgr: bool = False,
    output: str = "",
    most: int = MOST,
    strict: bool = False,
    against: str = "",
    tune: str = "head",
    epochs: int = 0,
    learning_rate: float = 0.0,
    fit: str = "",
) -> Task:
    """Examples that somebody brings, for a model that somebody has trained: it is explained as it is.

    Bugs of the training data train it further from its weights, on one half of the examples, the other half is
    explained: `tune` says whether its last layer (`head`) or `all` learn, `epochs` and `learning_rate` how long
    and how fast (0: `STEPS` steps, `RATES`); or `fit`, a function of yours, decides all of it.
    All others say what is brought, as the options of `attribug run` of the same names; `against`: a second model, or
    data of another domain, on half of which copies of the model are trained as `tune` says, with a last layer for them.
    """
    if tune not in RATES:
        raise InputError(f"--tune: expected {' or '.join(RATES)}, found {tune!r}")
    if epochs < 0 or learning_rate < 0:
        raise InputError(f"own: expected epochs and learning rate of at least 0, found {epochs}, {learning_rate:g}")
    asked = {
        "model": model, "weights": weights, "data": data, "masks": masks, "classes": classes, "pixels": pixels,
        "mean": mean, "std": std, "bgr": bgr, "output": output, "most": most, "strict": strict, "against": against,
        "fit": fit,
    }  # fmt: skip
    found = brought.find(asked, seed)
    if found is None:
        raise InputError("task own: expected a model and data: attribug run own --model NAME --data FOLDER")
    task = partial(_task, seed=seed, other=other, tune=tune, epochs=epochs, rate=learning_rate or RATES[tune])
    stranger = found.stranger if found.foreign is None else task("against", found.foreign)
    return replace(task("own", found), stranger=stranger, notes=found.lines)


def _task(
    name: str, found: brought.Brought, *, seed: int, other: Callable[[str], Task], tune: str, epochs: int, rate: float
) -> Task:
    """What was brought, as a task of which half the examples can be learnt."""
    learnt, asked_about = found.taught, found.examples
    reason = found.untaught or _too_few(learnt)

    def examples(split: str, **scene: Any) -> Examples:
        part = asked_about if learnt is None or reason else Examples.of(half, base=learnt, split=split)
        if not scene:
            return part
        mean, std = _scale(found)
        kinds = tuple((learnt or asked_about).load().labels.unique().tolist())  # of all classes, those that occur
        if learnt is not None and not reason and not bool(_marked(learnt.load()).all()):
            kinds = _kinds([half(base=learnt, split=each) for each in ("train", "test")])
            part = Examples.of(with_objects, base=part, kinds=kinds)
        return Examples.of(on_scenes, base=part, seed=seed, kinds=kinds, mean=mean, std=std, **SCENE | scene)

    start = found.start or found.given.spec
    seen = 2 if learnt is None or reason else len(half(base=learnt, split="train"))
    recipe = _recipe(start, seen, epochs, rate)
    if found.fit is not None:
        recipe = Recipe(start.source, epochs=1, batch=recipe.batch, fit=partial(fitted, function=found.fit))
    head = partial(only, layer=found.last) if tune == "head" and found.fit is None else None
    return Task(
        name, found.kinds or found.classes, found.shape, recipe, examples, other, found.features, start=start,
        trainable=head, given=found.given, untrained=reason, regions=found.regions,
    )  # fmt: skip


def _recipe(start: Given, seen: int, epochs: int, learning_rate: float) -> Recipe:
    """How a model is trained further on `seen` examples, for so many epochs, or, where they are 0, `STEPS` steps."""
    batch = next(size for size in BATCHES if seen % size != 1)  # normalisation knows nothing of a batch of one
    steps = -(-seen // batch)
    return Recipe(start.source, epochs=epochs or -(-STEPS // steps), batch=batch, learning_rate=learning_rate)


def _scale(found: brought.Brought) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of inputs that can be put on other backgrounds. Raises `Unsupported` for others."""
    given = found.given
    if found.examples.load().masks is None:
        raise Unsupported("expected masks of the objects, to put them on other backgrounds: --masks FOLDER")
    if len(found.shape) != 3 or given.mean is None or given.std is None:
        raise Unsupported("expected pictures of known mean and std, to put objects on other backgrounds")
    return given.mean, given.std


def _marked(data: Data) -> torch.Tensor:
    """Which examples have an object, (N,) bool."""
    if data.masks is None:
        raise ValueError("expected examples with masks")
    return data.masks.flatten(1).any(1)


def _kinds(halves: Sequence[Data]) -> tuple[int, ...]:
    """Of all classes, those of which every half shows an object. Raises `Unsupported` for too few."""
    kinds = tuple(sorted(set.intersection(*(set(data.labels[_marked(data)].tolist()) for data in halves))))
    if len(kinds) < FEWEST:
        few = f"masks show objects of {len(kinds)} in each half of the examples"
        raise Unsupported(f"expected objects of {FEWEST} classes or more, to put them on other backgrounds: {few}")
    return kinds


def with_objects(*, base: Examples, kinds: Sequence[int]) -> Data:
    """The examples of some classes in which there is an object to be seen."""
    data = base.load()
    shown = _marked(data) & torch.isin(data.labels, torch.tensor(kinds))
    return data.select(shown.nonzero().flatten())


def on_scenes(
    *, base: Examples, seed: int, kinds: Sequence[int], mean: tuple[float, ...], std: tuple[float, ...], share: float,
    swapped: bool, foreground: bool,
) -> Data:  # fmt: skip
    """The objects of the examples, cut out by their masks, on tinted photographs of grass, brick and gravel.

    `kinds`: the labels whose scenes there are. `share`: so many of them, which those of a smaller share are among, on
    the scene of their label (`swapped`: of another one), the others on that of any; `foreground`: with the objects.
    """
    data = base.load()
    if data.masks is None:
        raise ValueError("expected examples with masks")
    inputs, groups = torch.empty_like(data.inputs), data.labels * len(kinds)
    for row, (example, label) in enumerate(zip(data.ids.tolist(), data.labels.tolist(), strict=True)):
        stream = generator("own", "scene", seed, example)
        turn = float(torch.rand((), generator=stream, dtype=torch.float64))
        free = kinds[int(torch.randint(len(kinds), (), generator=stream))]
        others = [kind for kind in kinds if kind != label]
        other = others[int(torch.randint(len(others), (), generator=stream))]
        shown_kind = (other if swapped else label) if turn < share else free
        groups[row] += kinds.index(shown_kind)
        shown = scene(shown_kind, data.inputs.shape[1:], stream)
        inputs[row] = scaled(shown, mean, std)
        if foreground:
            inputs[row] = torch.where(data.masks[row], data.inputs[row], inputs[row])
    masks = data.masks if foreground else None
    annotations = None if masks is None else (~masks)[:, None].expand(inputs.shape)
    return replace(data, inputs=inputs, masks=masks, annotations=annotations, groups=groups)


def scene(number: int, shape: Sequence[int], stream: torch.Generator) -> torch.Tensor:
    """A part of the scene of a class, (C, H, W) in [0, 1]: a photograph in a tint of its own."""
    channels, height, width = shape
    kind = KINDS[number % len(KINDS)]
    side = max(height, width)
    free = photograph(kind).shape[0] - side
    if free < 0:
        raise Unsupported(f"expected pictures of at most {photograph(kind).shape[0]} pixels a side, found {side}")
    top, left = (int(torch.randint(free + 1, (), generator=stream)) for _ in range(2))
    grey = torch.from_numpy(crop(kind, top, left, side))[:height, :width]
    tint = torch.tensor(colorsys.hsv_to_rgb(number * GOLDEN % 1.0, 0.6, 0.9))
    return grey * tint[:, None, None] if channels == 3 else grey.expand(channels, -1, -1) * (0.4 + 0.6 * tint.mean())


def _too_few(learnt: Examples | None) -> str:
    """Why training would have too little to learn from, if so."""
    if learnt is None:
        return ""
    if len(learnt.load().labels.unique()) < FEWEST:
        return "all examples have one label: there is nothing to learn"
    few = int(torch.bincount(learnt.load().labels).clamp(min=0)[learnt.load().labels.unique()].min())
    return "" if few >= FEWEST else f"a class has {few} example: training needs {FEWEST}, one of them to ask about"


def half(*, base: Examples, split: str) -> Data:
    """Every other example of each class."""
    data = base.load()
    place = torch.zeros(len(data), dtype=torch.int64)
    for label in data.labels.unique():
        rows = (data.labels == label).nonzero().flatten()
        place[rows] = torch.arange(len(rows))
    return data.select((place % 2 == (split == "train")).nonzero().flatten())
