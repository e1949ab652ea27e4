"""A map over what it explains, as a figure: for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from attribug.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = npt.NDArray[Any]
IMAGES = "an image (C, H, W), (H, W) or, of bytes, (H, W, 3); a sequence (C, L) with a map (L,); or a vector (D,)"
MOST_BARS = 200  # features that still can be told apart in a figure


def show(image: Any, map: Any, *, title: str | None = None, names: Sequence[str] | None = None) -> Figure:
    """A signed map over the grey image that it explains, red for and blue against, as a matplotlib Figure, which a
    notebook shows; `savefig` writes it.

    image: (C, H, W) or (H, W), numbers of any range, shown from the lowest to the highest; bytes as they are, also
    (H, W, 3). map: (C, H, W), summed over channels, or (H, W). Of a vector (D,) and its map (D,) bars, labelled by
    `names`, (D,); of a sequence (C, L) and its map (L,) lines and bars. All may be tensors or arrays. The half percent
    of pixels with the largest absolute values gets full colour. Raises `InputError` for other shapes or no numbers.
    """
    seen, values = _numbers("image", image), _numbers("map", map)
    from attribug.results import shown

    if seen.ndim == 1:
        _expect_map(values, seen.shape, "(D,)")
        return shown.as_bars(values, _labels(seen, names), title)
    if names is not None:
        raise InputError(f"names: expected none but for a vector (D,), found them for an image {seen.shape}")
    if seen.ndim == 2 and values.ndim == 1:
        _expect_map(values, seen.shape[1:], "(L,)")
        return shown.under_sequence(seen, values, title)
    if seen.ndim not in {2, 3}:
        hint = "; image[0] is the first of a batch" if seen.ndim == 4 else ""
        raise InputError(f"image: expected {IMAGES}, found {seen.shape}{hint}")
    picture = _picture(seen, values.shape[-2:])
    if values.ndim == 3:
        values = values.sum(0)
    _expect_map(values, picture.shape[:2], "(H, W) or (C, H, W)")
    return shown.over_picture(picture, values, title)


def _numbers(name: str, value: Any) -> Numbers:
    """Real numbers, at least one: bytes as they are, others as float64."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise InputError(f"{name}: expected a dense tensor, found {value.layout}")
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if not isinstance(value, np.ndarray):
        raise InputError(f"{name}: expected a tensor or an array, found {type(value).__name__}")
    if value.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected real numbers, found {value.dtype} {value.shape}")
    if not value.size:
        raise InputError(f"{name}: expected numbers, found none: {value.shape}")
    return value if value.dtype == np.uint8 and name == "image" else value.astype(np.float64)


def _picture(seen: Numbers, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An image as bytes (H, W, 3); `size`: of its map, which tells bytes (3, H, 3) from (H, W, 3)."""
    if seen.ndim == 3:
        last = seen.dtype == np.uint8 and seen.shape[-1] == 3 and (seen.shape[0] != 3 or seen.shape[:2] == size)
        seen = seen if last else np.moveaxis(seen, 0, -1)
    else:
        seen = seen[..., None]
    if seen.dtype != np.uint8:
        finite = seen[np.isfinite(seen)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        seen = np.clip(np.nan_to_num(seen, nan=low, posinf=high, neginf=low), low, high)
        with np.errstate(over="ignore", invalid="ignore"):
            seen = np.nan_to_num((seen - low) / ((high - low) or 1.0)) * 255
    grey = seen if seen.shape[-1] == 3 else np.repeat(seen.mean(-1, keepdims=True), 3, axis=-1)
    return np.ascontiguousarray(np.round(grey).astype(np.uint8))


def _expect_map(values: Numbers, size: tuple[int, ...], form: str) -> None:
    if values.shape != size:
        raise InputError(f"map: expected {form} of the image's size {size}, found {values.shape}")


def _labels(seen: Numbers, names: Sequence[str] | None) -> list[str]:
    """Name and value of every feature of a vector."""
    if len(seen) > MOST_BARS:
        raise InputError(f"image: expected a vector of at most {MOST_BARS} features to show, found {len(seen)}")
    if names is not None and (isinstance(names, str) or len(names) != len(seen)):
        found = repr(names) if isinstance(names, str) else len(names)
        raise InputError(f"names: expected {len(seen)}, one for each feature, found {found}")
    told = [str(number) for number in range(len(seen))] if names is None else names
    return [f"{name} = {value:.3g}".replace("$", r"\$") for name, value in zip(told, seen, strict=True)]
