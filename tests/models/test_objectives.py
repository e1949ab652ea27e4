"""Objectives: what training minimises is named by the recipe, and sees masks and annotations."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe, Trained
from attribug.contracts.objectives import cross_entropy, squared_norm, summed_cross_entropy
from attribug.models.lab import Lab
from attribug.models.memory import Memory

SIZE, FEATURES = 64, 6


def vectors(*, annotated: bool = True) -> Data:
    """Both the first and the last feature tell the label; annotations say that the last must not matter."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(SIZE) % 2
    inputs = torch.randn((SIZE, FEATURES), generator=stream)
    inputs[:, 0] += 4 * labels - 2
    inputs[:, -1] += 4 * labels - 2
    annotations = torch.zeros(SIZE, FEATURES, dtype=torch.bool)
    annotations[:, -1] = True
    return Data(inputs, labels, torch.arange(SIZE), masks=~annotations, annotations=annotations if annotated else None)


def linear() -> nn.Linear:
    return nn.Linear(FEATURES, 2)


def spoken(model: nn.Module, batch: Data) -> Tensor:
    """Cross-entropy by hand."""
    return -model(batch.inputs).log_softmax(1)[torch.arange(len(batch)), batch.labels].mean()


def without_the_annotated(model: nn.Module, batch: Data, *, strength: float) -> Tensor:
    """Cross-entropy plus the squared gradient where annotations are: it needs a second derivative."""
    assert batch.annotations is not None
    assert batch.masks is not None
    assert batch.annotations.shape == batch.inputs.shape
    inputs = batch.inputs.clone().requires_grad_(True)
    log_probabilities = model(inputs).log_softmax(1)
    (gradient,) = torch.autograd.grad(log_probabilities.sum(), inputs, create_graph=True)
    loss = functional.nll_loss(log_probabilities, batch.labels)
    return loss + strength * (gradient * batch.annotations).square().sum()


def trained(recipe: Recipe, *, annotated: bool = True) -> Tensor:
    lab = Lab(Memory())
    return lab.model(Trained(Examples.of(vectors, annotated=annotated), recipe, 0)).weight.detach()


def test_cross_entropy_is_the_default_and_takes_no_annotations() -> None:
    recipe = Recipe(linear, epochs=5)
    assert recipe.objective is cross_entropy
    torch.testing.assert_close(trained(recipe, annotated=False), trained(Recipe(linear, epochs=5, objective=spoken)))


def test_an_objective_sees_annotations_of_its_batch() -> None:
    recipe = Recipe(linear, epochs=20, batch=16, learning_rate=0.03)
    plain = trained(recipe)
    right = trained(replace(recipe, objective=partial(without_the_annotated, strength=0.1)))
    used = [float((weight[1] - weight[0])[-1].abs()) for weight in (plain, right)]
    assert used[1] < used[0] / 4
    assert float((right[1] - right[0])[0]) > 0.5, "the other feature still tells the label"


def test_an_objective_and_its_parameters_are_in_the_models_key() -> None:
    examples = Examples.of(vectors)
    objectives = [cross_entropy, spoken, *(partial(without_the_annotated, strength=s) for s in (1.0, 2.0))]
    models = [Trained(examples, Recipe(linear, epochs=1, objective=objective), 0) for objective in objectives]
    assert len({model.key for model in models}) == len(objectives)


def test_selecting_keeps_annotations_with_their_examples() -> None:
    data, index = vectors(), torch.tensor([5, 2])
    chosen = data.select(index)
    assert chosen.annotations is not None
    assert data.annotations is not None
    assert torch.equal(chosen.annotations, data.annotations[index])
    assert vectors(annotated=False).select(index).annotations is None
    assert chosen.to(torch.device("cpu")).ids.tolist() == [5, 2]


def test_sums_are_what_they_say() -> None:
    model, data = linear(), vectors()
    slow = sum(
        -float(model(x[None]).detach().log_softmax(1)[0, y]) for x, y in zip(data.inputs, data.labels, strict=True)
    )
    assert math.isclose(float(summed_cross_entropy(model, data).detach()), slow, rel_tol=1e-5)
    twice = data.select(torch.arange(SIZE).repeat(2))
    assert math.isclose(float(summed_cross_entropy(model, twice).detach()), 2 * slow, rel_tol=1e-5)
    assert math.isclose(float(cross_entropy(model, twice).detach()), slow / SIZE, rel_tol=1e-5)
    values = [float(value) for each in model.parameters() for value in each.detach().flatten()]
    assert math.isclose(float(squared_norm(model).detach()), sum(value**2 for value in values), rel_tol=1e-5)
    model.weight.requires_grad_(False)
    assert math.isclose(float(squared_norm(model).detach()), sum(value**2 for value in values[-2:]), rel_tol=1e-5)
