"""A model and somebody's data, looked at before anything is explained: what fits, what does not, what is doubtful."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from attribug.errors import InputError, one_line
from attribug.models.lab import logits
from attribug.models.own import Own
from attribug.models.preparation import Preparation, Transform
from attribug.models.preprocessing import OTHERS, raw
from attribug.models.wrapped import Picked, TwoLogits, names
from attribug.tasks import arrays, folders, masks
from attribug.tasks.folders import Prepared

CLOSE_TO_ONE = 1e-3
"""Rows of outputs that sum to 1 as closely, and are nowhere negative, are probabilities."""
DOUBTFUL = 1.5
"""Times chance: a model that is right no more often gets a question."""
BETTER = 0.1
"""Accuracy that another preparation must add before anybody is told of it."""
ALIKE = 0.05
"""Mean total variation of outputs from their mean, below which somebody is asked."""
FEWEST_LABELLED = 10
"""Examples from which on that is told."""
NAMED = 3  # names in a line


@dataclass(frozen=True)
class Asked:
    """How somebody's data are to be read, and a model's outputs; by the names of the command line's options."""

    pixels: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    bgr: bool = False
    classes: str | Path | Sequence[str] | None = None
    """A file of a name a line, one for each output; from Python also these names."""
    output: str | None = None
    """Which of several outputs of a model are its logits."""
    masks: Any = None
    most: int | None = None
    strict: bool = False
    shown: bool = False
    """Whether pictures are kept as people see them, too."""


@dataclass(frozen=True)
class Looked:
    """A model and data that fit each other."""

    mine: Own
    """Its model gives logits (N, K), K ≥ 2."""
    read: Prepared
    outputs: Tensor
    """(N, K), float32."""
    classes: tuple[str, ...]
    """A name for each output."""
    scale: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Mean and std of the preparation; None: nobody knows."""
    lines: tuple[str, ...] = ()
    """What somebody wants to know before looking at maps."""

    @property
    def labels(self) -> Tensor | None:
        """(N,), numbers of outputs; None where nobody says, or where folders are not the model's classes."""
        if not self.read.labels:
            return None
        if not self.read.folders:
            return torch.tensor(self.read.labels)
        if not set(self.read.folders) <= set(self.classes):
            return None
        return torch.tensor([self.classes.index(self.read.folders[label]) for label in self.read.labels])


def look(mine: Own, data: str | Path | Prepared, asked: Asked) -> Looked:
    """Reads data as a model takes them, and looks at what it says of them. `data`: a folder of pictures, a file of
    arrays, or examples that were read already. Raises `InputError` for what cannot be explained."""
    if are_pictures(data):
        prepare = preparation(mine, asked)
        scale = scale_of(prepare)
        folder = asked.masks if isinstance(asked.masks, str | Path) else None
        read = folders.pictures(data, prepare, strict=asked.strict, most=asked.most, masks=folder, shown=asked.shown)
        if asked.masks is not None and folder is None:
            read = _marked(read, asked.masks)
    else:
        read = _few(_arrays(data, asked), asked.most)
        scale = _scale_of_arrays(read, asked)
    if not (are_pictures(data) and isinstance(asked.masks, str | Path)):
        read = replace(read, noted=masks.empties(read.regions, read.names))
    mine, outputs = _logits(mine, read, asked.output)
    classes = _class_names(asked.classes, mine, read, outputs.shape[1])
    looked = Looked(mine, read, outputs, tuple(classes), scale)
    if not read.folders and read.labels and max(read.labels) >= len(classes):
        found = f"{max(read.labels)}"
        raise InputError(f"labels: expected numbers below {len(classes)}, as the model has outputs, found {found}")
    return replace(looked, lines=tuple(_facts(looked)))


def are_pictures(data: str | Path | Prepared) -> TypeGuard[str | Path]:
    """Whether data are a folder of pictures, or named as one, not arrays."""
    return isinstance(data, str | Path) and Path(data).suffix not in arrays.SUFFIXES


def look_beside(first: Looked, place: str | Path | Prepared, asked: Asked, *, pictures: bool) -> Prepared:
    """Labelled examples of another domain, as those that were looked at first were prepared (`pictures`: whether they
    were such). Raises `InputError` where these have no labels, another shape, or no such preparation."""
    where = f"--against {'the data from Python' if isinstance(place, Prepared) else place}"
    if are_pictures(place) and not pictures:
        raise InputError(f"{where}: expected arrays, as the data are: nobody says how they were made of pictures")
    if are_pictures(place):
        prepare = preparation(first.mine, asked)
        read = folders.pictures(place, prepare, strict=asked.strict, most=asked.most, shown=False)
    else:
        read = _few(_arrays(place, Asked()), asked.most)
    if not read.labels:
        labels = "labels for a second model to learn: folders by class, or labels beside the inputs"
        raise InputError(f"{where}: expected {labels}; found none")
    ours, theirs = (tuple(each.inputs.shape[1:]) for each in (first.read, read))
    if ours != theirs:
        raise InputError(f"{where}: expected inputs {ours}, as the data's, found {theirs}")
    return read


def preparation(mine: Own, asked: Asked) -> Transform:
    """What makes a model's input of a picture: as it is asked for, else the model's own; at another size with its own
    mean and std."""
    pixels = asked.pixels
    if pixels is None:
        if asked.mean or asked.std or asked.bgr:
            raise InputError("--mean, --std, --bgr: expected --pixels N beside them, or the model's own transform")
        if mine.transform is None:
            expected = "a transform that comes with it, or --pixels N"
            raise InputError(f"model {mine.name!r}: expected {expected}; found neither")
        return mine.transform
    if pixels < 1:
        raise InputError(f"--pixels: expected at least 1, found {pixels}")
    grey = _channels(mine.model) == 1
    mean, std = _asked_scale(asked, 1 if grey else 3)
    own_mean, own_std = scale_of(mine.transform) or ((0.0,), (1.0,))
    bgr = isinstance(mine.transform, Preparation) and mine.transform.bgr
    return Preparation(pixels, mean or own_mean, std or own_std, bgr != asked.bgr, grey)


def _asked_scale(asked: Asked, channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std as they are asked for. Raises `InputError` for what inputs cannot be scaled by."""
    found: list[tuple[float, ...] | None] = []
    for name, values in (("--mean", asked.mean), ("--std", asked.std)):
        given = None if values is None else tuple(float(value) for value in values)
        if given is not None and len(given) not in {1, channels}:
            counts = " or ".join(map(str, sorted({1, channels})))
            raise InputError(f"{name}: expected {counts} numbers, found {len(given)}")
        if given is not None and not np.isfinite(given).all():
            raise InputError(f"{name}: expected finite numbers, found {', '.join(map(str, given))}")
        found.append(given)
    mean, std = found
    if std is not None and not all(value > 0 for value in std):
        raise InputError(f"--std: expected positive numbers, found {', '.join(map(str, std))}")
    return mean, std


def scale_of(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of a transform that tells them: ours, torchvision's presets, and what normalises last."""
    last = getattr(transform, "transforms", [transform])[-1]
    mean, std = getattr(last, "mean", None), getattr(last, "std", None)
    if mean is None or std is None:
        return None
    return tuple(torch.as_tensor(mean).flatten().tolist()), tuple(torch.as_tensor(std).flatten().tolist())


def _channels(model: nn.Module) -> int | None:
    """Of the first convolution; None where there is none."""
    found = (module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    return next(found, None)


def _arrays(data: str | Path | Prepared, asked: Asked) -> Prepared:
    if isinstance(data, str | Path) and not Path(data).is_file():
        raise InputError(f"data {data}: no such file")
    read = data if isinstance(data, Prepared) else arrays.read(data)
    if asked.masks is None:
        return read
    if isinstance(asked.masks, str | Path):
        place = "Python" if isinstance(data, Prepared) else str(data)
        raise InputError(f"--masks {asked.masks}: expected masks beside the inputs in {place}, or an array from Python")
    return _marked(read, asked.masks)


def _marked(read: Prepared, given: Any) -> Prepared:
    """Examples with masks from Python: an array, or a mapping of them. Raises `InputError` for others."""
    if isinstance(given, Mapping) and not given:
        raise InputError("masks: expected those of a region or more, by name, found none")
    return replace(read, regions=arrays.mask_arrays(given, read.inputs, "masks"))


def _scale_of_arrays(read: Prepared, asked: Asked) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """How inputs were made of pictures, where somebody says. Raises `InputError` for options that mean nothing here."""
    for name, given in (("pixels", asked.pixels is not None), ("bgr", asked.bgr), ("strict", asked.strict)):
        if given:
            raise InputError(f"--{name}: expected pictures in a folder, found arrays, which are taken as they are")
    mean, std = _asked_scale(asked, read.inputs.shape[1])
    if (mean is None) != (std is None):
        raise InputError("--mean, --std: expected both beside arrays, or neither, found one")
    return None if mean is None or std is None else (mean, std)


def _few(read: Prepared, most: int | None) -> Prepared:
    """The first of every class, then the second ones, at most so many."""
    if most is not None and most < 1:
        raise InputError(f"--most: expected at least 1, found {most}")
    if most is None or len(read.inputs) <= most:
        return read
    kept = sorted(folders.taking_turns(read.labels or [0] * len(read.inputs))[:most])
    return replace(
        read, inputs=read.inputs[kept], names=tuple(read.names[row] for row in kept),
        labels=tuple(read.labels[row] for row in kept) if read.labels else (),
        regions={name: each[kept] for name, each in read.regions.items()},
    )  # fmt: skip


def _logits(mine: Own, read: Prepared, output: str | None) -> tuple[Own, Tensor]:
    """The model whose outputs are logits, and these."""
    model, shape = mine.model, tuple(read.inputs.shape[1:])
    wrong = next(
        (each for each in model.parameters() if each.is_floating_point() and each.dtype != torch.float32), None
    )
    if wrong is not None:
        raise InputError(f"model {mine.name!r}: expected weights in float32, found {wrong.dtype}; give model.float()")
    try:
        with torch.no_grad():
            first = model(read.inputs[:2].to(_device(model)))
            model = model if output is None else Picked(model, output)
            first = first if output is None else model(read.inputs[:2].to(_device(model)))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"model {mine.name!r}: raises on inputs {shape}: {one_line(error)}") from error
    if not isinstance(first, Tensor):
        several = names(first)
        known = f"; --output NAME picks one of {', '.join(several)}" if several else ""
        raise InputError(f"model {mine.name!r}: expected a tensor of logits, found {type(first).__name__}{known}")
    if first.ndim and first.shape in {(len(first),), (len(first), 1)}:
        model = TwoLogits(model)
    mine = replace(mine, model=model.eval())
    return mine, _checked(mine, read, shape)


def _checked(mine: Own, read: Prepared, shape: tuple[int, ...]) -> Tensor:
    try:
        outputs = logits(mine.model, read.inputs)
    except Exception as error:
        raise InputError(f"model {mine.name!r}: raises on inputs {shape}: {one_line(error)}") from error
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise InputError(f"model {mine.name!r}: expected logits (N, K), found {tuple(outputs.shape)}")
    if not bool(outputs.isfinite().all()):
        raise InputError(
            f"model {mine.name!r}: expected finite logits, found NaN or infinity: wrong weights or values?"
        )
    single = isinstance(mine.model, TwoLogits)
    if single and isinstance([*mine.model.modules()][-1], nn.Sigmoid):
        raise InputError(f"model {mine.name!r}: expected a logit, found a probability; leave the last sigmoid away")
    if bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < CLOSE_TO_ONE).all()):
        raise InputError(f"model {mine.name!r}: expected logits, found probabilities; leave the last softmax away")
    return outputs.float()


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _class_names(classes: str | Path | Sequence[str] | None, mine: Own, read: Prepared, count: int) -> list[str]:
    """A name for each output."""
    if classes is not None and not isinstance(classes, str | Path):
        if len(classes) != count:
            raise InputError(f"classes: expected {count} names, one for each output, found {len(classes)}")
        return [str(name) for name in classes]
    if classes is not None:
        path = Path(classes)
        if not path.is_file():
            raise InputError(f"--classes {path}: no such file")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--classes {path}: expected text in UTF-8: {one_line(error)}") from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(lines) != count:
            raise InputError(f"--classes {path}: expected {count} lines, one for each output, found {len(lines)}")
        return lines
    makers = mine.classes or ()
    if len(read.folders) == count and not set(read.folders) <= set(makers):
        return list(read.folders)
    return list(makers) if len(makers) == count else [str(k) for k in range(count)]


def _facts(looked: Looked) -> list[str]:
    """Lines about model and data."""
    mine, read = looked.mine, looked.read
    low, high = float(read.inputs.min()), float(read.inputs.max())
    shape = " × ".join(map(str, read.inputs.shape[1:]))
    what = "pictures" if read.inputs.ndim == 4 else "examples"
    lines = [
        f"weights: {mine.weights}; {len(looked.classes)} classes",
        f"{len(read.names)} {what} as the model takes them: {shape}, values from {low:.3g} to {high:.3g}",
    ]
    if isinstance(mine.model, TwoLogits):
        lines.append("one logit z: read as two, −z/2 and z/2, which give the same probabilities")
        logit = looked.outputs[:, 1] * 2
        if bool(((logit >= 0) & (logit <= 1)).all()):
            lines.append("it lies between 0 and 1 on all of them: is it a probability? then leave the sigmoid away")
    if read.skipped:
        count, names = len(read.skipped), ", ".join(name for name, _ in read.skipped[:NAMED])
        lines.append(f"{count} {'file' if count == 1 else 'files'} skipped, no picture: {names}")
    lines += [*read.noted, *masks.uses(read.regions)]
    if _alike(looked.outputs):
        lines.append("the outputs are nearly the same for all of them: is the model trained, are the weights in it?")
    labels = looked.labels
    if labels is not None:
        share = float((looked.outputs.argmax(1) == labels).double().mean())
        chance = 1 / len(labels.unique())
        doubt = ": wrong preprocessing, or another order of classes?" if share <= DOUBTFUL * chance else ""
        lines.append(f"the model is right on {share:.2f} of them, chance is {chance:.2f}{doubt}")
        lines += [*_confused(looked, labels), *_better(looked, labels, share)]
    elif read.folders:
        names = ", ".join(read.folders[:NAMED])
        lines.append(f"folders ({names} …) are not the model's classes: nothing tells whether it is right")
    return lines


def _alike(outputs: Tensor) -> bool:
    """Whether predictions hardly depend on the input: mean total variation from their mean."""
    probable = outputs.softmax(1)
    return len(outputs) > 1 and float((probable - probable.mean(0)).abs().sum(1).mean() / 2) < ALIKE


def _confused(looked: Looked, labels: Tensor) -> list[str]:
    """Which classes are most often taken for which others."""
    predicted = looked.outputs.argmax(1)
    wrong = [(int(a), int(b)) for a, b in zip(labels, predicted, strict=True) if a != b]
    pairs = sorted(Counter(wrong).items(), key=lambda pair: (-pair[1], pair[0]))[:NAMED]
    told = [f"{looked.classes[a]} taken for {looked.classes[b]} ({count})" for (a, b), count in pairs]
    return [f"most often wrong: {', '.join(told)}"] if told else []


def _better(looked: Looked, labels: Tensor, share: float) -> list[str]:
    """Whether the model is right more often on the same pictures prepared otherwise."""
    inputs = looked.read.inputs
    if looked.scale is None or inputs.ndim != 4 or inputs.shape[1] != 3 or len(labels) < FEWEST_LABELLED:
        return []
    mean, std = looked.scale
    pictures, found = raw(inputs, mean, std), dict[str, float]()
    for words, make in OTHERS.values():
        other = make(pictures, mean, std)
        if not torch.equal(other, inputs):
            found[words] = float((logits(looked.mine.model, other).argmax(1) == labels).double().mean())
    best = max(found, key=lambda words: found[words], default="")
    if not best or found[best] < share + max(BETTER, 2 * (0.5 / len(labels)) ** 0.5):  # two deviations by chance
        return []
    return [f"with {best} it would be right on {found[best]:.2f} of them: is this how it was trained?"]
