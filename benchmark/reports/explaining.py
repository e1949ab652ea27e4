"""A user's own model and pictures → maps, and a page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attribug import methods as registered
from attribug.errors import InputError, Unsupported, one_line
from attribug.maps.attribution import attributions
from attribug.maps.guard import MethodFault
from attribug.maps.operands import a_seed
from attribug.models.lab import logits
from attribug.models.own import Own, own
from attribug.models.preparation import Preparation, Transform
from attribug.query.query import Query
from attribug.results.explained_page import ExplainedPicture, explained_page
from attribug.results.narrative import counted
from attribug.storage.files import make_folder, write_atomically
from attribug.tasks.folders import Prepared, pictures

if TYPE_CHECKING:
    from attribug.contracts.pieces import Method

MOST = 100
"""Pictures, where nobody says how many: all of them and their maps are held at once."""
METHODS = ("gradient", "smoothgrad", "integrated_gradients", "guided_backprop", "grad_cam", "lrp_epsilon_plus_flat")
"""Where nobody says which: fast ones of every family."""
CLOSE_TO_ONE = 1e-3
"""Rows of outputs that sum to 1 as closely, and are nowhere negative, are probabilities."""

DOUBTFUL = 1.5
"""Times chance: a model that is right no more often gets a question."""


@dataclass(frozen=True)
class ExplainedFolder:
    """Maps of a model's pictures by method, and what was said of them."""

    maps: dict[str, Tensor]
    """(N, *shape), float32, of the predicted class."""
    table: pd.DataFrame
    """A row a picture: name, prediction, probability, label."""
    refused: dict[str, str]
    """Methods that cannot explain the model, and why."""
    facts: tuple[str, ...]
    """Lines about model and data."""
    skipped: tuple[tuple[str, str], ...] = field(default=())
    """Files that are no picture, each with the reason."""


def explain_folder(
    model: str,
    data: str | Path,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    methods: Sequence[str] | None = None,
    pixels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool = False,
    classes: str | Path | None = None,
    most: int = MOST,
    strict: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> ExplainedFolder:
    """Explains what a model says of the pictures in a folder; writes `explained.html`, `explained.csv` and
    `maps.safetensors` (maps by method, rows as in the table) into `out`.

    `model`, `weights`: see `attribug.models.own`. `data`: pictures in folders by class, or all in one, or a name of
    photographs that `attribug.tasks.folders` knows; the transform that comes with the model prepares them, or, where
    `pixels` is given, they are resized and cropped to such squares and brought to (x − mean) / std, x in [0, 1].
    `classes`: a file of a name a line, one for each output. `most`: so many pictures, spread over the classes. The
    class that is explained is the predicted one. `say` is told the facts about model and data before anything is
    explained. Raises `InputError` for wrong input.
    """
    mine = own(model, weights)
    names = list(methods or METHODS)
    chosen = [registered.get(name) for name in names]
    unfit = [method.name for method in chosen if method.output != "attributions"]
    if unfit:
        raise InputError(f"--methods: expected methods that give maps, found {', '.join(map(repr, unfit))}")
    out = Path(out)
    if not out.parent.is_dir() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out}: expected a folder, or a new one in a folder that is there")
    seed = a_seed(seed)
    read = pictures(data, _prepare(mine, pixels, mean, std, bgr), strict=strict, most=most)
    outputs = _outputs(mine, read)
    called = _class_names(classes, mine, read, outputs.shape[1])
    probabilities = outputs.softmax(1)
    best, predicted = probabilities.max(1)
    labels = [read.folders[label] for label in read.labels] or [""] * len(read.names)
    table = pd.DataFrame({
        "picture": read.names, "prediction": [called[k] for k in predicted], "probability": best.tolist(),
        "label": labels,
    })  # fmt: skip
    facts = _facts(mine, read, table, called)
    for line in facts:
        say(line)
    device = next((parameter.device for parameter in mine.model.parameters()), torch.device("cpu"))
    maps, refused = _explained(chosen, Query(mine.model, read.inputs.to(device), predicted.to(device), seed=seed))
    found = ExplainedFolder(maps, table, refused, tuple(facts), read.skipped)
    _write(found, mine, read, called, out)
    return found


def _explained(chosen: Sequence[Method], query: Query) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Maps by method, and why others give none."""
    maps: dict[str, Tensor] = {}
    refused: dict[str, str] = {}
    for method in chosen:
        try:
            maps[method.name] = attributions(method, query, {}).cpu()
        except (Unsupported, MethodFault) as error:
            refused[method.name] = str(error)
        except Exception as error:  # the model's own, under gradients or in parts
            refused[method.name] = f"raises {one_line(error)}"
    return maps, refused


def _prepare(
    mine: Own, pixels: int | None, mean: Sequence[float] | None, std: Sequence[float] | None, bgr: bool
) -> Transform:
    if pixels is not None:
        if pixels < 1:
            raise InputError(f"--pixels: expected at least 1, found {pixels}")
        for name, values in (("--mean", mean), ("--std", std)):
            if values is not None and len(values) not in {1, 3}:
                raise InputError(f"{name}: expected 1 or 3 numbers, found {len(values)}")
            if values is not None and not np.isfinite(values).all():
                raise InputError(f"{name}: expected finite numbers, found {', '.join(map(str, values))}")
        if std is not None and not all(value > 0 for value in std):
            raise InputError(f"--std: expected positive numbers, found {', '.join(map(str, std))}")
        grey = _channels(mine) == 1
        return Preparation(pixels, tuple(mean or (0.0,)), tuple(std or (1.0,)), bgr, grey)
    if mean or std or bgr:
        raise InputError("--mean, --std, --bgr: expected --pixels N beside them, or the model's own transform alone")
    if mine.transform is None:
        raise InputError(f"model {mine.name!r}: expected a transform that comes with it, or --pixels N; found neither")
    return mine.transform


def _channels(mine: Own) -> int | None:
    """Of the first convolution; None where there is none."""
    found = (module.in_channels for module in mine.model.modules() if isinstance(module, torch.nn.Conv2d))
    return next(found, None)


def _outputs(mine: Own, read: Prepared) -> Tensor:
    """Logits (N, K) of all pictures."""
    try:
        outputs = logits(mine.model, read.inputs)
    except Exception as error:
        raise InputError(
            f"model {mine.name!r}: raises on pictures {tuple(read.inputs.shape[1:])}: {one_line(error)}"
        ) from error
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise InputError(f"model {mine.name!r}: expected logits (N, K) with K ≥ 2, found {tuple(outputs.shape)}")
    if not bool(outputs.isfinite().all()):
        raise InputError(
            f"model {mine.name!r}: expected finite logits, found NaN or infinity: wrong weights or values?"
        )
    if bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < CLOSE_TO_ONE).all()):
        raise InputError(f"model {mine.name!r}: expected logits, found probabilities; leave the last softmax away")
    return outputs


def _class_names(classes: str | Path | None, mine: Own, read: Prepared, count: int) -> list[str]:
    """A name for each output."""
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
    if len(read.folders) == count:
        return list(read.folders)
    makers = mine.classes or ()
    return list(makers) if len(makers) == count else [str(k) for k in range(count)]


def _comparable(read: Prepared, called: Sequence[str]) -> bool:
    """Whether folders are named as the model's classes."""
    return bool(read.folders) and set(read.folders) <= set(called)


def _facts(mine: Own, read: Prepared, table: pd.DataFrame, called: list[str]) -> list[str]:
    """What somebody wants to know before looking at maps."""
    low, high = float(read.inputs.min()), float(read.inputs.max())
    shape = " × ".join(map(str, read.inputs.shape[1:]))
    lines = [
        f"weights: {mine.weights}; {len(called)} classes",
        f"{len(read.names)} pictures as the model takes them: {shape}, values from {low:.3g} to {high:.3g}",
    ]
    if read.skipped:
        names = ", ".join(name for name, _ in read.skipped[:3])
        lines.append(f"{counted(len(read.skipped), 'file')} skipped, no picture: {names}")
    if _comparable(read, called):
        share, chance = float((table["label"] == table["prediction"]).mean()), 1 / len(set(table["label"]))
        doubt = ": wrong preprocessing, or another order of classes?" if share <= DOUBTFUL * chance else ""
        lines.append(f"the model is right on {share:.2f} of them, chance is {chance:.2f}{doubt}")
    elif read.folders:
        names = ", ".join(read.folders[:3])
        lines.append(f"folders ({names} …) are not the model's classes: nothing tells whether it is right")
    return lines


def _write(found: ExplainedFolder, mine: Own, read: Prepared, called: Sequence[str], out: Path) -> None:
    from safetensors.torch import save

    table = found.table
    known = _comparable(read, called)
    wrong = known & (table["label"] != table["prediction"]).to_numpy()
    order = np.lexsort([-table["probability"].to_numpy(), ~wrong])  # the surest errors first
    rows = []
    for i in order:
        maps = {name: values[i].sum(0).numpy() for name, values in found.maps.items()}
        said = str(table["prediction"][i]), float(table["probability"][i]), str(table["label"][i]) if known else ""
        rows.append(ExplainedPicture(read.names[i], read.shown[i], *said, maps))
    page = explained_page(mine.name, found.facts, rows, found.refused, found.skipped)
    files = {
        "maps.safetensors": save({name: values.contiguous() for name, values in found.maps.items()}),
        "explained.csv": table.to_csv(index=False).encode(),
        "explained.html": page.encode(),
    }
    make_folder(out)
    for name, content in files.items():
        write_atomically(out / name, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
