"""Fixes by groups and by errors: weights of groups, examples shown again, a last layer fitted anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.errors import Unsupported
from attribug.fixes import dfr, group_dro, jtt
from attribug.fixes.materials import activations, last_dense
from attribug.models.lab import Lab
from attribug.models.training import initialised, train
from attribug.streams import generator
from doubles.shortcuts import described, mended, network, shortcut


def test_group_weights_are_those_of_a_slow_loop() -> None:
    data = shortcut(split="train", share=0.5, size=60)
    data = Data(data.inputs.double(), data.labels, data.ids, groups=data.groups)
    model = initialised(Recipe(network, epochs=1), 0).double()
    assert data.groups is not None
    known, counts = data.groups.unique(return_counts=True)
    step, adjustment, decay = 0.7, 0.4, 0.01
    objective = group_dro.WorstGroup(known, counts, torch.full((4,), 0.25), step, adjustment, decay)
    weights = np.full(4, 0.25)
    batches = [torch.arange(0, 20), torch.arange(20, 60), (data.groups != 3).nonzero().flatten()]
    for rows in batches:
        batch = data.select(rows)
        found = float(objective(model, batch).detach())
        losses = np.zeros(4)
        for g in range(4):
            members = [-float(model(x[None]).log_softmax(1)[0, y].detach()) for x, y, of in zip(
                batch.inputs, batch.labels, batch.groups, strict=True) if of == known[g]]  # fmt: skip
            losses[g] = (sum(members) / len(members) if members else 0) + adjustment / math.sqrt(counts[g])
        weights = np.array([q * math.exp(step * loss) for q, loss in zip(weights, losses, strict=True)])
        weights /= weights.sum()
        norm = sum(float(each.detach().square().sum()) for each in model.parameters())
        assert found == pytest.approx(float(weights @ losses) + decay * norm, rel=1e-6)
        np.testing.assert_allclose(objective.weights.numpy(), weights, rtol=1e-6)
    assert not np.allclose(weights, 0.25), "the worst group has more weight"


def test_a_loss_weighs_only_its_own_group() -> None:
    """What algorithm 1 does when one group is drawn: q of that group rises by its loss alone."""
    weights = group_dro.updated(torch.tensor([0.5, 0.5]), torch.tensor([math.log(3), 0.0]), 1.0)
    assert weights.tolist() == pytest.approx([0.75, 0.25])


def test_groups_must_be_known() -> None:
    task, contrast = described()
    data = contrast.contaminated.examples.load()
    without = Data(data.inputs, data.labels, data.ids)
    recipe = Recipe(network, epochs=1)
    with pytest.raises(Unsupported, match="with groups"):
        group_dro.robustly(initialised(recipe, 0), without, recipe, 0, step=0.1, adjustment=0.0, decay=0.0)
    assert mended("group_dro", task, contrast).key != mended("group_dro", task, contrast, step=0.2).key


def test_what_is_wrong_is_shown_again() -> None:
    wrong = torch.tensor([False, True, False, True])
    assert jtt.upsampled(wrong, 3).tolist() == [0, 1, 2, 3, 1, 3, 1, 3]
    assert jtt.upsampled(wrong, 1).tolist() == [0, 1, 2, 3]
    assert jtt.upsampled(~wrong & wrong, 5).tolist() == [0, 1, 2, 3]


def test_training_twice_starts_twice_from_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Data, int]] = []

    def noting(model: nn.Module, data: Data, recipe: Recipe, seed: int, **options: object) -> nn.Module:
        seen.append((next(model.parameters()).detach().clone(), data, recipe.epochs))
        return train(model, data, recipe, seed)

    monkeypatch.setattr(jtt, "train", noting)
    data, recipe = shortcut(split="train", share=0.8), Recipe(network, epochs=2, batch=32, learning_rate=0.01)
    model = jtt.twice(initialised(recipe, 0), data, recipe, 0, first_epochs=1, up=4)
    (start, first, epochs), (again, second, further) = seen
    assert torch.equal(start, again)
    assert (epochs, further) == (1, 2)
    early = train(initialised(recipe, 0), data, Recipe(network, epochs=1, batch=32, learning_rate=0.01), 0)
    wrong = {n for n in range(len(data)) if int(early(data.inputs[n : n + 1]).argmax()) != int(data.labels[n])}
    assert len(first) == len(data)
    counted = {n: int((second.ids == data.ids[n]).sum()) for n in range(len(data))}
    assert counted == {n: 4 if n in wrong else 1 for n in range(len(data))}
    assert wrong
    assert not model.training


@pytest.mark.parametrize("classes", [2, 10])
def test_a_last_layer_predicts_as_scikit_learn_does(classes: int) -> None:
    examples = Examples.of(shortcut, split="validation", share=0.0, classes=2, size=400)
    if classes == 10:
        examples = Examples.of(ten, size=400)
    data = examples.load()
    model = initialised(Recipe(partial(network, classes=classes), epochs=1), 0)
    name, groups = last_dense(model, data.inputs), data.groups
    assert name == "4"
    assert groups is not None
    found = activations(model, name, data.inputs).double().numpy()
    scaled = (found - found.mean(0)) / np.where(found.std(0) == 0, 1, found.std(0))
    rows = dfr.balanced(groups.numpy(), generator("derive", 7), 1)[0]
    counts = np.unique(groups.numpy()[rows], return_counts=True)[1]
    assert len(set(counts)) == 1
    oracle = LogisticRegression(C=0.5, l1_ratio=1, solver="saga", tol=dfr.TOLERANCE, max_iter=5000, random_state=0)
    oracle.fit(scaled[rows], data.labels.numpy()[rows])
    dfr.refit(model, generator("derive", 7), examples=examples, draws=1, c=0.5, versions={})
    with torch.no_grad():
        logits = model(data.inputs).double()
    assert logits.argmax(1).tolist() == oracle.predict(scaled).tolist()
    np.testing.assert_allclose(logits.softmax(1).numpy(), oracle.predict_proba(scaled), atol=1e-5)


def ten(*, size: int) -> Data:
    """Ten classes in five features, and groups of a label that are there or not."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(size) % 10
    inputs = torch.randn((size, 10), generator=stream) + 2 * nn.functional.one_hot(labels, 10)
    return Data(inputs, labels, torch.arange(size), groups=labels * 2 + torch.arange(size) // 10 % 2)


def test_draws_are_averaged_and_a_strength_is_chosen_without_tests() -> None:
    task, contrast = described()
    balanced = contrast.held_out["balanced"]
    data = balanced.load()
    assert data.groups is not None
    assert dfr.chosen_strength(
        data.inputs.double().numpy(), data.labels.numpy(), data.groups.numpy(), generator("any")
    ) in dfr.STRENGTHS  # fmt: skip
    model = mended("dfr", task, contrast, draws=2)
    assert mended("dfr", task, contrast, draws=3).key != model.key != mended("dfr", task, contrast, c=1.0).key


def test_the_rest_of_the_model_stays(lab: Lab, right: Callable[..., float]) -> None:
    task, contrast = described()
    before, after = (lab.model(each).state_dict() for each in (
        contrast.contaminated.model, mended("dfr", task, contrast, draws=2, c=1.0)))  # fmt: skip
    same = {name: torch.equal(before[name], after[name]) for name in before}
    assert same == {name: not name.startswith("4.") for name in before}


def test_networks_without_a_last_dense_layer_are_refused() -> None:
    with pytest.raises(Unsupported, match="outputs are those of a dense layer"):
        mended("dfr", *described(network=ends_otherwise))


def ends_otherwise() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 2), nn.Tanh())


@pytest.mark.parametrize("name", ["dfr", "p_clarc", "rr_clarc"])
def test_layers_without_a_bias_are_refused_when_planned(name: str) -> None:
    with pytest.raises(Unsupported, match="a dense layer with a bias, found '2' without"):
        mended(name, *described(network=without_biases))


def without_biases() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))


def test_outputs_that_are_no_classes_are_refused_when_planned() -> None:
    with pytest.raises(Unsupported, match="each of 2 classes, found 3"):
        mended("dfr", *described(network=partial(network, classes=3)))


def test_small_groups_are_drawn_as_labels() -> None:
    labels = np.arange(40) % 2
    of = labels * 2 + np.arange(40) // 2 % 2
    assert dfr.drawn_from(labels, of) is of
    rare = labels * 3 + np.where(np.arange(40) < 8, 2, np.arange(40) // 2 % 2)  # four of each label
    assert dfr.drawn_from(labels, rare) is labels
    (rows,) = dfr.balanced(labels[:39], generator("any"), 1)
    assert np.bincount(labels[rows]).tolist() == [19, 19]


def lone(*, size: int) -> Data:
    """Three classes, every example but a few of a group of its own."""
    data = shortcut(split="validation", share=0.0, size=size, classes=3)
    return replace(data, groups=data.labels * size + torch.arange(size))


def test_groups_of_one_are_no_obstacle() -> None:
    examples = Examples.of(lone, size=90)
    data = examples.load()
    model = initialised(Recipe(partial(network, classes=3), epochs=1), 0)
    before = float((model(data.inputs).argmax(1) == data.labels).double().mean())
    dfr.refit(model, generator("any"), examples=examples, draws=2, c=0.0, versions={})
    assert float((model(data.inputs).argmax(1) == data.labels).double().mean()) > max(before, 0.7)
    with pytest.raises(Unsupported, match="two balanced held-out examples or more of every class, found 1"):
        dfr.refit(model, generator("any"), examples=Examples.of(lone, size=5), draws=2, c=0.0, versions={})


def test_functions_are_of_classes_also_where_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of labels 1 and 2, one strength tells them apart, all others turn them round."""

    def scripted(scaled: np.ndarray, labels: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[1.0 if strength == 0.1 else -1.0]]), np.zeros(1)

    monkeypatch.setattr(dfr, "fitted", scripted)
    labels = np.arange(40) % 2 + 1
    scaled = (labels[:, None] - 1.5).astype(np.float64)
    assert dfr.chosen_strength(scaled, labels, labels, generator("any")) == 0.1


@pytest.mark.parametrize("name", ["dfr", "p_clarc", "rr_clarc"])
def test_who_needs_balanced_data_says_so(name: str) -> None:
    task, contrast = described()
    without: Contrast = replace(contrast, held_out={})
    with pytest.raises(Unsupported, match="expected balanced examples that neither train nor test"):
        mended(name, task, without)
