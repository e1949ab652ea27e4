"""What torch and NumPy are set to, as far as numbers depend on it, and how it is put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def settings() -> tuple[Any, ...]:
    """What torch and NumPy are set to, as far as numbers depend on it."""
    return (
        torch.get_default_dtype(),
        _default_device(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        tuple(np.geterr().items()),
    )


def _default_device() -> Any:
    """What `torch.set_default_device` was given, None where it was not; contexts of devices, which end by themselves,
    aside."""
    mode = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    return getattr(mode, "device", None)


def ambient() -> tuple[Any, ...]:
    """Contexts that change what a pass computes; a method may open one around passes of its own."""
    kinds = ("cpu", "cuda")
    casting = [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    return (*casting, torch.get_default_device())


@contextmanager
def ordinary_passes() -> Iterator[None]:
    """Passes in a model's own types, with gradients, whatever autocast, `no_grad`, inference or anomaly mode stand
    around; what a method makes is made on the CPU, whatever the default device."""
    device = torch.get_default_device()
    with contextlib.ExitStack() as entered:
        if device.type != "cpu":
            entered.enter_context(torch.device("cpu"))
        if torch.is_anomaly_enabled():
            entered.enter_context(torch.autograd.set_detect_anomaly(False))
        entered.enter_context(torch.inference_mode(False))
        entered.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                entered.enter_context(torch.autocast(kind, enabled=False))
        yield


def restore_settings(before: tuple[Any, ...]) -> None:
    """Sets torch and NumPy to what `settings` has told before."""
    if settings() == before:  # setting is slow
        return
    dtype, device, threads, deterministic, warn_only, precision, benchmark, tf32, floats = before
    torch.set_default_dtype(dtype)
    if _default_device() != device:
        torch.set_default_device(device)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    np.seterr(**dict(floats))


@contextmanager
def settings_restored() -> Iterator[None]:
    """Puts torch's and NumPy's settings back as they were, also after an exception: foreign code may leave others."""
    before = settings()
    try:
        yield
    finally:
        restore_settings(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a run: torch with one thread, because two change last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reproducible(device: str) -> None:
    """Settings of a worker, for good: one thread, since two change last bits; on a GPU, the same numbers every time."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.use_deterministic_algorithms(True, warn_only=True)
