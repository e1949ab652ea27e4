"""Kinds of stored artefacts, and the code that the content key of each covers: what determines its numbers.

Beside this code a key holds what the artefact is made of: examples of the function that builds them and its parameters;
models of their examples, recipe and seed; and so on up. docs/keys.md shows which modules that comes to.
"""

from __future__ import annotations

import functools

from attribug import sources

Definitions = tuple[str, ...]
"""A module, then names of definitions in it."""

WORKER: Definitions = ("attribug.query.settings", "reproducible")
"""A worker's settings of torch."""
CODE: dict[str, tuple[Definitions, ...]] = {
    "examples": (),
    "model": (("attribug.models.training", "trained"), WORKER),
    "derived model": (("attribug.models.training", "derived"),),
    "check": (("attribug.models.checks", "figure", "tested"), ("attribug.models.lab", "Lab"), WORKER),
    "trial": (("attribug.models.trials", "figures"), ("attribug.models.lab", "Lab"), WORKER),
    "record": (("attribug.scores.blocks", "score_block"), WORKER),
    "kept map": (("attribug.maps.asked", "asked"), ("attribug.maps.kept", "explained", "KeptMaps"), WORKER),
    "table": (("attribug.tables.writing", "write"),),
}
"""By kind: the definitions from which everything else is reached."""


@functools.cache
def code(kind: str) -> tuple[str, ...]:
    """Digests of the code that the key of a kind of artefact covers."""
    return tuple(sources.code(module, *names) for module, *names in CODE[kind])


def modules(kind: str) -> list[str]:
    """Names of the modules that the key of a kind of artefact covers, whatever it is made of."""
    return sorted({module for root, *names in CODE[kind] for module in sources.covered(root, *names)})
