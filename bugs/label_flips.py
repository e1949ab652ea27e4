"""Bug: some training labels are wrong, and the model has learnt them by heart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from attribug import bugs
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Trained
from attribug.contracts.tasks import Task
from attribug.errors import InputError
from attribug.streams import generator

FEWEST_PARTS = 5  # a model never flips more than this part of the labels, so that parts stay disjoint
MEMORISED = 0.60  # of the flipped labels, by the model trained on them
KNOWN_TO_OTHERS = 0.10  # of the flipped labels, by models that never saw them


@bugs.register(
    "label_flips",
    stage="data",
    levels=(0.05, 0.10, 0.20),
    primary="spearman@sum",
    seen_in_predictions=True,
    paper="Adebayo et al. 2020, section 4 (mislabelled training examples)",
)
def label_flips(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """Some training images have a wrong label, and the model has learnt these by heart.

    Each contaminated model flips the first `level` · N labels of its own part of the training set.

    Contaminated models have seeds of their own, so that every clean model is a reference. Controls are the *other*
    contaminated models: the same noise rate, but the right label for these images. Explained: the flipped images this
    model has memorised, for their true label. Secondary control: clean models, which tells noisy training from clean.
    """
    level = float(level)
    part, parts = list(seeds).index(seed), max(len(seeds), FEWEST_PARTS)
    if not 0 <= level <= 1 / parts:
        raise InputError(f"label_flips: expected a level of at most 1/{parts} with {len(seeds)} seeds, found {level:g}")
    clean = tuple(task.clean(s) for s in seeds)
    contaminated = [_contaminated(task, level, s + len(seeds), number, parts) for number, s in enumerate(seeds)]
    mine, others = contaminated[part], tuple(contaminated[:part] + contaminated[part + 1 :])
    if level == 0:  # nobody flips: all explain every part's images, so contaminated and control set are the same
        explained = _flipped(task, 1 / parts, range(parts), parts, labels="true")
        return _contrast(mine, clean, others, explained, checks=(), keep=None)
    explained = _flipped(task, level, (part,), parts, labels="true")
    wrong = _flipped(task, level, (part,), parts, labels="flipped")
    checks = (
        Check("flipped labels memorised", (mine,), wrong, at_least=MEMORISED),
        Check("flipped labels given by references", clean, wrong, at_most=KNOWN_TO_OTHERS),
        *((Check("flipped labels given by controls", others, wrong, at_most=KNOWN_TO_OTHERS),) if others else ()),
    )
    return _contrast(mine, clean, others, explained, checks, keep=wrong)


def _contrast(
    mine: Trained,
    clean: tuple[Trained, ...],
    others: tuple[Trained, ...],
    explained: Examples,
    checks: tuple[Check, ...],
    keep: Examples | None,
) -> Contrast:
    references = tuple(Side(model, explained) for model in clean)
    return Contrast(
        contaminated=Side(mine, explained),
        references=references,
        controls=tuple(Side(model, explained) for model in others),
        control="other_flips",
        target="label",
        checks=checks,
        keep=keep,
        secondary={"clean": references},
    )


def _contaminated(task: Task, level: float, seed: int, part: int, parts: int) -> Trained:
    train = task.examples("train")
    noisy = (
        train
        if level == 0
        else Examples.of(relabelled, base=train, level=level, part=part, parts=parts, classes=len(task.classes))
    )
    return task.trained(noisy, seed)


def _flipped(
    task: Task, level: float, which: Sequence[int], parts: int, *, labels: Literal["true", "flipped"]
) -> Examples:
    return Examples.of(
        flipped_only, base=task.examples("train"), level=level, which=tuple(which), parts=parts,
        classes=len(task.classes), labels=labels,
    )  # fmt: skip


def relabelled(*, base: Examples, level: float, part: int, parts: int, classes: int) -> Data:
    """The examples with the first `level` · N labels of one part flipped."""
    data = base.load()
    rows = chosen(data, level, part, parts)
    labels = data.labels.clone()
    labels[rows] = wrong_labels(data.select(rows), classes)
    return Data(data.inputs, labels, data.ids, data.masks)


def flipped_only(
    *, base: Examples, level: float, which: tuple[int, ...], parts: int, classes: int, labels: str
) -> Data:
    """The examples that the parts `which` flip, under their true or their flipped labels."""
    data = base.load()
    rows = torch.stack([chosen(data, level, part, parts) for part in which], dim=1).flatten()  # parts take turns
    data = data.select(rows)
    return data if labels == "true" else Data(data.inputs, wrong_labels(data, classes), data.ids, data.masks)


def chosen(data: Data, level: float, part: int, parts: int) -> torch.Tensor:
    """Rows that a part flips: the first of a seeded permutation's disjoint parts, so smaller levels are nested."""
    order = torch.randperm(len(data), generator=generator("label_flips", "parts", len(data)))
    share = len(data) // parts
    return order[part * share : part * share + min(round(level * len(data)), share)]


def wrong_labels(data: Data, classes: int) -> torch.Tensor:
    """Another label for every example, drawn from the other classes by the example's own stream."""
    streams = (generator("label_flips", "label", int(example)) for example in data.ids)
    shifts = [int(torch.randint(1, classes, (), generator=stream)) for stream in streams]
    return (data.labels + torch.tensor(shifts, dtype=torch.int64)) % classes
