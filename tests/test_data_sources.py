"""Sources: what tasks say of them is what they say, where they lie, and how each is got."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import torchvision

from attribug import data_sources, tasks
from attribug.data_places import data_folder
from attribug.data_sources import SOURCES
from attribug.errors import InputError

SAME = sorted(set(SOURCES) & set(tasks.names()) - {"digits", "imagenet", "mnist"})  # made of more than one


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "scikit"))
    return tmp_path


def test_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() == folder
    monkeypatch.setenv("ATTRIBUG_DATA", "~/there")
    assert data_folder() == Path.home() / "there"
    monkeypatch.delenv("ATTRIBUG_DATA")
    assert data_folder() == Path(platformdirs.user_data_dir("attribug", appauthor=False))


@pytest.mark.parametrize("name", SAME)
def test_tasks_say_the_same_of_their_sources(name: str) -> None:
    told, source = tasks.get(name), SOURCES[name]
    assert (told.licence, told.size) == (source.licence, source.size)
    assert told.absent == data_sources.missing(name)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_each_says_how_it_is_got(name: str) -> None:
    source = SOURCES[name]
    assert source.what
    assert source.licence
    assert source.size
    assert bool(source.line) != source.fetched
    assert "\n" not in data_sources.line(name)
    assert data_sources.missing(name) in ("", data_sources.line(name))


@pytest.mark.parametrize("name", sorted(name for name, source in SOURCES.items() if source.files is not None))
def test_files_are_there_once_they_are_made(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sources, "FASHION", folder / "nowhere")
    files = SOURCES[name].files
    assert files is not None
    assert data_sources.missing(name) == f"attribug data fetch {name}"
    for file in files():
        kind, _, digits = file.checksum.partition(":")
        assert kind in {"md5", "sha256"}
        assert len(digits) >= 8
        assert int(digits, 16)
        assert all(url.startswith("http") for url in file.urls)
        assert file.into is not None or file.makes == file.path
        (folder / file.makes).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.makes).touch()
    assert data_sources.missing(name) == ""


@pytest.mark.parametrize(
    ("name", "theirs"), [("mnist", torchvision.datasets.MNIST), ("fashion", torchvision.datasets.FashionMNIST)]
)
def test_torchvision_finds_its_own_files(name: str, theirs: Any, folder: Path) -> None:
    files = SOURCES[name].files
    assert files is not None
    known = {(url, file.checksum) for file in files() for url in file.urls}
    assert known == {(f"{mirror}{file}", f"md5:{md5}") for mirror in theirs.mirrors for file, md5 in theirs.resources}
    with pytest.raises(RuntimeError, match="Dataset not found"):
        theirs(str(folder))
    for file in files():
        place = folder / file.makes
        place.parent.mkdir(parents=True, exist_ok=True)
        shape = (3, 28, 28) if "images" in file.makes else (3,)
        place.write_bytes(struct.pack(f">BBBB{len(shape)}i", 0, 0, 8, len(shape), *shape) + bytes(math.prod(shape)))
    assert len(theirs(str(folder))) == len(theirs(str(folder), train=False)) == 3


def test_weights_bear_their_checksum(folder: Path) -> None:
    files = SOURCES["vgg16"].files
    assert files is not None
    (file,) = files()
    assert file.urls == (torchvision.models.VGG16_Weights.IMAGENET1K_V1.url,)
    assert f"-{file.checksum.removeprefix('sha256:')}.pth" in file.path


def test_an_unknown_source() -> None:
    with pytest.raises(InputError, match="unknown source 'fashon'; did you mean 'fashion'"):
        data_sources.get("fashon")


def test_a_users_folder_counts_once_it_holds_something(folder: Path) -> None:
    (folder / "places").mkdir()
    assert "$ATTRIBUG_DATA/places" in data_sources.missing("places")
    (folder / "places" / "x").touch()
    assert data_sources.missing("places") == ""


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from attribug.terminal import data_text; list(data_text.lines()); data_text.as_json();"
        "sys.exit(bool({'torch', 'torchvision', 'sklearn', 'skimage', 'mlxtend', 'animal_mnist'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
