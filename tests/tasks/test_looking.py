"""What is brought is looked at: masks follow their pictures, arrays are what was given, and doubts are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms import functional
from torchvision.transforms._presets import ImageClassification

from attribug.models.own import Own
from attribug.models.preparation import Preparation
from attribug.models.preprocessing import IMAGENET, scaled
from attribug.models.wrapped import TwoLogits
from attribug.tasks import arrays
from attribug.tasks.folders import Prepared, pictures
from attribug.tasks.looking import Asked, look, preparation

SQUARE = (22, 12, 38, 28)  # left, top, right, bottom of the object in a picture of 60 × 40


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A picture, flat, and where its object is."""
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "photos" / "one.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[SQUARE[1] : SQUARE[3], SQUARE[0] : SQUARE[2]] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "one.png")
    return tmp_path


@pytest.mark.parametrize("bgr", [False, True])
def test_masks_follow_the_middle_square(photos: Path, bgr: bool) -> None:
    prepare = Preparation(20, *IMAGENET, bgr=bgr)
    found = pictures(photos / "photos", prepare, masks=photos / "masks").masks
    expected = torch.zeros(1, 20, 20, dtype=torch.bool)
    expected[0, 6:14, 6:14] = True  # 40 × 40 from column 10 on, half as large
    assert found is not None
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("crop", "resize"), [(20, 20), (16, 20), (24, 32)])
def test_masks_follow_torchvisions_preset(photos: Path, crop: int, resize: int) -> None:
    found = pictures(photos / "photos", ImageClassification(crop_size=crop, resize_size=resize), masks=photos / "masks")
    mask = torch.from_numpy(np.array(Image.open(photos / "masks" / "one.png")))[None].float()
    expected = functional.center_crop(functional.resize(mask, [resize], antialias=True), [crop, crop])[0] > 0.5
    assert found.masks is not None
    assert found.masks.shape[1:] == found.inputs.shape[2:]
    assert 0 < int(found.masks.sum()) < crop**2
    assert int((found.masks[0] != expected).sum()) <= crop // 4, "along an edge at most"


HELD: dict[str, Any] = {
    "inputs": np.random.default_rng(0).random((6, 3, 4, 5), np.float32), "labels": np.arange(6) % 2,
    "masks": np.arange(120).reshape(6, 4, 5) % 2,
}  # fmt: skip


@pytest.mark.parametrize("form", ["npz", "compressed", "safetensors"])
def test_files_of_arrays_hold_what_was_saved(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("data.safetensors" if form == "safetensors" else "data.npz")
    if form == "safetensors":
        save_file({name: torch.from_numpy(value) for name, value in HELD.items()}, path)
    else:
        (np.savez if form == "npz" else np.savez_compressed)(path, **HELD)
    found = arrays.read(path)
    assert np.array_equal(found.inputs.numpy(), HELD["inputs"])
    assert found.labels == tuple(HELD["labels"])
    assert found.masks is not None
    assert np.array_equal(found.masks.numpy(), HELD["masks"] != 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float64, bool])
def test_numbers_of_any_type_are_read(dtype: Any) -> None:
    found = arrays.of_python(np.ones((3, 4), dtype))
    assert found.inputs.dtype == torch.float32
    assert found.inputs.eq(1).all()
    assert found.labels == ()


def test_tables_name_their_features() -> None:
    table = pd.DataFrame({"age": [1, 2, 3], "sex": [0.5, 0, 1]})
    found = arrays.of_python((table, pd.Series([1, 0, 1], index=[7, 8, 9])))
    assert found.features == ("age", "sex")
    assert found.labels == (1, 0, 1)
    assert np.array_equal(found.inputs.numpy(), table.to_numpy(np.float32))


def test_masks_may_have_a_channel() -> None:
    masks = torch.rand(3, 1, 4, 5) > 0.5
    assert torch.equal(arrays.mask_array(masks, torch.rand(3, 2, 4, 5), "masks"), masks[:, 0])
    assert arrays.mask_array(np.ones((3, 7)), torch.rand(3, 7), "masks").shape == (3, 7)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_may_hold_regions(tmp_path: Path, suffix: str) -> None:
    place, inputs = tmp_path / f"held{suffix}", np.zeros((3, 1, 2, 2), np.float32)
    held = {f"masks_{name}": np.full((3, 2, 2), number) for number, name in enumerate(("nose", "hair", "object"))}
    save: Any = (
        np.savez
        if suffix == ".npz"
        else lambda path, **each: save_file({name: torch.from_numpy(values) for name, values in each.items()}, path)
    )
    save(place, inputs=inputs, **held)
    found = arrays.read(place)
    assert tuple(found.regions) == ("object", "hair", "nose")
    assert {name: bool(masks.all()) for name, masks in found.regions.items()} == {
        "object": True, "hair": True, "nose": False,
    }  # fmt: skip
    assert found.masks is found.regions["object"]
    looked = look(Own("one", nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), place, Asked(most=2))
    assert [len(masks) for masks in looked.read.regions.values()] == [2, 2, 2]
    assert "2 of 2 masks of nose show nothing to the model: 0, 1" in looked.lines


class Mean(nn.Module):
    """Knows which half of a picture in ImageNet's scale is brighter."""

    def __init__(self, form: Callable[[Tensor], Any] = lambda z: torch.stack([z, -z], 1)) -> None:
        super().__init__()
        self.form = form
        self.slope = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: Tensor) -> Any:
        pictures = x * torch.tensor(IMAGENET[1]).reshape(3, 1, 1) + torch.tensor(IMAGENET[0]).reshape(3, 1, 1)
        return self.form(self.slope * (pictures[:, 0] - pictures[:, 2]).mean((1, 2)))


def reddish(count: int = 20) -> tuple[Tensor, Tensor]:
    """Pictures in [0, 1], red under label 0, blue under label 1."""
    labels = torch.arange(count) % 2
    inputs = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(0)) / 2
    inputs[torch.arange(count), 2 * labels] += 0.5
    return inputs, labels


def given(inputs: Tensor, labels: Tensor | None) -> Prepared:
    return arrays.of_python(inputs if labels is None else (inputs, labels))


def lines(inputs: Tensor, labels: Tensor | None, model: nn.Module | None = None) -> str:
    asked = Asked(mean=IMAGENET[0], std=IMAGENET[1])
    return "\n".join(look(Own("mine", model or Mean()), given(inputs, labels), asked).lines)


def test_a_model_that_is_right_is_not_doubted() -> None:
    inputs, labels = reddish()
    told = lines(scaled(inputs, *IMAGENET), labels)
    assert "20 pictures as the model takes them: 3 × 8 × 8" in told
    assert "the model is right on 1.00 of them, chance is 0.50" in told
    assert "wrong preprocessing" not in told
    assert "is this how it was trained?" not in told


def test_channels_in_reverse_order_are_guessed() -> None:
    inputs, labels = reddish()
    told = lines(scaled(inputs.flip(1), *IMAGENET), labels)
    assert "right on 0.00 of them, chance is 0.50: wrong preprocessing, or another order of classes?" in told
    assert "with channels in the other order (with or without --bgr) it would be right on 1.00 of them" in told


def test_of_those_without_labels_nothing_is_said() -> None:
    told = lines(scaled(reddish()[0], *IMAGENET), None)
    assert "right on" not in told


@pytest.mark.parametrize("form", [lambda z: -z, lambda z: -z[:, None]], ids=["(N,)", "(N, 1)"])
def test_one_logit_is_read_as_two(form: Callable[[Tensor], Tensor]) -> None:
    inputs, labels = reddish()
    looked = look(Own("mine", Mean(form)), given(scaled(inputs, *IMAGENET), labels), Asked())
    assert isinstance(looked.mine.model, TwoLogits)
    assert looked.outputs.shape == (20, 2)
    assert torch.equal(looked.outputs.argmax(1), labels)
    assert any(line.startswith("one logit z: read as two") for line in looked.lines)


def test_an_output_is_picked_by_name() -> None:
    model = Mean(lambda z: {"hidden": z, "logits": torch.stack([z, -z, z], 1)})
    looked = look(Own("mine", model), given(*reddish()), Asked(output="logits"))
    assert looked.outputs.shape == (20, 3)


def test_only_the_size_is_another() -> None:
    """Mean and std stay those of the model's own transform, where nobody says others."""
    mine = Own("mine", Mean(), ImageClassification(crop_size=224))
    assert preparation(mine, Asked(pixels=32)) == Preparation(
        32, *(tuple(map(pytest.approx, each)) for each in IMAGENET)
    )
    assert preparation(mine, Asked(pixels=32, mean=(0.5,), std=(0.5,))) == Preparation(32, (0.5,), (0.5,))
    assert preparation(mine, Asked()) is mine.transform


def test_the_first_of_every_class_come_first() -> None:
    inputs, labels = torch.arange(8.0).reshape(8, 1), torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    looked = look(Own("mine", nn.Linear(1, 3)), given(inputs, labels), Asked(most=4))
    assert looked.read.inputs.flatten().tolist() == [0, 1, 6, 7]
    assert looked.labels is not None
    assert looked.labels.tolist() == [0, 0, 1, 2]
