"""What the sides of a contrast are asked: models, inputs, classes, training examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attribug.contracts.contrasts import Side
from attribug.contracts.data import Data
from attribug.query.query import Query

if TYPE_CHECKING:
    from attribug.contracts.contrasts import Contrast
    from attribug.models.lab import Lab

Queries = dict[Side, tuple[Query, Data]]


def asked(contrast: Contrast, versions: Sequence[str], lab: Lab, positions: Tensor, *, seed: int, rows: int) -> Queries:
    """What every side is asked about the examples at `positions`, on the given versions of its inputs; `seed` and
    `rows` as of `Query`."""
    sides = dict.fromkeys(contrast.seen(side, version) for side in contrast.sides for version in ("", *versions))
    chunks = {side: lab.data(side.examples).select(positions) for side in sides}
    targets: Tensor | None = None
    if contrast.target == "reference":
        reference = contrast.references[0]
        targets = _predicted(lab, reference, chunks[reference])
    expected = chunks[contrast.contaminated].ids
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
        question, kept = (lab.model(side.model), inputs, targets.to(device)), lab.kept(side.model)
        query = Query(*question, ids=data.ids, seed=seed, rows=rows, train=train, kept=kept)
        queries[side] = (query, data)
    return queries


def _predicted(lab: Lab, side: Side, data: Data) -> Tensor:
    model = lab.model(side.model)  # outside of no_grad: it may have to be trained
    with torch.no_grad():
        predicted: Tensor = model(data.inputs.to(lab.device)).argmax(1)
    return predicted
