"""A run's records, galleries, kept maps and figures of checks, by content key."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.storage.files import Damaged, make_folder, read_json, write_atomically, write_json
from attribug.storage.folders import SHARED
from attribug.storage.tensors import Spare, Tensors

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from attribug.scores.records import Record

SEAL_BYTES = 32  # of a SHA-256


@dataclass(frozen=True)
class MapFile:
    """A file of kept maps that a record rests on: of which model and examples."""

    model: str
    """Content key of the explained model."""
    examples: str
    """Content key of the examples that it saw."""
    ids: tuple[int, ...]
    targets: tuple[int, ...]
    """The explained classes."""
    name: str


class Records:
    """A run's records (a checksum, then Parquet with the outcome in its metadata), which kept maps these rest on,
    galleries, kept maps and figures of checks, by content key."""

    def __init__(self, out: Path, *, mine: bool = True) -> None:
        """`mine`: damaged files may be moved."""
        self.folder = out / "records"
        self.damaged = Damaged(mine)
        self.galleries = Tensors(out / "galleries", mine=mine)
        self.maps = Tensors(out / "maps", mine=mine)
        self.shared = Spare(out / SHARED, mine=mine)

    def save(self, key: str, record: Record) -> None:
        """Writes a record; its gallery first, so that a record never lacks it."""
        import pyarrow as pa

        if record.gallery:
            self.galleries.save(key, record.gallery)
        kept = ("verdict", "reason", "scoring_seconds", "peak_megabytes", "rows", "maps_kept", "lost")
        facts = {name: getattr(record, name) for name in kept}
        facts |= {"cost": asdict(record.cost), "census": asdict(record.census), "gallery": bool(record.gallery)}
        table = pa.Table.from_pandas(record.scores, preserve_index=False)
        table = table.replace_schema_metadata({
            **(table.schema.metadata or {}),
            b"attribug": json.dumps(facts).encode(),
        })
        self._write(self._path(key), key, table)

    def load(self, key: str, columns: Sequence[str] | None = None) -> Record | None:
        """The record without its gallery, or None when it is absent or damaged; `columns`: of its scores, all by
        default."""
        from attribug.maps.attribution import Census
        from attribug.query.passes import Cost
        from attribug.scores.records import Record

        table = self._table(key, columns)
        if table is None:
            return None
        facts = json.loads(table.schema.metadata[b"attribug"])
        gallery = facts.pop("gallery")
        lost = {name: (verdict, reason) for name, (verdict, reason) in facts.pop("lost").items()}
        cost, census = Cost(**facts.pop("cost")), Census(**facts.pop("census"))
        record = Record(scores=table.to_pandas(), cost=cost, census=census, lost=lost, **facts)
        return record if not gallery or self.galleries.load(key) is not None else None

    def scores(self, key: str, of: Mapping[str, str]) -> pd.DataFrame | None:
        """Scores whose texts are those `of` some columns, which are left out; None when the record is not there."""
        from pyarrow import compute

        table = self._table(key, texts=of)
        if table is None:
            return None
        for name, text in of.items():
            table = table.filter(compute.equal(table[name], text))
        scores: pd.DataFrame = table.drop_columns(list(of)).to_pandas()
        return scores

    def _table(self, key: str, columns: Sequence[str] | None = None, texts: Iterable[str] = ()) -> pa.Table | None:
        """What is stored, of some columns, with the `texts` among them as few as they are."""
        return self._read(self._path(key), key, columns, texts)

    def save_map_files(self, key: str, files: Iterable[MapFile]) -> None:
        """Notes which kept maps the record of a key rests on."""
        import pyarrow as pa

        types = {"model": pa.string(), "examples": pa.string(), "name": pa.string()}
        types |= dict.fromkeys(("ids", "targets"), pa.list_(pa.int64()))
        rows = [asdict(file) for file in dict.fromkeys(files)]
        self._write(self._map_files_path(key), key, pa.Table.from_pylist(rows, schema=pa.schema(types)))

    def load_map_files(self, key: str) -> list[MapFile] | None:
        """The kept maps that the record of a key rests on, those of a model and examples in their examples' order; None
        when nobody has noted them, or that is damaged. The files themselves may be gone."""
        table = self._read(self._map_files_path(key), key)
        if table is None:
            return None
        return [MapFile(**row | {name: tuple(row[name]) for name in ("ids", "targets")}) for row in table.to_pylist()]

    def holds_maps(self, key: str) -> bool:
        """Whether it is known which kept maps the record of a key rests on, and all of them lie here."""
        files = self.load_map_files(key)
        return files is not None and all((self.maps.folder / file.name).is_file() for file in files)

    def _write(self, path: Path, key: str, table: pa.Table) -> None:
        """Writes a checksum, then Parquet."""
        from pyarrow import parquet

        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd")
        sealed = _seal(key, buffer.getvalue()) + buffer.getvalue()
        make_folder(self.folder)
        write_atomically(path, lambda temporary: temporary.write_bytes(sealed))

    def _read(
        self, path: Path, key: str, columns: Sequence[str] | None = None, texts: Iterable[str] = ()
    ) -> pa.Table | None:
        """What `_write` has written; None when it is absent or damaged."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            stored = b""
        seal, content = stored[:SEAL_BYTES], stored[SEAL_BYTES:]
        if seal != _seal(key, content):  # before Parquet reads it: few damages make it raise
            self.damaged.set_aside(path)
            return None
        file = parquet.ParquetFile(pa.BufferReader(content), read_dictionary=list(texts))
        return file.read(None if columns is None else list(columns), use_threads=False)

    @property
    def found_damaged(self) -> list[str]:
        """Files that were set aside, as folder and name."""
        return [name for store in (self, self.galleries, self.maps, self.shared) for name in store.damaged.names]

    def save_checks(self, key: str, figures: dict[str, float]) -> None:
        """Keeps the figures of a contrast's checks."""
        make_folder(self.folder)
        write_json(self.folder / f"{key}.json", {"figures": figures, "sha256": _seal_figures(key, figures)})

    def load_checks(self, key: str) -> dict[str, float] | None:
        """The figures by check name, or None."""
        path = self.folder / f"{key}.json"
        stored = read_json(path)
        figures = stored.get("figures") if isinstance(stored, dict) else None
        if isinstance(figures, dict) and stored.get("sha256") == _seal_figures(key, figures):
            return figures
        if path.exists():
            self.damaged.set_aside(path)
        return None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.record"

    def _map_files_path(self, key: str) -> Path:
        return self.folder / f"{key}.maps"


def _seal(key: str, content: bytes) -> bytes:
    """Checksum of an artefact's key and bytes."""
    return hashlib.sha256(key.encode() + content).digest()


def _seal_figures(key: str, figures: dict[str, float]) -> str:
    return _seal(key, json.dumps(figures, sort_keys=True).encode()).hex()
