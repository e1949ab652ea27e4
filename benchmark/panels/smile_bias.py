"""Panel `smile_bias`: a model that learnt the biased feature beside one that could not, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from attribug import bugs, panels
from attribug.contracts.contrasts import Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.subjects import Ask, Regions, Subject
from attribug.errors import InputError, near_misses


@dataclass(frozen=True)
class Biased:
    """A task whose label a feature tells, that people would not look at."""

    bug: str
    """What plants the bias, at level 1."""
    said: tuple[str, ...]
    """What the feature can be, in the order of the task's groups."""
    masks: Mapping[str, str]
    """Of `Data.truth`, by name: where people look, then where the bias may be."""


BIASED = {
    "animals": Biased("spurious_background", ("sky", "greenery", "earth"), {"animal": "object", "scene": "background"}),
    "celeba": Biased("shortcut", ("black hair", "blond hair"), {"mouth": "object", "elsewhere": "annotated"}),
}


@panels.register("smile_bias", paper="Bang et al. 2024 (Explanation Alignment), smiles and hair on CelebA")
def smile_bias(
    ask: Ask, *, seed: int, seeds: Sequence[int], dataset: str = "animals", pictures: int = 16
) -> Iterator[Subject]:  # fmt: skip
    """In training a feature tells the label to one model and nothing to the other: who looks where, group by group?

    `dataset`: `animals` (birds in the sky, mammals in greenery), or `celeba` (smiles with black hair, others blond).
    Test examples in which the feature tells nothing, in groups of label and feature; each model is asked for the class
    that it predicts. `pictures`: explained ones of each group; accuracy is told of the whole group.
    """
    if dataset not in BIASED:
        raise InputError(f"panel_options.smile_bias.dataset: unknown name {dataset!r}{near_misses(dataset, BIASED)}")
    task, known = ask(dataset), BIASED[dataset]
    for each in seeds:
        contrast = bugs.get(known.bug).function(task, 1.0, each, seeds)
        unbiased = next(side.model for side in contrast.controls if side.seed == each)
        whole = contrast.tests["decorrelated"]
        for name, model in {"unbiased": unbiased, "biased": contrast.contaminated.model}.items():
            for label, kind in enumerate(task.classes):
                for number, said in enumerate(known.said):
                    group = label * len(known.said) + number
                    side = Side(model, Examples.of(of_group, base=whole, group=group, most=pictures))
                    tested = Side(model, Examples.of(of_group, base=whole, group=group, most=0))
                    masks = Regions.told(side.examples, **known.masks)
                    yield Subject(name, f"{kind}, {said}", side, masks, tested=tested, classes=task.classes)


def of_group(*, base: Examples, group: int, most: int) -> Data:
    """The examples of a group, the first `most` of them; 0: all. Raises `InputError` where there are none."""
    data = base.load()
    if data.groups is None:
        raise ValueError("expected examples with groups")
    rows = (data.groups == group).nonzero().flatten()
    if not len(rows):
        raise InputError(f"panel smile_bias: expected examples of every group, found none of group {group}")
    return data.select(rows[:most] if most else rows)
