"""toy_colors: what the two rules say, by a predicate that reads the pixels; squares: exact groups."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError

SIZES = {"train": 600, "test": 400, "validation": 100}
RULES = ("corners", "top")


def toy(seed: int = 0, **options: Any) -> Task:
    return tasks.get("toy_colors").function(seed=seed, other=None, **{**SIZES, **options})


def rules(data: Data) -> dict[str, np.ndarray]:
    """Whether each rule holds, told from the pixels."""
    found: dict[str, list[bool]] = {"corners": [], "top": []}
    for image in data.inputs.permute(0, 2, 3, 1).tolist():  # (5, 5, 3)
        corners = {tuple(image[i][j]) for i in (0, 4) for j in (0, 4)}
        top = {tuple(image[0][j]) for j in (1, 2, 3)}
        found["corners"].append(len(corners) == 1)
        found["top"].append(len(top) == 3)
    return {rule: np.array(held) for rule, held in found.items()}


def test_both_rules_hold_in_the_first_class_and_neither_in_the_second() -> None:
    for split in ("train", "test", "validation"):
        data = toy().examples(split).load()
        for held in rules(data).values():
            assert (held == (data.labels.numpy() == 0)).all()
    colours = {tuple(pixel) for pixel in data.inputs.permute(0, 2, 3, 1).reshape(-1, 3).tolist()}
    assert colours == {(1, 0, 0), (0, 1, 0), (0, 0.5, 1), (0.5, 0, 1)}


@pytest.mark.parametrize(("annotated", "places"), [
    ("corners", {(0, 0), (0, 4), (4, 0), (4, 4)}), ("top", {(0, 1), (0, 2), (0, 3)}),
    ("both", {(0, 0), (0, 4), (4, 0), (4, 4), (0, 1), (0, 2), (0, 3)}),
])  # fmt: skip
def test_the_annotated_rule_is_the_shortcut(annotated: str, places: set[tuple[int, int]]) -> None:
    task, right = toy(annotated=annotated), {}
    shortcut = [rule for rule in RULES if annotated in {rule, "both"}]
    for share in (0.0, 0.4, 1.0):
        data = task.examples("train", share=share).load()
        held = rules(data)
        for rule in RULES:
            if rule not in shortcut:
                assert (held[rule] == (data.labels.numpy() == 0)).all(), "the other rule goes on to tell"
        says = 1 - held[shortcut[0]].astype(int)
        assert all((held[rule] == held[shortcut[0]]).all() for rule in shortcut)
        assert torch.equal(data.groups, 2 * data.labels + torch.from_numpy(says))
        right[share] = set(np.flatnonzero(says == data.labels.numpy()))
        assert data.annotations is not None
        where = {tuple(place) for place in data.annotations[0, 0].nonzero().tolist()}
        assert where == places
        assert data.annotations.flatten(2).float().std(0).max() == 0
    assert right[0.0] <= right[0.4] <= right[1.0]
    assert len(right[1.0]) == 600
    assert len(right[0.4]) == pytest.approx(420, abs=45)
    assert len(right[0.0]) == pytest.approx(300, abs=49)
    lying = task.examples("test", share=1.0, swapped=True).load()
    assert (rules(lying)[shortcut[0]] == (lying.labels.numpy() == 1)).all()


def test_pixels_of_no_rule_stay_in_every_variant() -> None:
    task = toy()
    clean = task.examples("test").load()
    for variant in ({"share": 0.0}, {"share": 1.0}, {"share": 1.0, "swapped": True}):
        data = task.examples("test", **variant).load()
        assert data.annotations is not None
        assert torch.equal(data.inputs[~data.annotations], clean.inputs[~data.annotations])
        assert torch.equal(data.ids, clean.ids)


def test_colours_that_fit_a_rule_are_equally_likely() -> None:
    data = toy(train=4000).examples("train").load()
    image = data.inputs.permute(0, 2, 3, 1)
    held, broken = image[data.labels == 0], image[data.labels == 1]
    triples = Counter(str(top.tolist()) for top in held[:, 0, 1:4])
    assert len(triples) == 24
    assert stats.chisquare(list(triples.values())).pvalue > 0.001
    corners = Counter(str([row[i][j].tolist() for i in (0, 4) for j in (0, 4)]) for row in broken)
    assert len(corners) == 252
    assert stats.chisquare(list(corners.values())).pvalue > 0.001


def test_no_image_is_in_two_splits() -> None:
    task = toy(train=4000, test=4000)
    rows = [image.numpy().tobytes() for split in ("train", "test") for image in task.examples(split).load().inputs]
    assert len(set(rows)) == 8000


@pytest.mark.parametrize(("options", "told"), [
    ({"annotated": "bottom"}, "unknown rule 'bottom'"), ({"validation": -1}, "expected 0 ≤ validation"),
    ({"test": 10**6}, "found 600, 1000000"), ({"epochs": 0}, "epochs of at least 1, found 100, 0"),
])  # fmt: skip
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        toy(**options)
