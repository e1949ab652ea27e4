"""Gradients integrated along paths."""

from __future__ import annotations

from torch import Tensor

from attribug import methods
from attribug.query import Query


@methods.register("integrated_gradients", uses="path_gradients", paper="Sundararajan et al. 2017, eq. 1")
def integrated_gradients(query: Query, *, steps: int = 50) -> Tensor:
    """x ⊙ ∫₀¹ ∂F_t(αx)/∂x dα: baseline zero, Gauss–Legendre quadrature with `steps` points."""
    return query.inputs * query.path_gradients(steps)
