"""Examples that come as arrays: from a file of NumPy's or safetensors, or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug.contracts.shapes import KINDS
from attribug.errors import InputError, near_misses, one_line
from attribug.tasks.folders import Prepared
from attribug.tasks.masks import OBJECT, in_order

SUFFIXES = (".npz", ".safetensors")
NAMES = ("inputs", "labels", "masks", "features")
"""What a file may hold: (N, *shape); (N,) whole numbers; (N, *spatial), not 0 where the object is; names of a vector's
entries."""
REGION = "masks_"
"""Before the name of a region, in the name of its masks."""


def read(place: str | Path) -> Prepared:
    """The examples of a file. Raises `InputError` where it is no such file, or holds something else."""
    path = Path(place)
    try:
        held = _tensors(path) if path.suffix == ".safetensors" else _arrays(path)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise InputError(f"data {path}: expected arrays in a file {path.suffix}: {one_line(error)}") from error
    for name in held:
        if name not in NAMES and not (name.startswith(REGION) and name != REGION):
            known = ", ".join((*NAMES, f"{REGION}NAME"))
            raise InputError(f"data {path}: expected arrays named {known}, found {name!r}{_close(name)}")
    if "inputs" not in held:
        raise InputError(f"data {path}: expected an array 'inputs', found {', '.join(held) or 'none'}")
    return given(held, str(path))


def of_python(data: Any) -> Prepared:
    """The examples of inputs, or of (inputs, labels): tensors, arrays or a table. Raises `InputError`."""
    pair = isinstance(data, tuple) and len(data) == 2
    inputs, labels = data if pair else (data, None)
    held = {"inputs": inputs} if labels is None else {"inputs": inputs, "labels": labels}
    if isinstance(data, list) and len(data) == 2 and all(hasattr(part, "shape") for part in data):
        raise InputError("data: expected inputs, or a tuple (inputs, labels), found a list of two arrays")
    if hasattr(inputs, "columns"):
        try:
            held["inputs"] = inputs.to_numpy(dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"data: expected a table of numbers: {one_line(error)}") from error
        held["features"] = [str(name) for name in inputs.columns]
    return given(held, "")


def given(held: Mapping[str, Any], where: str) -> Prepared:
    """Arrays by name as examples; `where`: of whom a message speaks."""
    place = f"data {where}".rstrip()
    inputs = _numbers(held["inputs"], f"{place}: inputs")
    if inputs.ndim not in KINDS or not len(inputs):
        found = f"shape {tuple(inputs.shape)}"
        raise InputError(f"{place}: inputs: expected (N, C, H, W), (N, C, L) or (N, D), found {found}")
    if not bool(inputs.isfinite().all()):
        raise InputError(f"{place}: inputs: expected finite numbers, found NaN or infinity")
    labels = _labels(held.get("labels"), len(inputs), place)
    features = tuple(str(name) for name in np.asarray(held.get("features", ())).tolist())
    if features and inputs.shape[1:] != (len(features),):
        raise InputError(f"{place}: features: expected {tuple(inputs.shape[1:])} names, found {len(features)}")
    regions = mask_arrays(_regions(held, place), inputs, f"{place}: masks")
    names = tuple(str(number) for number in range(len(inputs)))
    return Prepared(inputs.float(), (), names, (), labels, regions=regions, features=features)


def _regions(held: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Masks by the name of their region, of arrays by theirs."""
    named = {name.removeprefix(REGION): held[name] for name in sorted(held) if name.startswith(REGION)}
    if held.get("masks") is None:
        return named
    if OBJECT in named:
        raise InputError(f"{place}: masks: expected masks or {REGION}{OBJECT}, which are the same, found both")
    return {OBJECT: held["masks"], **named}


def mask_arrays(masks: Any, inputs: Tensor, what: str) -> dict[str, Tensor]:
    """Masks by region, (N, *spatial), bool, the main one first: those of a mapping, or an array, whose region is
    `object`. `what`: of what a message speaks. Raises `InputError` for other names than texts, and other sizes."""
    if not isinstance(masks, Mapping):
        return {OBJECT: mask_array(masks, inputs, what)}
    for name in masks:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{what}: expected the names of regions, texts, found {name!r}")
    called = {name: what if name == OBJECT else f"{what} of {name}" for name in in_order(masks)}
    return {name: mask_array(masks[name], inputs, called[name]) for name in called}


def mask_array(masks: Any, inputs: Tensor, what: str) -> Tensor:
    """Masks as (N, *spatial), bool. Raises `InputError` for another size."""
    found = _numbers(masks, what) != 0
    spatial = inputs.shape[2:] if inputs.ndim > 2 else inputs.shape[1:]
    if found.ndim == len(spatial) + 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.shape != (len(inputs), *spatial):
        raise InputError(f"{what}: expected {(len(inputs), *spatial)}, found {tuple(found.shape)}")
    return found


def _numbers(values: Any, what: str) -> Tensor:
    try:
        found = values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(np.array(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what}: expected numbers: {one_line(error)}") from error
    if found.is_complex():
        raise InputError(f"{what}: expected real numbers, found {found.dtype}")
    return found


def _labels(labels: Any, count: int, place: str) -> tuple[int, ...]:
    if labels is None:
        return ()
    found = _numbers(labels, f"{place}: labels")
    whole = found.numel() == 0 or not found.is_floating_point() or bool((found == found.round()).all())
    whole = whole and bool(found.isfinite().all())
    if found.shape != (count,) or not whole or bool((found < 0).any()):
        shape = f"{tuple(found.shape)}, {found.dtype}"
        raise InputError(f"{place}: labels: expected ({count},) whole numbers from 0, found {shape}")
    return tuple(int(label) for label in found)


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def _close(name: str) -> str:
    close = near_misses(name, NAMES)
    return close if "did you mean" in close else ""
