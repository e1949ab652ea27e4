"""The noise that a given model's weights bear: searched for once, then read from the cache."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attribug import keys
from attribug.data_places import cache_folder
from attribug.models import perturbed
from attribug.models.perturbed import Perturbation

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.models import Given

SEARCH = (perturbed.largest, perturbed.perturb)
"""The code that noise depends on."""


def noise(spec: Given, inputs: Tensor, draws: Sequence[int]) -> Perturbation:
    """The largest noise under which a model still predicts nearly what it does on `inputs` (N, *shape): see
    `attribug.models.perturbed.largest`, which raises `Unsupported` where there is none."""
    rule = (perturbed.AGREEMENT, perturbed.VARIATION, perturbed.MARGIN, perturbed.STEPS)
    name = keys.digest("noise", spec, inputs, tuple(draws), rule, SEARCH, keys.version("torch"))
    path = cache_folder() / "given" / f"{name}.json"
    stored = _stored(path)
    if stored is None:
        stored = perturbed.largest(spec.source().eval(), spec, inputs, draws)
        _store(path, stored)
    return stored


def in_words(found: Perturbation) -> str:
    """What the noise does, in a line."""
    return (
        f"control: copies whose weights are multiplied by 1 + {found.sigma:.3g}·N(0, 1): they agree on "
        f"{found.agreement:.2f} of the predictions, total variation {found.variation:.3f}"
    )


def _stored(path: Path) -> Perturbation | None:
    try:
        values = json.loads(path.read_bytes())
        return Perturbation(*(float(values[name]) for name in ("sigma", "agreement", "variation")))
    except (OSError, ValueError, KeyError, TypeError):  # absent, or damaged
        return None


def _store(path: Path, found: Perturbation) -> None:
    """Moves the whole file into place; a cache that can only be read is left as it is."""
    values = {"sigma": found.sigma, "agreement": found.agreement, "variation": found.variation}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2, sort_keys=True)
        temporary = Path(name)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError:
        return
