"""Pieces of plugins that are loaded into this process, and how it is rid of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attribug.plugins import _LOADED, all_registries


@contextmanager
def forgotten() -> Iterator[None]:
    """What plugins register meanwhile is gone afterwards."""
    loaded, before = dict(_LOADED), {kind: registry.registered() for kind, registry in all_registries().items()}
    try:
        yield
    finally:
        for kind, registry in all_registries().items():
            for name in {*registry.registered()} - {*before[kind]} - {*registry.declared()}:
                registry.forget(name)
        _LOADED.clear()
        _LOADED.update(loaded)
