"""Directions in which a layer's activations tell a shortcut apart, whatever the label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attribug.contracts.data import Data
from attribug.errors import Unsupported
from attribug.fixes.materials import activations, groups
from attribug.streams import generator

EXPLAINED = 0.9  # of the scatter of means, where nobody says how many directions
PERMUTED, PERCENTILE = 20, 0.95  # of a parallel analysis


def concept(model: nn.Module, layer: str, data: Data, count: int) -> tuple[Tensor, Tensor]:
    """Directions (H, d) of a shortcut at a layer's inputs, orthonormal, and the mean of all activations, (H,); float64
    on the CPU. See `patterns`."""
    found = activations(model, layer, data.inputs).double()
    return patterns(found, data.labels.cpu(), groups(data).cpu(), count), found.mean(0)


def patterns(found: Tensor, labels: Tensor, of: Tensor, count: int = 0) -> Tensor:
    """Orthonormal directions (H, d) that tell what the shortcut says, by activations (N, H), labels (N,) and groups
    (N,).

    Of one shortcut that is there or not, and one label, it is the pattern-CAV of Pahde et al. (2022), the regression of
    activations on the concept: the difference of both means. Elsewhere it is what the means of `told` lie along, of
    activations around the mean of their label, √n_v m_v: the first `count` singular vectors, as far as there are so
    many. Where `count` is 0, as many as hold nine tenths of that scatter and are longer than chance makes them (Horn's
    parallel analysis: 95 % of what is told in a random order within each label), maybe none. Raises `Unsupported` where
    label and shortcut are one.
    """
    centred, values = found.clone(), told(labels, of)
    for label in labels.unique():
        centred[labels == label] -= found[labels == label].mean(0)
    _, sizes, vectors = torch.linalg.svd(scatter(centred, values), full_matrices=False)
    if not float(sizes[0]) > 1e-9 * float(found.norm()):
        raise Unsupported("expected labels whose examples are of several groups, found one group a label")
    needed = count or min(explaining(sizes), above_chance(sizes, centred, labels, values))
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    along: Tensor = vectors[: min(needed, rank)].T.contiguous()
    return along


def told(labels: Tensor, of: Tensor) -> Tensor:
    """What the shortcut says of examples, (N,) int64, by labels and groups, label · values + what is said.

    It is the group itself where there are two values or fewer, which may tell whether a label's own mark is there, and
    so mean another mark for every label; and where groups are numbered otherwise.
    """
    values = int((of // (labels + 1)).max()) + 1  # the least of which all that is said is below
    if values <= 2 or not torch.equal(of // values, labels):
        return of
    return of - labels * values


def scatter(centred: Tensor, values: Tensor) -> Tensor:
    """√n_v m_v of activations (N, H) by their values (N,), (V, H)."""
    members = (values[None] == values.unique()[:, None]).to(centred)  # (V, N)
    means: Tensor = (members @ centred) / members.sum(1, keepdim=True).sqrt()
    return means


def explaining(sizes: Tensor) -> int:
    """How many singular values hold `EXPLAINED` of the sum of squares."""
    held = sizes.square().cumsum(0) / sizes.square().sum()
    return int((held < EXPLAINED).sum()) + 1


def above_chance(sizes: Tensor, centred: Tensor, labels: Tensor, values: Tensor) -> int:
    """How many singular values, from the largest on, are above the `PERCENTILE` of their like, where values are
    permuted within each label."""
    stream = generator("concepts", "permuted", len(labels))
    rows = [(labels == label).nonzero().flatten() for label in labels.unique()]
    drawn = []
    for _ in range(PERMUTED):
        other = values.clone()
        for members in rows:
            other[members] = values[members[torch.randperm(len(members), generator=stream)]]
        drawn.append(torch.linalg.svdvals(scatter(centred, other)))
    chance = torch.stack(drawn).quantile(PERCENTILE, dim=0)
    return int((sizes > chance).long().cumprod(0).sum())
