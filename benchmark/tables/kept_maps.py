"""Which kept map is which: maps/index.parquet, written with a run's tables, and how maps are found by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribug.errors import InputError, near_misses
from attribug.storage.files import storing, write_atomically
from attribug.storage.folders import MAPS_INDEX

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from attribug.contracts.contrasts import Contrast, Side
    from attribug.plans.plan import Cell
    from attribug.running.outcome import Outcome
    from attribug.storage.records import MapFile

TEXTS = ("method", "task", "bug", "level", "side", "version", "file")
NUMBERS = ("seed", "draw", "contrast")
COLUMNS = (
    "method", "task", "bug", "level", "contrast", "side", "seed", "draw", "version", "ids", "targets", "file",
)  # fmt: skip
"""A row a contrast, side, version of the inputs and file. contrast: seed of the contaminated model that it is about;
side: `contaminated`, `reference` or a control's name; seed: of the side's model; draw: number among a side's models of
one seed; version: `""` as explained; ids, targets: examples and explained classes in the file's order; file: in
maps/."""


@dataclass(frozen=True)
class Maps:
    """Kept maps of one method and model."""

    maps: Tensor
    """(N, *shape), float32."""
    ids: Tensor
    """(N,), int64, of the examples."""
    targets: Tensor
    """(N,), int64, the explained classes."""


def write_index(outcome: Outcome, out: Path) -> None:
    """Writes the index of the maps that a run has kept or found; where there are none, there is none."""
    path = out / MAPS_INDEX
    rows = list(_rows(outcome, path.parent))
    if rows:
        write_atomically(path, lambda temporary: _write(rows, temporary))
    elif path.exists():
        with storing(path):
            path.unlink()


def whole(out: Path) -> bool:
    """Whether all files that a run's index names are there."""
    path = out / MAPS_INDEX
    return not path.exists() or set(_read(path, ["file"])["file"]) <= _names(path.parent)


def find(out: Path, name: str, asked: Mapping[str, str | int | None]) -> Maps:
    """The maps that a run's folder has kept of what is `asked` by columns of the index; None: whatever there is, if
    there is one only.

    Raises:
        InputError: there are none, or several.
    """
    if not (out / MAPS_INDEX).is_file():
        raise InputError(f"{name}: expected kept maps, found none; run it again with keep_maps=True (--keep-maps)")
    rows = _read(out / MAPS_INDEX)
    for column, value in asked.items():
        rows = _chosen(rows, column, value)
    return _loaded(rows, (out / MAPS_INDEX).parent)


def _rows(outcome: Outcome, folder: Path) -> Iterator[dict[str, Any]]:
    """In the order of the plan's cells and methods."""
    there, plan = _names(folder), outcome.plan
    if not there or outcome.stored is None:
        return
    for cell in plan.cells:
        for method, _ in plan.methods_of(cell) if cell.contrast is not None else ():
            files: dict[tuple[str, str], list[MapFile]] = {}
            for file in outcome.stored.load_map_files(plan.record_key(cell, method.name)) or ():
                if file.name in there:
                    files.setdefault((file.model, file.examples), []).append(file)
            if files:
                yield from _of_record(cell, cell.contrast, method.name, files)  # type: ignore[arg-type]


def _of_record(
    cell: Cell, contrast: Contrast, method: str, files: Mapping[tuple[str, str], list[MapFile]]
) -> Iterator[dict[str, Any]]:
    """A record's rows, side by side."""
    place = {"method": method, "task": cell.task, "bug": cell.bug, "level": cell.level, "contrast": cell.seed}
    for role, draw, side in _sides(contrast):
        for version in ("", *contrast.extra):
            seen = contrast.seen(side, version)
            for file in files.get((str(seen.model.key), seen.examples.key), ()):
                yield {
                    **place, "side": role, "seed": side.seed, "draw": draw, "version": version, "ids": file.ids,
                    "targets": file.targets, "file": file.name,
                }  # fmt: skip


def _sides(contrast: Contrast) -> Iterator[tuple[str, int, Side]]:
    """Every role with its sides, and their numbers among those of one seed."""
    roles = {"contaminated": contrast.contaminated_sides, **contrast.control_sets, "reference": contrast.references}
    for role, sides in roles.items():
        seen: Counter[int] = Counter()
        for side in sides:
            yield role, seen[side.seed], side
            seen[side.seed] += 1


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.safetensors")}


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(NUMBERS, pa.int64())
    types |= dict.fromkeys(("ids", "targets"), pa.list_(pa.int64()))
    schema = pa.schema([(name, types[name]) for name in COLUMNS])
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def _read(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError) as error:  # Arrow's errors are both
        raise InputError(f"{path}: expected an index of kept maps, found a damaged file; run it again") from error


def _chosen(rows: pd.DataFrame, column: str, value: str | int | None) -> pd.DataFrame:
    """The rows of a column's value, or of the only one that there is."""
    known = list(dict.fromkeys(rows[column]))
    if value is None and column == "contrast" and _alike(rows, column):  # they share the side
        known = known[:1]
    if value is None and len(known) > 1:
        raise InputError(f"{column}: expected one of {', '.join(map(str, known))}, found none")
    if value is not None and value not in known:
        said = f"{column}: expected one with kept maps, found {value!r}"
        raise InputError(f"{said}{near_misses(str(value), map(str, known))}")
    return rows[rows[column] == (known[0] if value is None else value)]


def _alike(rows: pd.DataFrame, column: str) -> bool:
    """Whether the same files, examples and classes stand under every value of a column."""
    contents = [
        [
            (file, *ids, *targets)
            for file, ids, targets in zip(group["file"], group["ids"], group["targets"], strict=True)
        ]
        for _, group in rows.groupby(column)
    ]
    return all(each == contents[0] for each in contents)


def _loaded(rows: pd.DataFrame, folder: Path) -> Maps:
    """The maps of some rows, one after the other."""
    import torch

    from attribug.maps.kept import maps_of
    from attribug.storage.tensors import Tensors

    store, parts = Tensors(folder, mine=False), []
    for file in rows["file"]:
        tensors = store.load(Path(file).stem)
        if tensors is None:
            said = f"{folder / file}: expected kept maps, found a damaged file or none"
            raise InputError(f"{said}; remove it and run again with keep_maps=True (--keep-maps)")
        parts.append(maps_of(tensors))
    ids, targets = (torch.tensor([number for part in rows[name] for number in part]) for name in ("ids", "targets"))
    return Maps(torch.cat(parts), ids, targets)
