"""The store: what is written comes back, and what is damaged counts as absent."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import platformdirs
import pytest
import torch
from safetensors.torch import save_file

from attribug.errors import InputError, StorageError
from attribug.maps.attribution import Census
from attribug.query.passes import Cost
from attribug.scores.measurement import COLUMNS
from attribug.scores.records import Record
from attribug.storage.files import read_json, write_atomically, write_json
from attribug.storage.folders import cache_folder
from attribug.storage.models import Models
from attribug.storage.records import MapFile, Records
from attribug.storage.tensors import Tensors

TENSORS = {
    "weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
}
FIGURES = {"accuracy": 0.1 + 0.2, "of nothing": float("nan"), "fall": -1e-300}


def scores(rows: int = 30) -> pd.DataFrame:
    number = np.arange(rows)
    frame = {
        "metric": "spearman", "post": "sum", "control": "clean", "seed": number % 3, "draw": 0, "reference": -1,
        "control_seed": 4, "example": number + 10**9, "value": np.sin(number), "benign": np.cos(number),
        "floor": np.where(number % 4 == 0, np.nan, number / 7),
    }  # fmt: skip
    return pd.DataFrame(frame)[COLUMNS]


def record(**changes: Any) -> Record:
    facts = {
        "scores": scores(),
        "cost": Cost(1.25, 40, 20),
        "scoring_seconds": 0.5,
        "census": Census(9, 2, 1, 3.5, 0.5),
    }
    return Record(**{**facts, **changes})


def same_tensors(one: dict[str, torch.Tensor] | None, other: dict[str, torch.Tensor] | None) -> bool:
    if one is None or other is None or one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one]
    return all(a.dtype == b.dtype and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in pairs)


def same_records(one: Record, other: Record) -> bool:
    pd.testing.assert_frame_equal(one.scores, other.scores, check_exact=True)
    facts = ("verdict", "reason", "cost", "scoring_seconds", "census")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)


# Round trips


def test_tensors_come_back(tmp_path: Path) -> None:
    kept = Tensors(tmp_path / "deeper")
    kept.save("k", TENSORS)
    assert same_tensors(kept.load("k"), TENSORS)
    assert kept.load("other") is None


def test_weights_that_modules_share_come_back(tmp_path: Path) -> None:
    first = torch.nn.Linear(2, 2)
    model = torch.nn.Sequential(first, first)
    weights = dict(model.state_dict())
    models = Models(tmp_path)
    models.save_weights("k", weights)
    assert same_tensors(models.load_weights("k"), weights)


@pytest.mark.parametrize("kept", [
    record(),
    Record(),
    Record(verdict="unsupported", reason="has no ReLU — „nichts“"),
    record(scores=scores(1)),
    record(cost=Cost(float("inf"), 0, 0)),
], ids=["scores", "none", "unsupported", "one row", "endless"])  # fmt: skip
def test_records_come_back(tmp_path: Path, kept: Record) -> None:
    records = Records(tmp_path)
    records.save("k", kept)
    loaded = records.load("k")
    assert loaded is not None
    if len(kept.scores):
        assert same_records(loaded, kept)
    else:
        assert list(loaded.scores.columns) == COLUMNS
        assert (loaded.verdict, loaded.reason, len(loaded.scores)) == (kept.verdict, kept.reason, 0)
    assert records.load("other") is None


def test_galleries_lie_beside_their_records(tmp_path: Path) -> None:
    records = Records(tmp_path)
    gallery = {"inputs": torch.rand(2, 1, 4, 4), "reference": torch.rand(2, 4, 4)}
    records.save("k", record(gallery=gallery))
    loaded = records.load("k")
    assert loaded is not None
    assert loaded.gallery == {}
    assert same_tensors(records.galleries.load("k"), gallery)


def test_figures_come_back_to_the_last_bit(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.save_checks("k", FIGURES)
    loaded = records.load_checks("k")
    assert loaded is not None
    np.testing.assert_array_equal(list(loaded.values()), list({k: FIGURES[k] for k in loaded}.values()))
    assert records.load_checks("other") is None


def test_a_later_artefact_replaces_an_earlier_one(tmp_path: Path) -> None:
    records, kept = Records(tmp_path), Tensors(tmp_path)
    for number in (1, 2):
        records.save("k", record(rows=number))
        kept.save("k", {"a": torch.tensor(number)})
        records.save_checks("k", {"c": number})
    assert records.load("k").rows == 2  # type: ignore[union-attr]
    assert kept.load("k") == {"a": torch.tensor(2)}
    assert records.load_checks("k") == {"c": 2}


MAP_FILES = [MapFile("m", "e", (7, 8), (0, 1), "a.safetensors"), MapFile("m", "e", (9,), (0,), "b.safetensors")]


def test_a_record_tells_whether_its_maps_are_here(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert not records.holds_maps("k")
    records.save_map_files("k", MAP_FILES)
    (tmp_path / "maps").mkdir()
    for file in MAP_FILES:
        assert not records.holds_maps("k")
        (tmp_path / "maps" / file.name).touch()
    assert records.holds_maps("k")


# Damage: an artefact is a file, how to write it, and how to read it

FOREIGN = [b"", b"\0" * 100, b"PAR1", b"{}", b"null", b"[1]", b"\xff\xfe", b'{"figures": {"a": 1}}']
Artefact = tuple[Path, Callable[[str], Any]]


def tensors_at(folder: Path, key: str) -> Artefact:
    kept = Tensors(folder)
    kept.save(key, TENSORS)
    return kept.path(key), kept.load


def record_at(folder: Path, key: str) -> Artefact:
    records = Records(folder)
    records.save(key, record())
    (path,) = (folder / "records").glob(f"{key}*")
    return path, records.load


def checks_at(folder: Path, key: str) -> Artefact:
    records = Records(folder)
    records.save_checks(key, FIGURES)
    (path,) = (folder / "records").glob(f"{key}*")
    return path, records.load_checks


def map_files_at(folder: Path, key: str) -> Artefact:
    records = Records(folder)
    records.save_map_files(key, [*MAP_FILES, *MAP_FILES[:1]])
    (path,) = (folder / "records").glob(f"{key}*")
    return path, records.load_map_files


EVERY_ARTEFACT = pytest.mark.parametrize("written", [tensors_at, record_at, checks_at, map_files_at])
Written = Callable[[Path, str], Artefact]


def unharmed(loaded: Any) -> bool:
    """Whether what was read is what was written: then a damage was none."""
    if isinstance(loaded, Record):
        return same_records(loaded, record())
    if isinstance(loaded, list):
        return loaded == MAP_FILES
    if set(loaded) == set(TENSORS):
        return same_tensors(loaded, TENSORS)
    return json.dumps(loaded, sort_keys=True) == json.dumps(FIGURES, sort_keys=True)


@EVERY_ARTEFACT
def test_flipped_bits_are_noticed(tmp_path: Path, written: Written) -> None:
    path, load = written(tmp_path, "k")
    intact = path.read_bytes()
    assert unharmed(load("k"))
    noticed, places = 0, range(0, len(intact), 1 + len(intact) // 1500)
    for place in places:
        damaged = bytearray(intact)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        loaded = load("k")
        noticed += loaded is None
        assert loaded is None or unharmed(loaded), f"byte {place}"
    assert noticed > 0.9 * len(places)  # white space of JSON may change unnoticed


@EVERY_ARTEFACT
def test_every_truncation_is_noticed(tmp_path: Path, written: Written) -> None:
    path, load = written(tmp_path, "k")
    intact = path.read_bytes()
    for size in [*range(0, len(intact) - 1, 11), len(intact) - 2]:  # the last byte of JSON is a line break
        path.write_bytes(intact[:size])
        assert load("k") is None, f"{size} of {len(intact)} bytes"


@EVERY_ARTEFACT
@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_files_count_as_absent(tmp_path: Path, written: Written, content: bytes) -> None:
    path, load = written(tmp_path, "k")
    path.write_bytes(content)
    assert load("k") is None


@EVERY_ARTEFACT
def test_another_keys_file_counts_as_absent(tmp_path: Path, written: Written) -> None:
    path, _ = written(tmp_path, "k")
    other, load = written(tmp_path, "l")
    assert load("l") is not None
    other.write_bytes(path.read_bytes())
    assert load("l") is None


@EVERY_ARTEFACT
def test_a_folder_in_its_place_counts_as_absent(tmp_path: Path, written: Written) -> None:
    path, load = written(tmp_path, "k")
    path.unlink()
    path.mkdir()
    assert load("k") is None


def test_valid_files_of_others_count_as_absent(tmp_path: Path) -> None:
    kept, records = Tensors(tmp_path), Records(tmp_path)
    save_file({"a": torch.ones(2)}, kept.path("k"))
    assert kept.load("k") is None
    record_at(tmp_path, "k")
    (path,) = (tmp_path / "records").glob("k*")
    scores().to_parquet(path)
    assert records.load("k") is None


@pytest.mark.parametrize("content", [None, b"", b"\0" * 50])
def test_a_record_without_its_gallery_counts_as_absent(tmp_path: Path, content: bytes | None) -> None:
    records = Records(tmp_path)
    records.save("k", record(gallery={"inputs": torch.ones(1)}))
    records.save("l", record())
    path = records.galleries.path("k")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert records.load("k") is None
    assert records.load("l") is not None


# Writing


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_writer_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("disk full")

    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(tmp_path / "a" / "file", failing)
    assert everything(tmp_path) == ["a"]
    write_atomically(tmp_path / "a" / "file", lambda path: path.write_text("whole"))
    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(tmp_path / "a" / "file", failing)
    assert (tmp_path / "a" / "file").read_text() == "whole"
    assert everything(tmp_path) == ["a", "file"]


def test_a_disk_that_is_full_at_the_last_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", lambda path: path.write_text("old"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="file: cannot be written: No space left on device"):
        write_atomically(tmp_path / "file", lambda path: path.write_text("new"))
    assert (tmp_path / "file").read_text() == "old"
    assert everything(tmp_path) == ["file"]


def test_a_file_is_whole_before_it_has_its_name(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def looking(path: Path) -> None:
        assert path.parent == target.parent
        path.write_text("new")
        assert not target.exists()

    write_atomically(target, looking)
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o644


def test_values_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    records = Records(tmp_path)
    with pytest.raises(Exception, match=r".+"):
        records.save("k", record(scores=pd.DataFrame({"value": [object()]})))
    assert [name for name in everything(tmp_path) if name != "records"] == []
    assert records.load("k") is None


def test_json_is_readable_and_sorted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": {"d": None, "c": [1.5]}})
    assert path.read_text() == '{\n  "a": {\n    "c": [\n      1.5\n    ],\n    "d": null\n  },\n  "b": 1\n}\n'
    assert read_json(path) == {"a": {"c": [1.5], "d": None}, "b": 1}
    assert read_json(tmp_path / "none.json") is None


# Models and the cache


def test_given_models_are_the_only_source(tmp_path: Path) -> None:
    given, cache = tmp_path / "given", tmp_path / "cache"
    cache.mkdir()
    Models(cache).save_weights("cached", TENSORS)
    Tensors(given).save("k", TENSORS)
    models = Models(cache, given)
    assert same_tensors(models.load_weights("k"), TENSORS)
    assert models.load_weights("cached") is None
    with pytest.raises(InputError, match=r"^--models .*given: no model k there; leave --models out to train it$"):
        models.save_weights("k", TENSORS)
    assert Models(cache).load_weights("k") is None


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("ATTRIBUG_CACHE", "")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, appauthor: os.path.join("/cache", name))
    assert cache_folder() == Path("/cache/attribug")
