"""A user's own model and pictures: what is written, what is said, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import attribug
from attribug.errors import InputError
from attribug.models.own import own
from attribug.models.preparation import Preparation
from attribug.reports.explaining import explain_folder
from attribug.tasks.folders import pictures

if TYPE_CHECKING:
    from collections.abc import Callable

PIXELS = 24
NET = """
import numpy as np
import torch
from torch import nn

def of(channels, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))

def ready(channels, pixels=24, **options):
    model = of(channels, **options)
    model(torch.zeros(1, channels, pixels, pixels))
    return model

def load(): return ready(3)
def grey(): return ready(1)
def one(): return ready(3, classes=1)
def probabilities(): return nn.Sequential(ready(3), nn.Softmax(1))
def wide(): return ready(3, pixels=32)
def nan(): return nn.Sequential(ready(3), nn.Hardtanh(float("nan"), float("inf")))
def bad_gradient(): return nn.Sequential(ready(3), Bad())
def cropped(): return ready(3), corner

def corner(picture):
    return torch.from_numpy(np.asarray(picture.crop((0, 0, 24, 24))) / 255).permute(2, 0, 1)

class Bad(nn.Module):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise RuntimeError("no gradients here")
        return x

def prepared(): return ready(3), lambda picture: torch.zeros(3, 24, 24)
def bad_transform(): return ready(3), lambda picture: 3
def raising_transform(): return ready(3), lambda picture: 1 / 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: a network, six photographs in three folders by class."""
    from skimage import data

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    for kind, names in {"a": ("cat", "coffee"), "b": ("astronaut", "rocket"), "c": ("camera", "page")}.items():
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for name in names:
            picture = np.asarray(getattr(data, name)())
            Image.fromarray(picture).resize((40, 30)).save(tmp_path / "photos" / kind / f"{name}.png")
    return tmp_path


def test_what_is_written_is_what_explain_gives(folder: Path, inside: Callable[..., object]) -> None:
    (folder / "photos" / "c" / "broken.jpg").write_bytes(b"no picture")
    answer = inside(
        "explain", "--model", "net.py:load", "--data", "photos", "--pixels", str(PIXELS), "--mean", ".5", "--std",
        ".2,.3,.4", "--methods", "gradient,grad_cam,expected_gradients",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "6 pictures as the model takes them: 3 × 24 × 24" in answer.stdout
    assert "1 file skipped, no picture: c/broken.jpg" in answer.stdout
    assert "the model is right on " in answer.stdout
    assert "expected_gradients: declines: " in answer.stdout
    table, maps = pd.read_csv(folder / "explained" / "explained.csv"), load_file(folder / "explained/maps.safetensors")
    assert list(table["picture"]) == [
        "a/cat.png",
        "a/coffee.png",
        "b/astronaut.png",
        "b/rocket.png",
        "c/camera.png",
        "c/page.png",
    ]
    assert list(table["label"]) == ["a", "a", "b", "b", "c", "c"]
    read = pictures(folder / "photos", Preparation(PIXELS, (0.5,), (0.2, 0.3, 0.4)))
    model = own("net.py:load").model
    probability, predicted = model(read.inputs).softmax(1).max(1)
    assert list(table["prediction"]) == ["abc"[k] for k in predicted]
    np.testing.assert_allclose(table["probability"], probability.detach(), rtol=1e-6)
    assert sorted(maps) == ["grad_cam", "gradient"]
    for name, found in maps.items():
        torch.testing.assert_close(found, attribug.explain(name, model, read.inputs, predicted))


def test_the_page_shows_the_surest_errors_first_and_needs_nothing_else(folder: Path) -> None:
    found = explain_folder("net.py:load", "photos", "out", pixels=PIXELS, methods=["gradient"])
    page = (folder / "out" / "explained.html").read_text()
    shown = re.findall(r'alt="gradient of ([^"]+)"', page)
    table = found.table.assign(wrong=found.table["label"] != found.table["prediction"])
    ordered = table.sort_values(["wrong", "probability"], ascending=False)
    assert shown == list(ordered["picture"])
    assert page.count("wrong: labelled") == int(table["wrong"].sum()) > 0
    assert not re.search(r"(src|href)=.(?!data:)", page)
    assert "default-src 'none'" in page


def test_names_of_files_and_classes_are_text(folder: Path) -> None:
    (folder / "photos" / "a" / "cat.png").rename(folder / "photos" / "a" / "<b>&.png")
    (folder / "names.txt").write_text("<i>\nb\nc\n")
    explain_folder("net.py:load", "photos", "out", pixels=PIXELS, methods=["gradient"], classes="names.txt")
    page = (folder / "out" / "explained.html").read_text()
    assert "<b>&" not in page
    assert "a/&lt;b&gt;&amp;.png" in page
    assert "<i>" not in page


def test_preparation_is_a_loop_over_channels() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    plain = Preparation(20)(picture)
    assert plain.shape == (3, 20, 20)
    small = picture.resize((30, 20), Image.Resampling.BILINEAR).crop((5, 0, 25, 20))
    expected = np.asarray(small, np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(plain, expected, atol=1e-6)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normed = Preparation(20, mean, std)(picture)
    turned = Preparation(20, mean, std, bgr=True)(picture)
    for k in range(3):
        np.testing.assert_allclose(normed[k], (expected[k] - mean[k]) / std[k], atol=1e-5)
        np.testing.assert_allclose(turned[k], (expected[2 - k] - mean[k]) / std[k], atol=1e-5)
    luma = np.asarray(small.convert("L"), np.float32) / 255
    np.testing.assert_allclose(Preparation(20, grey=True)(picture)[0], luma, atol=1e-6)


def test_a_models_own_errors_are_reasons(folder: Path) -> None:
    found = explain_folder("net.py:bad_gradient", "photos", "out", pixels=PIXELS, methods=["gradient", "edges"])
    assert "no gradients here" in found.refused["gradient"]
    assert "edges" not in found.refused or "no gradients here" in found.refused["edges"]


def test_pictures_are_shown_as_the_models_transform_crops_them(folder: Path) -> None:
    read = pictures(folder / "photos", own("net.py:cropped").transform)
    picture = np.asarray(Image.open(folder / "photos" / "a" / "cat.png").convert("RGB"))[:24, :24].astype(float)
    scaled = (picture - picture.min()) / (picture.max() - picture.min()) * 255
    assert np.abs(read.shown[0] - scaled).max() <= 1


def test_hidden_odd_and_wide_files(folder: Path) -> None:
    photos = folder / "photos" / "a"
    (photos / "._cat.png").write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).random((9, 9)).astype(np.float32)).save(photos / "float.tif")
    Image.new("RGB", (60_000, 1), "red").save(photos / "wide.png")
    read = pictures(folder / "photos", Preparation(PIXELS))
    assert [name for name, _ in read.skipped] == ["a/float.tif"]
    assert "a/wide.png" in read.names


def test_grey_networks_get_one_channel(folder: Path) -> None:
    found = explain_folder("net.py:grey", "photos", "out", pixels=PIXELS, methods=["gradient"])
    assert found.maps["gradient"].shape == (6, 1, PIXELS, PIXELS)


def test_a_flat_folder_has_no_labels_and_most_are_spread(folder: Path) -> None:
    found = explain_folder("net.py:load", "photos/a", "out", pixels=PIXELS, methods=["gradient"])
    assert list(found.table["label"]) == ["", ""]
    assert not any("right on" in line for line in found.facts)
    few = explain_folder("net.py:load", "photos", "few", pixels=PIXELS, methods=["gradient"], most=4)
    assert list(few.table["label"]) == ["a", "a", "b", "c"]


def test_sixteen_bits_and_turned_pictures_are_read(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 30 * 20).reshape(20, 30)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (30, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(tmp_path / "turned.jpg", exif=exif)
    read = pictures(tmp_path, Preparation(20))
    assert abs(float(read.inputs[0].mean()) - 0.5) < 0.02
    red = torch.tensor([1.0, 0, 0]).reshape(3, 1, 1).expand(3, 20, 20)
    torch.testing.assert_close(read.inputs[1], red, atol=0.02, rtol=0)


def half_transparent(folder: Path) -> None:
    Image.new("RGBA", (30, 30), (1, 2, 3, 4)).save(folder / "photos" / "a" / "glass.png")


def unreadable(folder: Path) -> None:
    (folder / "photos" / "a" / "no.png").write_text("")


def loose(folder: Path) -> None:
    Image.new("RGB", (30, 30)).save(folder / "photos" / "loose.png")


def latin(folder: Path) -> None:
    (folder / "names.txt").write_bytes(b"\xe9\nb\nc\n")


def a_file(folder: Path) -> None:
    (folder / "taken").write_text("")


def few_names(folder: Path) -> None:
    (folder / "names.txt").write_text("a\nb\n")


def empty(folder: Path) -> None:
    (folder / "empty").mkdir()


Step = "Callable[[Path], None] | None"
LOAD = ("--model", "net.py:load", "--data", "photos", "--pixels", "24")
MISTAKES: dict[str, tuple[Step, tuple[str, ...], str]] = {
    "no model": (None, ("--model", "absent.py:load", "--data", "photos"),
        r".*absent.py does not import: .*no such file.*"),
    "no data": (None, ("--model", "net.py:load", "--data", "absent", "--pixels", "24"),
                r"data absent: expected a folder of pictures, found nothing there"),
    "a file": (None, ("--model", "net.py:load", "--data", "net.py", "--pixels", "24"),
        r".*expected a folder .*, found a file"),
    "empty": (empty, ("--model", "net.py:load", "--data", "empty", "--pixels", "24"),
        r"data empty: expected pictures .*found none"),
    "transparency": (half_transparent, LOAD,
        r"picture glass.png: expected 1 or 3 channels, found one of transparency .*"),
    "strict": (unreadable, (*LOAD, "--strict"), r"data photos: a/no.png: no picture: .*"),
    "beside": (loose, LOAD, r"data photos: expected .* all in one, found 1 beside 3 folders \(loose.png, a/\)"),
    "probabilities": (None, ("--model", "net.py:probabilities", *LOAD[2:]),
        r".*expected logits, found probabilities; .*"),
    "size": (None, ("--model", "net.py:wide", *LOAD[2:]), r"model 'net.py:wide': raises on inputs \(3, 24, 24\): .*"),
    "no transform": (None, LOAD[:4], r".*expected a transform that comes with it, or --pixels N; found neither"),
    "no number": (None, (*LOAD, "--mean", "a,b"), r"--mean: expected numbers, .*found 'a,b'"),
    "two means": (None, (*LOAD, "--mean", "1,2"), r"--mean: expected 1 or 3 numbers, found 2"),
    "zero": (None, (*LOAD, "--std", "0"), r"--std: expected positive numbers, found 0.0"),
    "no pixels": (None, (*LOAD[:4], "--bgr"), r"--mean, --std, --bgr: expected --pixels N beside them.*"),
    "pixels": (None, (*LOAD[:4], "--pixels", "0"), r"--pixels: expected at least 1, found 0"),
    "names": (few_names, (*LOAD, "--classes", "names.txt"), r"--classes names.txt: expected 3 lines, .*, found 2"),
    "latin": (latin, (*LOAD, "--classes", "names.txt"), r"--classes names.txt: expected text in UTF-8: .*"),
    "no place": (None, (*LOAD, "--out", "a/b/c"), r"--out a/b/c: expected a folder, or a new one in .*"),
    "taken": (a_file, (*LOAD, "--out", "taken"), r"--out taken: expected a folder, .*"),
    "most": (None, (*LOAD, "--most", "0"), r"--most: expected at least 1, found 0"),
    "nan": (None, (*LOAD, "--mean", "nan"), r"--mean: expected finite numbers, found nan"),
    "no numbers": (None, ("--model", "net.py:nan", *LOAD[2:]), r".*expected finite logits, found NaN or infinity: .*"),
    "no names": (None, (*LOAD, "--classes", "absent.txt"), r"--classes absent.txt: no such file"),
    "method": (None, (*LOAD, "--methods", "gradeint"), r".*gradeint.*did you mean 'gradient'.*"),
    "no maps": (None, (*LOAD, "--methods", "predictions"),
        r"--methods: expected methods that give maps, found 'predictions'"),
    "transform gives": (None, ("--model", "net.py:bad_transform", *LOAD[2:4]),
        r".*expected a tensor \(C, H, W\) .*found int"),
    "transform raises": (None, ("--model", "net.py:raising_transform", *LOAD[2:4]),
        r".*transform raises ZeroDivisionError.*"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_line_and_write_nothing(folder: Path, inside: Callable[..., object], mistake: str) -> None:
    prepare, arguments, expected = MISTAKES[mistake]
    if prepare is not None:
        prepare(folder)
    answer = inside("explain", *arguments)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert re.fullmatch(f"attribug: {expected}", line), line
    assert not (folder / "explained").exists()


def test_other_sizes_are_named(tmp_path: Path) -> None:
    for name, size in {"a": (30, 20), "b": (20, 30)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")

    def whole(picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)

    with pytest.raises(InputError, match=r"found \(3, 20, 30\) and \(3, 30, 20\) \(b.png\); --pixels N makes them so"):
        pictures(tmp_path, whole)
