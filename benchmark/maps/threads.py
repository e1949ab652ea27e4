"""How many of torch's threads the passes of a query get.

An operation that is shared out waits for its last thread: where another program has that thread's core, it waits for a
time slice, and a pass has hundreds of operations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from attribug.query.passes import primitive
from attribug.query.query import Query

WORTH_SHARING = 1e8
"""Floating-point operations an example from which several threads may pay. BVD-CNN takes 1.5e7: two idle cores gain 1.4
with two threads, and two that are busy lose tenfold. ResNet-18 takes 3e8 at 64 pixels: they gain 1.7."""
PRODUCTS, SIDE = 8, 384  # a hundredth of a second of one core, longer than the time slices of schedulers


def before_passes(query: Query) -> int:
    """Sets torch to the threads in which a model is looked at: those the query asks for, or one; returns how many there
    were. On a GPU nothing is set but what is asked for."""
    most = torch.get_num_threads()
    if query.threads is not None or query.inputs.device.type == "cpu":
        _set(query.threads or 1)
    return most


def for_passes(query: Query, most: int) -> None:
    """Sets torch to the threads in which the query's passes run: those it asks for, else one or `most`. The model must
    be one that runs, as `preflight` sees to."""
    if query.threads is None and query.inputs.device.type == "cpu":
        _set(1 if most == 1 else _fitting(query, most))


@contextmanager
def one() -> Iterator[None]:
    """One thread of torch's inside, as workers have: to the same bits, and at no loss on a busy machine."""
    most = torch.get_num_threads()
    _set(1)
    try:
        yield
    finally:
        _set(most)


@primitive
def _fitting(query: Query, most: int) -> int:
    """`most` where the model's work is large and a product is faster with them than with one thread, else one."""
    if _operations(query) < WORTH_SHARING:
        return 1
    return most if _seconds_of_products(most) < _seconds_of_products(1) else 1


def _operations(query: Query) -> float:
    """Floating-point operations of the model's products and convolutions, an example; 0 where nobody may watch."""
    pair = query.laid_out(torch.cat(query.specimens()))
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad(), query.at_default_device():
            query.model(pair)
    except Exception:  # of foreign operations, some of which allow no watching: the model itself has run before
        return 0
    return counter.get_total_flops() / len(pair)


def _seconds_of_products(threads: int) -> float:
    """How long some matrix products take, as busy as the machine is."""
    _set(threads)
    matrix = torch.ones(SIDE, SIDE, dtype=torch.float32)
    matrix @ matrix  # wakes the threads
    started = time.perf_counter()
    for _ in range(PRODUCTS):
        matrix @ matrix
    return time.perf_counter() - started


def _set(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
