"""A run's figures: galleries of maps, matrix of verdicts, effects, curves; a figure that fails costs itself only."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.errors import one_line
from attribug.results import figures, plots
from attribug.results.headline import at, headline
from attribug.storage.files import make_folder, storing, write_atomically
from attribug.storage.folders import FIGURES
from attribug.storage.tensors import Tensors
from attribug.tables.case_galleries import case_galleries
from attribug.tables.training_pictures import training_pictures

if TYPE_CHECKING:
    from attribug.results.figures import Pictures
    from attribug.results.headline import Pieces
    from attribug.running.outcome import Outcome

OURS = ("gallery_*.png", "training_*.png", "cases_*.png", "verdict_matrix_*.svg", "effects_*.svg", "curve_*.svg")
Drawing = Callable[[], bytes]


def draw(outcome: Outcome, results: pd.DataFrame, pieces: Pieces, out: Path) -> dict[str, str]:
    """Writes every figure of a run into `out`/figures and removes those of earlier runs; returns why any is missing.

    Raises `StorageError` where the system refuses to store one: drawn again, it may be there.
    """
    folder, drawn = out / FIGURES, set[Path]()
    suite, undrawn = outcome.plan.suite.model_dump(), {}
    try:
        rows = headline(results, suite, pieces)
        svgs = plots.drawings(results, suite, pieces)
    except Exception as error:  # a picture is not worth a table
        return {"figures": one_line(error)}
    make_folder(folder)
    plotted: Iterator[tuple[str, Drawing]] = ((name, partial(_svg, make)) for name, make in svgs.items())
    galleries = Tensors(out / "galleries")
    drawings = chain(
        _galleries(outcome, rows, galleries), training_pictures(outcome), case_galleries(outcome, galleries), plotted
    )
    for name, drawing in drawings:
        try:
            picture = drawing()
        except Exception as error:
            undrawn[name] = one_line(error)
            continue
        if not picture:  # there is nothing to see
            continue
        write_atomically(folder / name, partial(Path.write_bytes, data=picture))
        drawn.add(folder / name)
    with storing(folder):
        for stale in {path for pattern in OURS for path in folder.glob(pattern)} - drawn:
            stale.unlink()
    return undrawn


def pictures(galleries: Tensors, keys: Mapping[str, str]) -> dict[str, Pictures]:
    """Inputs and maps by method, of those whose record has a gallery; keys: of records, by method."""
    loaded = {method: galleries.load(key) for method, key in keys.items()}
    return {
        method: {role: tensor.float().numpy() for role, tensor in gallery.items()}
        for method, gallery in loaded.items()
        if gallery
    }


def _svg(make: Callable[[], str]) -> bytes:
    return make().encode()


def _gallery(**facts: Any) -> bytes:
    picture = io.BytesIO()
    figures.gallery(picture, **facts)
    return picture.getvalue()


def _galleries(outcome: Outcome, rows: pd.DataFrame, galleries: Tensors) -> Iterator[tuple[str, Drawing]]:
    """One a task, bug and level, from the first seed in which the bug took."""
    plan, done = outcome.plan, set()
    for number, cell in plan.contrasted:
        place = (cell.task, cell.bug, cell.level)
        if place in done or cell.contrast is None or not outcome.took(number):
            continue
        names = [method.name for method, _ in plan.methods if (number, method.name) in outcome.records]
        maps = pictures(galleries, {name: plan.record_key(cell, name) for name in names})
        if maps:
            done.add(place)
            verdicts = at(rows, place).set_index("label")
            facts: dict[str, Any] = {"bug": cell.bug, "level": cell.level, "control": cell.contrast.control}
            facts["features"] = plan.features.get(cell.task, ())
            yield f"gallery_{'_'.join(place)}.png", partial(_gallery, maps=maps, verdicts=verdicts, **facts)
