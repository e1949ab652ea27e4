"""What the sides of a contrast are asked: models, inputs, classes, training examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attribug import keys
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Data
from attribug.query.query import Query

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.contracts.models import ModelSpec
    from attribug.models.lab import Lab

Queries = dict[Side, tuple[Query, Data]]


def question(contrast: Contrast, side: Side) -> str:
    """Content key of what a side is asked: contrasts that ask the same get the same maps."""
    kept = None if contrast.keep is None else (contrast.contaminated.model, contrast.keep)
    return keys.digest("question", side, _predictor(contrast, side), kept)


def asked_of(contrast: Contrast, side: Side) -> tuple[ModelSpec, ...]:
    """The models that must be there before a side can be asked: its own, and those that tell which class of which
    examples is explained."""
    predictor = _predictor(contrast, side)
    told = [] if predictor is None else [predictor.model]
    kept = [] if contrast.keep is None else [contrast.contaminated.model]
    return tuple(dict.fromkeys([side.model, *told, *kept]))


def _predictor(contrast: Contrast, side: Side) -> Side | None:
    """Whose prediction is the class that a side is asked about; None: it is the label."""
    if contrast.target == "reference":
        return contrast.references[0] if contrast.references else None
    return side if contrast.target == "own" else None


def asked(
    contrast: Contrast,
    versions: Sequence[str],
    lab: Lab,
    positions: Tensor,
    *,
    seed: int,
    rows: int,
    about: Sequence[Side] | None = None,
) -> Queries:
    """What every side, or only those in `about`, is asked about the examples at `positions`, on the given versions of
    its inputs; `seed` and `rows` as of `Query`."""
    chosen = contrast.sides if about is None else about
    sides = dict.fromkeys(contrast.seen(side, version) for side in chosen for version in ("", *versions))
    chunks = {side: lab.data(side.examples).select(positions) for side in sides}
    targets: Tensor | None = None
    if contrast.target == "reference":
        reference = contrast.references[0]
        targets = _predicted(lab, reference, lab.data(reference.examples).select(positions))
    expected = lab.data(contrast.contaminated.examples).ids[positions]
    queries = {}
    for side, data in chunks.items():
        if not torch.equal(data.ids, expected) or len(expected.unique()) < len(expected):
            raise ValueError("a contrast's sides: expected the same examples in the same order, each once")
        if contrast.target == "label":
            targets = data.labels
        elif contrast.target == "own":
            targets = _predicted(lab, side, data)
        inputs, device = data.inputs.to(lab.device), lab.device
        if targets is None:
            raise ValueError(f"target: expected label, reference or own, found {contrast.target!r}")
        train = lab.training_data(side.model)
        model, kept, below = lab.model(side.model), lab.kept(side.model), lab.below(side.model)
        given = (model, inputs, targets.to(device))
        query = Query(*given, ids=data.ids, seed=seed, rows=rows, train=train, kept=kept, below=below)
        queries[side] = (query, data)
    return queries


def _predicted(lab: Lab, side: Side, data: Data) -> Tensor:
    model = lab.model(side.model)  # outside of no_grad: it may have to be trained
    with torch.no_grad():
        predicted: Tensor = model(data.inputs.to(lab.device)).argmax(1)
    return predicted
