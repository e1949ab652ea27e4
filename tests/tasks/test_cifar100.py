"""CIFAR-100 in miniature, as its makers pickle it, read by torchvision with its checks: splits, repetition, damage."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR100

from attribug import data_sources, tasks
from attribug.conformance.checks import check
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.storage import fetching
from attribug.tasks import cifar100
from attribug.tasks.cifar100 import CLASSES

TRAINING, HELD_OUT, TWICE = 400, 120, 7
SIZES = {"train": 200, "test": 80, "validation": 40}


def pixels() -> np.ndarray:
    """(520, 3, 32, 32); some of those held out are those that one trains on."""
    drawn = np.random.default_rng(0).integers(0, 256, (TRAINING + HELD_OUT, 3, 32, 32), dtype=np.uint8)
    drawn[-TWICE:] = drawn[:TWICE]
    return drawn


LABELS = (np.arange(TRAINING + HELD_OUT) * 37 % 100).tolist()


def contents(names: tuple[str, ...] = CLASSES) -> dict[str, bytes]:
    """The three files: rows of 3072 bytes, red, green and blue, and labels by name."""
    rows = pixels().reshape(-1, 3072)
    parts = {"train": slice(0, TRAINING), "test": slice(TRAINING, None)}
    held: dict[str, Any] = {part: {"data": rows[kept], "fine_labels": LABELS[kept]} for part, kept in parts.items()}
    held["meta"] = {"fine_label_names": list(names)}
    return {name: pickle.dumps(value, 2) for name, value in held.items()}


def published(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """torchvision takes these files for those of CIFAR's makers."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5["meta"]})


def store(folder: Path, files: dict[str, bytes]) -> None:
    (folder / "cifar-100-python").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / "cifar-100-python" / name).write_bytes(content)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path / "data"))
    for cache in (cifar100.read, cifar100._pools):
        cache.cache_clear()
    return tmp_path / "data"


@pytest.fixture
def stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    published(monkeypatch, contents())
    store(folder, contents())
    return folder


def make(seed: int = 0, **options: Any) -> Task:
    task: Task = tasks.get("cifar100").function(seed=seed, other=None, **{**SIZES, **options})
    return task


def test_photographs_are_those_of_the_files(stored: Path) -> None:
    for split, size in SIZES.items():
        data = make().examples(split).load()
        ids = data.ids.numpy()
        assert torch.equal(data.inputs, torch.from_numpy(pixels()[ids]).float() / 255)
        assert data.labels.tolist() == [LABELS[number] for number in ids]
        assert len(ids) == size
        assert ((ids < TRAINING) == (split == "train")).all()
        assert data.masks is None
        assert data.groups is None


def test_splits_are_disjoint_and_no_photograph_is_there_twice(stored: Path) -> None:
    task = make(train=TRAINING, test=60, validation=HELD_OUT - TWICE - 60)
    ids = [number for split in task.splits for number in task.examples(split).load().ids.tolist()]
    assert sorted(ids) == list(range(TRAINING + HELD_OUT - TWICE))
    with pytest.raises(InputError, match="expected 114 photographs for test, found 113"):
        make(test=114, validation=0).examples("test").load()


def test_seeds_draw_otherwise(stored: Path) -> None:
    one, same, other = (make(seed).examples("train").load().ids.tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_it_is_a_task(stored: Path) -> None:
    assert [str(result) for result in check("task", "cifar100") if not result.passed] == []
    with pytest.raises(Unsupported, match="no background apart"):
        make().examples("test", share=1.0)


def test_other_files_are_refused_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = contents()
    published(monkeypatch, files)
    for damaged in ("train", "test", "meta"):
        store(folder, {**files, damaged: files[damaged][:-1] + b"x"})
        cifar100.read.cache_clear()
        with pytest.raises(InputError, match=r"cifar100: expected the published files in .* found: .*corrupted"):
            make().examples("test").load()


def test_other_names_of_classes_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = contents((*CLASSES[1:], CLASSES[0]))
    published(monkeypatch, files)
    store(folder, files)
    with pytest.raises(InputError, match="expected the published names of 100 classes, found others"):
        make().examples("test").load()


def test_classes_are_a_hundred_in_alphabetical_order() -> None:
    assert len(set(CLASSES)) == 100
    assert list(CLASSES) == sorted(CLASSES)


def test_without_data_one_line_says_how_they_come_to_be() -> None:
    with pytest.raises(InputError, match=r"^cifar100: data are missing: attribug data fetch cifar100$"):
        make()


@pytest.mark.parametrize(("options", "expected"), [
    ({"train": 50_000}, "expected 20 ≤ train ≤ 49000"), ({"test": 9}, "10 ≤ test ≤ 9900, found 200, 9"),
    ({"test": 9000, "validation": 901}, "validation of 0 to 9900 − test, found 901"), ({"epochs": 0}, "found 0"),
])  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=f"^cifar100: .*{expected}"):
        make(**options)


def test_the_archive_is_unpacked_to_where_torchvision_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = data_sources.get("cifar100")
    assert source.files is not None
    (file,) = source.files()
    assert file.urls == ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",)
    assert file.checksum == "md5:eb9058c3a382ffc7106e4002c42a8d85"
    folder.mkdir()
    with tarfile.open(folder / file.path, "w:gz") as archive:
        for name, content in contents().items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    published(monkeypatch, contents())
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5((folder / file.path).read_bytes()).hexdigest())
    assert data_sources.missing("cifar100")
    assert fetching.fetch("cifar100")
    assert data_sources.missing("cifar100") == ""
    assert len(make().examples("test").load()) == SIZES["test"]
