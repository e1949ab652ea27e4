"""shortcut: what tasks know as theirs, learnt by one model and by none of its controls; methods on its vectors."""

from __future__ import annotations

import math

import pytest
import torch

from attribug import bugs, methods, metrics, tasks
from attribug.conformance.tasks import small
from attribug.contracts.contrasts import Contrast
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models.checks import figure
from attribug.models.lab import Lab
from attribug.scores.blocks import score_block
from attribug.scores.records import Settings

SEEDS = (0, 1, 2)
TASKS = ("color_mnist", "decoy_mnist", "digits", "iris_cancer", "mnist_block", "squares", "toy_colors")
METHODS = ("gradient", "integrated_gradients", "lime", "kernel_shap", "lrp_epsilon", "deep_lift")


def contrast(task: Task, level: float = 1.0, seed: int = 0) -> Contrast:
    return bugs.get("shortcut").function(task, level, seed, SEEDS)


@pytest.mark.parametrize("name", TASKS)
def test_only_the_share_of_training_examples_differs(name: str) -> None:
    task = small(name)
    made = contrast(task, 0.9)
    assert made.contaminated.model == task.trained(task.examples("train", share=0.9), 0)
    assert [side.model for side in made.controls] == [task.trained(task.examples("train", share=0.0), s) for s in SEEDS]
    assert {side.examples for side in made.sides} == {task.examples("test", share=1.0)}
    assert made.control == "decorrelated"
    data = made.contaminated.examples.load()
    truth = data.truth(made.truth)
    assert truth is not None
    assert truth.flatten(1).any(1).all()
    assert not truth.flatten(1).all(1).any()


@pytest.mark.parametrize("name", TASKS)
def test_test_sets_and_held_out_data_are_what_they_are_called(name: str) -> None:
    task = small(name)
    made = contrast(task, 0.9)
    plain, telling = (task.examples("test", **scene).load() for scene in ({}, {"share": 1.0}))
    clean = {} if torch.equal(plain.inputs, telling.inputs) else {"clean": task.examples("test")}
    assert bool(clean) is (name != "toy_colors")
    assert made.tests == {
        "biased": task.examples("test", share=0.9), "decorrelated": task.examples("test", share=0.0),
        "swapped": task.examples("test", share=1.0, swapped=True), **clean,
    }  # fmt: skip
    kept = {"biased": 0.9, "balanced": 0.0} if "validation" in task.splits else {}
    assert made.held_out == {told: task.examples("validation", share=share) for told, share in kept.items()}
    ids = [set(each.load().ids.tolist()) for each in (*made.held_out.values(), *made.tests.values())]
    assert not any(one & set(task.examples("train").load().ids.tolist()) for one in ids)


@pytest.mark.parametrize("name", TASKS)
def test_level_zero_is_the_control(name: str) -> None:
    made = contrast(small(name), 0.0, seed=1)
    assert made.contaminated in made.controls
    assert made.contaminated not in made.references


@pytest.mark.parametrize("level", [-0.1, 1.1, math.nan])
def test_a_share_is_a_share(digits: Task, level: float) -> None:
    with pytest.raises(InputError, match="shortcut: expected a share from 0 to 1, found"):
        contrast(digits, level)


def test_a_task_without_a_shortcut_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="no background"):
        contrast(small("textures"))


@pytest.mark.slow
def test_it_takes_on_toy_colors(lab: Lab) -> None:
    """Corners are learnt where they tell, the other rule where they do not; as a rule of the top, nobody's choice."""
    options = {"train": 3000, "test": 200, "epochs": 15}
    for annotated, taken in (("corners", True), ("top", False)):
        task = tasks.get("toy_colors").function(seed=0, other=None, annotated=annotated, **options)
        made = contrast(task)
        figures = {check.name: figure(check, lab) for check in made.checks}
        assert made.took(figures) is taken, figures


@pytest.mark.slow
def test_methods_explain_vectors(lab: Lab) -> None:
    """Of each method a row for every model, whose mass on four of 34 features is a share."""
    task = tasks.get("iris_cancer").function(seed=0, other=None, epochs=20)
    (pair,) = metrics.measured_as("mass_accuracy@abs_sum")
    known = [(methods.get(name), {}) for name in METHODS]
    settings = Settings(seed=0, examples=8, chunk=4, rows=64)
    records = score_block(contrast(task), known, [pair], lab, settings)
    for name in METHODS:
        assert not records[name].verdict, (name, records[name].reason)
        values = torch.tensor(records[name].scores["value"].to_numpy())
        assert len(values)
        assert (values > 0).all()
        assert (values < 1).all()
