"""Gradients at the input itself."""

from __future__ import annotations

from torch import Tensor

from attribug import methods
from attribug.query.query import Query


@methods.register("gradient", uses="gradient", paper="Simonyan et al. 2014; Baehrens et al. 2010")
def gradient(query: Query) -> Tensor:
    """The gradient shows how the class's logit would change if an input value were a little larger.

    ∂F_t/∂x of the target's logit, signed.
    """
    return query.gradient()


@methods.register("input_x_gradient", uses="gradient", paper="Shrikumar et al. 2016")
def input_x_gradient(query: Query) -> Tensor:
    """Input × gradient multiplies each input value by the gradient of the class's logit there.

    x ⊙ ∂F_t/∂x.
    """
    return query.inputs * query.gradient()
