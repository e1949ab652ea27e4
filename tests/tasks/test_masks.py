"""Masks of what people marked: where they lie, how they follow their pictures, and what is told of all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attribug.errors import InputError
from attribug.models.preparation import Preparation
from attribug.tasks.folders import Prepared, pictures
from attribug.tasks.masks import places

SIZE = (12, 8)  # of a picture, width and height
NAMES = ("anna.png", "ben.png", "cleo.png")
SQUARES = Preparation(8)


def marked(path: Path, left: int = 2, right: int = 6, size: tuple[int, int] = SIZE, value: int = 1) -> None:
    """A mask with a bar from top to bottom, in columns of a picture that is twelve wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), np.uint8)
    values[:, left * size[0] // SIZE[0] : right * size[0] // SIZE[0]] = value
    Image.fromarray(values).save(path)


def photos(folder: Path, *names: str) -> Path:
    for name in names or NAMES:
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, "grey").save(folder / "photos" / name)
    return folder / "photos"


def read(folder: Path, **options: Any) -> Prepared:
    return pictures(folder / "photos", SQUARES, masks=folder / "masks", **options)


def bar(left: int, right: int) -> torch.Tensor:
    """A bar where the model sees it: the middle square leaves two columns out on either side."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, max(left - 2, 0) : max(right - 2, 0)] = True
    return mask


def test_a_folder_is_a_region(tmp_path: Path) -> None:
    photos(tmp_path)
    for number, name in enumerate(NAMES):
        marked(tmp_path / "masks" / "mouth" / name, 2, 4 + number)
        marked(tmp_path / "masks" / "hair" / name, 5, 8)
    found = read(tmp_path)
    assert tuple(found.regions) == ("hair", "mouth")
    assert torch.equal(found.regions["mouth"], torch.stack([bar(2, 4 + number) for number in range(3)]))
    assert torch.equal(found.regions["hair"], bar(5, 8).expand(3, 8, 8))
    assert found.masks is found.regions["hair"]
    assert found.noted == ()


def test_the_object_is_the_main_region(tmp_path: Path) -> None:
    photos(tmp_path)
    for region in ("beak", "object", "tail"):
        marked(tmp_path / "masks" / region / NAMES[0])
    assert tuple(read(tmp_path).regions) == ("object", "beak", "tail")


def test_below_a_region_lies_the_tree_of_the_data(tmp_path: Path) -> None:
    names = ("cat/1.png", "dog/1.png")
    photos(tmp_path, *names)
    for number, name in enumerate(names):
        marked(tmp_path / "masks" / "eye" / name, 2, 4 + number)
    found = read(tmp_path)
    assert torch.equal(found.regions["eye"], torch.stack([bar(2, 4), bar(2, 5)]))


def test_folders_named_as_the_classes_are_no_regions(tmp_path: Path) -> None:
    names = ("cat/1.png", "dog/1.png")
    photos(tmp_path, *names)
    for name in names:
        marked(tmp_path / "masks" / name)
    assert tuple(read(tmp_path).regions) == ("object",)


LAYOUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "flat and in regions": (("1.png",), ("1.png", "hair/1.png"), "found both (1, hair/1)"),
    "by class and in regions": (("a/1.png",), ("a/1.png", "b/a/1.png"), "found both (a/1, b/a/1)"),
    "other names": (("1.png",), ("2.png",), "found none of 1 that fits a picture"),
    "other classes": (("a/1.png",), ("b/1.png",), "found none of 1 that fits a picture"),
    "regions without classes": (("a/1.png",), ("hair/1.png",), "found none of 1 that fits a picture"),
    "hidden": (("1.png",), (".hair/1.png", ".1.png"), "found none of 0 that fits a picture"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_that_fit_in_no_way_or_in_two_are_refused(tmp_path: Path, layout: str) -> None:
    names, masks, expected = LAYOUTS[layout]
    (tmp_path / "masks").mkdir()
    for mask in masks:
        marked(tmp_path / "masks" / mask)
    with pytest.raises(InputError) as caught:
        places(tmp_path / "masks", names)
    assert str(caught.value).endswith(expected)
    assert "\n" not in str(caught.value)


def half_size(folder: Path) -> None:
    marked(folder / "masks" / "ben.png", size=(6, 4))


def another_shape(folder: Path) -> None:
    half_size(folder)
    marked(folder / "masks" / "anna.png", size=(8, 8))


def empty(folder: Path) -> None:
    marked(folder / "masks" / "cleo.png", 0, 0)


def outside(folder: Path) -> None:
    marked(folder / "masks" / "cleo.png", 0, 2)


def missing(folder: Path) -> None:
    (folder / "masks" / "anna.png").unlink()


def stranger(folder: Path) -> None:
    marked(folder / "masks" / "zoe.png")
    marked(folder / "masks" / "deep" / "zoe.png")


ODD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "size": (
        half_size, ["1 mask of another size was fitted to its picture, e.g. 6 × 4 for 12 × 8 (ben.png)"],
        r"masks/ben.png: expected the size of its picture, 12 × 8, found 6 × 4",
    ),
    "shape": (
        another_shape,
        [
            "2 masks of another size were fitted to their pictures, e.g. 8 × 8 for 12 × 8 (anna.png)",
            "1 of them is of another shape, e.g. 8 × 8 for 12 × 8 (anna.png): were pictures cropped after they were "
            "marked?",
        ],
        r"masks/anna.png: expected the size of its picture, 12 × 8, found 8 × 8",
    ),
    "empty": (
        empty, ["1 of 3 masks shows nothing to the model: cleo.png"],
        r"masks/cleo.png: expected a mask that shows something to the model, found none",
    ),
    "outside of what the model sees": (
        outside, ["1 of 3 masks shows nothing to the model: cleo.png"],
        r"masks/cleo.png: expected a mask that shows something to the model, found none",
    ),
    "missing": (
        missing, ["1 of 3 pictures has no mask: anna.png"], r"masks: expected one mask named anna.\*, found none",
    ),
    "of no picture": (
        stranger, ["2 masks belong to no picture: deep/zoe.png, zoe.png"],
        r"masks/deep/zoe.png: expected a picture of this name among the data, found none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_what_does_not_fit_is_told_and_refused_if_strict(tmp_path: Path, odd: str) -> None:
    photos(tmp_path)
    for name in NAMES:
        marked(tmp_path / "masks" / name)
    assert read(tmp_path, strict=True).noted == ()
    change, lines, refusal = ODD[odd]
    change(tmp_path)
    found = read(tmp_path)
    assert list(found.noted) == lines
    assert found.masks is not None
    absent = {"empty": "cleo.png", "outside of what the model sees": "cleo.png", "missing": "anna.png"}.get(odd)
    for name, mask in zip(found.names, found.masks, strict=True):
        expected = bar(0, 0) if name == absent else bar(2, 6)
        if not (odd == "shape" and name == "anna.png"):
            assert torch.equal(mask, expected), name
    with pytest.raises(InputError, match=refusal):
        read(tmp_path, strict=True)


def test_names_are_told_up_to_three(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    photos(tmp_path, *names)
    marked(tmp_path / "masks" / "mouth" / names[5])
    assert read(tmp_path).noted == ("5 of 6 pictures have no mask of mouth: 0.png, 1.png, 2.png …",)
    assert read(tmp_path, most=2).noted == ("2 of 2 pictures have no mask of mouth: 0.png, 1.png",), "of those that are"


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_no_picture_is_refused(tmp_path: Path, strict: bool) -> None:
    photos(tmp_path)
    for name in NAMES:
        marked(tmp_path / "masks" / name)
    (tmp_path / "masks" / "ben.png").write_text("no picture")
    with pytest.raises(InputError, match=r"masks/ben.png: no picture: UnidentifiedImageError"):
        read(tmp_path, strict=strict)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "float32", "bool", "palette", "pgm"])
def test_small_numbers_of_any_kind_mark(tmp_path: Path, kind: str) -> None:
    photos(tmp_path, "anna.png")
    values = np.zeros((8, 12), np.uint8)
    values[:, 4:6] = 1
    if kind == "palette":
        image = Image.fromarray(values, "P")
        image.putpalette([0, 0, 0, 128, 0, 0])
    else:
        strength = 0.4 if kind == "float32" else 1
        image = Image.fromarray((values * strength).astype("uint8" if kind == "pgm" else kind))
    (tmp_path / "masks").mkdir()
    suffix = {"pgm": ".pgm", "int32": ".tif", "float32": ".tif"}.get(kind, ".png")
    image.save(tmp_path / "masks" / f"anna{suffix}")
    found = read(tmp_path).masks
    assert found is not None
    assert torch.equal(found[0], bar(4, 6))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_fitting_takes_the_nearest_pixel(tmp_path_factory: pytest.TempPathFactory, width: int, height: int) -> None:
    folder = tmp_path_factory.mktemp("fitted")
    Image.new("RGB", (8, 8), "grey").save(photos(folder, "anna.png") / "anna.png")
    values = np.random.default_rng(width * 41 + height).random((height, width)) > 0.5
    (folder / "masks").mkdir()
    Image.fromarray(values).save(folder / "masks" / "anna.png")
    found = read(folder)
    rows, columns = (((np.arange(8) + 0.5) * length / 8).astype(int) for length in (height, width))
    assert found.masks is not None
    assert np.array_equal(found.masks[0].numpy(), values[rows][:, columns])
    sized = any("another size" in line for line in found.noted)
    shaped = any("another shape" in line for line in found.noted)
    assert (sized, shaped) == ((width, height) != (8, 8), width != height)
