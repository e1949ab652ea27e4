"""Gradients integrated along paths from a baseline to the input."""

from __future__ import annotations

from torch import Tensor

from attribug import methods
from attribug.query.query import Baseline, Query


@methods.register(
    "integrated_gradients", uses="path_gradients", conserves=True, paper="Sundararajan et al. 2017, eq. 1"
)
def integrated_gradients(query: Query, *, steps: int = 50, baseline: Baseline = 0.0) -> Tensor:
    """(x − b) ⊙ ∫₀¹ ∂F_t(b + α(x − b))/∂x dα: Gauss–Legendre quadrature with `steps` points.

    `baseline`: a number or a tensor that broadcasts to the inputs. Completeness: maps sum to F_t(x) − F_t(b).
    """
    query.promise(query.gains(baseline))
    return (query.inputs - query.at_baseline(baseline)) * query.path_gradients(steps, baseline)


@methods.register(
    "expected_gradients", stochastic=True, uses="expected_gradients", fits_training_data=True,
    paper="Erion et al. 2021, eq. 3",
)  # fmt: skip
def expected_gradients(query: Query, *, samples: int = 50) -> Tensor:
    """Integrated gradients averaged over baselines from the model's training examples: each of the `samples` has its
    own baseline and its own point on the path, uniform."""
    return query.expected_gradients(samples, 0.0)


@methods.register(
    "gradient_shap", stochastic=True, uses="expected_gradients", fits_training_data=True,
    paper="Lundberg & Lee 2017; SHAP's GradientExplainer with local smoothing",
)  # fmt: skip
def gradient_shap(query: Query, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """Expected gradients at inputs with Gaussian noise, σ = `noise` · (max − min) of the input."""
    return query.expected_gradients(samples, noise)
