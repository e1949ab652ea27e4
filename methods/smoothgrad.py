"""Statistics of gradients under input noise; the four share their passes when samples and noise agree."""

from __future__ import annotations

from torch import Tensor

from attribug import methods
from attribug.query.query import Query


@methods.register("smoothgrad", stochastic=True, uses="noisy_gradients", paper="Smilkov et al. 2017, eq. 2")
def smoothgrad(query: Query, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """SmoothGrad averages the gradient over noisy copies of the input.

    Mean of signed gradients at noisy inputs, σ = noise · (max − min) of the input.
    """
    return query.noisy_gradients(samples, noise).mean


@methods.register("smoothgrad_squared", stochastic=True, uses="noisy_gradients", paper="Hooker et al. 2019, section 4")
def smoothgrad_squared(query: Query, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """SmoothGrad squared averages the gradient's squares over noisy copies of the input, so no sign is left.

    Mean of squared gradients at noisy inputs.
    """
    return query.noisy_gradients(samples, noise).mean_square


@methods.register(
    "smoothgrad_then_square", stochastic=True, uses="noisy_gradients", paper="Adebayo et al. 2020, appendix"
)
def smoothgrad_then_square(query: Query, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """This variant squares SmoothGrad's average, where SmoothGrad squared averages the squares.

    Square of SmoothGrad's mean: what some papers' words say where their code takes the mean of squares.
    """
    return query.noisy_gradients(samples, noise).mean.square()


@methods.register("vargrad", stochastic=True, uses="noisy_gradients", paper="Adebayo et al. 2018, appendix")
def vargrad(query: Query, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """VarGrad shows how much the gradient varies between noisy copies of the input.

    Variance (divided by the number of samples) of gradients at noisy inputs.
    """
    return query.noisy_gradients(samples, noise).variance
