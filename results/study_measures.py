"""Studies over many models: what the maps of models that differ on purpose say about a method, whatever the bug.

Over fold-models, MeGe and ReCo ask whether maps agree where models agree. Over models with random parameters, sMPRT and
eMPRT ask whether maps notice. NaN stands for undefined: it is counted in `undefined` and left out of means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from attribug.results.schema import TableError
from attribug.results.statistics import UNDEFINED, Floats, Integers

if TYPE_CHECKING:
    from attribug.results.statistics import Flags

BINS = 100
"""Of eMPRT's histogram (Hedström et al. 2023, section 4)."""
PERMUTATIONS = 200
"""Whose mean is the ReCo that chance alone gives."""
ROUNDING = 1e-9
"""A correlation this near to ±1, or beyond it, is ±1: last bits must not tell equal maps apart."""


def distance(similarity: npt.ArrayLike, *, signed: bool = False) -> Floats:
    """How far apart two maps of one image are, from Spearman's ρ in [−1, 1]; the same shape, NaN stays NaN.

    √(1 − |ρ|) in [0, 1] (Fel et al. 2022, section 3): a map and its negative are the same. `signed`, ours: √(1 − ρ) in
    [0, √2], which differs from the published distance by negative correlations alone; unrelated maps are 1 apart in
    both. Raises `TableError` for a correlation beyond ±1.
    """
    rho = np.asarray(similarity, np.float64)
    beyond = np.abs(rho) > 1 + ROUNDING
    if beyond.any():
        raise TableError(f"expected correlations in [-1, 1], found {rho[beyond].flat[0]:g}")
    apart = 1 - (rho if signed else np.abs(rho))
    distances: Floats = np.sqrt(np.where(apart < ROUNDING, 0, apart))
    return distances


def fold_pairs(correct: npt.ArrayLike, fold: npt.ArrayLike) -> tuple[Flags, Flags]:
    """Which pairs of fold-models belong to S⁼ and which to S≠, two masks (N, K − 1).

    A pair is a model that was not trained on image n, and one that was: column j stands for the j-th of all models but
    `fold[n]`, in ascending order. S⁼: both are correct; S≠: exactly one is (Fel et al. 2022, eqs. 3 and 4; that one
    of the two must have held the image out: section 3 and the authors' code).

    Args:
        correct: whether model k gives image n its label, bool (K, N), K ≥ 2.
        fold: the model that was not trained on image n, (N,) in [0, K).

    Raises:
        TableError: shapes that do not fit, or a fold that no model stands for.
    """
    right, held_out = np.asarray(correct, np.bool_), np.asarray(fold, np.int64)
    if right.ndim != 2 or len(right) < 2 or held_out.shape != right.shape[1:]:
        found = f"found {right.shape} and {held_out.shape}"
        raise TableError(f"expected correct (K, N) of at least two models and fold (N,), {found}")
    if len(held_out) and not 0 <= held_out.min() <= held_out.max() < len(right):
        raise TableError(f"expected folds in [0, {len(right)}), found {held_out.min()} to {held_out.max()}")
    images = np.arange(len(held_out))
    first = right[held_out, images][:, None]  # (N, 1)
    second = right[other_models(held_out, len(right)), images[:, None]]  # (N, K − 1)
    return first & second, first ^ second


def other_models(fold: npt.ArrayLike, models: int) -> Integers:
    """All models but `fold[n]` in ascending order, (N,) → (N, models − 1)."""
    columns = np.arange(models - 1)
    others: Integers = columns + (columns >= np.asarray(fold, np.int64)[:, None])
    return others


def mege(same: npt.ArrayLike, *, signed: bool = False) -> float:
    """Mean generalisability 1 / (1 + mean distance) over S⁼ (Fel et al. 2022, section 3).

    In [½, 1], signed in [.414, 1]; 1: maps do not depend on who was trained on the image, nor perhaps on the model at
    all. `same`: Spearman's ρ of the pairs in S⁼, any shape; NaN if none is defined.
    """
    return 1 / (1 + mean(distance(same, signed=signed)))


def reco(same: npt.ArrayLike, different: npt.ArrayLike, *, signed: bool = False) -> float:
    """Relative consistency: the largest TPR + TNR − 1 of a threshold γ that calls pairs `same` where their distance is
    at most γ (Fel et al. 2022, section 3; the authors' code tries some twenty γ, this function all that matter).

    In [0, 1]; 0: maps of models that contradict each other are as close as those of models that agree. It is a maximum,
    so chance alone gives more than 0: see `reco_by_chance`. `same`, `different`: Spearman's ρ of the pairs in S⁼ and
    S≠, any shape; NaN if none of one kind is defined.
    """
    return _separation(distance(same, signed=signed), distance(different, signed=signed))


def reco_by_chance(similarity: npt.ArrayLike, same: Flags, different: Flags, *, signed: bool = False) -> float:
    """The ReCo to expect of maps that do not know which models are correct; ours.

    Mean over permutations that give each image's distances the places in S⁼ and S≠ of another image, so that pairs of
    one image, which share a map, stay together. Shapes (N, K − 1), as `fold_pairs`; NaN where `reco` is.
    """
    rho = np.asarray(similarity, np.float64)
    if np.isnan(reco(rho[same], rho[different])):
        return np.nan
    distances, stream = distance(rho, signed=signed), np.random.default_rng(0)
    orders = [stream.permutation(len(distances)) for _ in range(PERMUTATIONS)]
    return mean([_separation(distances[order][same], distances[order][different]) for order in orders])


def _separation(same: Floats, different: Floats) -> float:
    same, different = np.sort(_defined(same)), np.sort(_defined(different))
    if not len(same) or not len(different):
        return np.nan
    thresholds = np.concatenate([same, different])
    true_positives = np.searchsorted(same, thresholds, side="right") / len(same)
    false_positives = np.searchsorted(different, thresholds, side="right") / len(different)
    return max(0.0, float((true_positives - false_positives).max()))  # 0: a threshold below every distance


@dataclass(frozen=True)
class Stability:
    """What fold-models say about a method."""

    mege: float
    mege_signed: float
    reco: float
    reco_signed: float
    reco_chance: float
    """See `reco_by_chance`, unsigned."""
    undefined: float
    """Share of the pairs in S⁼ and S≠ without a similarity."""
    reason: str
    """Why a number is missing, or that more than 10 % of the pairs are undefined; else empty."""


def stability(similarity: npt.ArrayLike, same: Flags, different: Flags) -> Stability:
    """MeGe and ReCo of Spearman's ρ between the maps of every pair; shapes (N, K − 1), as `fold_pairs`.

    Raises `TableError` for other shapes, correlations beyond ±1, or a pair in both S⁼ and S≠.
    """
    rho = np.asarray(similarity, np.float64)
    if not rho.shape == same.shape == different.shape or rho.ndim != 2:
        raise TableError(f"expected three arrays (N, K - 1), found {rho.shape}, {same.shape} and {different.shape}")
    if (same & different).any():
        raise TableError("expected pairs in one of S= and S≠, found one in both")
    undefined = _share_undefined(rho[same | different])
    reasons = [
        _none_reason(rho[same], "pair of models that are both correct"),
        _none_reason(rho[different], "pair of models of which exactly one is correct"),
        _undefined_reason(undefined),
    ]
    return Stability(
        mege=mege(rho[same]),
        mege_signed=mege(rho[same], signed=True),
        reco=reco(rho[same], rho[different]),
        reco_signed=reco(rho[same], rho[different], signed=True),
        reco_chance=reco_by_chance(rho, same, different),
        undefined=undefined,
        reason="; ".join(filter(None, reasons)),
    )


@dataclass(frozen=True)
class Randomisation:
    """Similarity of maps before and after layers were randomised."""

    smprt: float
    """Mean over the layers; the lower, the more maps depend on the parameters."""
    sem: float
    """SD over models of their mean over layers / √models; NaN with one model."""
    layers: tuple[float, ...]
    """Mean over images, then models, with the bottom 1, 2, … layers randomised."""
    undefined: float
    """Share of similarities that are undefined."""
    reason: str


def smprt(similarity: npt.ArrayLike) -> Randomisation:
    """Smooth MPRT: mean over layers of ρ(1/N Σᵢ Φ(x + ηᵢ, f), 1/N Σᵢ Φ(x + ηᵢ, f̂ₗ)), f̂ₗ with the bottom l layers
    randomised (Hedström et al. 2023, section 4; bottom-up, because top-down keeps the order of what lies below).

    In the metric's bounds. A layer without a defined similarity leaves `smprt` NaN.

    Args:
        similarity: of the averaged maps, (models, layers, images); NaN is undefined (a constant map).

    Raises:
        TableError: another shape, or an empty one.
    """
    values = np.asarray(similarity, np.float64)
    if values.ndim != 3 or not values.size:
        raise TableError(f"expected similarities (models, layers, images), found {values.shape}")
    by_layer = _mean(values, axis=2)  # (models, layers)
    layers = _mean(by_layer, axis=0)
    undefined = _share_undefined(values)
    empty = ", ".join(str(number) for number, similar in enumerate(layers, 1) if np.isnan(similar))
    return Randomisation(
        smprt=float(layers.mean()),
        sem=_standard_error(by_layer.mean(1)),
        layers=tuple(layers.tolist()),
        undefined=undefined,
        reason="; ".join(filter(None, [empty and f"no similarity in layer {empty}", _undefined_reason(undefined)])),
    )


def entropy(maps: npt.ArrayLike, bins: int = BINS) -> Floats:
    """ξ, the entropy in nats of each map's histogram of `bins` equal bins from its least to its largest value, (N, …) →
    (N,), in [0, ln bins]; a constant map has 0, one with NaN or infinite values NaN.

    Hedström et al. 2023, section 4. Adding to a map or scaling it changes nothing.
    """
    values = np.asarray(maps, np.float64)
    return np.array([_entropy(row, bins) for row in values.reshape(len(values), -1)])


def _entropy(values: Floats, bins: int) -> float:
    if not np.isfinite(values).all():
        return np.nan
    low, high = values.min(), values.max()
    if low == high:
        return 0.0
    unit = (values - low) / (high - low)  # NumPy refuses to cut a range of a few last bits into bins
    counts = np.histogram(unit, bins, range=(0, 1))[0]
    return float(entr(counts / counts.sum()).sum())


def emprt(original: npt.ArrayLike, randomised: npt.ArrayLike, bins: int = BINS) -> Floats:
    """Efficient MPRT: (ξ(ê) − ξ(e)) / ξ(e), the relative rise of a map's entropy ξ when all parameters are randomised,
    (N, …) twice → (N,) (Hedström et al. 2023, section 4).

    At least −1, which is a map that became constant; 0: nothing changed. NaN where the original map is constant or
    either holds NaN or infinite values. Raises `TableError` for two shapes.
    """
    before, after = np.asarray(original, np.float64), np.asarray(randomised, np.float64)
    if before.shape != after.shape:
        raise TableError(f"expected maps of one shape, found {before.shape} and {after.shape}")
    old, new = entropy(before, bins), entropy(after, bins)
    rises: Floats = np.divide(new - old, old, out=np.full(len(old), np.nan), where=old > 0)
    return rises


@dataclass(frozen=True)
class Rise:
    """eMPRT over models and images."""

    emprt: float
    """Mean over images, then models; the higher, the more maps depend on the parameters."""
    se: float
    """SD over images of their mean over models / √images."""
    sem: float
    """SD over models of their mean over images / √models; NaN with one model."""
    undefined: float
    """Share of rises that are undefined."""
    reason: str


def rise(rises: npt.ArrayLike) -> Rise:
    """Mean and standard errors of `emprt`'s rises, (models, images); raises `TableError` for another or empty shape."""
    values = np.asarray(rises, np.float64)
    if values.ndim != 2 or not values.size:
        raise TableError(f"expected rises (models, images), found {values.shape}")
    of_models = _mean(values, axis=1)
    undefined = _share_undefined(values)
    return Rise(
        emprt=float(_mean(of_models, axis=0)),
        se=_standard_error(_mean(values, axis=0)),
        sem=_standard_error(of_models),
        undefined=undefined,
        reason=_undefined_reason(undefined),
    )


def mean(values: npt.ArrayLike) -> float:
    """Mean of what is defined, of any shape; NaN if nothing is."""
    defined = _defined(np.asarray(values, np.float64))
    return float(defined.mean()) if len(defined) else np.nan


def _defined(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _share_undefined(values: Floats) -> float:
    return float(np.isnan(values).mean()) if values.size else 0.0


def _none_reason(values: Floats, what: str) -> str:
    if len(_defined(values)):
        return ""
    return f"no defined {what}" if len(values) else f"no {what}"


def _undefined_reason(share: float) -> str:
    return f"undefined {100 * share:.3g} %" if share > UNDEFINED else ""


def _mean(values: Floats, axis: int) -> Floats:
    """Mean of what is defined along an axis; nothing defined is NaN."""
    count = (~np.isnan(values)).sum(axis)
    total = np.nansum(values, axis)
    means: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def _standard_error(values: Floats) -> float:
    """SD (ddof 1) / √n of what is defined of (n,); NaN for fewer than two."""
    defined = _defined(values)
    return float(defined.std(ddof=1) / np.sqrt(len(defined))) if len(defined) > 1 else np.nan
