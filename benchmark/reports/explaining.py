"""A user's own model and pictures → maps, and a page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from attribug.models.brought import describe
from attribug.models.own import own
from attribug.query.query import Query
from attribug.results.explained_page import ExplainedPicture, explained_page
from attribug.results.figures import SYMBOLS
from attribug.results.headline import headline
from attribug.results.schema import OUTCOMES, read_results
from attribug.results.undecided import OPEN, reason
from attribug.storage.files import make_folder, write_atomically
from attribug.storage.folders import RESULTS, RUN
from attribug.tables.run_json import RunFacts, read_facts
from attribug.tasks.folders import as_seen
from attribug.tasks.looking import Asked, Looked, look

if TYPE_CHECKING:
    from attribug.contracts.pieces import Method

MOST = 100
"""Pictures, where nobody says how many: all of them and their maps are held at once."""
METHODS = ("gradient", "smoothgrad", "integrated_gradients", "guided_backprop", "grad_cam", "lrp_epsilon_plus_flat")
"""Where nobody says which: fast ones of every family."""


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
    output: str | None = None,
    most: int = MOST,
    strict: bool = False,
    seed: int = 0,
    run: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ExplainedFolder:
    """Explains what a model says of the pictures in a folder; writes `explained.html`, `explained.csv` and
    `maps.safetensors` (maps by method, rows as in the table) into `out`.

    `model`, `weights`: see `attribug.models.own`. `data`: pictures in folders by class, or all in one, or a name of
    photographs that `attribug.tasks.folders` knows; the transform that comes with the model prepares them, or, where
    `pixels` is given, they are resized and cropped to such squares and brought to (x − mean) / std, x in [0, 1].
    `classes`: a file of a name a line, one for each output. `output`: which of several outputs of the model are its
    logits. `most`: so many pictures, spread over the classes. The class that is explained is the predicted one. `run`:
    the folder of a run of `own`, whose verdicts stand beside the methods. `say` is told the facts about model and data
    before anything is explained. Raises `InputError` for wrong input.
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
    looked = look(mine, data, Asked(pixels, mean, std, bgr, classes, output, None, most, strict, True))
    read, called = looked.read, looked.classes
    if read.inputs.ndim != 4:
        shape = tuple(read.inputs.shape[1:])
        raise InputError(f"data {data}: expected pictures, found inputs {shape}; attribug.explain gives maps of these")
    trust = {} if run is None else _trust(run, looked)
    best, predicted = looked.outputs.softmax(1).max(1)
    known = read.folders or called
    labels = [known[label] for label in read.labels] or [""] * len(read.names)
    table = pd.DataFrame({
        "picture": read.names, "prediction": [called[k] for k in predicted], "probability": best.tolist(),
        "label": labels,
    })  # fmt: skip
    for line in looked.lines:
        say(line)
    network = looked.mine.model
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    maps, refused = _explained(chosen, Query(network, read.inputs.to(device), predicted.to(device), seed=seed))
    found = ExplainedFolder(maps, table, refused, looked.lines, read.skipped)
    _write(found, looked, out, trust)
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


def _trust(run: str | Path, looked: Looked) -> dict[str, str]:
    """What a run says of each method on its model: a line of verdicts, bug by bug. Raises `InputError` for a run of
    another model."""
    folder = Path(run)
    facts = read_facts(folder / RUN, RunFacts)
    asked = facts["pieces"]["tasks"].get("own", {}).get("given")
    if asked is None:
        raise InputError(f"--run {run}: expected a run of own, found one of {facts['suite']['name']}")
    if asked != describe(looked.mine.model).key:
        raise InputError(f"--run {run}: expected a run of this model, found one of other weights, code or output")
    rows = headline(read_results(folder / RESULTS), facts["suite"], facts["pieces"])
    told: dict[str, list[str]] = {}
    own = rows[(rows["label"] == rows["method"]) & ~rows["verdict"].isin(OUTCOMES)]
    own = own.assign(why=[reason(row).kind if row.verdict == OPEN else "" for row in own.itertuples()])
    for (method, verdict, why), part in own.groupby(["method", "verdict", "why"], sort=False):
        bugs = ", ".join(f"{row.bug} {row.level}" for row in part.itertuples())
        told.setdefault(str(method), []).append(f"{SYMBOLS[str(verdict)]} {bugs}{why and f' ({why})'}")
    return {method: " · ".join(sorted(parts)) for method, parts in told.items()}


def _write(found: ExplainedFolder, looked: Looked, out: Path, trust: Mapping[str, str]) -> None:
    from safetensors.torch import save

    table, read = found.table, looked.read
    known = looked.labels is not None
    wrong = known & (table["label"] != table["prediction"]).to_numpy()
    order = np.lexsort([-table["probability"].to_numpy(), ~wrong])  # the surest errors first
    rows = []
    for i in order:
        maps = {name: values[i].sum(0).numpy() for name, values in found.maps.items()}
        said = str(table["prediction"][i]), float(table["probability"][i]), str(table["label"][i]) if known else ""
        shown = read.shown[i] if read.shown else as_seen(read.inputs[i])
        rows.append(ExplainedPicture(read.names[i], shown, *said, maps))
    page = explained_page(looked.mine.name, found.facts, rows, found.refused, found.skipped, trust)
    files = {
        "maps.safetensors": save({name: values.contiguous() for name, values in found.maps.items()}),
        "explained.csv": table.to_csv(index=False).encode(),
        "explained.html": page.encode(),
    }
    make_folder(out)
    for name, content in files.items():
        write_atomically(out / name, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
