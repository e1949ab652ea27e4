"""Maps that mean nothing: surrogates of a given map, and noise of named laws. What a similarity is calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from attribug.errors import InputError

ITERATIONS = 100  # a cap: noise and small planes settle before, large smooth ones change little after
SPARSE = 0.02  # share of pixels that are not zero

Law = Callable[[Sequence[int], torch.Generator], Tensor]


def iaaft(maps: Tensor, generators: Sequence[torch.Generator], *, iterations: int = ITERATIONS) -> Tensor:
    """Surrogates of maps, of the same shape, float64: exactly their values, nearly their power spectrum, else random.

    maps (N, H, W) or (N, C, H, W), each channel by itself; generators: one an example, read by no other. Iteratively
    refined, amplitude-adjusted Fourier surrogates of Schreiber and Schmitz (1996, Physical Review Letters 77, 635), in
    two dimensions. From r = the values x in random order on, s = F⁻¹(|F x| · F r / |F r|) has the spectrum, and the
    next r, the values of x ranked as s, has the values; it ends there, so that these are exact, when nothing changes or
    after so many iterations. The spectrum is a periodic one: it counts the jump between opposite borders.

    A constant plane is its own surrogate. A plane with NaN or infinite values has no spectrum and becomes NaN. Raises
    `InputError` for maps of another shape, for generators that are not one an example, and for less than one iteration.
    """
    if maps.ndim not in {3, 4}:
        raise InputError(f"surrogates: expected maps (N, H, W) or (N, C, H, W), found {tuple(maps.shape)}")
    if len(generators) != len(maps):
        raise InputError(f"surrogates: expected one generator an example, found {len(generators)} for {len(maps)}")
    if iterations < 1:
        raise InputError(f"surrogates: expected iterations of at least 1, found {iterations}")
    planes = (maps if maps.ndim == 4 else maps[:, None]).detach().double().cpu()  # (N, C, H, W)
    made = torch.empty_like(planes)
    for example, generator in enumerate(generators):  # plane by plane: a batched transform might round otherwise
        for channel, plane in enumerate(planes[example]):
            made[example, channel] = _surrogate(plane, generator, iterations)
    return made.reshape(maps.shape).to(maps.device)


def _surrogate(plane: Tensor, generator: torch.Generator, iterations: int) -> Tensor:
    """One plane's, (H, W)."""
    values = plane.flatten().sort().values
    order = torch.randperm(len(values), generator=generator)  # also where unused: other channels keep their draws
    if not plane.isfinite().all():
        return torch.full_like(plane, torch.nan)
    scale = plane.abs().amax().clamp(min=torch.finfo(plane.dtype).tiny)  # squares of tiny and huge values stay finite
    amplitudes = torch.fft.rfft2(plane / scale).abs()
    surrogate = values[order].reshape(plane.shape)
    for _ in range(iterations):
        phases = torch.fft.rfft2(surrogate / scale).angle()
        coloured = torch.fft.irfft2(torch.polar(amplitudes, phases), s=plane.shape)
        before, surrogate = surrogate, torch.empty_like(values)
        surrogate[torch.from_numpy(np.argsort(coloured.flatten().numpy()))] = (
            values  # NumPy sorts numbers twice as fast
        )
        surrogate = surrogate.reshape(plane.shape)
        if torch.equal(surrogate, before):
            break
    return surrogate


def gaussian(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Independent standard normal values, float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def laplace(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Differences of two independent exponential values: tails heavier than a Gaussian's, kurtosis 6."""
    exponential = torch.empty(2, *shape, dtype=torch.float64).exponential_(generator=generator)
    return exponential[0] - exponential[1]


def student_t3(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Student's t with three degrees of freedom, z₀ / √((z₁² + z₂² + z₃²) / 3): heavy tails, as gradients have."""
    normal = gaussian((4, *shape), generator)
    return normal[0] / normal[1:].square().mean(0).sqrt()


def gaussian_squared(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Squares of Gaussian values: non-negative, like maps of squared gradients."""
    return gaussian(shape, generator).square()


def sparse(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Gaussian values at a share `SPARSE` of all places, else zero."""
    return gaussian(shape, generator) * (torch.rand(*shape, generator=generator) < SPARSE)


def gaussian_1_over_f(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Gaussian values whose amplitudes fall as 1/f, f the spatial frequency, like those of photographs; mean 0."""
    height, width = shape[-2:]
    down, across = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)
    frequency = torch.hypot(down[:, None], across)  # (H, W // 2 + 1)
    frequency[0, 0] = torch.inf  # no mean
    planes: Tensor = torch.fft.irfft2(torch.fft.rfft2(gaussian(shape, generator)) / frequency, s=(height, width))
    return planes


LAWS: dict[str, Law] = {
    "gaussian": gaussian,
    "gaussian 1/f": gaussian_1_over_f,
    "gaussian squared": gaussian_squared,
    "laplace": laplace,
    "sparse": sparse,
    "student t3": student_t3,
}
"""Noise by name: float64 of a shape (…, H, W) from a generator; no value says anything of a model or an image."""
