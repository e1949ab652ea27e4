"""Gradients integrated along paths from a baseline to the input."""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import methods
from attribug.query.passes import primitive
from attribug.query.query import Baseline, Query, at_least_one, not_negative


@methods.register(
    "integrated_gradients", uses="path_gradients", conserves=True, paper="Sundararajan et al. 2017, eq. 1"
)
def integrated_gradients(query: Query, *, steps: int = 50, baseline: Baseline = 0.0) -> Tensor:
    """Integrated gradients adds up what each value does to the logit on the way from a baseline to the input.

    (x − b) ⊙ ∫₀¹ ∂F_t(b + α(x − b))/∂x dα: Gauss–Legendre quadrature with `steps` points.

    `baseline`: a number or a tensor that broadcasts to the inputs. Completeness: maps sum to F_t(x) − F_t(b).
    """
    query.promise(query.gains(baseline))
    return (query.inputs - query.at_baseline(baseline)) * query.path_gradients(steps, baseline)


@methods.register(
    "expected_gradients", stochastic=True, uses="expected_gradients", fits_training_data=True,
    paper="Erion et al. 2021, eq. 3",
)  # fmt: skip
def expected_gradients(query: Query, *, samples: int = 50) -> Tensor:
    """Expected gradients shows what each input value adds to the logit, compared with training examples.

    Integrated gradients averaged over baselines from the model's training examples: each of the `samples` has its own
    baseline and its own point on the path, uniform.
    """
    return gradients_from_training_examples(query, samples, 0.0)


@methods.register(
    "gradient_shap", stochastic=True, uses="expected_gradients", fits_training_data=True,
    paper="Lundberg & Lee 2017; SHAP's GradientExplainer with local smoothing",
)  # fmt: skip
def gradient_shap(query: Query, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """Gradient SHAP averages expected gradients over noisy copies of the input.

    Expected gradients at inputs with Gaussian noise, σ = `noise` · (max − min) of the input.
    """
    return gradients_from_training_examples(query, samples, noise)


@primitive
def gradients_from_training_examples(query: Query, samples: int, noise: float) -> Tensor:
    """Mean of (x̃ − b) ⊙ ∇F(b + α(x̃ − b)) over baselines b drawn from the training examples and α uniform in [0, 1),
    (N, *shape) (Erion et al. 2021, eq. 3); x̃: the input, with Gaussian noise of `noise` · (max − min)."""
    at_least_one("samples", samples)
    streams = query.generators("expected_gradients", samples, float(noise))
    not_negative("noise", noise)
    train, spread = query.train_inputs, query.spread(noise)
    choices = torch.stack([torch.randint(len(train), (samples,), generator=stream) for stream in streams])
    alphas = torch.stack([torch.rand(samples, generator=stream, dtype=torch.float32) for stream in streams])
    ones = [1] * (query.inputs.ndim - 1)
    total = torch.zeros_like(query.inputs, dtype=torch.float64)
    for start, index in query.repeated(samples):
        rows = index.to(query.inputs.device)
        numbers = (start + torch.arange(len(index))) % samples
        points = query.noisy(index, streams, spread) if noise else query.exactly(query.inputs[rows])
        baselines = train[choices[index, numbers].to(train.device)].to(points)
        difference = points - baselines
        step = alphas[index, numbers].to(points).reshape(-1, *ones)
        gradient = query.input_gradient(baselines + step * difference, query.targets[rows])
        total.index_add_(0, rows, (difference * gradient).double())
    return query.exactly(total / samples)
