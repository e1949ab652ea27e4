"""Fix: deep feature reweighting; the last layer is fitted anew where the shortcut tells nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attribug import fixes, keys
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Examples
from attribug.contracts.models import Derived, ModelSpec
from attribug.contracts.tasks import Level, Task
from attribug.errors import Unsupported
from attribug.fixes.materials import activations, at_least, contaminated, groups, held_out, last_dense, tried, untrained

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C, the inverse of the penalty, as in the authors' code
TOLERANCE, MOST_STEPS = 1e-3, 5000
FEWEST = 5  # examples of a group that can be drawn from
Array = NDArray[np.float64]


@fixes.register(
    "dfr", needs=("balanced data", "groups"), paper="Kirichenko et al. 2023, section 4.1 (DFR on validation)"
)
def dfr(
    task: Task, contrast: Contrast, level: Level, seed: int, seeds: Sequence[int], *, draws: int = 10, c: float = 0.0
) -> ModelSpec:
    """DFR fits the last layer again, on held-out examples in which every group counts alike.

    The contaminated model, whose last layer `refit` fits on held-out examples.

    `draws`: of as many examples from each group, or, where a group has fewer than five, from each label, since the
    shortcut tells nothing there anyway; their fits are averaged. `c`: the inverse of the L1 penalty; 0: the one of
    `STRENGTHS` at which the worst group (or label) of one half of the examples is best told after a fit on the other.
    """
    at_least("dfr", "draws", draws, 1)
    at_least("dfr", "c", c, 0)
    model = contaminated(contrast)
    network = untrained(model)
    outputs = network.get_submodule(last_dense(network, tried(task.shape))).out_features
    if outputs != len(task.classes):
        raise Unsupported(f"expected an output for each of {len(task.classes)} classes, found {outputs}")
    found = keys.versions("scikit-learn")
    change = partial(refit, examples=held_out(contrast, "balanced"), draws=draws, c=c, versions=found)
    return Derived(model, change, seed)


def refit(
    model: nn.Module, stream: torch.Generator, *, examples: Examples, draws: int, c: float, versions: dict[str, str]
) -> None:
    """Puts an L1 logistic regression of the labels on standardised embeddings into the last layer's weights and bias.

    Of two classes, whose regression has one function, each gets half of it, one of them with its sign turned.
    `versions` only tell content keys who fitted.
    """
    model.eval()
    data = examples.load()
    name = last_dense(model, data.inputs)
    dense: Any = model.get_submodule(name)
    found = activations(model, name, data.inputs).double().numpy()  # (N, H)
    labels = data.labels.numpy()
    expect_all(labels, dense.out_features)
    of = drawn_from(labels, groups(data).numpy())
    middle, spread = found.mean(0), found.std(0)
    spread[spread == 0] = 1.0
    scaled = (found - middle) / spread
    strength = c or chosen_strength(scaled, labels, of, stream)
    fits = [fitted(scaled[rows], labels[rows], strength) for rows in balanced(of, stream, draws)]
    weight, bias = (np.mean(each, axis=0) for each in zip(*fits, strict=True))
    weight = weight / spread
    bias = bias - weight @ middle
    write(dense, weight, bias)


def expect_all(labels: NDArray[np.int64], classes: int) -> None:
    """Raises `Unsupported` where a class has fewer than two examples, which cannot be halved."""
    least = int(np.bincount(labels, minlength=classes).min())
    if least < 2:
        raise Unsupported(f"expected two balanced held-out examples or more of every class, found {least} of one")


def drawn_from(labels: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """What draws are to be balanced over, (N,): groups, or labels where a group has fewer than `FEWEST` examples."""
    return of if np.unique(of, return_counts=True)[1].min() >= FEWEST else labels


def write(dense: nn.Module, weight: Array, bias: Array) -> None:
    """Puts functions (K, H), (K,) into a layer; one function, of two classes, as its half and the half's negative."""
    layer: Any = dense
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if tuple(layer.weight.shape) != weight.shape or layer.bias is None:
        raise ValueError(
            f"expected a last layer with a bias for {len(weight)} classes, got {tuple(layer.weight.shape)}"
        )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def balanced(of: NDArray[np.int64], stream: torch.Generator, draws: int) -> list[NDArray[np.int64]]:
    """For each draw, rows in which every group occurs as often as the smallest one, without repetition."""
    members = [np.flatnonzero(of == group) for group in np.unique(of)]
    size = min(map(len, members))
    return [np.concatenate([_shuffled(rows, stream)[:size] for rows in members]) for _ in range(draws)]


def chosen_strength(scaled: Array, labels: NDArray[np.int64], of: NDArray[np.int64], stream: torch.Generator) -> float:
    """The first of `STRENGTHS` at which the worst group is best told; each group is halved at random."""
    members = [_shuffled(np.flatnonzero(of == group), stream) for group in np.unique(of)]
    one, other = (np.concatenate([rows[half::2] for rows in members]) for half in (0, 1))
    (rows,) = balanced(of[one], stream, 1)
    classes = np.unique(labels[one][rows])  # what scikit-learn's functions are of
    scores = []
    for strength in STRENGTHS:
        weight, bias = fitted(scaled[one][rows], labels[one][rows], strength)
        found = scaled[other] @ weight.T + bias
        told = found.argmax(1) if len(weight) > 1 else (found[:, 0] > 0).astype(np.int64)
        right = classes[told] == labels[other]
        scores.append(min(float(right[of[other] == group].mean()) for group in np.unique(of[other])))
    return STRENGTHS[int(np.argmax(scores))]


def fitted(scaled: Array, labels: NDArray[np.int64], strength: float) -> tuple[Array, Array]:
    """Weights (K, H) and biases (K,) of scikit-learn's L1 logistic regression; one function of two classes."""
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(
        C=strength, l1_ratio=1.0, solver="saga", tol=TOLERANCE, max_iter=MOST_STEPS, random_state=0
    )
    regression.fit(scaled, labels)
    return regression.coef_, regression.intercept_


def _shuffled(rows: NDArray[np.int64], stream: torch.Generator) -> NDArray[np.int64]:
    order: NDArray[np.int64] = torch.randperm(len(rows), generator=stream).numpy()
    shuffled: NDArray[np.int64] = rows[order]
    return shuffled
