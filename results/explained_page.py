"""Pictures with their maps as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attribug.results import pictures
from attribug.results.figures import PERCENTILE

TEMPLATE, STYLE = "explained.html.jinja", "report.css"


@dataclass(frozen=True)
class ExplainedPicture:
    """A picture, what a model says of it, and where methods say that this comes from."""

    name: str
    shown: npt.NDArray[np.uint8]
    """(H, W, 3)."""
    target: str
    """The predicted class."""
    probability: float
    label: str
    """The true class; an empty text where nobody says."""
    maps: Mapping[str, npt.NDArray[np.floating]]
    """By method, (H, W)."""


def explained_page(
    model: str, facts: Sequence[str], explained: Sequence[ExplainedPicture], refused: Mapping[str, str],
    skipped: Sequence[tuple[str, str]], trust: Mapping[str, str],
) -> str:  # fmt: skip
    """The page, HTML in one text. `facts`: what is said before the pictures; `refused`: reasons by method; `trust`: by
    method, what a run says of it on this model."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    strict: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    environment = Environment(loader=FileSystemLoader(folder), trim_blocks=True, lstrip_blocks=True, **strict)
    return environment.get_template(TEMPLATE).render(
        style=Markup((folder / STYLE).read_text(encoding="utf-8")), model=model, facts=facts,
        methods=[*explained[0].maps] if explained else [], rows=[_row(each) for each in explained],
        refused=refused, skipped=skipped, trust=trust, percentile=PERCENTILE,
    )  # fmt: skip


def _row(each: ExplainedPicture) -> dict[str, Any]:
    return {
        "name": each.name, "target": each.target, "probability": f"{each.probability:.2f}".lstrip("0"),
        "label": each.label, "right": each.label == each.target,
        "picture": pictures.overlay(each.shown, None),
        "maps": [pictures.overlay(each.shown, values) for values in each.maps.values()],
    }  # fmt: skip
